//! A token that OfficeRnD granted, its remaining lifetime, and when to renew it.

mod index;
mod key;
mod record;

use std::time::Duration;

use crate::scope::Scopes;
use crate::secret::AccessToken;
use crate::time::Timestamp;

pub use index::Index;
pub use key::Key;

/// The broker returns no token with less remaining lifetime than this: it could expire before
/// the caller uses it.
pub const LEAST_REMAINING: Duration = Duration::from_secs(30);

/// Time during which a key is not fetched again after a fetch.
const PAUSE_AFTER_FETCH: Duration = Duration::from_secs(60);

/// A token as OfficeRnD granted it, and what the broker knows about its key.
#[derive(Clone, Debug)]
pub struct Token {
    /// Access token as issued; never logged.
    pub access_token: AccessToken,
    /// Scopes that were requested.
    pub requested: Scopes,
    /// Scopes that were granted: the requested ones, or fewer.
    pub scopes: Scopes,
    /// When the token expires. Counted from the start of its request, so it never expires
    /// earlier.
    pub expires_at: Timestamp,
    /// When the last fetch for this key ended.
    pub fetched_at: Timestamp,
    /// Whether the last fetch brought no later expiry, because OfficeRnD issues the same token
    /// again.
    pub stalled: bool,
    /// When a caller last revoked a token of this key.
    pub revoked_at: Option<Timestamp>,
}

/// The stages of a token's remaining lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Serve the token.
    Fresh,
    /// Serve the token, and renew it after the answer.
    Aging,
    /// Try to renew the token before the answer; serve it if that fails.
    Late,
    /// Never serve the token: it has less than 30 s left, or was revoked.
    Unusable,
}

impl Token {
    /// Replaces a revoked token: keeps the time of the revocation, and nothing that could be
    /// served.
    pub fn revoked(self, now: Timestamp) -> Self {
        let over = Timestamp::from_unix_ms(0);
        Self { access_token: AccessToken::new(""), expires_at: over, stalled: false, revoked_at: Some(now), ..self }
    }

    /// Remaining lifetime.
    pub fn remaining(&self, now: Timestamp) -> Duration {
        self.expires_at.since(now)
    }

    /// Stage of the remaining lifetime. `jitter` is how much later than at twice
    /// `min_remaining` this instance renews.
    pub fn life(&self, now: Timestamp, min_remaining: Duration, jitter: Duration) -> Life {
        let remaining = self.remaining(now);
        if remaining < LEAST_REMAINING {
            Life::Unusable
        } else if remaining < min_remaining {
            Life::Late
        } else if remaining < (min_remaining * 2).saturating_sub(jitter) {
            Life::Aging
        } else {
            Life::Fresh
        }
    }

    /// Time from which OfficeRnD may be asked again for this key.
    ///
    /// A usable token is not renewed within 60 s of its last fetch, and a key is not fetched
    /// within 60 s of a fetch that brought no later expiry. If OfficeRnD issues the same token
    /// until it expires, the last try waits for that expiry: a try shortly before would delay
    /// the one that helps.
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn token_stage_follows_from_remaining_lifetime() {
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
        check(3571, 0, Life::Unusable);
        check(9999, 0, Life::Unusable);
    }

    #[test]
    fn next_fetch_waits_for_the_pause_or_the_expiry() {
        let check =
            |token: Token, now: u64, expected: u64| assert_eq!(token.next_fetch(at(now)), at(expected), "{token:?}");
        check(token(3600, 3000, false), 3001, 3060);
        check(token(3600, 3000, true), 3001, 3060);
        // A try 10 s before the expiry would delay the one right after it.
        check(token(3600, 3530, true), 3531, 3600);
        check(token(3600, 3590, true), 3591, 3650);
        check(token(3600, 3000, false), 3580, 3580);
    }
}
