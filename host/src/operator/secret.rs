//! Secrets that are made here.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

/// 256 random bits in base64url (RFC 4648 section 5) without padding, as the broker's callers have them.
pub struct RandomSecret(String);

impl RandomSecret {
    /// One that nobody knows yet.
    pub fn generate() -> Self {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).expect("the operating system has random bytes");
        Self(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// The secret itself. The caller answers for where it goes.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Its digest, as the policy has it: 64 lower-case hexadecimal digits.
    pub fn sha256(&self) -> String {
        Sha256::digest(&self.0).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Debug for RandomSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_32_bytes_in_base64url_and_never_the_same() {
        let (one, other) = (RandomSecret::generate(), RandomSecret::generate());
        assert_eq!(URL_SAFE_NO_PAD.decode(one.expose()).unwrap().len(), 32);
        assert_ne!(one.expose(), other.expose());
        assert_eq!(format!("{one:?}"), "[redacted]");
    }

    #[test]
    fn a_digest_is_written_as_64_hex_digits() {
        let digest = RandomSecret("abc".into()).sha256();
        assert_eq!(digest, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
