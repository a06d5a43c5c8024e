//! Settings of a server that Spin takes from its command line and its runtime configuration.

use std::net::SocketAddr;
use std::time::Duration;

use crate::clock::Clock;
use crate::output::Output;
use crate::store::KeyValue;
use crate::variables::Variables;

/// Settings of a server that Spin takes from its command line and its runtime configuration.
#[derive(Clone)]
pub struct Options {
    /// Address to listen on; port 0 chooses a free port.
    pub listen: SocketAddr,
    /// Values of the application's variables.
    pub variables: Variables,
    /// Store behind every label in `key_value_stores`.
    pub key_value: KeyValue,
    /// Limits for the reuse of an instance.
    pub reuse: Reuse,
    /// Wall clock that the component reads.
    pub clock: Clock,
    /// Destination of the component's output.
    pub output: Output,
}

impl Default for Options {
    /// A free port on loopback, no variables, a store in memory, Spin's reuse of instances,
    /// this machine's clock, inherited output.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            variables: Variables::default(),
            key_value: KeyValue::memory(),
            reuse: Reuse::default(),
            clock: Clock::default(),
            output: Output::inherited(),
        }
    }
}

/// Limits for the reuse of an instance; one that reaches a limit is dropped.
#[derive(Clone, Copy, Debug)]
pub struct Reuse {
    /// Most requests that one instance serves.
    pub max_requests: usize,
    /// Most requests that one instance serves at the same time.
    pub max_concurrent: usize,
    /// Longest time that an instance lives without a request.
    pub idle: Duration,
    /// Whether the server runs one instance at a time. A request that finds it busy then waits
    /// for it or for the next one.
    pub single_instance: bool,
}

impl Default for Reuse {
    /// Spin's defaults: 128 requests, 16 at the same time, 1 s without a request, as many
    /// instances as are needed.
    fn default() -> Self {
        Self { max_requests: 128, max_concurrent: 16, idle: Duration::from_secs(1), single_instance: false }
    }
}
