//! The ports: everything that the core needs from the outside world.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use http::{Request, Response};

use crate::time::Timestamp;

/// Clock, randomness, variables, store, OfficeRnD and logs. The component implements it for every
/// host; the simulation, the fuzzer and the benchmark have implementations of their own.
///
/// Clones share their state. No method may wake another request: the only way to wait is
/// [`Ports::sleep`].
pub trait Ports: Clone + 'static {
    /// The wall clock.
    fn now(&self) -> Timestamp;
    /// A clock that never steps, since some moment before the first request.
    fn uptime(&self) -> Duration;
    /// 64 unpredictable bits.
    fn random(&self) -> u64;
    /// Completes after `duration`.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()>;
    /// Reads a variable; `None` if it is not set.
    ///
    /// # Errors
    /// When the variable provider fails, in its own words.
    fn variable(&self, name: &'static str) -> impl Future<Output = Result<Option<String>, String>>;
    /// Reads a value from the store.
    ///
    /// # Errors
    /// When the store fails, in its own words.
    fn get(&self, key: &str) -> impl Future<Output = Result<Option<Vec<u8>>, String>>;
    /// Writes a value to the store.
    ///
    /// # Errors
    /// When the store fails, in its own words.
    fn set(&self, key: &str, value: &[u8]) -> impl Future<Output = Result<(), String>>;
    /// Sends a request to OfficeRnD or to an issuer, and reads at most `limit` bytes of the answer. Does not
    /// follow redirects.
    ///
    /// # Errors
    /// When no complete answer arrives, or a longer one.
    fn send(
        &self,
        request: Request<String>,
        limit: usize,
    ) -> impl Future<Output = Result<Response<Vec<u8>>, SendError>>;
    /// The word that `/readyz` reports if the host lacks something that the broker can work
    /// without.
    fn degradation(&self) -> Option<&'static str> {
        None
    }
    /// Writes the line of a request or of a call, which ends with its only line break.
    fn audit(&self, line: Vec<u8>);
    /// Tells the operator about a problem that the broker has worked around.
    fn warn(&self, line: &str);
}

/// Why no answer can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// No connection, or a connection that broke.
    Unreachable,
    /// The answer exceeds the limit.
    TooLong,
    /// The host did not let the component send the request, so nothing has left it.
    Denied,
}

/// Work to do after the answer. The host's side must run it to its end, which has a deadline.
pub type Followup = Pin<Box<dyn Future<Output = ()>>>;
