//! Seals tokens for the store: a reader of the store learns no token, and a writer cannot forge
//! one.

use std::cell::OnceCell;
use std::fmt;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305};
use hkdf::Hkdf;
use sha2::Sha256;

use crate::secret::ClientSecret;

/// Random bytes of a sealed value: enough of them that two values never share a nonce.
pub const NONCE_LENGTH: usize = 24;

/// Label of this key. Another use of the same secret must have another label (RFC 5869 section
/// 3.2).
const LABEL: &[u8] = b"officernd-token-broker/token";

/// Label of the tags of callers, before the name.
const TAG_LABEL: &[u8] = b"officernd-token-broker/caller/";

/// Encrypts and decrypts with a key derived from a client secret, so that no other key has to
/// be configured or kept.
#[derive(Clone)]
pub struct Seal {
    client_secret: ClientSecret,
    /// Derived when it is first needed: a new instance has a seal for each credential, and most
    /// requests need one.
    cipher: OnceCell<XChaCha20Poly1305>,
}

impl Seal {
    /// The seal of a client secret.
    pub fn of(client_secret: &ClientSecret) -> Self {
        Self { client_secret: client_secret.clone(), cipher: OnceCell::new() }
    }

    /// Derives the key by HKDF-SHA256 (RFC 5869).
    fn cipher(&self) -> &XChaCha20Poly1305 {
        self.cipher.get_or_init(|| {
            let mut key = Key::default();
            Hkdf::<Sha256>::new(None, self.client_secret.expose().as_bytes())
                .expand(LABEL, &mut key)
                .expect("32 bytes are less than 255 digests");
            XChaCha20Poly1305::new(&key)
        })
    }

    /// Encrypts and authenticates `plain` so that it opens only at `place`. `nonce` must be
    /// random.
    pub fn seal(&self, plain: &[u8], place: &str, nonce: [u8; NONCE_LENGTH]) -> Vec<u8> {
        let payload = Payload { msg: plain, aad: place.as_bytes() };
        let sealed = self.cipher().encrypt(&nonce.into(), payload).expect("a value is shorter than 256 GB");
        [&nonce[..], &sealed].concat()
    }

    /// A short tag of a caller's name, for a record that the store's readers can read. Without the
    /// client secret, they cannot find the name by computing the tags of likely ones.
    pub fn tag(&self, name: &str) -> u32 {
        let mut tag = [0; 4];
        Hkdf::<Sha256>::new(None, self.client_secret.expose().as_bytes())
            .expand_multi_info(&[TAG_LABEL, name.as_bytes()], &mut tag)
            .expect("4 bytes are less than 255 digests");
        u32::from_be_bytes(tag)
    }

    /// Decrypts bytes that were sealed for `place`; `None` if they were not, or with another
    /// secret.
    pub fn open(&self, bytes: &[u8], place: &str) -> Option<Vec<u8>> {
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_LENGTH>()?;
        self.cipher().decrypt(&(*nonce).into(), Payload { msg: sealed, aad: place.as_bytes() }).ok()
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: [u8; NONCE_LENGTH] = [7; NONCE_LENGTH];

    #[test]
    fn sealed_value_opens_only_in_its_place_with_its_secret() {
        let seal = Seal::of(&ClientSecret::new("secret"));
        let sealed = seal.seal(b"a token", "token/1", NONCE);
        assert_eq!(seal.open(&sealed, "token/1").as_deref(), Some(&b"a token"[..]));
        assert_eq!(seal.open(&sealed, "token.2"), None, "moved to another key");
        assert_eq!(Seal::of(&ClientSecret::new("Secret")).open(&sealed, "token/1"), None, "another secret");
        for place in 0..sealed.len() {
            let mut tampered = sealed.clone();
            tampered[place] ^= 1;
            assert_eq!(seal.open(&tampered, "token/1"), None, "byte {place} changed");
            assert_eq!(seal.open(&sealed[..place], "token/1"), None, "{place} bytes of it");
        }
        assert_eq!(seal.open(&[&sealed[..], &[0]].concat(), "token/1"), None, "a byte too many");
    }

    #[test]
    fn tag_depends_on_name_and_secret() {
        let tag = |secret: &str, name: &str| Seal::of(&ClientSecret::new(secret)).tag(name);
        assert_eq!(tag("s", "nightly"), tag("s", "nightly"));
        assert_ne!(tag("s", "nightly"), tag("s", "door"));
        assert_ne!(tag("s", "nightly"), tag("t", "nightly"));
    }

    #[test]
    fn sealed_value_contains_no_plain_text() {
        let sealed = Seal::of(&ClientSecret::new("secret")).seal(&[0; 64], "token/1", NONCE);
        assert!(!sealed.windows(8).any(|window| window == [0; 8]));
        assert_eq!(format!("{:?}", Seal::of(&ClientSecret::new("hunter2"))), "[redacted]");
    }
}
