//! What `/metrics` reports: the ledger of all instances, and what this instance knows.

use futures_util::future::join;

use super::instance::Broker;
use super::ports::Ports;
use crate::config::Config;
use crate::gate::Ledger;
use crate::time::Timestamp;
use crate::token::Index;

/// The state of the broker at one moment.
pub struct Metrics {
    /// When it was read.
    pub now: Timestamp,
    /// The ledger of all instances on the store; without the store, what this instance knows of it.
    pub ledger: Ledger,
    /// Scope sets with a token that has not expired: those of all instances or, without the store,
    /// those in this instance's memory.
    pub scope_sets: usize,
    /// Whether the store answered.
    pub store_works: bool,
    /// Number of mistakes in the variables.
    pub mistakes: usize,
}

impl<P: Ports> Broker<P> {
    /// Reads the ledger and the index, side by side.
    pub async fn metrics(&self, config: &Config) -> Metrics {
        let index_key = Index::key(&config.identity);
        let (ledger, index) = join(self.load_ledger(config), self.get(&index_key)).await;
        let now = self.ports.now();
        let scope_sets = match index {
            Ok(index) => Index::decode(index.unwrap_or_default()).count_keys(now),
            Err(_) => self.instance.count_tokens(now),
        };
        Metrics {
            now,
            ledger: self.instance.ledger.borrow().clone(),
            scope_sets,
            store_works: ledger.is_ok(),
            mistakes: self.instance.config.borrow().mistakes,
        }
    }
}
