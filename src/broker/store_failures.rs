//! What an instance remembers of the store's failures.

use std::cell::Cell;
use std::time::Duration;

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
}

impl StoreMemory {
    /// The failures of reads and of writes that no success has followed.
    pub(super) fn failures(&self) -> impl Iterator<Item = StoreFailures> {
        [self.reads.get(), self.writes.get()].into_iter().flatten()
    }
}
