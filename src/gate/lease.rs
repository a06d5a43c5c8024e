//! The lease: who may call.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::mutation::{self, Rule};
use crate::record::{decode_whole, encode};
use crate::time::{Timestamp, is_pending};
use crate::upstream::CALL_LIMIT;

/// Where the store has the lease.
pub const LEASE_KEY: &str = "gate/lease";

/// How long a lease lasts if it is not given back: a whole call, and the store operations around it; less than a request
/// waits, so that whoever waits for a holder that died still gets a token.
pub const LEASE_LIFE: Duration = Duration::from_secs(11);

/// The end of a lease that a call must not reach into: nobody else may call while it is under way.
const LEASE_MARGIN: Duration = Duration::from_millis(500);

/// How long a contender waits between writing its id and reading it back. It must be longer than any contender takes
/// between reading that the lease is free and its own write landing (Fischer's condition).
pub const LEASE_SETTLE: Duration = Duration::from_millis(50);

/// Who may call, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Random, so nobody is mistaken for another.
    pub holder: u64,
    /// When it ends by itself.
    pub until_ms: Timestamp,
}

impl Lease {
    /// The lease of bytes from the store; nothing when they are none. A lease that was given back has no bytes.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        decode_whole(bytes)
    }

    /// The bytes the store keeps.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// How long a call of its holder may take.
    pub fn time_to_call(&self, now: Timestamp) -> Duration {
        self.until_ms.since(now).saturating_sub(LEASE_MARGIN).min(CALL_LIMIT)
    }

    /// How long it still bars others; nothing when it is over.
    pub fn remaining(&self, now: Timestamp) -> Option<Duration> {
        if !mutation::holds(Rule::LeaseDeadline) {
            return Some(LEASE_LIFE);
        }
        is_pending(self.until_ms, now, LEASE_LIFE).then(|| self.until_ms.since(now).min(LEASE_LIFE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix_ms(1_800_000_000_000 + seconds * 1000)
    }

    #[test]
    fn a_lease_leaves_time_for_a_whole_call_and_never_more_than_it_lasts() {
        let lease = Lease { holder: 1, until_ms: at(0) + LEASE_LIFE };
        assert_eq!(Lease::decode(&lease.encode()), Some(lease));
        assert_eq!(lease.remaining(at(0)), Some(LEASE_LIFE));
        assert_eq!(lease.remaining(at(11)), None);
        assert_eq!(lease.time_to_call(at(0)), CALL_LIMIT);
        assert_eq!(lease.time_to_call(at(8)), Duration::from_millis(2500));
        assert_eq!(lease.time_to_call(at(20)), Duration::ZERO);
    }

    #[test]
    fn a_lease_by_a_wrong_clock_bars_nobody_for_long() {
        let lease = Lease { holder: 1, until_ms: at(100_000) };
        assert_eq!(lease.remaining(at(0)), None);
        assert_eq!(lease.remaining(at(100_000 - 20)), Some(LEASE_LIFE));
    }
}
