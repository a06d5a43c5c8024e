//! What the core needs of the world.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use http::{Request, Response};

use crate::time::Timestamp;

/// Everything the core needs of the world. One implementation per kind of host, and one for the simulation.
///
/// Clones share what they stand on. No method may wake another request: waiting is [`Ports::sleep`].
pub trait Ports: Clone + 'static {
    /// The wall clock.
    fn now(&self) -> Timestamp;
    /// Unpredictable bits.
    fn random(&self) -> u64;
    /// Ends after `duration`.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()>;
    /// The value of a variable; the empty text when it has none.
    ///
    /// # Errors
    /// When the provider fails, in its words.
    fn variable(&self, name: &'static str) -> impl Future<Output = Result<String, String>>;
    /// A value of the store.
    ///
    /// # Errors
    /// When the store fails, in its words.
    fn get(&self, key: &str) -> impl Future<Output = Result<Option<Vec<u8>>, String>>;
    /// Writes a value to the store.
    ///
    /// # Errors
    /// When the store fails, in its words.
    fn set(&self, key: &str, value: &[u8]) -> impl Future<Output = Result<(), String>>;
    /// Sends a request to OfficeRnD, and reads at most `limit` bytes of the answer. Redirects are not followed.
    ///
    /// # Errors
    /// When there is no whole answer, or a longer one.
    fn send(
        &self,
        request: Request<String>,
        limit: usize,
    ) -> impl Future<Output = Result<Response<Vec<u8>>, SendError>>;
    /// The class of what the host lacks, for `/readyz`, where the broker is of use without it.
    fn degradation(&self) -> Option<&'static str> {
        None
    }
    /// Writes the audit line of a request, which ends with its only line break.
    fn audit(&self, line: Vec<u8>);
    /// Tells the operator about something that is amiss and was coped with.
    fn warn(&self, line: &str);
}

/// Why there is no answer to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// No connection, or one that broke.
    Unreachable,
    /// More bytes than the limit.
    TooLong,
}

/// Work that goes on after the answer. Whoever runs the request runs this to its end, which is bounded.
pub type Followup = Pin<Box<dyn Future<Output = ()>>>;
