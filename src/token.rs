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

/// The broker returns no token with less remaining lifetime than this. It could expire before the
/// caller uses it, and many libraries ask for a new token a minute before the end of theirs.
pub const LEAST_REMAINING: Duration = Duration::from_secs(60);

/// Longest time for which a token is aging. A caller that wants much remaining lifetime would
/// otherwise renew it at every request.
const LONGEST_AGING: Duration = Duration::from_secs(5 * 60);

/// Time during which a key is not fetched again after a fetch.
const FETCH_INTERVAL: Duration = Duration::from_secs(60);

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
pub enum Stage {
    /// Serve the token.
    Fresh,
    /// Serve the token, and renew it after the answer.
    Aging,
    /// Try to renew the token before the answer; serve it if that fails.
    Late,
    /// Never serve the token: it has less than 60 s left, or was revoked.
    Unusable,
}

impl Token {
    /// Replaces a revoked token: keeps the time of the revocation, and nothing that could be
    /// served.
    pub fn revoked(self, now: Timestamp) -> Self {
        let expired = Timestamp::from_unix_ms(0);
        Self { access_token: AccessToken::new(""), expires_at: expired, stalled: false, revoked_at: Some(now), ..self }
    }

    /// Whether what is known of the key says that this token was revoked after its fetch. A
    /// revocation does not keep the token's text, but the time of its fetch. It may be one of an
    /// earlier fetch only if that brought the same text.
    pub fn is_revoked_by(&self, known: &Self) -> bool {
        let is_same = self.fetched_at == known.fetched_at || self.stalled;
        let is_later = known.revoked_at.is_some_and(|at| at >= self.fetched_at);
        is_same && is_later && known.revoked_at > self.revoked_at
    }

    /// Remaining lifetime.
    pub fn remaining(&self, now: Timestamp) -> Duration {
        self.expires_at.since(now)
    }

    /// Stage of the remaining lifetime. Below `min_remaining` the token is late, and for the same
    /// time before that, at most 5 min, it is aging. `jitter` is the part of a quarter of this time
    /// by which this instance renews later, as a number of 255ths.
    pub fn stage(&self, now: Timestamp, min_remaining: Duration, jitter: u8) -> Stage {
        let remaining = self.remaining(now);
        let aging = min_remaining.min(LONGEST_AGING);
        if remaining < LEAST_REMAINING {
            Stage::Unusable
        } else if remaining < min_remaining {
            Stage::Late
        } else if remaining < min_remaining + aging - aging / 4 * u32::from(jitter) / 255 {
            Stage::Aging
        } else {
            Stage::Fresh
        }
    }

    /// Time from which OfficeRnD may be asked again for this key.
    ///
    /// A usable token is not renewed within 60 s of its last fetch, and a key is not fetched
    /// within 60 s of a fetch that brought no later expiry. If OfficeRnD issues the same token
    /// until it expires, the last try waits for that expiry: a try shortly before would delay
    /// the one that helps.
    pub fn next_fetch(&self, now: Timestamp) -> Timestamp {
        let next_regular = self.fetched_at + FETCH_INTERVAL;
        if self.stalled {
            if next_regular + FETCH_INTERVAL > self.expires_at {
                next_regular.max(self.expires_at)
            } else {
                next_regular
            }
        } else if self.remaining(now) < LEAST_REMAINING {
            now
        } else {
            next_regular
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let stage_of =
            |now: u64, jitter: u8, min: u64| token(3600, 0, false).stage(at(now), Duration::from_secs(min), jitter);
        let check =
            |now: u64, jitter: u8, expected: Stage| assert_eq!(stage_of(now, jitter, 300), expected, "at {now} s");
        check(0, 0, Stage::Fresh);
        check(3000, 0, Stage::Fresh);
        check(3001, 0, Stage::Aging);
        check(3075, 255, Stage::Fresh);
        check(3076, 255, Stage::Aging);
        check(3300, 0, Stage::Aging);
        check(3301, 0, Stage::Late);
        check(3540, 0, Stage::Late);
        check(3541, 0, Stage::Unusable);
        check(9999, 0, Stage::Unusable);
        // A caller that wants 50 minutes renews only shortly before.
        assert_eq!(stage_of(300, 0, 3000), Stage::Fresh);
        assert_eq!(stage_of(301, 0, 3000), Stage::Aging);
        assert_eq!(stage_of(601, 0, 3000), Stage::Late);
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
