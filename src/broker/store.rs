//! Reads and writes the store with a deadline and one retry, and judges whether it is down.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};

use super::instance::Broker;
use super::ports::Ports;
use super::store_failures::{LONGEST_GAP, StoreFailures, StoreMemory};
use crate::mutation::{self, Rule};
use crate::seal::NONCE_LENGTH;

/// A store operation that takes longer has failed.
pub(super) const STORE_LIMIT: Duration = Duration::from_secs(1);

/// How long all operations of an instance fail immediately after a failure, so that no request
/// waits ten times for the same dead store.
const FAILURE_MEMORY: Duration = Duration::from_secs(2);

/// The store is down when it has done nothing but fail for this long. An instance acts on that up to
/// a second later: instances that judged at the same moment would all call.
const DOWN_AFTER: Duration = Duration::from_secs(2);
const DOWN_JITTER: Duration = Duration::from_secs(1);

/// A deadline that ends an operation this late says that the host is overloaded, not that the
/// store is down. Its instances must not all call.
const STARVED: Duration = Duration::from_millis(250);

/// SQLite waits this long for a lock. An answer that takes longer counts as a failure of its whole
/// duration: requests queue for the file, and have too little time left for another try.
const LONGEST_LOCK: Duration = Duration::from_secs(5);

/// A request that reads the token, fails, and then begins a fetch does so within this time.
pub(super) const JUST_NOW: Duration = Duration::from_millis(100);

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
        self.begin(&self.instance.store.reads)?;
        self.get_now(key).await
    }

    /// Reads a value even if the store has just failed.
    pub(super) async fn get_now(&self, key: &str) -> Result<Option<Vec<u8>>, StoreFailed> {
        self.try_twice(&self.instance.store.reads, "get", || self.ports.get(key)).await
    }

    pub(super) async fn set(&self, key: &str, value: &[u8]) -> Result<(), StoreFailed> {
        let StoreMemory { reads, writes, .. } = &self.instance.store;
        // A store that answers no reads accepts no writes either.
        if self.has_just_failed(reads) {
            return Err(StoreFailed);
        }
        self.begin(writes)?;
        self.try_twice(writes, "set", || self.ports.set(key, value)).await
    }

    /// Whether reads or writes have failed, and none of that kind has succeeded since.
    pub(super) fn store_is_failing(&self) -> bool {
        self.instance.store.failures(self.ports.uptime()).next().is_some()
    }

    /// Whether reads or writes have done nothing but fail for [`DOWN_AFTER`], and this instance's
    /// share of [`DOWN_JITTER`] is over.
    pub(super) fn store_is_down(&self) -> bool {
        let jitter = DOWN_JITTER * u32::from(self.instance.random as u8) / 255;
        let now = self.ports.uptime();
        self.instance.store.failures(now).any(|failures| {
            let lasted = |until: Duration| until.saturating_sub(failures.began);
            lasted(failures.last) >= DOWN_AFTER && lasted(now) >= DOWN_AFTER + jitter
        })
    }

    /// Whether the store has failed, but neither since `began`, an [uptime](Ports::uptime), nor in
    /// the 2 s before: then it may work again, and must be tried once more.
    pub(super) fn store_failed_only_before(&self, began: Duration) -> bool {
        let last = self.instance.store.failures(self.ports.uptime()).map(|failures| failures.last).max();
        last.is_some_and(|last| last + FAILURE_MEMORY < began)
    }

    fn has_just_failed(&self, failures: &Cell<Option<StoreFailures>>) -> bool {
        let is_recent = |tried| self.ports.uptime().saturating_sub(tried) < FAILURE_MEMORY;
        let tried = failures.get().map(|failures| failures.tried).into_iter().chain(self.instance.store.blocked.get());
        tried.max().is_some_and(is_recent) && mutation::holds(Rule::FailFast)
    }

    /// Lets all operations of a kind fail immediately for [`FAILURE_MEMORY`] after a failure. Then
    /// one request tries the store for all.
    fn begin(&self, failures: &Cell<Option<StoreFailures>>) -> Result<(), StoreFailed> {
        if self.has_just_failed(failures) {
            return Err(StoreFailed);
        }
        failures.set(failures.get().map(|failures| StoreFailures { tried: self.ports.uptime(), ..failures }));
        Ok(())
    }

    /// Retries once after an immediate failure, because a broken connection is replaced. A slow
    /// store gets no second try.
    async fn try_twice<T, F>(
        &self,
        failures: &Cell<Option<StoreFailures>>,
        operation: &str,
        attempt: impl Fn() -> F,
    ) -> Result<T, StoreFailed>
    where
        F: Future<Output = Result<T, String>>,
    {
        let began = self.ports.uptime();
        let mut is_retry = false;
        let mut was_blocked = false;
        let (outcome, problem) = loop {
            // Both tries together, because a request makes several operations within its 12 s.
            let left = STORE_LIMIT.saturating_sub(self.ports.uptime().saturating_sub(began));
            let outcome = self.within(left, attempt()).await;
            // A store may block the whole instance before it answers, as a locked SQLite file does
            // for 5 s. Then the deadline above cannot end the operation.
            let was_slow = self.ports.uptime().saturating_sub(began) >= STORE_LIMIT;
            was_blocked |= was_slow && outcome.is_some();
            match outcome {
                Some(Ok(value)) if !was_slow => {
                    failures.set(None);
                    return Ok(value);
                }
                Some(Ok(value)) => break (Ok(value), "an answer after more than a second".to_owned()),
                Some(Err(problem)) if is_retry || was_slow => break (Err(StoreFailed), problem),
                Some(Err(_)) => is_retry = true,
                None => {
                    if std::ptr::eq(failures, &self.instance.store.writes) {
                        self.instance.store.write_given_up.set(Some(self.ports.uptime()));
                    }
                    break (Err(StoreFailed), "no answer within a second".to_owned());
                }
            }
        };
        let last = self.ports.uptime();
        // The deadline itself came late: this host has no time to read what the store answers.
        let is_starved = !was_blocked && last.saturating_sub(began) >= STORE_LIMIT + STARVED;
        if was_blocked {
            // Each further operation, of any kind, would block the instance again.
            self.instance.store.blocked.set(Some(last));
        }
        // An answer that comes after a few seconds is no failure: there was a lock, or the host is
        // overloaded.
        let is_late_only = outcome.is_ok() && last.saturating_sub(began) <= LONGEST_LOCK;
        let began = match failures.get() {
            _ if is_starved || is_late_only => last,
            Some(failures) if began.saturating_sub(failures.last) < LONGEST_GAP => failures.began.min(began),
            _ => began,
        };
        failures.set(Some(StoreFailures { began, last, tried: last }));
        self.ports.warn(&format!("the store failed at {operation}: {problem}"));
        outcome
    }

    /// Whether a write was given up without an answer since `began`, an [uptime](Ports::uptime).
    pub(super) fn has_given_up_a_write_since(&self, began: Duration) -> bool {
        self.instance.store.write_given_up.get().is_some_and(|at| at >= began)
    }

    /// Returns the future's output, or `None` after `limit`.
    pub(super) async fn within<T>(&self, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
        match select(pin!(future), pin!(self.ports.sleep(limit))).await {
            Either::Left((output, _)) => Some(output),
            Either::Right(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{TestPorts, finish};

    #[test]
    fn store_is_down_after_seconds_of_failures_unless_the_host_is_overloaded() {
        for (late, is_down) in [(0, true), (1, false)] {
            let ports = TestPorts::default();
            ports.0.hangs.set(true);
            ports.0.sleep_takes_time.set(true);
            ports.0.late.set(late);
            let broker = ports.broker();
            for _ in 0..4 {
                assert!(finish(broker.get_now("key")).is_err());
            }
            assert!(broker.store_is_failing());
            assert_eq!(broker.store_is_down(), is_down, "deadlines end {late} s late");
        }
    }

    #[test]
    fn store_that_answers_within_5_s_is_not_down() {
        let ports = TestPorts::default();
        let broker = ports.broker();
        let set_that_blocks_for = |seconds: u64| {
            let blocked = ports.clone();
            let until = ports.0.seconds.get() + seconds;
            ports.0.during_set.replace(Some(Box::new(move || blocked.0.seconds.set(until))));
            finish(broker.set("key", b"value")).unwrap();
        };
        set_that_blocks_for(4);
        assert!(broker.store_is_failing());
        ports.0.seconds.set(8);
        assert!(!broker.store_is_down());
        set_that_blocks_for(4);
        ports.0.seconds.set(13);
        assert!(!broker.store_is_down(), "it has answered twice");
        ports.0.seconds.set(15);
        set_that_blocks_for(6);
        ports.0.seconds.set(22);
        assert!(broker.store_is_down(), "a lock of 6 s");
    }
}
