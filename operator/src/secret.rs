//! Random secrets for callers.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

/// Secret of a caller: 256 random bits in base64url (RFC 4648 section 5) without padding.
pub struct RandomSecret(String);

impl RandomSecret {
    /// Makes a new secret.
    pub fn generate() -> Self {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).expect("the operating system has random bytes");
        Self(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Returns the secret as text. The code that calls this is responsible for where the text
    /// goes.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns the SHA-256 digest for the policy: 64 lower-case hexadecimal digits.
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
    fn generated_secrets_are_32_bytes_and_differ() {
        let (one, other) = (RandomSecret::generate(), RandomSecret::generate());
        assert_eq!(URL_SAFE_NO_PAD.decode(one.expose()).unwrap().len(), 32);
        assert_ne!(one.expose(), other.expose());
        assert_eq!(format!("{one:?}"), "[redacted]");
    }

    #[test]
    fn digest_is_64_hex_digits() {
        let digest = RandomSecret("abc".into()).sha256();
        assert_eq!(digest, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
