//! Pauses after failures: how long no call is made, growing with every failure in a row.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Cause;
use crate::time::{Timestamp, is_pending};

/// Pause after a 429 without `Retry-After`.
pub(super) const RATE_LIMIT_PAUSE: Duration = Duration::from_secs(60);

/// Longest pause of any kind. OfficeRnD's own window is a minute, and nobody is there to end a
/// longer pause when it works again.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);

/// First and longest pause after a failed call.
pub(super) const FAILURE_PAUSE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// First and longest pause after a refused credential.
pub(super) const REFUSED_PAUSE: (Duration, Duration) = (Duration::from_secs(30), LONGEST_PAUSE);

/// Pause of one scope set after a 400 that may mean it.
pub(super) const SCOPES_PAUSE: Duration = Duration::from_secs(60);

/// A pause, its cause, and the number of failures in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pause {
    pub(super) until_ms: Timestamp,
    pub(super) cause: Cause,
    pub(super) in_a_row: u32,
}

impl Pause {
    /// Whether the pause is in force now.
    pub(super) fn is_active(&self, now: Timestamp) -> bool {
        is_pending(self.until_ms, now, LONGEST_PAUSE)
    }
}

/// Length of a pause: it doubles from the first to the longest, plus a random fifth at most.
pub(super) fn pause_after((first, longest): (Duration, Duration), in_a_row: u32, random: u64) -> Duration {
    let pause = first.saturating_mul(1 << (in_a_row.clamp(1, 16) - 1)).min(longest);
    let jitter = pause / 5 * u32::from(random as u8) / 255;
    (pause + jitter).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_grows_to_the_longest_with_a_fifth_at_random() {
        let (first, longest) = (Duration::from_secs(5), Duration::from_secs(60));
        assert_eq!(pause_after((first, longest), 1, 0), Duration::from_secs(5));
        assert_eq!(pause_after((first, longest), 1, 255), Duration::from_secs(6));
        assert_eq!(pause_after((first, longest), 99, 255), longest);
    }
}
