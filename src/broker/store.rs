//! Reads and writes the store with a deadline and one retry.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};

use super::instance::Broker;
use super::ports::Ports;
use crate::seal::NONCE_LENGTH;

/// A store operation that takes longer has failed.
pub(super) const STORE_LIMIT: Duration = Duration::from_secs(1);

/// The store failed, and a warning is logged. The request goes on with what the instance has in
/// memory; only a revocation fails.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoreFailed;

impl<P: Ports> Broker<P> {
    pub(super) fn nonce(&self) -> [u8; NONCE_LENGTH] {
        let mut nonce = [0; NONCE_LENGTH];
        for part in nonce.chunks_exact_mut(8) {
            part.copy_from_slice(&self.ports.random().to_be_bytes());
        }
        nonce
    }

    pub(super) async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreFailed> {
        self.try_twice("get", || self.ports.get(key)).await
    }

    pub(super) async fn set(&self, key: &str, value: &[u8]) -> Result<(), StoreFailed> {
        self.try_twice("set", || self.ports.set(key, value)).await
    }

    /// Retries once after an immediate failure, because a broken connection is replaced. A slow
    /// store gets no second try.
    pub(super) async fn try_twice<T, F>(&self, operation: &str, attempt: impl Fn() -> F) -> Result<T, StoreFailed>
    where
        F: Future<Output = Result<T, String>>,
    {
        let mut is_retry = false;
        let problem = loop {
            match self.within(STORE_LIMIT, attempt()).await {
                Some(Ok(value)) => return Ok(value),
                Some(Err(problem)) if is_retry => break problem,
                Some(Err(_)) => is_retry = true,
                None => break "no answer within a second".to_owned(),
            }
        };
        self.ports.warn(&format!("the store failed at {operation}: {problem}"));
        Err(StoreFailed)
    }

    /// Returns the future's output, or `None` after `limit`.
    pub(super) async fn within<T>(&self, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
        match select(pin!(future), pin!(self.ports.sleep(limit))).await {
            Either::Left((output, _)) => Some(output),
            Either::Right(_) => None,
        }
    }
}
