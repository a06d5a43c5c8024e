//! What the world has seen an instance learn: tokens, failures of the store, configurations.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use http::Response;
use officernd_token_broker::token::LEAST_REMAINING;
use tokio::time::Instant;

use super::requests::scopes_of;
use super::store::Kind;
use crate::officernd::Call;
use crate::ports::Simulated;

/// How long the store must have failed before a call is made without it.
const DOWN_AFTER: Duration = Duration::from_secs(2);

/// Failures further apart do not belong together.
pub(super) const LONGEST_GAP: Duration = Duration::from_secs(10);

/// Longest time for reading all variables again.
const CONFIGURATION_READ: Duration = Duration::from_secs(2);

/// What one instance has seen.
#[derive(Default)]
pub(crate) struct Seen {
    /// Calls that it began in the last minutes.
    pub(super) calls: RefCell<Vec<Rc<Call>>>,
    /// Tokens in its memory, by caller.
    pub(super) tokens: RefCell<BTreeMap<usize, Held>>,
    /// Callers of whose tokens it was asked to revoke one.
    revocations: RefCell<BTreeSet<usize>>,
    /// Whether it ever had a configuration.
    pub(super) has_config: Cell<bool>,
    /// Reads of each variable in progress.
    pub(super) variables_read: RefCell<BTreeMap<String, usize>>,
    /// Reads of variables in progress that cannot succeed, and when one last ended.
    pub(super) hopeless: Cell<usize>,
    pub(super) unreadable_at: Cell<Option<Instant>>,
    /// When it has read the policy: in the present read of all variables, and in earlier ones.
    policy_begun_at: Cell<Option<Instant>>,
    policy_read_at: RefCell<Vec<Instant>>,
    reads: Cell<Option<Failing>>,
    writes: Cell<Option<Failing>>,
    pub(super) reads_in_progress: Cell<usize>,
}

/// A token in the memory of an instance.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) since: Instant,
    pub(super) until: Instant,
    /// Whether the instance believes that the store has it.
    is_saved: bool,
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    InTime,
    /// A success after one to five seconds, which blocked the instance.
    Late,
    Failed,
}

/// Failures of one kind of operations that no success has followed.
#[derive(Clone, Copy, Debug)]
struct Failing {
    since: Instant,
    last: Instant,
}

impl Seen {
    /// The end of the last failure because of which an operation must not begin: a store that
    /// answers no reads accepts no writes either.
    pub(super) fn last_failure(&self, kind: Kind) -> Option<Instant> {
        let writes = self.writes.get().filter(|_| kind == Kind::Write);
        [self.reads.get(), writes].into_iter().flatten().map(|failing| failing.last).max()
    }

    /// Notes the end of an operation. A late answer counts as a failure that begins with it.
    pub(super) fn note_outcome(&self, kind: Kind, began: Instant, ended: Instant, outcome: Outcome) {
        let began = if outcome == Outcome::Late { ended } else { began };
        let failing = match kind {
            Kind::Read => &self.reads,
            Kind::Write => &self.writes,
        };
        let since = match failing.get() {
            Some(failing) if began.saturating_duration_since(failing.last) < LONGEST_GAP => failing.since.min(began),
            _ => began,
        };
        failing.set((outcome != Outcome::InTime).then_some(Failing { since, last: ended }));
    }

    /// Whether reads or writes have done nothing but fail for so long that a call may be made
    /// without the store.
    fn store_is_down(&self) -> bool {
        let failing = [self.reads.get(), self.writes.get()];
        failing.into_iter().flatten().any(|failing| failing.last - failing.since >= DOWN_AFTER)
    }

    /// Whether reads have failed, and one is trying the store now.
    pub(super) fn is_trying(&self) -> bool {
        self.reads.get().is_some() && self.reads_in_progress.get() > 0
    }

    /// Notes that it reads the policy, and whether it may come to use it.
    pub(super) fn begin_policy(&self, is_usable: bool) {
        self.policy_begun_at.set(is_usable.then(Instant::now));
    }

    /// Notes that it has read all variables. A policy whose configuration comes too late, because a
    /// store operation has blocked the instance meanwhile, is not used.
    pub(super) fn note_policy(&self) {
        self.policy_read_at.borrow_mut().extend(self.policy_begun_at.take());
    }

    /// When the instance last read the policy so long before a request that it was in use for the
    /// request. During a later read the last good configuration is in use.
    pub(super) fn policy_read_before(&self, taken: Instant) -> Option<Instant> {
        self.policy_read_at.borrow().iter().rfind(|at| **at + CONFIGURATION_READ < taken).copied()
    }

    /// Notes a token that the instance has read or fetched.
    pub(super) fn hold(&self, caller: usize, until: Instant, is_saved: bool) {
        if self.has_begun_revocation(caller) {
            return;
        }
        let mut tokens = self.tokens.borrow_mut();
        match tokens.get_mut(&caller) {
            Some(held) if held.until == until => held.is_saved |= is_saved,
            // Memory keeps what the store lacks, unless the store has another usable token.
            Some(held) if !held.is_saved && until < Instant::now() + LEAST_REMAINING => {}
            _ => drop(tokens.insert(caller, Held { since: Instant::now(), until, is_saved })),
        }
    }

    /// Notes that the instance is asked to revoke a caller's token. From then on it may know of a
    /// revocation that the store does not have.
    pub(super) fn begin_revocation(&self, caller: usize) {
        self.revocations.borrow_mut().insert(caller);
        self.forget(caller);
    }

    /// Notes that memory may have no token of a caller any more.
    pub(super) fn forget(&self, caller: usize) {
        self.tokens.borrow_mut().remove(&caller);
    }

    /// Whether it may know of a revocation.
    pub(super) fn has_begun_revocation(&self, caller: usize) -> bool {
        self.revocations.borrow().contains(&caller)
    }

    /// Notes that memory has no token any more, if the instance believes, or does not believe, that
    /// the store has it.
    pub(super) fn release(&self, caller: usize, is_saved: bool) {
        self.tokens.borrow_mut().retain(|other, held| *other != caller || held.is_saved != is_saved);
    }
}

impl Simulated {
    /// Begins a call to OfficeRnD. One that the store's ledger does not have is made only if the
    /// store has done nothing but fail.
    pub(crate) fn begin_call(&self) -> Rc<Call> {
        let Self { world, running, journey } = self;
        let call = Rc::new(Call::new(journey.caller, journey.tenure.has_recorded.take(), journey.record_lost.take()));
        let long_ago = running.now() - (LONGEST_GAP * 2).min(world.started.elapsed());
        if !call.is_recorded && !running.seen.store_is_down() && !world.clock_stepped_since(running.host, long_ago) {
            world.violate(format!("instance {}: a call without the store, which has not failed long", running.number));
        }
        for calls in [&journey.calls, &running.seen.calls, &world.calls] {
            let mut calls = calls.borrow_mut();
            calls.retain(|call| call.is_recent());
            calls.push(call.clone());
        }
        call
    }

    /// Notes the token of an answer that has come in time: memory has it, whatever the store does.
    pub(crate) fn end_call(&self, answer: &Response<Vec<u8>>) {
        let world = &self.world;
        let Ok(text) = serde_json::from_slice::<serde_json::Value>(answer.body()) else { return };
        let Some(token) = text["access_token"].as_str() else { return };
        let issued = world.officernd.borrow().issued[token].clone();
        // A scope set that is requested once needs no memory.
        if let Some(caller) = (0..world.scenario.callers).find(|caller| scopes_of(*caller) == issued.scopes) {
            self.running.seen.hold(caller, issued.until, false);
        }
    }
}
