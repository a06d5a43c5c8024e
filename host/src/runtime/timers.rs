//! The timers of WASI 0.3, with a count of them.

use std::time::Duration;

use tokio::time::sleep;
use wasmtime::component::{Accessor, HasData};
use wasmtime_wasi::clocks::WasiClocksView;
use wasmtime_wasi::p3::bindings::clocks::monotonic_clock;

use super::instance::Instance;

/// The timers of WASI 0.3, implemented on [`Instance`].
pub(crate) struct Timers;

impl HasData for Timers {
    type Data<'a> = &'a mut Instance;
}

impl<T: Send> monotonic_clock::HostWithStore<T> for Timers {
    async fn wait_until(accessor: &Accessor<T, Self>, when: monotonic_clock::Mark) -> wasmtime::Result<()> {
        let now = accessor.with(|mut access| monotonic_clock::Host::now(&mut access.get()))?;
        Self::wait_for(accessor, when.saturating_sub(now)).await
    }

    async fn wait_for(accessor: &Accessor<T, Self>, nanoseconds: u64) -> wasmtime::Result<()> {
        // As in wasmtime, a duration of zero sets no timer.
        if nanoseconds > 0 {
            accessor.with(|mut access| access.get().shared.counters.add(|counts| counts.timers += 1));
            sleep(Duration::from_nanos(nanoseconds)).await;
        }
        Ok(())
    }
}

impl monotonic_clock::Host for Instance {
    fn now(&mut self) -> wasmtime::Result<monotonic_clock::Mark> {
        self.clocks().now()
    }

    fn get_resolution(&mut self) -> wasmtime::Result<u64> {
        monotonic_clock::Host::get_resolution(&mut self.clocks())
    }
}
