//! Tokens at rest: the one key, the record in the store, and how much life is left.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::application::{Application, Credential};
use crate::digest::{hex, sha256_of_fields};
use crate::record::decode_whole;
use crate::scope::Scopes;
use crate::seal::{NONCE_LENGTH, Seal};
use crate::secret::AccessToken;
use crate::time::Timestamp;

/// A token with less life than this is handed to nobody: the caller could not use it before it ends.
pub const LEAST_REMAINING: Duration = Duration::from_secs(30);

/// How long a key is left alone after a fetch that did not help.
const PAUSE_AFTER_FETCH: Duration = Duration::from_secs(60);

/// What a token is kept under, everywhere: in the store, in memory, and as the name of a fetch in flight.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

/// A token as OfficeRnD granted it.
#[derive(Clone, Debug)]
pub struct Token {
    /// The token.
    pub access_token: AccessToken,
    /// What was asked for.
    pub requested: Scopes,
    /// What was granted: the requested scopes or fewer.
    pub scopes: Scopes,
    /// When it ends. Counted from before the request that brought it, so it never ends earlier.
    pub expires_at: Timestamp,
    /// When the last fetch for this key ended.
    pub fetched_at: Timestamp,
    /// The last fetch brought no later expiry: OfficeRnD re-issues what it has.
    pub stalled: bool,
    /// When a token of this key was last revoked by a caller.
    pub revoked_at: Option<Timestamp>,
}

/// What a token's remaining life allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Serve it.
    Fresh,
    /// Serve it; a successor may be fetched.
    Aging,
    /// Try to get a successor; serve it if none comes.
    Late,
    /// Serve it to nobody.
    Over,
}

impl Token {
    /// What stands in a revoked token's place: nothing that anybody is given, and the time of the revocation.
    pub fn revoked(self, now: Timestamp) -> Self {
        let over = Timestamp::from_unix_ms(0);
        Self { access_token: AccessToken::new(""), expires_at: over, stalled: false, revoked_at: Some(now), ..self }
    }

    /// What is left of it.
    pub fn remaining(&self, now: Timestamp) -> Duration {
        self.expires_at.since(now)
    }

    /// Its life, as the policy sees it; `jitter` is how much later than twice `min_remaining` this instance renews.
    pub fn life(&self, now: Timestamp, min_remaining: Duration, jitter: Duration) -> Life {
        let remaining = self.remaining(now);
        if remaining < LEAST_REMAINING {
            Life::Over
        } else if remaining < min_remaining {
            Life::Late
        } else if remaining < (min_remaining * 2).saturating_sub(jitter) {
            Life::Aging
        } else {
            Life::Fresh
        }
    }

    /// When OfficeRnD may be asked again for this key.
    ///
    /// A usable token is not renewed within 60 s of its last fetch, and nothing is fetched within 60 s of a fetch that
    /// brought no later expiry. Where OfficeRnD re-issues a token until it ends, the last try waits for that end: a try
    /// shortly before would forbid the one that helps.
    pub fn next_fetch(&self, now: Timestamp) -> Timestamp {
        let after_pause = self.fetched_at + PAUSE_AFTER_FETCH;
        if self.stalled {
            if after_pause + PAUSE_AFTER_FETCH > self.expires_at {
                after_pause.max(self.expires_at)
            } else {
                after_pause
            }
        } else if self.remaining(now) < LEAST_REMAINING {
            now
        } else {
            after_pause
        }
    }
}

impl Key {
    /// The key of a set of scopes of an application, for one of its credentials.
    pub fn of(application: &Application, credential: &Credential, scopes: &Scopes) -> Self {
        let (name, scopes) = (application.name.as_bytes(), scopes.as_str().as_bytes());
        Self(sha256_of_fields([b"token", name, credential.fingerprint.as_bytes(), scopes]))
    }

    /// Where the store has the token: 72 bytes. Another layout of the record gets another place, so that two versions side
    /// by side do not write over what the other cannot read, and fetch in turn.
    pub fn of_token(self) -> String {
        ["token/2/", &hex(&self.0)].concat()
    }

    /// Where the store remembers that OfficeRnD does not grant these scopes: 72 bytes.
    pub fn of_refusal(self) -> String {
        ["refusal/", &hex(&self.0)].concat()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}…", hex(&self.0[..4]))
    }
}

#[derive(Serialize, Deserialize)]
struct Record<'a> {
    access_token: &'a str,
    requested: &'a str,
    scope: &'a str,
    expires_at_ms: Timestamp,
    fetched_at_ms: Timestamp,
    stalled: bool,
    revoked_at_ms: Option<Timestamp>,
}

impl Token {
    /// The bytes the store keeps under `key`: the sealed record. `nonce` must be random.
    pub fn seal(&self, key: Key, seal: &Seal, nonce: [u8; NONCE_LENGTH]) -> Vec<u8> {
        let record = Record {
            access_token: self.access_token.expose(),
            requested: self.requested.as_str(),
            scope: self.scopes.as_str(),
            expires_at_ms: self.expires_at,
            fetched_at_ms: self.fetched_at,
            stalled: self.stalled,
            revoked_at_ms: self.revoked_at,
        };
        let record = postcard::to_allocvec(&record).expect("numbers and strings always serialize");
        seal.seal(&record, &key.of_token(), nonce)
    }

    /// The token of bytes that the store has under `key`; nothing when they were not sealed for this key.
    ///
    /// What the seal let through is still not trusted: a record that grants more than it was asked for is none.
    pub fn open(bytes: &[u8], key: Key, seal: &Seal) -> Option<Self> {
        let record = seal.open(bytes, &key.of_token())?;
        let record: Record<'_> = decode_whole(&record)?;
        let requested = Scopes::parse(record.requested).ok()?;
        // Mostly all is granted.
        let scopes =
            if record.scope == record.requested { requested.clone() } else { Scopes::parse(record.scope).ok()? };
        scopes.is_subset_of(&requested).then(|| Self {
            access_token: AccessToken::new(record.access_token),
            requested,
            scopes,
            expires_at: record.expires_at_ms,
            fetched_at: record.fetched_at_ms,
            stalled: record.stalled,
            revoked_at: record.revoked_at_ms,
        })
    }
}

/// Which key a token is kept under, for callers that know only the token: the latest [`INDEX_LIMIT`] tokens.
///
/// Entries of one length, oldest first: the first bytes of a token's SHA-256, and its key.
#[derive(Debug, Default)]
pub struct Index(Vec<u8>);

const INDEX_NAME: usize = 8;
const INDEX_ENTRY: usize = INDEX_NAME + 32;

/// Most tokens in the index: more than 5 calls a minute bring in an hour. What is older cannot be revoked.
const INDEX_LIMIT: usize = 400;

impl Index {
    /// Where the store has the index. Another layout gets another key, and so do other bytes of a [`Key`].
    pub const KEY: &'static str = "token-index/2";

    /// The index of bytes from the store; an empty one when they are none.
    pub fn decode(bytes: Vec<u8>) -> Self {
        if bytes.len().is_multiple_of(INDEX_ENTRY) { Self(bytes) } else { Self::default() }
    }

    /// The bytes the store keeps: 16 kB at most.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Notes the key of a token. The oldest makes room.
    pub fn insert(&mut self, token: &str, key: Key) {
        // OfficeRnD may hand out the same token again.
        if self.find(token) == Some(key) {
            return;
        }
        if self.0.len() >= INDEX_LIMIT * INDEX_ENTRY {
            self.0.drain(..INDEX_ENTRY);
        }
        self.0.extend_from_slice(&Self::name(token)[..INDEX_NAME]);
        self.0.extend_from_slice(&key.0);
    }

    /// The key of a token.
    pub fn find(&self, token: &str) -> Option<Key> {
        let name = Self::name(token);
        let entry = self.0.chunks_exact(INDEX_ENTRY).rfind(|entry| entry[..INDEX_NAME] == name[..INDEX_NAME])?;
        entry[INDEX_NAME..].try_into().ok().map(Key)
    }

    fn name(token: &str) -> [u8; 32] {
        Sha256::digest(token.as_bytes()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Origin;
    use crate::secret::ClientSecret;

    const MIN: Duration = Duration::from_secs(300);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix_ms(1_800_000_000_000 + seconds * 1000)
    }

    fn token(expires_at: u64, fetched_at: u64, stalled: bool) -> Token {
        Token {
            access_token: AccessToken::new("t"),
            requested: Scopes::parse("a b c").unwrap(),
            scopes: Scopes::parse("a b").unwrap(),
            expires_at: at(expires_at),
            fetched_at: at(fetched_at),
            stalled,
            revoked_at: None,
        }
    }

    #[test]
    fn a_token_ages_by_the_table() {
        let check = |now: u64, jitter: u64, expected: Life| {
            assert_eq!(token(3600, 0, false).life(at(now), MIN, Duration::from_secs(jitter)), expected, "at {now} s");
        };
        check(0, 0, Life::Fresh);
        check(3000, 0, Life::Fresh);
        check(3001, 0, Life::Aging);
        check(3001, 100, Life::Fresh);
        check(3101, 100, Life::Aging);
        check(3300, 0, Life::Aging);
        check(3301, 0, Life::Late);
        check(3570, 0, Life::Late);
        check(3571, 0, Life::Over);
        check(9999, 0, Life::Over);
    }

    #[test]
    fn the_next_fetch_waits_for_the_pause_or_the_end() {
        let check =
            |token: Token, now: u64, expected: u64| assert_eq!(token.next_fetch(at(now)), at(expected), "{token:?}");
        check(token(3600, 3000, false), 3001, 3060);
        check(token(3600, 3000, true), 3001, 3060);
        // A try 10 s before the end would forbid the one right after it.
        check(token(3600, 3530, true), 3531, 3600);
        check(token(3600, 3590, true), 3591, 3650);
        check(token(3600, 3000, false), 3580, 3580);
    }

    /// What comes back of a token that was stored.
    fn stored(token: &Token) -> Option<Token> {
        let seal = Seal::of(&ClientSecret::new("secret"));
        Token::open(&token.seal(Key([1; 32]), &seal, [0; NONCE_LENGTH]), Key([1; 32]), &seal)
    }

    #[test]
    fn a_record_comes_back_and_nothing_else_does() {
        let back = stored(&token(3600, 5, true)).unwrap();
        assert_eq!(back.access_token.expose(), "t");
        assert_eq!((back.requested.as_str(), back.scopes.as_str()), ("a b c", "a b"));
        assert_eq!((back.expires_at, back.fetched_at, back.stalled), (at(3600), at(5), true));

        let broader = Token { requested: Scopes::parse("a").unwrap(), ..back };
        assert!(stored(&broader).is_none(), "a broader token");
        let seal = Seal::of(&ClientSecret::new("secret"));
        let bytes = token(3600, 5, true).seal(Key([1; 32]), &seal, [0; NONCE_LENGTH]);
        assert!(Token::open(&bytes, Key([2; 32]), &seal).is_none(), "moved to another key");
        assert!(Token::open(b"", Key([1; 32]), &seal).is_none());
    }

    #[test]
    fn a_revoked_token_is_over_at_any_time_and_gone() {
        let revoked = stored(&token(3600, 5, true).revoked(at(10))).unwrap();
        assert_eq!(revoked.access_token.expose(), "");
        assert_eq!(revoked.revoked_at, Some(at(10)));
        for now in [at(0), at(10), Timestamp::from_unix_ms(0)] {
            assert_eq!(revoked.life(now, MIN, Duration::ZERO), Life::Over);
            assert!(revoked.next_fetch(now) <= now);
        }
    }

    #[test]
    fn the_index_knows_the_latest_tokens() {
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

    #[test]
    fn a_key_is_of_one_application_one_credential_and_one_set_of_scopes() {
        let identity = Origin::parse("https://identity.example").unwrap();
        let key = |name: &str, secret: &str, scopes: &str| {
            let application = Application::new(name, "id", secret, "", &identity);
            Key::of(&application, &application.current, &Scopes::parse(scopes).unwrap())
        };
        let one = key("default", "secret", "a b");
        assert_eq!(key("default", "secret", "b a"), one);
        assert_ne!(key("berlin", "secret", "a b"), one);
        assert_ne!(key("default", "another", "a b"), one);
        assert_ne!(key("default", "secret", "a"), one);
    }
}
