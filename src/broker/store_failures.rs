//! What an instance remembers of the store's failures.

use crate::time::Timestamp;

/// Failures of the store since it last worked, as far as the instance knows.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoreFailures {
    /// When the first failed operation began.
    pub(super) began: Timestamp,
    /// When the last failed operation ended.
    pub(super) last: Timestamp,
    /// When an operation last tried the store, or failed.
    pub(super) tried: Timestamp,
}
