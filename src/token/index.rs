//! Finds the key of a token, for revocation requests, which contain only the token.

use sha2::{Digest, Sha256};

use super::key::Key;
use crate::config::Origin;
use crate::time::Timestamp;

/// The keys of the tokens that have not expired.
///
/// Entries of one length, oldest first: the first bytes of a token's SHA-256, its key, and the
/// minute in which it expires.
#[derive(Debug, Default)]
pub struct Index(Vec<u8>);

/// Length of the hash that stands for a token.
const NAME_BYTES: usize = 8;
/// Length of a key.
const KEY_BYTES: usize = 32;
/// Length of an entry: hash, key, and minutes since the Unix epoch.
const ENTRY_BYTES: usize = NAME_BYTES + KEY_BYTES + 4;

impl Index {
    /// Store key of the index of an identity host, because only holders of that host's lease
    /// write it. It must change with the layout of the index, and with the meaning of a [`Key`].
    pub fn key(identity: &Origin) -> String {
        ["token-index.3.", identity.id()].concat()
    }

    /// Decodes an index; an empty one if the bytes are unreadable.
    pub fn decode(bytes: Vec<u8>) -> Self {
        if bytes.len().is_multiple_of(ENTRY_BYTES) { Self(bytes) } else { Self::default() }
    }

    /// The bytes for the store, 44 for each token.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Adds a token and its key, and removes tokens that have expired. At `most` entries, the
    /// oldest makes room.
    pub fn insert(&mut self, token: &str, key: Key, expires_at: Timestamp, now: Timestamp, most: usize) {
        let name = Self::name(token);
        // OfficeRnD may issue the same token again.
        let is_other = |entry: &&[u8]| entry[..NAME_BYTES] != name[..NAME_BYTES];
        let lives = |entry: &&[u8]| entry[NAME_BYTES + KEY_BYTES..] >= minute(now)[..];
        let kept: Vec<_> = self.0.chunks_exact(ENTRY_BYTES).filter(is_other).filter(lives).collect();
        let surplus = (kept.len() + 1).saturating_sub(most);
        let mut entries = kept[surplus..].concat();
        entries.extend_from_slice(&name[..NAME_BYTES]);
        entries.extend_from_slice(&key.0);
        entries.extend_from_slice(&minute(expires_at));
        self.0 = entries;
    }

    /// Finds the key of a token.
    pub fn find(&self, token: &str) -> Option<Key> {
        let name = Self::name(token);
        let entry = self.0.chunks_exact(ENTRY_BYTES).rfind(|entry| entry[..NAME_BYTES] == name[..NAME_BYTES])?;
        entry[NAME_BYTES..][..KEY_BYTES].try_into().ok().map(Key)
    }

    /// Number of different keys of the tokens that have not expired.
    pub fn count_keys(&self, now: Timestamp) -> usize {
        let lives = |entry: &&[u8]| entry[NAME_BYTES + KEY_BYTES..] >= minute(now)[..];
        let key = |entry: &'_ [u8]| <[u8; KEY_BYTES]>::try_from(&entry[NAME_BYTES..][..KEY_BYTES]).ok();
        let keys: Vec<_> = self.0.chunks_exact(ENTRY_BYTES).filter(lives).filter_map(key).collect();
        keys.iter().enumerate().filter(|(place, key)| !keys[..*place].contains(key)).count()
    }

    fn name(token: &str) -> [u8; 32] {
        Sha256::digest(token.as_bytes()).into()
    }
}

/// Minutes from the Unix epoch to `time`, in the order of time when compared as bytes.
fn minute(time: Timestamp) -> [u8; 4] {
    u32::try_from(time.unix_ms() / 60_000).unwrap_or(u32::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::sha256_of_fields;

    fn at(minutes: u64) -> Timestamp {
        Timestamp::from_unix_ms(1_800_000_000_000 + minutes * 60_000)
    }

    fn key(n: u64) -> Key {
        Key(sha256_of_fields([n.to_string().as_bytes()]))
    }

    #[test]
    fn index_finds_all_tokens_of_an_hour_of_calls() {
        let mut index = Index::default();
        for n in 0..=300 {
            index.insert(&format!("token-{n}"), key(n), at(60), at(0), 300);
        }
        let index = Index::decode(index.as_bytes().to_vec());
        assert_eq!(index.find("token-0"), None, "the oldest made room");
        assert_eq!((index.count_keys(at(60)), index.count_keys(at(61))), (300, 0));
        for n in 1..=300 {
            assert_eq!(index.find(&format!("token-{n}")), Some(key(n)));
        }
        assert_eq!(index.find("another"), None);
        assert_eq!(index.as_bytes().len(), 300 * 44);
        assert_eq!(Index::decode(vec![0; 45]).find("token-1"), None, "bytes that are no index");
    }

    #[test]
    fn expired_token_leaves_the_index_and_a_reissued_one_is_in_it_once() {
        let mut index = Index::default();
        index.insert("old", key(1), at(60), at(0), 300);
        index.insert("new", key(2), at(120), at(60), 300);
        assert_eq!(index.find("old"), Some(key(1)), "it expires within this minute");
        index.insert("new", key(2), at(130), at(61), 300);
        index.insert("second token of the key", key(2), at(130), at(61), 300);
        assert_eq!(index.count_keys(at(61)), 1);
        let mut index = Index::default();
        index.insert("new", key(2), at(120), at(60), 300);
        index.insert("new", key(2), at(130), at(61), 300);
        assert_eq!(index.find("old"), None);
        assert_eq!(index.find("new"), Some(key(2)));
        assert_eq!(index.as_bytes().len(), 44);
    }
}
