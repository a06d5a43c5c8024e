//! The record of a token in the store: encoded, then sealed.

use serde::{Deserialize, Serialize};

use super::Token;
use super::key::Key;
use crate::record::{decode_whole, encode};
use crate::scope::Scopes;
use crate::seal::{NONCE_LENGTH, Seal};
use crate::secret::AccessToken;
use crate::time::Timestamp;

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
    /// The sealed record that the store keeps under `key`. `nonce` must be random.
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
        seal.seal(&encode(&record), &key.of_token(), nonce)
    }

    /// Opens a record that the store has under `key`; `None` if it was not sealed for this key.
    ///
    /// A record that opens is still not trusted: one that grants more than was requested counts
    /// as absent.
    pub fn open(bytes: &[u8], key: Key, seal: &Seal) -> Option<Self> {
        let record = seal.open(bytes, &key.of_token())?;
        let record: Record<'_> = decode_whole(&record)?;
        let requested = Scopes::parse(record.requested).ok()?;
        // Usually everything is granted, and one parse suffices.
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::secret::ClientSecret;
    use crate::token::Stage;

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

    /// Seals a token and opens it again.
    fn stored(token: &Token) -> Option<Token> {
        let seal = Seal::of(&ClientSecret::new("secret"));
        Token::open(&token.seal(Key([1; 32]), &seal, [0; NONCE_LENGTH]), Key([1; 32]), &seal)
    }

    #[test]
    fn sealed_record_opens_only_under_its_key_and_without_broader_scope() {
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
    fn revoked_token_is_unusable_at_any_time() {
        let revoked = stored(&token(3600, 5, true).revoked(at(10))).unwrap();
        assert_eq!(revoked.access_token.expose(), "");
        assert_eq!(revoked.revoked_at, Some(at(10)));
        for now in [at(0), at(10), Timestamp::from_unix_ms(0)] {
            assert_eq!(revoked.stage(now, MIN, 0), Stage::Unusable);
            assert!(revoked.next_fetch(now) <= now);
        }
    }
}
