//! What a running component did, counted at the host's side of each call.

use std::sync::Mutex;

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
