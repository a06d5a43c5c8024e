//! Counts of what a running component did, taken on the host's side of each call.

use std::sync::Mutex;

/// Events on one [`Server`](crate::Server) since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Instances started.
    pub instances: u64,
    /// Requests passed to the component.
    pub requests: u64,
    /// Instances that trapped, and failed attempts to start one.
    pub traps: u64,
    /// Readings of the wall clock.
    pub clock: u64,
    /// Timers set.
    pub timers: u64,
    /// Calls of stdout and stderr: asking for room, writing, flushing, or all in one call.
    pub writes: u64,
    /// Reads of a variable.
    pub variables: u64,
    /// HTTP requests that the component tried to send, including refused ones.
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
    /// Size in bytes of the largest linear memory that an instance had.
    pub memory_bytes: usize,
    /// Instructions that each instance executed from the start of its first request to the
    /// start of its last one. Zero unless the app was loaded with
    /// [`load_metered`](crate::App::load_metered).
    pub fuel: u64,
}

impl Counts {
    /// Calls to the key-value store, of any kind.
    pub fn store_calls(&self) -> u64 {
        self.open + self.get + self.set + self.delete + self.exists + self.get_keys
    }
}

/// Counts of a running server, shared by its instances.
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
