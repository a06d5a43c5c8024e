//! Keeps the ledger in memory and in the store alike, and asks it whether a call may be made.

use std::time::Duration;

use super::instance::Broker;
use super::ports::Ports;
use super::store::StoreFailed;
use super::wanted::Wanted;
use crate::config::Config;
use crate::error::Error;
use crate::gate::{Ledger, Need, Reservation, ledger_key};
use crate::time::{Timestamp, is_recent};

/// Shortest time between two warnings about clocks.
const CLOCK_WARNING_INTERVAL: Duration = Duration::from_secs(60);

impl<P: Ports> Broker<P> {
    /// Whether the ledger, as this instance knows it, admits a call.
    pub(super) fn admit(&self, wanted: &Wanted, need: Need, now: Timestamp) -> Result<(), Error> {
        let ledger = self.instance.ledger.borrow();
        ledger.admit(now, wanted.quota(need), need, &wanted.credential.fingerprint)
    }

    /// Records a call if the ledger admits it. No await lies between the decision and the
    /// record: without a store, only this record in memory keeps the quota.
    pub(super) fn reserve(&self, wanted: &Wanted, need: Need, now: Timestamp) -> Result<Reservation, Error> {
        self.admit(wanted, need, now)?;
        let (caller, application) = (wanted.caller_tag(), &wanted.application.name);
        let random = self.ports.random() as u32;
        self.instance.ledger.borrow_mut().fold(now, &self.instance.unsaved_ledger.borrow());
        Ok(self.instance.update_ledger(|ledger| ledger.reserve(now, caller, application, random)))
    }

    /// Switches to the credential in use. During a rotation, another instance may have found
    /// the current one refused.
    pub(super) async fn with_credential_in_use(&self, wanted: &Wanted) -> Wanted {
        if wanted.application.next.is_some() {
            let _ = self.load_ledger(&wanted.config).await;
        }
        wanted.with_credential(self.instance.ledger.borrow().credential_in_use(&wanted.application, self.ports.now()))
    }

    /// Tells the operator, at most once a minute, that two clocks are too far apart.
    pub(super) fn warn_of_clock(&self, now: Timestamp) {
        let warned_at = &self.instance.warned_of_clock_at;
        if !warned_at.get().is_some_and(|at| is_recent(at, now, CLOCK_WARNING_INTERVAL)) {
            warned_at.set(Some(now));
            self.ports.warn(
                "a record in the store is from a clock that is more than 5 s ahead of this host's: set both clocks, or \
                 OfficeRnD may get too many calls",
            );
        }
    }

    /// Replaces the ledger in memory with the store's, plus the changes that the store lacks. A
    /// missing or unreadable ledger changes nothing.
    pub(super) async fn load_ledger(&self, config: &Config) -> Result<(), StoreFailed> {
        let number = self.number_operation();
        if let Some(bytes) = self.get(&ledger_key(&config.identity)).await? {
            self.take_over_ledger(number, &bytes);
        }
        Ok(())
    }

    /// Replaces the ledger in memory with one that the read of this number has brought.
    pub(super) fn take_over_ledger(&self, number: u64, bytes: &[u8]) {
        match Ledger::decode(bytes) {
            // A slow read must not replace what a later operation has brought.
            Some(_) if number < self.instance.ledger_known.get() => {}
            Some(mut ledger) => {
                self.instance.ledger_known.set(number);
                let now = self.ports.now();
                if ledger.is_from_the_future(now) {
                    self.warn_of_clock(now);
                }
                ledger.absorb(&self.instance.unsaved_ledger.borrow(), now);
                self.instance.ledger.replace(ledger);
            }
            None => {
                self.ports.warn("the store contains a ledger that this version cannot read; it is treated as absent");
            }
        }
    }

    /// Writes the ledger to the store. If the store accepts it, the changes up to this write are
    /// saved; other requests may have made more during it.
    pub(super) async fn store_ledger(&self, config: &Config) -> Result<(), StoreFailed> {
        let bytes = self.instance.ledger.borrow().encode();
        let written = self.instance.unsaved_ledger.borrow().clone();
        let began = self.ports.uptime();
        let outcome = self.set(&ledger_key(&config.identity), &bytes).await;
        if outcome.is_err() && self.has_given_up_a_write_since(began) {
            self.instance.store.ledger_given_up.set(Some(self.ports.uptime()));
        }
        outcome?;
        self.instance.unsaved_ledger.borrow_mut().forget(&written);
        self.instance.ledger_known.set(self.number_operation());
        Ok(())
    }

    pub(super) fn number_operation(&self) -> u64 {
        let number = self.instance.ledger_operations.get() + 1;
        self.instance.ledger_operations.set(number);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{TestPorts, at, finish, wanted};
    use super::*;
    use crate::gate::CallerTag;
    use crate::time::CLOCK_SKEW;
    use crate::upstream::CALL_LIMIT;

    #[test]
    fn change_during_a_write_of_the_ledger_stays_unsaved() {
        let (ports, wanted) = (TestPorts::default(), wanted());
        let broker = ports.broker();
        broker.reserve(&wanted, Need::Now, at(0)).unwrap();
        let other = broker.clone();
        ports.0.during_set.replace(Some(Box::new(move || {
            other.instance.update_ledger(|ledger| ledger.reserve(at(1), CallerTag(1), "default", 0));
        })));
        finish(broker.store_ledger(&wanted.config)).unwrap();
        let latest = at(1) + CALL_LIMIT + Duration::from_secs(60) + CLOCK_SKEW;
        let unsaved = |seconds| broker.instance.unsaved_ledger.borrow().recent_calls(seconds);
        assert_eq!((unsaved(at(1)), unsaved(at(72)), unsaved(latest)), (1, 1, 0), "only the later one");
    }
}
