//! Keeps the ledger in memory and in the store alike, and asks it whether a call may be made.

use super::instance::Broker;
use super::ports::Ports;
use super::store::StoreFailed;
use super::wanted::Wanted;
use crate::config::Config;
use crate::error::Error;
use crate::gate::{LEDGER_KEY, Ledger, Need, Reservation};
use crate::time::Timestamp;

impl<P: Ports> Broker<P> {
    /// The problem that `/readyz` reports if there is a configuration: it has a mistake, the
    /// store does not answer, or OfficeRnD has just refused every application's credential.
    pub async fn readiness_problem(&self, config: &Config) -> Option<&'static str> {
        if self.instance.config.borrow().has_mistake() {
            return Some("configuration");
        }
        if self.load_ledger().await.is_err() {
            return Some("store");
        }
        let ledger = self.instance.ledger.borrow();
        let now = self.ports.now();
        config.applications.iter().all(|application| ledger.has_refused(application, now)).then_some("credential")
    }

    /// Whether the ledger, as this instance knows it, admits a call.
    pub(super) fn admit(&self, wanted: &Wanted, need: Need, now: Timestamp) -> Result<(), Error> {
        let ledger = self.instance.ledger.borrow();
        ledger.admit(now, wanted.config.calls_per_minute, need, &wanted.credential.fingerprint)
    }

    /// Records a call if the ledger admits it. No await lies between the decision and the
    /// record: without a store, only this record in memory keeps the quota.
    pub(super) fn reserve(&self, wanted: &Wanted, need: Need, now: Timestamp) -> Result<Reservation, Error> {
        self.admit(wanted, need, now)?;
        Ok(self.instance.update_ledger(|ledger| ledger.reserve(now)))
    }

    /// Switches to the credential in use. During a rotation, another instance may have found
    /// the current one refused.
    pub(super) async fn with_credential_in_use(&self, wanted: &Wanted) -> Wanted {
        if wanted.application.next.is_some() {
            let _ = self.load_ledger().await;
        }
        wanted.with_credential(self.instance.ledger.borrow().credential_in_use(&wanted.application, self.ports.now()))
    }

    /// Replaces the ledger in memory with the store's, plus the changes that the store lacks. A
    /// missing or unreadable ledger changes nothing.
    pub(super) async fn load_ledger(&self) -> Result<(), StoreFailed> {
        if let Some(bytes) = self.get(LEDGER_KEY).await? {
            match Ledger::decode(&bytes) {
                Some(mut ledger) => {
                    ledger.absorb(&self.instance.unsaved_ledger.borrow());
                    self.instance.ledger.replace(ledger);
                }
                None => self
                    .ports
                    .warn("the store contains a ledger that this version cannot read; it is treated as absent"),
            }
        }
        Ok(())
    }

    /// Writes the ledger to the store. If the store accepts it, no change is unsaved any more.
    pub(super) async fn store_ledger(&self) {
        let bytes = self.instance.ledger.borrow().encode();
        if self.set(LEDGER_KEY, &bytes).await.is_ok() {
            self.instance.unsaved_ledger.take();
        }
    }
}
