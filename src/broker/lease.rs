//! Acquires and releases the lease in the store, by Fischer's algorithm on plain get and set.

use std::cell::Cell;
use std::time::Duration;

use super::instance::Broker;
use super::ports::Ports;
use super::store::{STORE_LIMIT, StoreFailed};
use crate::config::Config;
use crate::gate::{LEASE_LIFE, LEASE_WAIT, Lease, lease_key};
use crate::mutation::{self, Rule};

/// Shortest, first and longest time between two looks at the lease; up to as much is added at
/// random.
const POLL_SHORTEST: Duration = Duration::from_millis(1);
const POLL_FIRST: Duration = Duration::from_millis(50);
const POLL_LONGEST: Duration = Duration::from_millis(250);

/// Longest pause before a request contends for the lease, drawn at random.
const LONGEST_JITTER: Duration = Duration::from_millis(10);

/// Pause before a lease that could not be released is released again, and how often it is tried:
/// for the life of the lease.
const RELEASE_PAUSE: Duration = Duration::from_millis(250);
const RELEASE_TRIES: u32 = (LEASE_LIFE.as_millis() / RELEASE_PAUSE.as_millis()) as u32;

/// How often reading back a written lease is tried while the store fails.
const READ_BACK_TRIES: usize = 3;

/// Another request's lease, as a fetch has seen it. A lease that has not changed for its whole
/// life is over, whatever the clocks of its holder and of this host say. Times are
/// [uptimes](Ports::uptime), because the clock may step.
pub(super) struct Watch {
    /// When the fetch began.
    pub(super) started: Duration,
    seen: Cell<Option<(Lease, Duration)>>,
    /// Holder of the leases that this fetch has written. If the store then failed, one is still
    /// there, and no other request may take it.
    own: Cell<Option<u64>>,
    has_waited: Cell<bool>,
    next_pause: Cell<Duration>,
}

impl Watch {
    pub(super) fn begin(started: Duration) -> Self {
        Self {
            started,
            seen: Cell::default(),
            own: Cell::default(),
            has_waited: Cell::default(),
            next_pause: Cell::new(POLL_FIRST),
        }
    }

    /// The watch of a request that has held a lease, and goes on with its own ones.
    pub(super) fn begin_after(lease: Option<Lease>, started: Duration) -> Self {
        let watch = Self::begin(started);
        watch.own.set(lease.map(|lease| lease.holder));
        watch
    }

    pub(super) fn has_not_waited(&self) -> bool {
        !self.has_waited.get()
    }

    /// How long the fetch has lasted at an [uptime](Ports::uptime).
    pub(super) fn lasts(&self, uptime: Duration) -> Duration {
        uptime.saturating_sub(self.started)
    }

    fn lease(&self) -> Option<Lease> {
        self.seen.get().map(|(lease, _)| lease)
    }

    /// Time until a lease that was seen is over.
    fn left(&self, uptime: Duration) -> Option<Duration> {
        let (_, since) = self.seen.get()?;
        Some((since + LEASE_LIFE).saturating_sub(uptime))
    }

    /// Notes a lease that the store had at some time between two uptimes, and returns whether it is
    /// over.
    fn is_over(&self, lease: Lease, asked: Duration, answered: Duration) -> bool {
        if self.seen.get().is_none_or(|(seen, _)| seen != lease) {
            self.seen.set(Some((lease, answered)));
        }
        self.left(asked).is_some_and(|left| left.is_zero()) && mutation::holds(Rule::LeaseDeadline)
    }
}

pub(super) enum LeaseAttempt {
    Won(Lease),
    /// Another request holds the lease, for at most this long.
    Lost(Duration),
    NoStore,
}

impl<P: Ports> Broker<P> {
    /// Tries once to acquire the lease.
    pub(super) async fn acquire_lease(&self, config: &Config, watch: &Watch) -> LeaseAttempt {
        match self.bid_for_lease(config, watch).await {
            Ok(lease) => self.confirm_lease(config, watch, lease).await,
            Err(attempt) => attempt,
        }
    }

    /// The first half of Fischer's algorithm: writes a lease if it is free, and waits until the
    /// writes of all other contenders have landed.
    ///
    /// # Errors
    /// How the attempt ended if nothing was written.
    pub(super) async fn bid_for_lease(&self, config: &Config, watch: &Watch) -> Result<Lease, LeaseAttempt> {
        // A crowd that arrives at once must not write at once: the first write stops the others.
        self.ports.sleep(LONGEST_JITTER * u32::from(self.ports.random() as u8) / 255).await;
        let (began, started) = (self.ports.uptime(), self.ports.now());
        match self.remaining_lease(config, watch).await {
            Err(StoreFailed) => return Err(LeaseAttempt::NoStore),
            Ok(Some(remaining)) => return Err(LeaseAttempt::Lost(remaining)),
            Ok(None) => {}
        }
        let holder = watch.own.get().unwrap_or_else(|| self.ports.random());
        watch.own.set(Some(holder));
        let lease = Lease { holder, until_ms: started + LEASE_LIFE };
        if self.set(&lease_key(&config.identity), &lease.encode()).await.is_err() {
            return Err(LeaseAttempt::NoStore);
        }
        // A store that is slow for this request is slow for others as well: wait until their
        // writes have landed.
        let took = self.ports.uptime().saturating_sub(began).min(2 * STORE_LIMIT);
        self.ports.sleep(LEASE_WAIT.max(took * 2)).await;
        Ok(lease)
    }

    /// The second half of Fischer's algorithm: reads the lease back. It belongs to the contender
    /// that wrote last.
    pub(super) async fn confirm_lease(&self, config: &Config, watch: &Watch, lease: Lease) -> LeaseAttempt {
        if !mutation::holds(Rule::ReadBack) {
            return LeaseAttempt::Won(lease);
        }
        let bytes = lease.encode();
        // Giving up after the write would leave a lease without a holder, which blocks every
        // request until it expires.
        for _ in 0..READ_BACK_TRIES {
            match self.get_now(&lease_key(&config.identity)).await {
                Ok(Some(found)) if found == bytes => return LeaseAttempt::Won(lease),
                Ok(found) => {
                    let (winner, uptime) = (found.and_then(|found| Lease::decode(&found)), self.ports.uptime());
                    let _ = winner.is_some_and(|winner| watch.is_over(winner, uptime, uptime));
                    return LeaseAttempt::Lost(LEASE_LIFE);
                }
                Err(StoreFailed) if self.store_is_down() => break,
                Err(StoreFailed) => self.ports.sleep(LEASE_WAIT).await,
            }
        }
        LeaseAttempt::NoStore
    }

    /// The remaining time of another request's lease; `None` if the lease is free.
    pub(super) async fn remaining_lease(
        &self,
        config: &Config,
        watch: &Watch,
    ) -> Result<Option<Duration>, StoreFailed> {
        let asked = self.ports.uptime();
        let bytes = self.get(&lease_key(&config.identity)).await?.unwrap_or_default();
        if bytes.is_empty() {
            return Ok(None);
        }
        let Some(lease) = Lease::decode(&bytes) else {
            self.ports.warn("the store contains a lease that this version cannot read; it is treated as absent");
            return Ok(None);
        };
        if watch.own.get() == Some(lease.holder) {
            return Ok(None);
        }
        let now = self.ports.now();
        if lease.is_from_the_future(now) {
            self.warn_of_clock(now);
        }
        Ok(lease.remaining(now).filter(|_| !watch.is_over(lease, asked, self.ports.uptime())))
    }

    /// Pauses, and goes on pausing while another request keeps the lease that the fetch has seen,
    /// until the fetch has lasted for `longest`. Only the lease is read meanwhile, so a crowd that
    /// waits costs the store little.
    pub(super) async fn wait_for_change(&self, config: &Config, watch: &Watch, longest: Duration) {
        loop {
            let delay = watch.next_pause.get();
            let most = delay + delay * u32::from(self.ports.random() as u8) / 255;
            let left = watch.left(self.ports.uptime());
            self.ports.sleep(left.map_or(most, |left| left.clamp(POLL_SHORTEST, most))).await;
            watch.has_waited.set(true);
            watch.next_pause.set((delay * 2).min(POLL_LONGEST));
            let seen = watch.lease();
            if seen.is_none() || watch.lasts(self.ports.uptime()) >= longest {
                return;
            }
            let is_kept = matches!(self.remaining_lease(config, watch).await, Ok(Some(_))) && watch.lease() == seen;
            if !is_kept {
                return;
            }
        }
    }

    /// Whether this request still has the lease, by the store.
    pub(super) async fn still_holds(&self, config: &Config, lease: Lease) -> Result<bool, StoreFailed> {
        let found = self.get(&lease_key(&config.identity)).await?;
        Ok(!mutation::holds(Rule::ReadBack) || found.is_some_and(|found| found == lease.encode()))
    }

    /// Whether a write of the ledger that was given up may still land. Under the lease of another
    /// request it would erase the calls that this one has recorded.
    fn ledger_may_still_land(&self) -> bool {
        let is_recent = |at| self.ports.uptime().saturating_sub(at) < LEASE_LIFE;
        self.instance.store.ledger_given_up.get().is_some_and(is_recent)
    }

    /// Releases the lease, unless another request has it by now, or may have it before the write.
    /// The lease also stays, and expires, if a write of the ledger may still land.
    ///
    /// # Errors
    /// When the store fails. If nobody tries again, the lease expires automatically.
    pub(super) async fn release_lease(&self, config: &Config, lease: Lease) -> Result<(), StoreFailed> {
        let key = lease_key(&config.identity);
        let is_held = self.get(&key).await?.is_some_and(|found| found == lease.encode());
        if is_held && lease.permits_writes(self.ports.now()) && !self.ledger_may_still_land() {
            self.set(&key, &[]).await?;
        }
        Ok(())
    }

    /// Releases the lease as soon as the store allows it, because others wait for it.
    pub(super) async fn release_lease_patiently(&self, config: &Config, lease: Lease) {
        // Counted as well, because the clock may step back.
        for _ in 0..RELEASE_TRIES {
            if self.ledger_may_still_land()
                || !lease.permits_writes(self.ports.now())
                || self.release_lease(config, lease).await.is_ok()
            {
                return;
            }
            self.ports.sleep(RELEASE_PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{TestPorts, at, finish, wanted};
    use super::*;

    fn lease_until(seconds: u64) -> Vec<u8> {
        Lease { holder: 99, until_ms: at(seconds) }.encode()
    }

    /// Tries to acquire the lease on a store that contains `held`, with these outcomes of its
    /// operations.
    fn acquire(ports: &TestPorts, held: &[u8], outcomes: &[bool]) -> String {
        let config = wanted().config;
        let key = lease_key(&config.identity);
        ports.0.store.borrow_mut().insert(key.clone(), held.to_vec());
        ports.0.outcomes.replace(outcomes.iter().copied().collect());
        match finish(ports.broker().acquire_lease(&config, &Watch::begin(Duration::ZERO))) {
            LeaseAttempt::Won(lease) => {
                assert_eq!(ports.0.store.borrow()[&key], lease.encode());
                "won".to_owned()
            }
            LeaseAttempt::Lost(remaining) => format!("lost for {} s", remaining.as_secs()),
            LeaseAttempt::NoStore => "no store".to_owned(),
        }
    }

    #[test]
    fn lease_is_acquired_only_if_free_and_read_back() {
        let check = |held: &[u8], outcomes: &[bool], expected: &str| {
            assert_eq!(acquire(&TestPorts::default(), held, outcomes), expected, "{held:?} {outcomes:?}");
        };
        check(b"", &[], "won");
        check(&lease_until(5), &[], "lost for 10 s");
        check(&lease_until(0), &[], "lost for 5 s");
        check(b"garbage", &[], "won");
        // The operations: get, set, get. Each is tried twice.
        check(b"", &[false, true], "won");
        check(b"", &[false, false], "no store");
        check(b"", &[true, false, false], "no store");
        check(b"", &[true, true, false, false], "won");
        check(b"", &[true, true, false, false, false, false, false, false], "no store");
    }

    #[test]
    fn lease_that_does_not_change_for_its_life_is_over() {
        let (ports, config, watch) = (TestPorts::default(), wanted().config, Watch::begin(Duration::ZERO));
        let remaining = |held: Vec<u8>| {
            ports.0.store.borrow_mut().insert(lease_key(&config.identity), held);
            finish(ports.broker().remaining_lease(&config, &watch)).unwrap().is_some()
        };
        assert!(remaining(lease_until(11)));
        ports.0.seconds.set(10);
        assert!(remaining(lease_until(11)));
        ports.0.seconds.set(11);
        assert!(!remaining(lease_until(11)));
        assert!(remaining(lease_until(12)), "another one");
    }

    #[test]
    fn wall_clock_that_steps_makes_no_store_look_slow() {
        let (ports, config) = (TestPorts::default(), wanted().config);
        ports.0.sleep_takes_time.set(true);
        let stepping = ports.clone();
        ports.0.during_set.replace(Some(Box::new(move || stepping.0.clock_ahead.set(5))));
        assert!(finish(ports.broker().bid_for_lease(&config, &Watch::begin(Duration::ZERO))).is_ok());
        assert_eq!(ports.0.seconds.get(), 0, "seconds waited");
    }

    #[test]
    fn clock_that_is_more_than_5_s_ahead_is_told_once_a_minute() {
        let (ports, config) = (TestPorts::default(), wanted().config);
        let broker = ports.broker();
        let count = |seconds: u64, until: u64| {
            ports.0.seconds.set(seconds);
            ports.0.store.borrow_mut().insert(lease_key(&config.identity), lease_until(until));
            finish(broker.remaining_lease(&config, &Watch::begin(Duration::ZERO))).unwrap();
            ports.0.warnings.borrow().len()
        };
        assert_eq!(count(0, 16), 0);
        assert_eq!(count(0, 17), 1);
        assert_eq!(count(59, 80), 1);
        assert_eq!(count(60, 80), 2);
        assert!(ports.0.warnings.borrow()[0].contains("more than 5 s ahead"));
    }

    #[test]
    fn lease_overwritten_before_the_read_back_is_lost() {
        let ports = TestPorts::default();
        ports.0.written_during_sleep.replace(Some((lease_key(&wanted().config.identity), lease_until(10))));
        assert_eq!(acquire(&ports, b"", &[]), "lost for 11 s");
    }

    #[test]
    fn unreadable_lease_is_free_and_logged() {
        let ports = TestPorts::default();
        assert_eq!(acquire(&ports, b"garbage", &[]), "won");
        assert!(ports.0.warnings.borrow()[0].contains("a lease that this version cannot read"));
    }

    #[test]
    fn released_lease_is_emptied_unless_another_request_holds_it() {
        let lease = Lease { holder: 1, until_ms: at(11) };
        let check = |held: Vec<u8>, expected: Vec<u8>| {
            let ports = TestPorts::default();
            let config = wanted().config;
            let key = lease_key(&config.identity);
            ports.0.store.borrow_mut().insert(key.clone(), held);
            finish(ports.broker().release_lease(&config, lease)).unwrap();
            assert_eq!(ports.0.store.borrow()[&key], expected);
        };
        check(lease.encode(), Vec::new());
        check(lease_until(11), lease_until(11));
    }

    #[test]
    fn lease_that_the_store_does_not_release_is_released_when_it_works_again() {
        let lease = Lease { holder: 1, until_ms: at(11) };
        let (ports, config) = (TestPorts::default(), wanted().config);
        let key = lease_key(&config.identity);
        ports.0.store.borrow_mut().insert(key.clone(), lease.encode());
        ports.0.sleep_takes_time.set(true);
        // A get succeeds, a set fails twice; then the instance leaves the store alone for 2 s.
        ports.0.outcomes.replace([true, false, false].into());
        finish(ports.broker().release_lease_patiently(&config, lease));
        assert_eq!(ports.0.store.borrow()[&key], b"");
        assert!(ports.0.seconds.get() <= 3, "{} s", ports.0.seconds.get());
        // A store that stays down costs no more than the lease.
        ports.0.store.borrow_mut().insert(key.clone(), lease.encode());
        ports.0.outcomes.replace(vec![false; 1000].into());
        finish(ports.broker().release_lease_patiently(&config, lease));
        assert_eq!(ports.0.store.borrow()[&key], lease.encode());
    }

    #[test]
    fn lease_that_a_fetch_could_not_read_back_is_free_for_it_and_for_no_other() {
        let (ports, config, watch) = (TestPorts::default(), wanted().config, Watch::begin(Duration::ZERO));
        // The operations: get, set, and a get that fails three times, twice each.
        ports.0.outcomes.replace([&[true; 2][..], &[false; 6]].concat().into());
        let broker = ports.broker();
        assert!(matches!(finish(broker.acquire_lease(&config, &watch)), LeaseAttempt::NoStore));
        ports.0.seconds.set(2);
        assert!(matches!(
            finish(ports.broker().acquire_lease(&config, &Watch::begin(Duration::from_secs(2)))),
            LeaseAttempt::Lost(_)
        ));
        assert!(matches!(finish(broker.acquire_lease(&config, &watch)), LeaseAttempt::Won(_)));
    }
}
