//! The calls of the last minute, and how long a caller must wait for the next one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::{CLOCK_SKEW, Timestamp};

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

/// A call to OfficeRnD.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Call {
    /// Latest time at which the call can have reached OfficeRnD.
    pub(super) at_ms: Timestamp,
    /// The caller whose request led to it.
    pub(super) caller: CallerTag,
    /// Tells two calls of one millisecond apart: clocks that differ can show it to two hosts.
    pub(super) random: u16,
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
    pub(super) fn wait_for_all(self, calls: &[Call], now: Timestamp, need: Need) -> Duration {
        let usable = if need == Need::Now { self.calls } else { self.calls.saturating_sub(CALLS_LEFT) };
        wait(calls.iter(), usable, now)
    }

    /// Time until the caller that asks has made so few calls that it may make another.
    pub(super) fn wait_for_share(self, calls: &[Call], now: Timestamp) -> Duration {
        match (self.shared_by, Self::share(self.calls)) {
            (Some(caller), Some(share)) => wait(calls.iter().filter(|call| call.caller == caller), share, now),
            _ => Duration::ZERO,
        }
    }
}

fn wait<'a>(mut calls: impl Iterator<Item = &'a Call> + Clone, usable: usize, now: Timestamp) -> Duration {
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
    fn calls(made: &[(u64, u32)]) -> Vec<Call> {
        made.iter()
            .map(|(seconds, caller)| Call { at_ms: at(*seconds), caller: CallerTag(*caller), random: 0 })
            .collect()
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
