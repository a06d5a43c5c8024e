//! What Spin takes from its command line and its runtime configuration.

use std::net::SocketAddr;
use std::time::Duration;

use crate::output::Output;
use crate::spin::variables::Variables;
use crate::store::KeyValue;

/// What Spin takes from its command line and its runtime configuration.
#[derive(Clone)]
pub struct Options {
    /// Where to listen; port 0 is a free one.
    pub listen: SocketAddr,
    /// The values of the application's variables.
    pub variables: Variables,
    /// The store behind every label in `key_value_stores`.
    pub key_value: KeyValue,
    /// How far an instance is reused.
    pub reuse: Reuse,
    /// Where the component's output goes.
    pub output: Output,
}

impl Default for Options {
    /// A free port on loopback, no variables, a store in memory, Spin's reuse of instances, output inherited.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            variables: Variables::default(),
            key_value: KeyValue::memory(),
            reuse: Reuse::default(),
            output: Output::inherited(),
        }
    }
}

/// How far an instance is reused before it is dropped.
#[derive(Clone, Copy, Debug)]
pub struct Reuse {
    /// Requests in its life.
    pub max_requests: usize,
    /// Requests at the same time.
    pub max_concurrent: usize,
    /// Time without a request.
    pub idle: Duration,
    /// One instance at a time for the whole server: what it cannot take yet waits for it, or for its successor.
    pub single_instance: bool,
}

impl Default for Reuse {
    /// Spin's defaults: 128 requests, 16 at the same time, 1 s; as many instances as are needed.
    fn default() -> Self {
        Self { max_requests: 128, max_concurrent: 16, idle: Duration::from_secs(1), single_instance: false }
    }
}
