//! What a running component did, counted at the host's side of each call.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWrite;
use tokio::time::sleep;
use wasmtime::component::{Accessor, HasData};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::clocks::{HostWallClock, WasiClocksView};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wasmtime_wasi::p3::bindings::clocks::monotonic_clock;

use crate::app::Instance;

/// What has happened on one [`Server`](crate::Server) since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Component instances started.
    pub instances: u64,
    /// Requests handed to the component.
    pub requests: u64,
    /// Instances that ended in a trap, and attempts to start one that failed.
    pub traps: u64,
    /// Readings of the wall clock.
    pub clock: u64,
    /// Timers that were set.
    pub timers: u64,
    /// Calls of stdout and stderr: a question for room, a write, a flush, or all in one.
    pub writes: u64,
    /// Reads of a variable.
    pub variables: u64,
    /// HTTP requests the component tried to send, refused ones included.
    pub outbound: u64,
    /// `open` of a key-value store.
    pub open: u64,
    /// `get` of a key.
    pub get: u64,
    /// `set` of a key.
    pub set: u64,
    /// `delete` of a key.
    pub delete: u64,
    /// `exists` of a key.
    pub exists: u64,
    /// `get-keys` of a store.
    pub get_keys: u64,
    /// Bytes of the largest linear memory that an instance had.
    pub memory_bytes: usize,
    /// Instructions of each instance from the start of its first request to the start of its last, if they are
    /// [counted](crate::App::load_metered).
    pub fuel: u64,
}

impl Counts {
    /// Calls of any kind to the key-value store.
    pub fn store_calls(&self) -> u64 {
        self.open + self.get + self.set + self.delete + self.exists + self.get_keys
    }
}

/// The counts of a server while it runs.
#[derive(Default)]
pub(crate) struct Counters(Mutex<Counts>);

impl Counters {
    pub(crate) fn add(&self, count: impl FnOnce(&mut Counts)) {
        count(&mut self.0.lock().expect("an addition does not panic"));
    }

    pub(crate) fn read(&self) -> Counts {
        *self.0.lock().expect("an addition does not panic")
    }
}

/// The wall clock of this machine.
pub(crate) struct Clock(pub(crate) Arc<Counters>);

impl HostWallClock for Clock {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(1)
    }

    fn now(&self) -> Duration {
        self.0.add(|counts| counts.clock += 1);
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
    }
}

/// The timers of WASI 0.3.
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
        // No time is no timer, as for wasmtime.
        if nanoseconds > 0 {
            accessor.with(|mut access| access.get().host.counters.add(|counts| counts.timers += 1));
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

/// A component's stdout or stderr.
pub(crate) struct Written<S>(pub(crate) S, pub(crate) Arc<Counters>);

impl<S: IsTerminal> IsTerminal for Written<S> {
    fn is_terminal(&self) -> bool {
        self.0.is_terminal()
    }
}

impl<S: StdoutStream> StdoutStream for Written<S> {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        // Of WASI 0.3, which Rust's standard library does not write through yet.
        self.0.async_stream()
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(Written(self.0.p2_stream(), self.1.clone()))
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Written<Box<dyn OutputStream>> {
    async fn ready(&mut self) {
        self.0.ready().await;
    }
}

#[wasmtime_wasi::async_trait]
impl OutputStream for Written<Box<dyn OutputStream>> {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.1.add(|counts| counts.writes += 1);
        self.0.write(bytes)
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.1.add(|counts| counts.writes += 1);
        self.0.flush()
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.1.add(|counts| counts.writes += 1);
        self.0.check_write()
    }

    async fn blocking_write_and_flush(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.1.add(|counts| counts.writes += 1);
        self.0.blocking_write_and_flush(bytes).await
    }

    /// Part of another call.
    async fn write_ready(&mut self) -> StreamResult<usize> {
        self.0.write_ready().await
    }
}
