//! Invariants of calls to OfficeRnD: the call quota, and that no call is needless.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use http::Response;
use officernd_token_broker::broker::SendError;
use officernd_token_broker::token::LEAST_REMAINING;
use tokio::time::Instant;

use super::requests::{Journey, scopes_of};
use super::{LIMIT, SHARE, World};
use crate::officernd::{Call, Mood, WINDOW};
use crate::ports::Simulated;

/// How long the store must have worked until the call quota holds again. Calls made without the
/// store are then in its ledger.
const SETTLED: Duration = Duration::from_secs(15);

/// Longest time from the beginning of a call to its arrival.
const LONGEST_CALL: Duration = Duration::from_secs(10);

impl Call {
    pub(super) fn new(caller: usize, is_recorded: bool, is_lost: bool) -> Self {
        Self {
            began: Instant::now(),
            caller,
            arrived: Cell::default(),
            is_recorded,
            is_stored: Cell::new(is_recorded && !is_lost),
            is_lost: Cell::new(is_recorded && is_lost),
            is_lost_after_arrival: Cell::default(),
            is_forgiven: Cell::default(),
        }
    }

    /// Whether the broker must know of the call once the store works again.
    fn counts(&self) -> bool {
        (self.is_stored.get() || !self.is_lost.get()) && !self.is_forgiven.get()
    }

    fn has_arrived_lately(&self) -> bool {
        self.arrived.get().is_some_and(|arrived| arrived.elapsed() < WINDOW)
    }

    /// Whether it can still count.
    pub(super) fn is_recent(&self) -> bool {
        self.began.elapsed() < WINDOW + LONGEST_CALL
    }
}

impl World {
    /// Whether the store has worked for long enough to have all calls in its ledger.
    fn is_settled(&self) -> bool {
        let then = Instant::now() - SETTLED.min(self.started.elapsed());
        self.store.is_sound_since(then) && self.store.is_accessible_since(then)
    }

    /// Forgives the calls of a request that the host has dropped: nobody writes those to the
    /// ledger that were made without the store. Had the store worked for long enough by now, they
    /// would have been written.
    pub(super) fn forgive_dropped(&self, journey: &Journey) {
        if !self.is_settled() {
            let calls = journey.calls.borrow();
            calls.iter().filter(|call| !call.is_stored.get()).for_each(|call| call.is_forgiven.set(true));
        }
    }

    /// Forgives all calls so far, because the store's ledger is destroyed.
    pub(super) fn forgive_all(&self) {
        for call in self.calls.borrow().iter() {
            call.is_forgiven.set(true);
        }
    }

    /// Notes that a write of the ledger has landed, or is lost although the store says that it
    /// has succeeded. It contains all calls that the instance believes to be missing in the store.
    pub(super) fn note_record(&self, ports: &Simulated, is_lost: bool) {
        let Journey { calls, record_lost, .. } = &*ports.journey;
        record_lost.set(is_lost);
        for call in ports.running.seen.calls.borrow().iter() {
            let is_own = calls.borrow().iter().any(|own| Rc::ptr_eq(own, call));
            // The end of a call is written again, so a loss before it does no harm.
            let is_written_again = is_own && !call.is_lost_after_arrival.get();
            if is_lost {
                call.is_lost.set(true);
                call.is_lost_after_arrival.set(call.arrived.get().is_some());
            } else if is_written_again || !call.is_lost.get() {
                call.is_stored.set(true);
            }
        }
    }

    fn trace_calls(&self) {
        let calls = self.calls.borrow();
        let times: Vec<_> = calls
            .iter()
            .map(|call| {
                let at = call.arrived.get().unwrap_or(self.started) - self.started;
                let how = if call.is_recorded { "" } else { " without the store" };
                format!("{:.3}{how}{}", at.as_secs_f64(), if call.counts() { "" } else { " forgiven" })
            })
            .collect();
        self.trace(|| format!("calls: {times:?}"));
    }
}

impl Simulated {
    /// Lets a call arrive at OfficeRnD, and checks the call quota and that no usable token made
    /// it needless.
    pub(crate) fn arrive(&self, call: &Rc<Call>, body: &str) -> Option<Result<Response<Vec<u8>>, SendError>> {
        let Self { world, running, .. } = self;
        let is_reachable = world.officernd.borrow().mood != Mood::Unreachable;
        let answer = world.officernd.borrow_mut().call(body);
        world.trace(|| format!("instance {} calls for {:?}", running.number, body.rsplit('=').next()));
        if is_reachable {
            call.arrived.set(Some(Instant::now()));
            self.check_quota(call);
        }
        self.check_need(body);
        if world.scenario.faults.kills && world.chance(5) {
            world.kill(running);
        }
        answer
    }

    fn check_quota(&self, call: &Rc<Call>) {
        let Self { world, running, .. } = self;
        let counts = |other: &&Rc<Call>| other.has_arrived_lately() && (other.counts() || Rc::ptr_eq(other, call));
        // An instance keeps the call quota for itself, whatever the store does.
        let own = running.seen.calls.borrow().iter().filter(counts).count();
        if own > LIMIT {
            world.violate(format!("an instance made {own} calls in a minute"));
        }
        if world.is_settled() {
            let calls = world.calls.borrow();
            let of_caller = calls.iter().filter(counts).filter(|other| other.caller == call.caller).count();
            if of_caller > SHARE {
                world.violate(format!("OfficeRnD got {of_caller} calls for caller {} in a minute", call.caller));
            }
        }
        let count = world.calls.borrow().iter().filter(counts).count();
        if count > LIMIT && world.is_settled() {
            world.trace_calls();
            world.violate(format!("OfficeRnD got {count} calls in a minute"));
        }
    }

    fn check_need(&self, body: &str) {
        let world = &self.world;
        let caller = (0..world.scenario.callers)
            .find(|caller| body.contains(&format!("scope={}", scopes_of(*caller).as_str().replace(' ', "+"))));
        let minute_ago = Instant::now() - WINDOW.min(world.started.elapsed());
        if let Some(caller) = caller
            && world.clock_slack().is_zero()
            && world.store.is_sound_since(minute_ago)
            && let Some((token, _)) = world.stored_token(caller)
        {
            let age = world.truth().since(token.fetched_at);
            // The instance decided on the call up to a second before it arrives.
            let lived = token.remaining(world.truth()) > LEAST_REMAINING;
            if lived && age < WINDOW - Duration::from_secs(2) {
                world.violate(format!("OfficeRnD was called for caller {caller} {age:?} after the last call for it"));
            }
        }
    }
}
