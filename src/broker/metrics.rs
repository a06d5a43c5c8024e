//! What `/metrics` reports: the ledger of all instances, and what this instance knows.

use futures_util::future::join;

use super::instance::Broker;
use super::ports::Ports;
use crate::config::Config;
use crate::gate::{Counts, Ledger, ledger_key};
use crate::time::Timestamp;
use crate::token::Index;

/// The state of the broker at one moment.
pub struct Metrics {
    /// When it was read.
    pub now: Timestamp,
    /// The ledger of all instances on the store; without the store, what this instance knows of it.
    pub ledger: Ledger,
    /// Numbers of calls by the store's copy of the ledger, when this instance last read it for metrics; `None`
    /// if it never could. What only this instance knows is not in them: they would decrease when another
    /// instance is asked, or when this one ends.
    pub counts: Option<Counts>,
    /// Scope sets with a token that has not expired: those of all instances or, without the store,
    /// those in this instance's memory.
    pub scope_sets: usize,
    /// Whether there is a store that instances share, and it answered a read.
    pub store_works: bool,
    /// Number of mistakes in the variables.
    pub mistakes: usize,
}

impl<P: Ports> Broker<P> {
    /// Reads the ledger and the index, side by side.
    pub async fn metrics(&self, config: &Config) -> Metrics {
        let (ledger_key, index_key) = (ledger_key(&config.identity), Index::key(&config.identity));
        let number = self.number_operation();
        let (ledger, index) = join(self.get(&ledger_key), self.get(&index_key)).await;
        let now = self.ports.now();
        if let Ok(bytes) = &ledger {
            let stored = bytes.as_deref().and_then(Ledger::decode).unwrap_or_default();
            self.instance.counts.replace(Some(stored.counts(now)));
            bytes.iter().for_each(|bytes| self.take_over_ledger(number, bytes));
        }
        let scope_sets = match index {
            Ok(index) => Index::decode(index.unwrap_or_default()).count_keys(now),
            Err(_) => self.instance.count_tokens(now),
        };
        Metrics {
            now,
            ledger: self.instance.ledger.borrow().clone(),
            scope_sets,
            counts: self.instance.counts.borrow().clone(),
            store_works: ledger.is_ok() && self.ports.degradation().is_none(),
            mistakes: self.instance.config.borrow().mistakes,
        }
    }
}
