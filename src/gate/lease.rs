//! The lease record: which request may call OfficeRnD, and until when.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::Origin;
use crate::mutation::{self, Rule};
use crate::record::{decode_whole, encode};
use crate::time::{CLOCK_SKEW, Timestamp, is_pending};
use crate::upstream::CALL_LIMIT;

/// Store key of the lease for calls to an identity host, 22 bytes.
pub fn lease_key(identity: &Origin) -> String {
    ["lease.", identity.id()].concat()
}

/// Life of a lease that is not released. It covers a whole call and the store operations around
/// it. It is shorter than a request waits, so that a request still gets a token after the
/// lease's holder has died.
pub const LEASE_LIFE: Duration = Duration::from_secs(11);

/// End of a lease that a call must not reach into, so that two calls never overlap and the call's
/// result can be written.
const LEASE_MARGIN: Duration = Duration::from_secs(3);

/// End of a lease in which nothing is written, because a store operation and its retry may take
/// this long.
const WRITE_MARGIN: Duration = Duration::from_secs(2);

/// How long a contender waits between writing its id and reading it back. It must be longer
/// than any contender takes between reading that the lease is free and its own write landing
/// (Fischer's condition).
pub const LEASE_WAIT: Duration = Duration::from_millis(50);

/// The right to call OfficeRnD until a point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Random, so that no two holders are equal.
    pub holder: u64,
    /// When the lease expires.
    pub until_ms: Timestamp,
}

impl Lease {
    /// Decodes a lease; `None` if the bytes are unreadable. A released lease has no bytes.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        decode_whole(bytes)
    }

    /// The bytes for the store.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Longest call that the holder may still make.
    pub fn time_to_call(&self, now: Timestamp) -> Duration {
        self.until_ms.since(now).saturating_sub(LEASE_MARGIN).min(CALL_LIMIT)
    }

    /// Whether the holder may still write the records that belong to the lease.
    pub fn permits_writes(&self, now: Timestamp) -> bool {
        !mutation::holds(Rule::LeaseEnd) || self.until_ms.since(now) >= WRITE_MARGIN
    }

    /// How long the lease still blocks others, whose clocks may be ahead of its holder's by
    /// [`CLOCK_SKEW`]; `None` if it has expired.
    pub fn remaining(&self, now: Timestamp) -> Option<Duration> {
        if !mutation::holds(Rule::LeaseDeadline) {
            return Some(LEASE_LIFE);
        }
        let until = self.until_ms + CLOCK_SKEW;
        let longest = LEASE_LIFE + CLOCK_SKEW;
        is_pending(until, now, longest).then(|| until.since(now).min(longest))
    }

    /// Whether the clock of the holder is ahead by more than [`CLOCK_SKEW`].
    pub fn is_from_the_future(&self, now: Timestamp) -> bool {
        self.until_ms > now + LEASE_LIFE + CLOCK_SKEW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix_ms(1_800_000_000_000 + seconds * 1000)
    }

    #[test]
    fn lease_leaves_time_for_a_whole_call_and_no_more() {
        let lease = Lease { holder: 1, until_ms: at(0) + LEASE_LIFE };
        assert_eq!(Lease::decode(&lease.encode()), Some(lease));
        assert_eq!(lease.remaining(at(0)), Some(LEASE_LIFE + CLOCK_SKEW));
        // A holder whose clock is 5 s behind still calls.
        assert_eq!(lease.remaining(at(11)), Some(CLOCK_SKEW));
        assert_eq!(lease.remaining(at(16)), None);
        assert_eq!(lease.time_to_call(at(0)), CALL_LIMIT);
        assert_eq!(lease.time_to_call(at(6)), Duration::from_secs(2));
        assert!(lease.permits_writes(at(9)));
        assert!(!lease.permits_writes(at(10)));
        assert_eq!(lease.time_to_call(at(20)), Duration::ZERO);
    }

    #[test]
    fn lease_from_a_wrong_clock_is_ignored() {
        let lease = Lease { holder: 1, until_ms: at(100_000) };
        assert_eq!(lease.remaining(at(0)), None);
        assert_eq!(lease.remaining(at(100_000 - 20)), Some(LEASE_LIFE + CLOCK_SKEW));
        assert!(lease.is_from_the_future(at(100_000 - 17)));
        assert!(!lease.is_from_the_future(at(100_000 - 16)));
    }
}
