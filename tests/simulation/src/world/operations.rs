//! Store operations as an instance makes them, and the invariants of each.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use officernd_token_broker::token::Token;
use tokio::time::Instant;

use super::requests::Attempt;
use super::seen::Outcome;
use super::store::{BUSY_WAIT, Kind};
use crate::ports::Simulated;

/// A store operation that takes longer has failed.
pub(super) const STORE_LIMIT: Duration = Duration::from_secs(1);

/// How long an instance lets operations fail without trying the store after a failure.
const FAILURE_MEMORY: Duration = Duration::from_secs(2);

/// Longest time of an operation that blocks its instance, and of a second one.
const LONGEST_BLOCK: Duration = Duration::from_secs(10);

/// How long after a request has begun to acquire the lease it may still write under it: the lease
/// lasts 11 s, and an operation with its second try may take 2 s.
const LONGEST_TENURE: Duration = Duration::from_secs(11 - 2);

/// What a request has done under its lease.
#[derive(Default)]
pub(crate) struct Tenure {
    /// The lease that it last wrote, and when it began to.
    lease: RefCell<Vec<u8>>,
    began: Cell<Option<Instant>>,
    /// Whether it has read the ledger since then, and written it.
    has_read: Cell<bool>,
    pub(super) has_recorded: Cell<bool>,
}

/// A store operation in progress. Its request has given it up if it is dropped.
pub(crate) struct Operation {
    ports: Simulated,
    kind: Kind,
    key: String,
    /// When it began, or the first try of it.
    began: Instant,
    is_retry: bool,
    has_ended: bool,
}

/// The first try of an operation, which has failed at once. The second try follows immediately.
pub(super) struct FirstTry {
    key: String,
    began: Instant,
    ended: Instant,
}

impl Operation {
    pub(crate) fn begin(ports: &Simulated, kind: Kind, key: &str) -> Self {
        let now = ports.running.now();
        let first_try = ports.journey.first_try.take().filter(|first| first.key == key && first.ended == now);
        let operation = Self {
            ports: ports.clone(),
            kind,
            key: key.to_owned(),
            began: first_try.as_ref().map_or(now, |first| first.began),
            is_retry: first_try.is_some(),
            has_ended: false,
        };
        operation.check_failing();
        if kind == Kind::Read {
            let in_progress = &ports.running.seen.reads_in_progress;
            in_progress.set(in_progress.get() + 1);
        }
        operation
    }

    /// Begins a write. An empty lease releases it.
    pub(crate) fn begin_write(ports: &Simulated, key: &str, value: &[u8]) -> Self {
        let operation = Self::begin(ports, Kind::Write, key);
        let tenure = &ports.journey.tenure;
        if operation.is_of_lease() && !value.is_empty() {
            tenure.began.set(Some(operation.began));
            tenure.has_read.set(false);
            tenure.has_recorded.set(false);
        } else if operation.is_of_lease()
            || operation.is_of_ledger()
            || operation.caller().is_some() && !matches!(ports.journey.attempt, Attempt::Revocation(_))
        {
            // A revocation needs no lease: it erases, and reaches nothing but its token.
            operation.check_tenure();
        }
        operation
    }

    /// Checks that no operation begins when the store has just failed, apart from second tries and
    /// from reading back a lease.
    fn check_failing(&self) {
        let Simulated { world, running, .. } = &self.ports;
        if let Some(last) = running.seen.last_failure(self.kind)
            && !self.is_retry
            && self.began - last < FAILURE_MEMORY
            && !(self.kind == Kind::Read && self.is_of_lease())
            && !world.clock_stepped_since(running.host, last - LONGEST_BLOCK.min(last - world.started))
        {
            let pause = self.began - last;
            world.violate(format!("instance {}: {:?} {pause:?} after the store failed", running.number, self.kind));
        }
    }

    /// Checks that a request writes the ledger only if it knows what it overwrites, and writes
    /// nothing when another request may soon have the lease.
    fn check_tenure(&self) {
        let Simulated { world, running, journey } = &self.ports;
        let tenure = &journey.tenure;
        let Some(began) = tenure.began.get() else {
            return world.violate(format!("instance {} writes {} without a lease", running.number, self.key));
        };
        if self.is_of_ledger() && !tenure.has_read.get() {
            world.violate(format!("instance {} overwrites a ledger that it has not read", running.number));
        }
        let lasts = self.began - began;
        if lasts > LONGEST_TENURE && !world.clock_stepped_since(running.host, began) {
            let key = &self.key;
            world.violate(format!("instance {} writes {key} {lasts:?} after it acquired the lease", running.number));
        }
    }

    fn is_of_lease(&self) -> bool {
        self.key == self.ports.world.lease_key
    }

    fn is_of_ledger(&self) -> bool {
        self.key == self.ports.world.ledger_key
    }

    fn caller(&self) -> Option<usize> {
        self.ports.world.token_keys.iter().position(|key| *key == self.key)
    }

    pub(crate) fn end_read(mut self, outcome: &Result<Option<Vec<u8>>, &'static str>) {
        self.end(outcome.is_ok());
        let Simulated { world, running, journey } = &self.ports;
        let tenure = &journey.tenure;
        let has_lease = match outcome {
            Ok(value) => value.as_ref() == Some(&*tenure.lease.borrow()),
            // The second try may succeed.
            Err(_) => !self.is_retry,
        };
        if self.is_of_lease() && !has_lease {
            tenure.has_recorded.set(false);
        }
        if self.is_of_ledger() && outcome.is_ok() {
            tenure.has_read.set(true);
        }
        if let (Some(caller), Ok(value)) = (self.caller(), outcome) {
            match value.as_ref().and_then(|bytes| world.open_token(caller, bytes)) {
                // It may be the revocation of the token in memory.
                Some(token) if token.access_token.expose().is_empty() => running.seen.forget(caller),
                Some(token) => self.hold(caller, &token),
                // Memory then has none either, unless the store did not accept it.
                None => running.seen.release(caller, true),
            }
        }
    }

    pub(crate) fn end_write(mut self, outcome: &Result<(), &'static str>, value: &[u8]) {
        self.end(outcome.is_ok());
        let Simulated { world, journey, .. } = &self.ports;
        if outcome.is_err() {
            return;
        }
        if self.is_of_lease() {
            journey.tenure.lease.replace(value.to_vec());
        } else if self.is_of_ledger() {
            journey.tenure.has_recorded.set(true);
        } else if let Some(caller) = self.caller()
            && let Some(token) = world.open_token(caller, value)
        {
            self.hold(caller, &token);
        }
    }

    /// Notes a token that the store has, as the instance now knows.
    fn hold(&self, caller: usize, token: &Token) {
        let until = self.ports.world.expiry_of(token.access_token.expose());
        self.ports.running.seen.hold(caller, until, true);
    }

    fn end(&mut self, is_success: bool) {
        self.has_ended = true;
        let Simulated { running, journey, .. } = &self.ports;
        let ended = running.now();
        let was_slow = ended - self.began >= STORE_LIMIT;
        if !is_success && !was_slow && !self.is_retry {
            journey.first_try.replace(Some(FirstTry { key: self.key.clone(), began: self.began, ended }));
        } else {
            let outcome = match (is_success, was_slow) {
                (true, false) => Outcome::InTime,
                (true, true) if ended - self.began <= BUSY_WAIT => Outcome::Late,
                _ => Outcome::Failed,
            };
            running.seen.note_outcome(self.kind, self.began, ended, outcome);
        }
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        let Simulated { running, journey, .. } = &self.ports;
        if self.kind == Kind::Read {
            running.seen.reads_in_progress.set(running.seen.reads_in_progress.get() - 1);
        }
        if self.has_ended {
            return;
        }
        if self.is_of_lease() {
            journey.tenure.has_recorded.set(false);
        }
        // Otherwise the host has dropped the request: a deadline ends no operation earlier, and
        // none while the instance is blocked.
        if self.began.elapsed() >= STORE_LIMIT && running.now() == Instant::now() {
            self.end(false);
        }
    }
}
