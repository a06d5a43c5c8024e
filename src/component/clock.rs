//! The clock: current time and sleep.

use std::time::{Duration, SystemTime};

use wasip3::clocks::monotonic_clock::{self, wait_for};

use crate::time::Timestamp;

#[expect(clippy::disallowed_methods, reason = "this is the port that knows the time")]
pub(super) fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_ms(since_epoch.as_millis().try_into().unwrap_or(u64::MAX))
}

/// WASI's monotonic clock, which never steps.
pub(super) fn uptime() -> Duration {
    Duration::from_nanos(monotonic_clock::now())
}

pub(super) async fn sleep(duration: Duration) {
    wait_for(duration.as_nanos().try_into().unwrap_or(u64::MAX)).await;
}
