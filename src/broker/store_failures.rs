//! What an instance remembers of the store's failures.

use std::cell::Cell;
use std::time::Duration;

/// Failures further apart than this do not belong together, and one that is older says nothing: the
/// store may have worked in between, and nobody has tried.
pub(super) const LONGEST_GAP: Duration = Duration::from_secs(10);

/// Failures of reads or of writes since the last success, as far as the instance knows. Times are
/// [`Ports::uptime`](super::ports::Ports::uptime), because a wall clock that steps would make a
/// quick operation look like seconds of failure.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoreFailures {
    /// When the first failed operation began.
    pub(super) began: Duration,
    /// When the last failed operation ended.
    pub(super) last: Duration,
    /// When an operation last tried the store, or failed.
    pub(super) tried: Duration,
}

/// Failures of reads and of writes apart, because a store may refuse writes only.
#[derive(Debug, Default)]
pub(super) struct StoreMemory {
    pub(super) reads: Cell<Option<StoreFailures>>,
    pub(super) writes: Cell<Option<StoreFailures>>,
    /// When an operation of either kind last blocked the whole instance.
    pub(super) blocked: Cell<Option<Duration>>,
    /// When a write was last given up without an answer.
    pub(super) write_given_up: Cell<Option<Duration>>,
    /// When a write of the ledger was last given up. It may still land.
    pub(super) ledger_given_up: Cell<Option<Duration>>,
}

impl StoreMemory {
    /// The recent failures of reads and of writes that no success has followed.
    pub(super) fn failures(&self, uptime: Duration) -> impl Iterator<Item = StoreFailures> {
        let is_recent = move |failures: &StoreFailures| uptime.saturating_sub(failures.last) < LONGEST_GAP;
        [self.reads.get(), self.writes.get()].into_iter().flatten().filter(is_recent)
    }
}
