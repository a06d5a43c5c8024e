//! Reads and writes the store with a deadline and one retry, and judges whether it is down.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};

use super::instance::Broker;
use super::ports::Ports;
use super::store_failures::StoreFailures;
use crate::seal::NONCE_LENGTH;
use crate::time::{Timestamp, is_recent};

/// A store operation that takes longer has failed.
pub(super) const STORE_LIMIT: Duration = Duration::from_secs(1);

/// How long all operations of an instance fail immediately after a failure, so that no request
/// waits ten times for the same dead store.
const FAILURE_MEMORY: Duration = Duration::from_secs(2);

/// The store is down when it has done nothing but fail for this long.
const DOWN_AFTER: Duration = Duration::from_secs(2);

/// Failures further apart than this do not belong together: the store may have worked in between.
const LONGEST_GAP: Duration = Duration::from_secs(10);

/// A request that reads the token, fails, and then begins a fetch does so within this time.
const JUST_NOW: Duration = Duration::from_millis(100);

/// The store failed, and a warning is logged. The request goes on with what the instance has in
/// memory; a revocation fails, and so does a request without a token at first.
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

    /// Whether the store has failed, and no operation has succeeded since.
    pub(super) fn store_is_failing(&self) -> bool {
        self.instance.store_failures.get().is_some()
    }

    /// Whether the store has done nothing but fail for [`DOWN_AFTER`].
    pub(super) fn store_is_down(&self) -> bool {
        let lasts = |failures: StoreFailures| failures.last.since(failures.began) >= DOWN_AFTER;
        self.instance.store_failures.get().is_some_and(lasts)
    }

    /// Whether the last failure of the store is older than what began at `began`.
    pub(super) fn store_failed_only_before(&self, began: Timestamp) -> bool {
        let failed_before = |failures: StoreFailures| failures.last + JUST_NOW < began;
        self.instance.store_failures.get().is_some_and(failed_before)
    }

    /// Retries once after an immediate failure, because a broken connection is replaced. A slow
    /// store gets no second try. For [`FAILURE_MEMORY`] after a failure, all operations fail
    /// immediately; then one request tries the store for all.
    pub(super) async fn try_twice<T, F>(&self, operation: &str, attempt: impl Fn() -> F) -> Result<T, StoreFailed>
    where
        F: Future<Output = Result<T, String>>,
    {
        let began = self.ports.now();
        if let Some(failures) = self.instance.store_failures.get() {
            if is_recent(failures.tried, began, FAILURE_MEMORY) {
                return Err(StoreFailed);
            }
            self.instance.store_failures.set(Some(StoreFailures { tried: began, ..failures }));
        }
        self.try_now(operation, began, attempt).await
    }

    /// Reads a value even if the store has just failed.
    pub(super) async fn get_now(&self, key: &str) -> Result<Option<Vec<u8>>, StoreFailed> {
        self.try_now("get", self.ports.now(), || self.ports.get(key)).await
    }

    async fn try_now<T, F>(&self, operation: &str, began: Timestamp, attempt: impl Fn() -> F) -> Result<T, StoreFailed>
    where
        F: Future<Output = Result<T, String>>,
    {
        let mut is_retry = false;
        let problem = loop {
            match self.within(STORE_LIMIT, attempt()).await {
                Some(Ok(value)) => {
                    self.instance.store_failures.set(None);
                    return Ok(value);
                }
                // A store may block the whole instance before it fails, as a locked SQLite file
                // does for 5 s. Then the deadline above cannot end the operation.
                Some(Err(problem)) if is_retry || self.ports.now().since(began) >= STORE_LIMIT => break problem,
                Some(Err(_)) => is_retry = true,
                None => break "no answer within a second".to_owned(),
            }
        };
        let last = self.ports.now();
        let began = match self.instance.store_failures.get() {
            Some(failures) if began.since(failures.last) < LONGEST_GAP => failures.began.min(began),
            _ => began,
        };
        self.instance.store_failures.set(Some(StoreFailures { began, last, tried: last }));
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
