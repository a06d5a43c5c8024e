//! Faults: when each begins and ends, and what the network does.

use std::rc::Rc;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, sleep, sleep_until};

use super::World;
use super::variables::{Policy, Provider};
use crate::officernd::Mood;

/// Largest error of a clock, in milliseconds: two clocks may be 5 s apart, or one before and after
/// a step.
pub(super) const LARGEST_ERROR: i64 = 2500;

/// A kind of faults, which come one after another with pauses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sequence {
    OfficeRnd,
    Store,
    Variables,
    Kills,
    Clocks,
}

impl World {
    /// Starts the faults of each kind. All have ended when the eventful time has.
    pub(super) fn run_faults(self: &Rc<Self>) -> Vec<JoinHandle<()>> {
        let faults = self.scenario.faults;
        [
            (faults.upstream, Sequence::OfficeRnd),
            (faults.store, Sequence::Store),
            (faults.variables, Sequence::Variables),
            (faults.kills, Sequence::Kills),
            (faults.clocks, Sequence::Clocks),
        ]
        .into_iter()
        .filter(|(occurs, _)| *occurs)
        .map(|(_, sequence)| spawn_local(self.clone().run_sequence(sequence)))
        .collect()
    }

    async fn run_sequence(self: Rc<Self>, sequence: Sequence) {
        let end = self.started + self.scenario.eventful;
        if sequence == Sequence::Clocks {
            self.set_clocks();
        }
        loop {
            sleep(self.between(Duration::from_secs(2), Duration::from_secs(100))).await;
            let lasts = self.between(Duration::from_secs(1), Duration::from_secs(60));
            if Instant::now() + lasts >= end {
                return sleep_until(end).await;
            }
            match sequence {
                Sequence::OfficeRnd => self.trouble_officernd(lasts).await,
                Sequence::Store if self.chance(15) => self.damage_the_store(),
                Sequence::Store => {
                    self.trouble_the_store(Instant::now() + lasts);
                    // A network in trouble concerns both.
                    let is_network = self.scenario.faults.upstream && self.chance(50);
                    if is_network {
                        self.set_mood(Mood::Slow);
                    }
                    sleep(lasts).await;
                    self.mend_the_store();
                    if is_network {
                        self.set_mood(Mood::Well);
                    }
                }
                Sequence::Variables => self.trouble_the_variables(lasts).await,
                Sequence::Kills => self.kill_something(),
                Sequence::Clocks => self.step_a_clock(self.pick_host()),
            }
        }
    }

    async fn trouble_officernd(&self, lasts: Duration) {
        let moods = [
            Mood::Down,
            Mood::Hangs,
            Mood::Slow,
            Mood::Garbage,
            Mood::Limits(None),
            Mood::Limits(Some(20)),
            Mood::RefusesCredential,
            Mood::Unreachable,
        ];
        self.set_mood(moods[self.below(moods.len())]);
        sleep(lasts).await;
        self.set_mood(Mood::Well);
    }

    fn set_mood(&self, mood: Mood) {
        self.trace(|| format!("OfficeRnD: {mood:?}"));
        self.officernd.borrow_mut().mood = mood;
    }

    async fn trouble_the_variables(&self, lasts: Duration) {
        let caller = self.below(self.scenario.callers);
        match self.below(10) {
            0 => self.set_provider(Provider::Fails),
            1 => self.set_provider(Provider::FailsSometimes(30)),
            2 => self.set_provider(Provider::Hangs),
            3 => self.set_provider(Provider::Slow),
            4 => self.set_policy(Policy::Nonsense),
            5 => self.set_policy(Policy::MistakeInApplication),
            6 => self.set_policy(Policy::Twice(caller)),
            7 => {
                self.set_policy(Policy::MistakeIn(caller));
                self.set_provider(Provider::Slow);
            }
            _ => self.set_policy(Policy::MistakeIn(caller)),
        }
        sleep(lasts).await;
        self.set_policy(Policy::Sound);
        self.set_provider(Provider::Well);
    }

    /// Gives each host a clock of its own.
    fn set_clocks(&self) {
        for host in 0..self.hosts.len() {
            self.step_a_clock(host);
        }
    }

    fn step_a_clock(&self, host: usize) {
        let offset = self.random.borrow_mut().i64(-LARGEST_ERROR..=LARGEST_ERROR);
        let host = &self.hosts[host];
        host.clock_offset.set(offset);
        host.clock_stepped_at.set(Some(Instant::now()));
        self.trace(|| format!("a clock is wrong by {offset} ms"));
    }

    pub(crate) fn upstream_latency(&self) -> (Duration, Duration) {
        let (shortest, leg) = (Duration::from_millis(10), Duration::from_millis(400));
        let back = match self.officernd.borrow().mood {
            Mood::Slow => self.between(Duration::from_secs(2), Duration::from_secs(8)),
            _ => self.between(shortest, leg),
        };
        (self.between(shortest, leg), back)
    }
}
