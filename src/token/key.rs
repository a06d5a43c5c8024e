//! The one key of a token: in the store, in its seal and for flights.

use std::fmt;

use crate::config::application::{Application, Credential};
use crate::digest::{hex, sha256_of_fields};
use crate::scope::Scopes;

/// Identifies a token by application, credential and scope set: in the store, in its seal, and
/// for a flight. Memory compares the three directly.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(pub(super) [u8; 32]);

impl Key {
    /// Computes the key of a scope set of an application, for one of its credentials.
    pub fn of(application: &Application, credential: &Credential, scopes: &Scopes) -> Self {
        let (name, scopes) = (application.name.as_bytes(), scopes.as_str().as_bytes());
        Self(sha256_of_fields([b"token", name, credential.fingerprint.as_bytes(), scopes]))
    }

    /// Store key of the token, 72 bytes. Another layout of the record must get another prefix.
    /// Otherwise two versions side by side overwrite records that the other cannot read, and
    /// fetch in turn.
    pub fn of_token(self) -> String {
        ["token.2.", &hex(&self.0)].concat()
    }

    /// Store key of OfficeRnD's refusal of these scopes, 72 bytes.
    pub fn of_refusal(self) -> String {
        ["refusal.", &hex(&self.0)].concat()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}…", hex(&self.0[..4]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Origin;
    use crate::config::application::Pair;

    #[test]
    fn key_differs_by_application_credential_and_scope_set() {
        let identity = Origin::parse("https://identity.example").unwrap();
        let key = |name: &str, client_id: &str, client_secret: &str, scopes: &str| {
            let none = Pair { client_id: "", client_secret: "" };
            let application = Application::new(name, Pair { client_id, client_secret }, none, &identity);
            Key::of(&application, &application.current, &Scopes::parse(scopes).unwrap())
        };
        let one = key("default", "id", "secret", "a b");
        assert_eq!(key("default", "id", "secret", "b a"), one);
        assert_ne!(key("berlin", "id", "secret", "a b"), one);
        assert_ne!(key("default", "id", "another", "a b"), one);
        assert_ne!(key("default", "another", "secret", "a b"), one);
        assert_ne!(key("default", "id", "secret", "a"), one);
        // Another key would let an upgrade fetch every token once more.
        assert_eq!(one.of_token(), "token.2.0938796d50ef100a54bfe303bdb06501ae7d9c4af4a141d49dd803468e99ae2d");
    }
}
