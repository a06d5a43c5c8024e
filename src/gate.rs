//! When OfficeRnD may be called: the lease, the ledger of calls, and the back-off. Decisions only; the store is the
//! broker's business.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cache::{Fingerprint, decode_whole};
use crate::error::{Error, ScopeRefusal, Trouble};
use crate::rules::{self, Rule};
use crate::time::Timestamp;
use crate::upstream::{CALL_LIMIT, Failure};

/// Where the store has the lease.
pub const LEASE_KEY: &str = "gate/lease";

/// Where the store has the ledger.
pub const LEDGER_KEY: &str = "gate/ledger";

/// How long a lease lasts if it is not given back: a whole call, and the store operations around it.
pub const LEASE_LIFE: Duration = Duration::from_secs(13);

/// How long a contender waits between writing its id and reading it back. It must be longer than any contender takes
/// between reading that the lease is free and its own write landing (Fischer's condition).
pub const LEASE_SETTLE: Duration = Duration::from_millis(50);

/// The window of OfficeRnD's limit.
const WINDOW: Duration = Duration::from_secs(60);

/// Calls of a window that a token which still lives never takes.
const KEPT_FOR_NEED: usize = 2;

/// OfficeRnD said 429 without saying for how long.
const RATE_LIMIT_PAUSE: Duration = Duration::from_secs(60);

/// Nothing closes the gate for longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);

/// First and longest pause after a call that failed.
const FAILURE_PAUSE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// First and longest pause after a refused credential.
const REFUSED_PAUSE: (Duration, Duration) = (Duration::from_secs(30), LONGEST_PAUSE);

/// How long OfficeRnD is believed that the application does not have a scope.
pub const SCOPE_REFUSAL_LIFE: Duration = Duration::from_secs(5 * 60);

/// How long a refused credential is remembered after its pause, so that its next refusal pauses longer.
const REFUSAL_MEMORY: Duration = Duration::from_secs(60 * 60);

/// How badly a call is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// The token still has `min_remaining`: only if the gate is free this moment.
    Early,
    /// The token still lives.
    Late,
    /// There is no token to hand out.
    Now,
}

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
        postcard::to_allocvec(self).expect("numbers always serialize")
    }

    /// How long it still bars others; nothing when it is over.
    ///
    /// An end further away than a lease lasts was written by a clock that is wrong: it is cut to what a lease can last.
    pub fn remaining(&self, now: Timestamp) -> Option<Duration> {
        if !rules::holds(Rule::LeaseDeadline) {
            return Some(LEASE_LIFE);
        }
        let remaining = self.until_ms.since(now);
        (!remaining.is_zero() && remaining <= 2 * LEASE_LIFE).then_some(remaining)
    }
}

/// What the holders of the lease know about OfficeRnD. Only holders write it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    version: u32,
    /// The latest moment at which each call of the last [`WINDOW`] can have reached OfficeRnD, oldest first.
    calls_ms: Vec<Timestamp>,
    /// The gate is, or was lately, closed for everybody.
    closed: Option<Closure>,
    /// Credentials that were refused, by fingerprint.
    refused: Vec<(String, Closure)>,
}

/// A pause, its reason, and how many in a row there were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Closure {
    until_ms: Timestamp,
    because: Trouble,
    in_a_row: u32,
}

/// The version that this code writes and reads; another one is as good as none.
const LEDGER_VERSION: u32 = 1;

/// A call that is written down before it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation(Timestamp);

impl Ledger {
    /// The ledger of bytes from the store; nothing when they are not one of this version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        decode_whole(bytes).filter(|ledger: &Self| ledger.version == LEDGER_VERSION)
    }

    /// The bytes the store keeps.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_allocvec(&Self { version: LEDGER_VERSION, ..self.clone() })
            .expect("numbers and strings always serialize")
    }

    /// Whether a call may be made now; `limit` calls fit in a window.
    ///
    /// # Errors
    /// Why not, and after how long it may be.
    pub fn admit(&self, now: Timestamp, limit: usize, need: Need, credential: &Fingerprint) -> Result<(), Error> {
        if !rules::holds(Rule::Ledger) {
            return Ok(());
        }
        let budget = self.wait_for_budget(now, limit, need);
        let closures = [self.refusal(credential), self.closed];
        let closure = closures.into_iter().flatten().find(|closure| closure.until_ms > now);
        match closure {
            // Who is told when to come back must find a call free then.
            Some(closure) => Err(no_token(closure.because, closure.until_ms.since(now).min(LONGEST_PAUSE).max(budget))),
            None if budget.is_zero() => Ok(()),
            None => Err(no_token(Trouble::BudgetSpent, budget)),
        }
    }

    /// How long until a call fits in the window: zero when one fits now.
    fn wait_for_budget(&self, now: Timestamp, limit: usize, need: Need) -> Duration {
        let usable = if need == Need::Now { limit } else { limit.saturating_sub(KEPT_FOR_NEED) };
        let calls: Vec<_> = self.calls(now).collect();
        match calls.len().checked_sub(usable) {
            None => Duration::ZERO,
            // Once this call and all before it have left the window, one fewer than `usable` are in it.
            Some(surplus) => calls.get(surplus).map_or(WINDOW, |call| (*call + WINDOW).since(now)),
        }
    }

    /// The calls that still count, oldest first. None can be later than one that starts now and takes its whole time;
    /// a later one was written by a clock that is wrong.
    fn calls(&self, now: Timestamp) -> impl Iterator<Item = Timestamp> {
        self.calls_ms.iter().map(move |call| (*call).min(now + CALL_LIMIT)).filter(move |call| *call + WINDOW > now)
    }

    /// Writes a call down before it is made. Until it is settled it counts as made at the last possible moment, so that
    /// a holder that dies has spent it.
    pub fn reserve(&mut self, now: Timestamp) -> Reservation {
        self.calls_ms = self.calls(now).collect();
        let reservation = Reservation(now + CALL_LIMIT);
        self.insert(reservation.0);
        reservation
    }

    /// Writes down that a reserved call ended well: OfficeRnD answers, and knows the credential.
    pub fn settle_success(&mut self, reservation: Reservation, now: Timestamp, credential: &Fingerprint) {
        self.settle(reservation, now);
        self.closed = None;
        self.forget_refusal(credential);
    }

    /// Writes down how a reserved call failed, and says what to tell whoever wanted it. `random` spreads the pauses of a
    /// fleet.
    pub fn settle_failure(
        &mut self,
        reservation: Reservation,
        now: Timestamp,
        failure: Failure,
        credential: &Fingerprint,
        random: u64,
    ) -> Error {
        let (because, asked_for) = match failure {
            // Whoever judges scopes has accepted the credential.
            Failure::ScopeNotGranted => {
                self.settle_success(reservation, now, credential);
                return Error::InvalidScope(ScopeRefusal::NotGranted);
            }
            Failure::Trouble(Trouble::RateLimited, wait) => {
                (Trouble::RateLimited, Some(wait.unwrap_or(RATE_LIMIT_PAUSE)))
            }
            Failure::Trouble(because, wait) => (because, wait),
        };
        self.settle(reservation, now);
        let is_refusal = because == Trouble::CredentialRefused;
        let (previous, pauses) =
            if is_refusal { (self.refusal(credential), REFUSED_PAUSE) } else { (self.closed, FAILURE_PAUSE) };
        let in_a_row = previous.map_or(1, |closure| closure.in_a_row.saturating_add(1));
        let pause = match asked_for {
            Some(asked_for) => asked_for.clamp(Duration::from_secs(1), LONGEST_PAUSE),
            None => growing(pauses, in_a_row, random),
        };
        let closure = Closure { until_ms: now + pause, because, in_a_row };
        if is_refusal {
            self.closed = None;
            self.forget_refusal(credential);
            self.refused.push((credential.to_hex(), closure));
        } else {
            self.closed = Some(closure);
        }
        no_token(because, pause)
    }

    fn insert(&mut self, call: Timestamp) {
        let place = self.calls_ms.partition_point(|other| *other <= call);
        self.calls_ms.insert(place, call);
    }

    fn refusal(&self, credential: &Fingerprint) -> Option<Closure> {
        let name = credential.to_hex();
        self.refused.iter().find(|(other, _)| *other == name).map(|(_, closure)| *closure)
    }

    fn forget_refusal(&mut self, credential: &Fingerprint) {
        let name = credential.to_hex();
        self.refused.retain(|(other, _)| *other != name);
    }

    /// The call has ended, so it reached OfficeRnD no later than now.
    fn settle(&mut self, reservation: Reservation, now: Timestamp) {
        let place = self.calls_ms.iter().position(|call| *call == reservation.0);
        place.map(|place| self.calls_ms.remove(place));
        self.insert(now.min(reservation.0));
        self.refused.retain(|(_, closure)| closure.until_ms + REFUSAL_MEMORY > now);
    }
}

fn no_token(because: Trouble, retry_after: Duration) -> Error {
    Error::NoToken { because, retry_after }
}

/// Doubles from the first pause to the longest, and adds up to a fifth.
fn growing((first, longest): (Duration, Duration), in_a_row: u32, random: u64) -> Duration {
    let pause = first.saturating_mul(1 << (in_a_row.clamp(1, 16) - 1)).min(longest);
    let jitter = pause / 5 * u32::from(random as u8) / 255;
    (pause + jitter).min(longest)
}
