//! Finds the key of a token, for revocation requests, which contain only the token.

use sha2::{Digest, Sha256};

use super::key::Key;
use crate::config::Origin;

/// The keys of the latest 400 tokens.
///
/// Entries of one length, oldest first: the first bytes of a token's SHA-256, then its key.
#[derive(Debug, Default)]
pub struct Index(Vec<u8>);

/// Length of the hash that stands for a token.
const NAME_BYTES: usize = 8;
/// Length of an entry: that hash and a key.
const ENTRY_BYTES: usize = NAME_BYTES + 32;

/// Most tokens in the index: more than five calls a minute, the default quota, bring in an hour.
/// Older tokens cannot be revoked.
const INDEX_LIMIT: usize = 400;

impl Index {
    /// Store key of the index of an identity host, because only holders of that host's lease
    /// write it. It must change with the layout of the index, and with the meaning of a [`Key`].
    pub fn key(identity: &Origin) -> String {
        ["token-index.2.", identity.id()].concat()
    }

    /// Decodes an index; an empty one if the bytes are unreadable.
    pub fn decode(bytes: Vec<u8>) -> Self {
        if bytes.len().is_multiple_of(ENTRY_BYTES) { Self(bytes) } else { Self::default() }
    }

    /// The bytes for the store, at most 16 kB.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Adds a token and its key. The oldest entry makes room.
    pub fn insert(&mut self, token: &str, key: Key) {
        // OfficeRnD may issue the same token again.
        if self.find(token) == Some(key) {
            return;
        }
        if self.0.len() >= INDEX_LIMIT * ENTRY_BYTES {
            self.0.drain(..ENTRY_BYTES);
        }
        self.0.extend_from_slice(&Self::name(token)[..NAME_BYTES]);
        self.0.extend_from_slice(&key.0);
    }

    /// Finds the key of a token.
    pub fn find(&self, token: &str) -> Option<Key> {
        let name = Self::name(token);
        let entry = self.0.chunks_exact(ENTRY_BYTES).rfind(|entry| entry[..NAME_BYTES] == name[..NAME_BYTES])?;
        entry[NAME_BYTES..].try_into().ok().map(Key)
    }

    fn name(token: &str) -> [u8; 32] {
        Sha256::digest(token.as_bytes()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::sha256_of_fields;

    #[test]
    fn index_finds_the_latest_400_tokens() {
        let keys: Vec<_> = (0..=INDEX_LIMIT).map(|n| Key(sha256_of_fields([n.to_string().as_bytes()]))).collect();
        let mut index = Index::default();
        for (n, key) in keys.iter().enumerate() {
            index.insert(&format!("token-{n}"), *key);
        }
        let index = Index::decode(index.as_bytes().to_vec());
        assert_eq!(index.find("token-0"), None, "the oldest made room");
        assert_eq!(index.find("token-1"), Some(keys[1]));
        assert_eq!(index.find("another"), None);
        assert_eq!(index.as_bytes().len(), 16_000);
        assert_eq!(Index::decode(vec![0; 41]).find("token-1"), None, "bytes that are no index");
    }
}
