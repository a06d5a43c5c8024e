//! Faults: when each begins and ends, and what the store and the network do meanwhile.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::World;
use crate::officernd::Mood;

/// Largest error of a clock, in milliseconds: two clocks may be 5 s apart, or one before and after
/// a step.
pub(super) const LARGEST_STEP: i64 = 2500;

/// Behaviour of the store at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoreMood {
    Sound,
    Fails,
    FailsSometimes,
    Slow,
    Sluggish,
    ReadOnly,
}

impl World {
    /// Runs faults one after another with pauses. All have ended when the eventful time has.
    pub(super) async fn run_faults(self: Rc<Self>) {
        let end = self.started + self.scenario.eventful;
        let faults = self.scenario.faults;
        loop {
            sleep(self.between(Duration::from_secs(2), Duration::from_secs(60))).await;
            let lasts = self.between(Duration::from_secs(1), Duration::from_secs(90));
            if Instant::now() + lasts >= end {
                sleep_until(end).await;
                return;
            }
            match self.below(10) {
                0..=3 if faults.upstream => {
                    let moods = [
                        Mood::Down,
                        Mood::Hangs,
                        Mood::Garbage,
                        Mood::Limits(None),
                        Mood::Limits(Some(20)),
                        Mood::RefusesCredential,
                        Mood::Unreachable,
                    ];
                    self.officernd.borrow_mut().mood = moods[self.below(moods.len())];
                    self.trace(|| format!("OfficeRnD: {:?} for {lasts:?}", self.officernd.borrow().mood));
                    sleep(lasts).await;
                    self.officernd.borrow_mut().mood = Mood::Well;
                }
                4..=5 if faults.store => {
                    let moods = [
                        StoreMood::Fails,
                        StoreMood::FailsSometimes,
                        StoreMood::Slow,
                        StoreMood::Sluggish,
                        StoreMood::ReadOnly,
                    ];
                    self.store_mood.set(moods[self.below(moods.len())]);
                    self.trace(|| format!("store: {:?} for {lasts:?}", self.store_mood.get()));
                    sleep(lasts).await;
                    self.store_mood.set(StoreMood::Sound);
                    self.store_unsound_at.set(Some(Instant::now()));
                }
                6 if faults.store => {
                    self.damage_the_store();
                    self.trace(|| "the store is damaged".to_owned());
                    self.store_unsound_at.set(Some(Instant::now()));
                }
                7..=8 if faults.kills => self.kill(self.pick_place()),
                9 if faults.clocks => {
                    let offset = self.random.borrow_mut().i64(-LARGEST_STEP..=LARGEST_STEP);
                    self.places.borrow_mut()[self.pick_place()].clock_offset = offset;
                    self.clock_stepped_at.set(Some(Instant::now()));
                }
                _ => {}
            }
        }
    }

    fn damage_the_store(&self) {
        let mut store = self.store.borrow_mut();
        let keys: Vec<_> = store.keys().cloned().collect();
        if keys.is_empty() {
            return;
        }
        if self.chance(25) {
            return store.clear();
        }
        let key = keys[self.below(keys.len())].clone();
        let length = self.below(80);
        let garbage = (0..length).map(|_| self.random.borrow_mut().u8(..)).collect();
        store.insert(key, garbage);
    }

    pub(super) fn store_was_sound_since(&self, then: Instant) -> bool {
        self.store_mood.get() == StoreMood::Sound && self.store_unsound_at.get().is_none_or(|at| at < then)
    }

    /// Returns how far a clock may be from the true time.
    pub(super) fn clock_slack(&self) -> Duration {
        if self.clock_stepped_at.get().is_some() { Duration::from_millis(LARGEST_STEP as u64) } else { Duration::ZERO }
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.store_mood.get() == StoreMood::ReadOnly
    }

    /// Draws how long an operation takes to the store and back, or fails. A healthy store needs
    /// less than Fischer's 50 ms for both.
    pub(crate) fn store_latency(&self) -> Result<(Duration, Duration), String> {
        match self.store_mood.get() {
            StoreMood::Fails => return Err("the simulated store fails".into()),
            StoreMood::FailsSometimes if self.chance(50) => return Err("the simulated store fails sometimes".into()),
            StoreMood::Slow => return Ok((Duration::from_secs(1), Duration::from_secs(1))),
            // Slower than Fischer's condition allows, but faster than a timeout.
            StoreMood::Sluggish => {
                let leg = Duration::from_millis(400);
                return Ok((self.between(Duration::ZERO, leg), self.between(Duration::ZERO, leg)));
            }
            StoreMood::Sound | StoreMood::FailsSometimes | StoreMood::ReadOnly => {}
        }
        let leg = Duration::from_millis(10);
        Ok((self.between(Duration::ZERO, leg), self.between(Duration::ZERO, leg)))
    }

    /// Draws an extra delay before a read, as a busy store may have. The read still returns the
    /// newest value, so Fischer's condition holds, but much may have happened since the
    /// previous read.
    pub(crate) fn delay_of_a_read(&self) -> Duration {
        // Not where a fetch is dropped at each await: the request to be dropped must lead it.
        let is_eventful = !self.scenario.eventful.is_zero();
        if is_eventful && self.chance(3) {
            self.between(Duration::ZERO, Duration::from_millis(300))
        } else {
            Duration::ZERO
        }
    }

    pub(crate) fn upstream_latency(&self) -> (Duration, Duration) {
        let leg = Duration::from_millis(400);
        (self.between(Duration::from_millis(10), leg), self.between(Duration::from_millis(10), leg))
    }
}
