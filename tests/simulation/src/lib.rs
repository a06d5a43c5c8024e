//! The real core in a simulated world: many instances, one store, one OfficeRnD, virtual time, and faults, all drawn
//! from a seed.
//!
//! Time is tokio's paused clock: it jumps to the next timer whenever nothing can run, so a day takes seconds, and a seed
//! replays to the same end. A write that is on its way lands even if who wrote it is killed; a call that is on its way
//! arrives.

mod kills;
mod officernd;
mod ports;
mod world;

use std::num::NonZero;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use officernd_token_broker::mutation::{Rule, break_rule};
use tokio::task::LocalSet;

pub use kills::{Deaths, Victim, die_at_each_await};
pub use officernd::Mood;
pub use world::{Report, World};

/// What a run looks like. Everything else follows from the seed.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Draws latencies, requests and faults.
    pub seed: u64,
    /// The rule of the gate that is broken on purpose.
    pub broken: Option<Rule>,
    /// How many component instances take requests.
    pub instances: usize,
    /// How many sets of scopes are asked for.
    pub scope_sets: usize,
    /// How long a token lives.
    pub token_life: Duration,
    /// `min_remaining_seconds`.
    pub min_remaining: Duration,
    /// Whether OfficeRnD hands out the token it has until that ends.
    pub reissues: bool,
    /// How long requests and faults go on.
    pub eventful: Duration,
    /// The pause between two requests, on average.
    pub pause: Duration,
    /// What goes wrong.
    pub faults: Faults,
}

/// Which kinds of faults a run has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// OfficeRnD is down, hangs, limits, answers garbage, refuses.
    pub upstream: bool,
    /// The store fails, sometimes or always, is slow, loses or corrupts values.
    pub store: bool,
    /// Instances are killed at whatever await they are.
    pub kills: bool,
    /// Clocks step by some seconds.
    pub clocks: bool,
    /// Many requests come at one moment.
    pub crowds: bool,
}

impl Scenario {
    /// The scenario of a seed: every kind of fault comes alone, in pairs, and all together.
    pub fn of(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let (token_life, min_remaining) =
            random.choice([(3600, 300), (900, 300), (600, 120), (200, 60)]).expect("four");
        Self {
            seed,
            broken: None,
            instances: random.usize(1..=8),
            scope_sets: random.usize(1..=5),
            token_life: Duration::from_secs(token_life),
            min_remaining: Duration::from_secs(min_remaining),
            reissues: random.bool(),
            eventful: Duration::from_secs(random.u64(120..=900)),
            pause: Duration::from_millis(random.u64(300..=5000)),
            faults: Faults {
                upstream: random.bool(),
                store: random.u8(..) < 85,
                kills: random.bool(),
                clocks: random.u8(..) < 85,
                crowds: random.bool(),
            },
        }
    }

    /// Plays it.
    ///
    /// # Errors
    /// The first invariant that did not hold, with the virtual time at which it was seen.
    pub fn run(&self) -> Result<Report, String> {
        in_virtual_time(self.broken, || Rc::new(World::new(self.clone())).play())
    }
}

fn in_virtual_time<T, F>(broken: Option<Rule>, play: impl FnOnce() -> F) -> Result<T, String>
where
    F: Future<Output = Result<T, String>>,
{
    break_rule(broken);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(|error| format!("no runtime: {error}"))?;
    let outcome = LocalSet::new().block_on(&runtime, async { play().await });
    break_rule(None);
    outcome
}

/// A fleet of jobs at work, with nothing going wrong.
#[derive(Clone, Debug)]
pub struct Fleet {
    scenario: Scenario,
    jobs: usize,
}

/// What a fleet's work came to.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Requests, each of which got a token or was told when.
    pub requests: usize,
    /// Answers with a token.
    pub tokens: usize,
    /// Calls to OfficeRnD.
    pub calls: usize,
    /// The fewest calls possible: one per scope set and usable life.
    pub least: f64,
}

impl Fleet {
    /// 50 jobs of 5 scope sets, each asking once a minute, on 8 instances, for 24 hours of a token life of an hour.
    pub fn day() -> Self {
        let scenario = Scenario {
            seed: 1,
            broken: None,
            instances: 8,
            scope_sets: 5,
            token_life: Duration::from_secs(3600),
            min_remaining: Duration::from_secs(300),
            reissues: false,
            eventful: Duration::from_secs(24 * 3600),
            pause: Duration::ZERO,
            faults: Faults::default(),
        };
        Self { scenario, jobs: 50 }
    }

    /// Lets it work.
    ///
    /// # Errors
    /// The first invariant that did not hold.
    pub fn run(&self) -> Result<Work, String> {
        let report = in_virtual_time(None, || Rc::new(World::new(self.scenario.clone())).employ(self.jobs))?;
        let usable = self.scenario.token_life - self.scenario.min_remaining;
        let lives = self.scenario.eventful.as_secs_f64() / usable.as_secs_f64();
        Ok(Work {
            requests: report.answered,
            tokens: report.tokens,
            calls: report.calls,
            least: lives * self.scenario.scope_sets as f64,
        })
    }
}

impl Work {
    /// How many times the fewest possible calls there were.
    pub fn ratio(&self) -> f64 {
        self.calls as f64 / self.least
    }
}

/// Plays many seeds, on as many threads as there are cores.
///
/// # Errors
/// The violation of the lowest seed that has one, and how to replay it.
pub fn play_seeds(seeds: Range<u64>, broken: Option<Rule>) -> Result<Report, String> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get) as u64;
    let outcomes = std::thread::scope(|scope| {
        let seeds = &seeds;
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                scope.spawn(move || {
                    let mut total = Report::default();
                    for seed in (seeds.start + worker..seeds.end).step_by(threads as usize) {
                        let scenario = Scenario { broken, ..Scenario::of(seed) };
                        let report = scenario.run().map_err(|violation| {
                            (seed, format!("seed {seed}: {violation}\n{scenario:?}\nreplay: cargo run --package simulation --example play -- {seed} 1"))
                        })?;
                        total += report;
                    }
                    Ok(total)
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker does not panic")).collect::<Vec<_>>()
    });
    let mut total = Report::default();
    let mut violations = Vec::new();
    for outcome in outcomes {
        match outcome {
            Ok(report) => total += report,
            Err(violation) => violations.push(violation),
        }
    }
    match violations.into_iter().min() {
        None => Ok(total),
        Some((_, violation)) => Err(violation),
    }
}
