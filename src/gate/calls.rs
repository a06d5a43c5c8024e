//! The calls of the last minute, and how long a caller must wait for the next one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::digest::sha256_of_fields;
use crate::error::{Cause, Error};
use crate::scope::ScopeRefusal;
use crate::time::{CLOCK_SKEW, FUTURE_LIMIT, Timestamp};
use crate::upstream::CALL_LIMIT;

/// Window of OfficeRnD's call quota: a minute. A call counts for longer, because the clock that
/// recorded it may be behind by [`CLOCK_SKEW`].
pub(super) const WINDOW: Duration = Duration::from_secs(60).saturating_add(CLOCK_SKEW);

/// Calls of a window that renewals leave to requests without a usable token, and that one caller
/// leaves to the others.
const CALLS_LEFT: usize = 2;

/// How urgently a call is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// The token is aging: call only if the gate is free right now.
    Early,
    /// The token is late, but still usable.
    Late,
    /// No usable token.
    Now,
}

/// Names a caller in the ledger. A reader of the store learns which calls were made for one caller,
/// but not for which: see [`Seal::tag`](crate::seal::Seal::tag).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CallerTag(pub u32);

/// Names an application in a call: the first bytes of the SHA-256 of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct ApplicationTag(pub(super) u32);

impl ApplicationTag {
    pub(super) fn of(name: &str) -> Self {
        let [a, b, c, d, ..] = sha256_of_fields([name.as_bytes()]);
        Self(u32::from_be_bytes([a, b, c, d]))
    }
}

/// A call to OfficeRnD. Its first three fields name it: copies of the ledger have it once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Call {
    /// Latest time at which the call could reach OfficeRnD, as known before it was made.
    pub(super) latest_ms: Timestamp,
    /// The caller whose request led to it.
    pub(super) caller: CallerTag,
    /// Tells two calls of one millisecond apart: clocks that differ can show it to two hosts.
    pub(super) random: u32,
    /// The application that it was made for.
    pub(super) application: ApplicationTag,
    /// How it ended; `None` until then, and for ever if its instance dies.
    pub(super) end: Option<CallEnd>,
}

/// How a call ended. The order of the variants is part of the ledger's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CallResult {
    /// It brought a token.
    Granted,
    /// OfficeRnD does not grant the scopes to the application.
    ScopeNotGranted,
    /// It brought no token for another reason.
    Failed(Cause),
    /// Not known: its instance died, or the host dropped its request.
    Abandoned,
}

impl CallResult {
    /// The value of the label `result`. The words are those of the audit field `reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::ScopeNotGranted => Error::InvalidScope(ScopeRefusal::NotGranted).reason(),
            Self::Failed(cause) => cause.reason(),
            Self::Abandoned => "upstream_abandoned",
        }
    }
}

/// The end of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CallEnd {
    /// Latest time at which the call can have reached OfficeRnD.
    pub(super) at_ms: Timestamp,
    /// How long it took, in milliseconds.
    pub(super) took_ms: u16,
    pub(super) result: CallResult,
}

impl Call {
    /// Whether both are copies of one call.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.latest_ms, self.caller, self.random) == (other.latest_ms, other.caller, other.random)
    }

    /// Latest time at which the call can have reached OfficeRnD.
    pub(super) fn at_ms(&self) -> Timestamp {
        self.end.map_or(self.latest_ms, |end| end.at_ms)
    }

    /// Whether the call counts against the quota of a window. One far in the future was recorded by
    /// a wrong clock and does not count.
    pub(super) fn counts(&self, now: Timestamp, window: Duration) -> bool {
        self.at_ms() + window > now && self.at_ms().since(now + CALL_LIMIT) <= FUTURE_LIMIT
    }

    /// How the call ended, if that no longer changes. The lease of a call is over 5 s after the call
    /// could last reach OfficeRnD. If its end is not recorded by then, its instance has died, or the
    /// host has dropped the request.
    pub(super) fn final_end(&self, now: Timestamp) -> Option<CallEnd> {
        let abandoned = CallEnd { at_ms: self.latest_ms, took_ms: 0, result: CallResult::Abandoned };
        self.end.or_else(|| (now >= self.latest_ms + CLOCK_SKEW).then_some(abandoned))
    }

    /// This copy of a call, together with what the store's copy knows.
    pub(super) fn merged(self, stored: Option<Self>, now: Timestamp) -> Self {
        match stored {
            Some(stored) if stored.end.is_some() || self.end.is_none() => stored,
            // Metrics may have shown it as abandoned, and a counter never decreases.
            Some(stored) if stored.final_end(now).is_some() => {
                Self { end: self.end.map(|end| CallEnd { result: CallResult::Abandoned, ..end }), ..self }
            }
            _ => self,
        }
    }
}

/// A call that is recorded, but has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    pub(super) call: Call,
    pub(super) began: Timestamp,
}

impl Reservation {
    /// The same call, which begins now: recording it takes time as well.
    #[must_use]
    pub fn begun(self, now: Timestamp) -> Self {
        Self { began: now, ..self }
    }
}

/// A call, as far as the quota needs it.
#[derive(Clone, Copy, Debug)]
pub(super) struct CountedCall {
    /// Latest time at which it can have reached OfficeRnD.
    pub(super) at_ms: Timestamp,
    pub(super) caller: CallerTag,
}

/// How many calls may be made in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// By all callers, from 1 to 100.
    pub calls: usize,
    /// The caller that asks, if it must leave calls to others.
    pub shared_by: Option<CallerTag>,
}

impl Quota {
    /// Calls that one caller may take while the policy has others; `None` if it may take all.
    pub fn share(calls: usize) -> Option<usize> {
        calls.checked_sub(CALLS_LEFT).filter(|share| *share > 0)
    }

    /// Time until all callers may make a call; zero if they may now. `calls` are those that count,
    /// the oldest first.
    pub(super) fn wait_for_all(self, calls: &[CountedCall], now: Timestamp, need: Need) -> Duration {
        let usable = if need == Need::Now { self.calls } else { self.calls.saturating_sub(CALLS_LEFT) };
        wait(calls.iter(), usable, now)
    }

    /// Time until the caller that asks has made so few calls that it may make another.
    pub(super) fn wait_for_share(self, calls: &[CountedCall], now: Timestamp) -> Duration {
        match (self.shared_by, Self::share(self.calls)) {
            (Some(caller), Some(share)) => wait(calls.iter().filter(|call| call.caller == caller), share, now),
            _ => Duration::ZERO,
        }
    }
}

fn wait<'a>(mut calls: impl Iterator<Item = &'a CountedCall> + Clone, usable: usize, now: Timestamp) -> Duration {
    match calls.clone().count().checked_sub(usable) {
        None => Duration::ZERO,
        // Once this call and all before it have left the window, one fewer than `usable` are in it.
        Some(surplus) => calls.nth(surplus).map_or(WINDOW, |call| (call.at_ms + WINDOW).since(now)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix_ms(1_800_000_000_000 + seconds * 1000)
    }

    /// Calls at these seconds, each for the caller of this number.
    fn calls(made: &[(u64, u32)]) -> Vec<CountedCall> {
        made.iter().map(|(seconds, caller)| CountedCall { at_ms: at(*seconds), caller: CallerTag(*caller) }).collect()
    }

    #[test]
    fn quota_counts_a_rolling_minute_and_tells_the_exact_wait() {
        let quota = Quota { calls: 5, shared_by: None };
        let check = |made: &[u64], now: u64, need: Need, expected: u64| {
            let made = calls(&made.iter().map(|seconds| (*seconds, 1)).collect::<Vec<_>>());
            let counting: Vec<_> = made.into_iter().filter(|call| call.at_ms + WINDOW > at(now)).collect();
            let wait = quota.wait_for_all(&counting, at(now), need);
            assert_eq!(wait.as_secs(), expected, "{counting:?} at {now} for {need:?}");
        };
        check(&[], 0, Need::Now, 0);
        check(&[0, 1, 2, 3], 4, Need::Now, 0);
        check(&[0, 1, 2, 3, 4], 4, Need::Now, 61);
        check(&[0, 1, 2, 3, 4], 64, Need::Now, 1);
        check(&[0, 1, 2, 3, 4], 65, Need::Now, 0);
        check(&[0, 30, 30, 30, 30, 30], 31, Need::Now, 64);
        for need in [Need::Early, Need::Late] {
            check(&[0, 1], 2, need, 0);
            check(&[0, 1, 2], 3, need, 62);
            check(&[0, 1, 2, 3, 4], 4, need, 63);
        }
    }

    #[test]
    fn quota_of_two_is_reserved_for_requests_without_a_token() {
        let wait = |need| Quota { calls: 2, shared_by: None }.wait_for_all(&[], at(0), need);
        assert_eq!([Need::Now, Need::Late, Need::Early].map(wait), [Duration::ZERO, WINDOW, WINDOW]);
    }

    #[test]
    fn one_caller_leaves_two_calls_to_others_if_the_quota_is_larger_than_two() {
        let check = |quota: usize, made: &[(u64, u32)], caller: Option<u32>, expected: u64| {
            let quota = Quota { calls: quota, shared_by: caller.map(CallerTag) };
            let wait = quota.wait_for_share(&calls(made), at(3));
            assert_eq!(wait.as_secs(), expected, "{quota:?} {made:?}");
        };
        let three = [(0, 1), (1, 1), (2, 1)];
        check(5, &three, Some(1), 62);
        check(5, &three, Some(2), 0);
        check(5, &three, None, 0);
        check(5, &[(0, 1), (1, 2), (2, 1)], Some(1), 0);
        check(5, &[(0, 2), (0, 1), (1, 2), (1, 1), (2, 1)], Some(1), 62);
        check(3, &three[..1], Some(1), 62);
        check(2, &three, Some(1), 0);
        check(1, &three, Some(1), 0);
    }
}
