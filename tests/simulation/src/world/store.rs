//! The store that all instances share, and its troubles.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::{Instant, sleep_until};

use super::World;
use super::hosts::Running;
use super::operations::STORE_LIMIT;
use crate::ports::Simulated;

/// How long SQLite waits for a lock. Under Spin it blocks the whole instance meanwhile.
pub(super) const BUSY_WAIT: Duration = Duration::from_secs(5);

/// Age of a lease that is acquired although nobody has released it. Contenders overwrite each
/// other's within seconds.
const DEAD_LEASE: Duration = Duration::from_secs(9);

/// The troubles of the store at a moment. Several may come together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Troubles {
    /// Percentage of the operations that fail at once, and after some time.
    fails: u8,
    fails_late: u8,
    /// Number of operations that succeed in a second. All others fail at once.
    throttle: Option<usize>,
    /// Longest time of an operation to the store, and of its answer back.
    slow: Option<Duration>,
    /// Percentage of the operations that take seconds.
    stalls: u8,
    /// Percentage of the writes that succeed and are lost.
    loses: u8,
    /// Percentage of the writes that fail although they have landed.
    denies: u8,
    refuses_reads: bool,
    refuses_writes: bool,
    /// Another process holds the file of the store until the end of the troubles, or at this
    /// percentage of the operations. An operation then blocks its whole instance.
    is_locked: bool,
    locks: u8,
    /// The only host that has these troubles.
    only_host: Option<usize>,
}

/// Values, and what happens to operations.
#[derive(Default)]
pub(super) struct Store {
    /// Values, and when each was written.
    pub(super) values: RefCell<BTreeMap<String, (Vec<u8>, Instant)>>,
    troubles: Cell<Troubles>,
    /// End of the present troubles.
    troubled_until: Cell<Option<Instant>>,
    /// When an operation was last in trouble, and a read.
    unsound_at: Cell<Option<Instant>>,
    unreadable_at: Cell<Option<Instant>>,
    /// When it last lost a value.
    damaged_at: Cell<Option<Instant>>,
    /// When a request last acquired the lease of a holder that had not released it.
    taken_over_at: Cell<Option<Instant>>,
    /// Second since the start, and the operations that succeeded in it.
    throttled: Cell<(u64, usize)>,
}

/// What an operation does to a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
}

impl Store {
    fn in_trouble(&self) -> bool {
        self.troubles.get() != Troubles::default()
    }

    /// Whether every operation since then has done what it should.
    pub(super) fn is_sound_since(&self, then: Instant) -> bool {
        !self.in_trouble() && self.unsound_at.get().is_none_or(|at| at < then)
    }

    /// Whether it has lost a value since then.
    pub(super) fn is_damaged_since(&self, then: Instant) -> bool {
        self.damaged_at.get().is_some_and(|at| at >= then)
    }

    /// Whether every read since then has done what it should.
    pub(super) fn is_readable_since(&self, then: Instant) -> bool {
        !self.troubles.get().concern_reads() && self.unreadable_at.get().is_none_or(|at| at < then)
    }

    /// Whether since then no lease without a living holder has kept all others from writing.
    pub(super) fn is_accessible_since(&self, then: Instant) -> bool {
        self.taken_over_at.get().is_none_or(|at| at < then)
    }

    fn insert(&self, key: String, value: Vec<u8>, is_lease: bool) {
        let now = Instant::now();
        let previous = self.values.borrow_mut().insert(key, (value.clone(), now));
        if let Some((lease, since)) = previous
            && is_lease
            && !lease.is_empty()
            && !value.is_empty()
            && now - since >= DEAD_LEASE
        {
            self.taken_over_at.set(Some(now));
        }
    }

    /// Notes that operations are in trouble until a time.
    fn note_unsound(&self, until: Instant, concerns_reads: bool) {
        self.unsound_at.set(self.unsound_at.get().max(Some(until)));
        if concerns_reads {
            self.unreadable_at.set(self.unreadable_at.get().max(Some(until)));
        }
    }
}

impl Troubles {
    fn concern_reads(self) -> bool {
        Self { loses: 0, denies: 0, refuses_writes: false, only_host: None, ..self } != Self::default()
    }

    /// The troubles of an operation from a host.
    fn on(self, host: usize) -> Self {
        if self.only_host.is_none_or(|only| only == host) { self } else { Self::default() }
    }
}

impl World {
    /// Gives the store one to three troubles until `end`.
    pub(super) fn trouble_the_store(&self, end: Instant) {
        let mut troubles = Troubles { only_host: self.chance(25).then(|| self.pick_host()), ..Troubles::default() };
        for _ in 0..=self.below(3) {
            match self.below(13) {
                0 => troubles.fails = 100,
                1 => troubles.fails = 50,
                2 => troubles.throttle = Some(1 + self.below(60)),
                // A deadline ends these.
                3 => troubles.slow = Some(Duration::from_millis(2000)),
                // Slower than Fischer's condition allows, but faster than a deadline.
                4 => troubles.slow = Some(Duration::from_millis(400)),
                5 => troubles.stalls = 30,
                6 => (troubles.loses, troubles.denies) = if self.chance(50) { (20, 0) } else { (0, 20) },
                7 => troubles.refuses_reads = true,
                8 => troubles.refuses_writes = true,
                9 | 10 => troubles.locks = 4,
                11 => troubles.fails_late = 50,
                _ => troubles.is_locked = true,
            }
        }
        self.trace(|| format!("store: {troubles:?} until {:?}", end - self.started));
        self.store.troubles.set(troubles);
        self.store.troubled_until.set(Some(end));
    }

    pub(super) fn mend_the_store(&self) {
        let was = self.store.troubles.replace(Troubles::default());
        self.store.note_unsound(Instant::now(), was.concern_reads());
        self.trace(|| "the store works again".to_owned());
    }

    /// Clears the store, or puts garbage into a value.
    pub(super) fn damage_the_store(&self) {
        self.store.note_unsound(Instant::now(), true);
        self.store.damaged_at.set(Some(Instant::now()));
        let mut values = self.store.values.borrow_mut();
        let keys: Vec<_> = values.keys().cloned().collect();
        if keys.is_empty() {
            return;
        }
        if self.chance(25) {
            self.trace(|| "the store is cleared".to_owned());
            self.forgive_all();
            return values.clear();
        }
        let key = keys[self.below(keys.len())].clone();
        if key == self.ledger_key {
            self.forgive_all();
        }
        self.trace(|| format!("the store has garbage in {key}"));
        let length = self.below(80);
        let garbage = (0..length).map(|_| self.random.borrow_mut().u8(..)).collect();
        values.insert(key, (garbage, Instant::now()));
    }

    /// Draws how long an operation takes to the store and back, or lets it fail at once. A sound
    /// store needs less than Fischer's 50 ms for both.
    fn reach_store(&self, kind: Kind, ports: &Simulated) -> Result<(Duration, Duration), &'static str> {
        let running = &ports.running;
        let troubles = self.store.troubles.get().on(running.host);
        let lock = self.lock_until(troubles, running);
        if let Some(end) = lock {
            let patience = running.now() + BUSY_WAIT;
            running.block_until(patience.min(end), &ports.journey);
            self.store.note_unsound(running.now(), true);
            self.trace(|| format!("instance {} is blocked until {:?}", running.number, running.now() - self.started));
            if patience < end {
                return Err("the simulated store is locked");
            }
        }
        if self.chance(troubles.fails) {
            return Err("the simulated store fails");
        }
        match kind {
            Kind::Read if troubles.refuses_reads => return Err("the simulated store refuses reads"),
            Kind::Write if troubles.refuses_writes => return Err("the simulated store refuses writes"),
            _ => {}
        }
        if let Some(most) = troubles.throttle {
            let (second, count) = self.store.throttled.get();
            let now = self.started.elapsed().as_secs();
            let count = if second == now { count } else { 0 };
            if count >= most {
                return Err("the simulated store has too many requests");
            }
            self.store.throttled.set((now, count + 1));
        }
        if lock.is_some() {
            // The instance goes on with the outcome.
            return Ok((Duration::ZERO, Duration::ZERO));
        }
        let leg = troubles.slow.unwrap_or(Duration::from_millis(10));
        let mut legs = (self.between(Duration::ZERO, leg), self.between(Duration::ZERO, leg));
        if kind == Kind::Read {
            legs.0 += self.delay_of_a_read();
        }
        if self.chance(troubles.stalls) {
            let stall = self.between(Duration::from_millis(800), Duration::from_secs(5));
            let stalled = if self.chance(50) { &mut legs.0 } else { &mut legs.1 };
            *stalled += stall;
        }
        Ok(legs)
    }

    /// The end of a lock that an operation meets now.
    fn lock_until(&self, troubles: Troubles, running: &Running) -> Option<Instant> {
        let now = running.now();
        // After one block the core would not begin the next operation.
        if self.chance(troubles.locks) && !running.is_ahead() {
            return Some(now + self.between(Duration::from_millis(100), BUSY_WAIT * 5 / 4));
        }
        self.store.troubled_until.get().filter(|end| troubles.is_locked && now < *end)
    }

    /// Draws an extra delay before a read, as a busy store may have. The read still returns the
    /// newest value, so Fischer's condition holds, but much may have happened since the
    /// previous read.
    fn delay_of_a_read(&self) -> Duration {
        // Not where a fetch is dropped at each await: the request to be dropped must lead it.
        let is_eventful = !self.scenario.eventful.is_zero();
        if is_eventful && self.chance(3) {
            self.between(Duration::ZERO, Duration::from_millis(300))
        } else {
            Duration::ZERO
        }
    }
}

impl Simulated {
    pub(crate) async fn read(&self, key: &str) -> Result<Option<Vec<u8>>, &'static str> {
        let (there, back) = self.world.reach_store(Kind::Read, self)?;
        let arrival = self.running.now() + there;
        sleep_until(arrival).await;
        let value = self.world.store.values.borrow().get(key).map(|(value, _)| value.clone());
        sleep_until(arrival + back).await;
        self.fail_late().await?;
        Ok(value)
    }

    /// Lets an operation fail after some time.
    async fn fail_late(&self) -> Result<(), &'static str> {
        let troubles = self.world.store.troubles.get().on(self.running.host);
        if !self.world.chance(troubles.fails_late) {
            return Ok(());
        }
        sleep_until(self.running.now() + self.world.between(Duration::ZERO, STORE_LIMIT)).await;
        Err("the simulated store fails late")
    }

    pub(crate) async fn write(&self, key: &str, value: &[u8]) -> Result<(), &'static str> {
        let (there, back) = self.world.reach_store(Kind::Write, self)?;
        self.fail_late().await?;
        let troubles = self.world.store.troubles.get().on(self.running.host);
        let (is_lost, is_denied) = (self.world.chance(troubles.loses), self.world.chance(troubles.denies));
        let arrival = self.running.now() + there;
        let was_in_trouble = self.world.store.in_trouble();
        let (this, key, value) = (self.clone(), key.to_owned(), value.to_vec());
        // The write lands even if the request is dropped or has given up.
        let landing = spawn_local(async move {
            sleep_until(arrival).await;
            let world = &this.world;
            if was_in_trouble {
                world.store.note_unsound(Instant::now(), false);
            }
            if key == world.ledger_key {
                world.note_record(&this, is_lost);
            }
            world.trace(|| format!("instance {}: {key} lands with {} bytes", this.running.number, value.len()));
            if is_lost {
                world.store.damaged_at.set(Some(Instant::now()));
            } else {
                let is_lease = key == world.lease_key;
                world.store.insert(key, value, is_lease);
            }
        });
        landing.await.map_err(|_| "the world has ended")?;
        sleep_until(arrival + back).await;
        if is_denied { Err("the simulated store denies a write") } else { Ok(()) }
    }
}
