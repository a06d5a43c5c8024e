//! The wall clock of a host, which a test may set ahead.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The wall clock that the instances of a host read: this machine's, set ahead on request. Timers
/// do not follow it, as on a machine whose clock is set. Clones share the setting.
#[derive(Clone, Debug, Default)]
pub struct Clock(Arc<AtomicU64>);

impl Clock {
    /// A clock that is ahead of this machine's.
    pub fn ahead(by: Duration) -> Self {
        let clock = Self::default();
        clock.set_ahead(by);
        clock
    }

    /// Sets how far the clock is ahead of this machine's.
    pub fn set_ahead(&self, by: Duration) {
        self.0.store(by.as_millis().try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Time since the start of 1970.
    pub(crate) fn now(&self) -> Duration {
        let machine = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        machine + self.lead()
    }

    /// Time for measuring durations, set ahead as well.
    pub(crate) fn instant(&self) -> Instant {
        Instant::now() + self.lead()
    }

    fn lead(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}
