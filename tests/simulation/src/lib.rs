//! Simulation: the real core in a made-up world with many instances, one store, one OfficeRnD,
//! virtual time, and faults, all drawn from a seed.
//!
//! Time is tokio's paused clock. It jumps to the next timer when no task can run, so a day
//! takes seconds, and a seed always replays the same run. A write in progress reaches the store
//! even if its instance is killed, and a call in progress reaches OfficeRnD.

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

/// Parameters of a run. Everything else follows from the seed.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Seed from which latencies, requests and faults are drawn.
    pub seed: u64,
    /// Rule of the gate that is switched off.
    pub broken: Option<Rule>,
    /// Number of instances.
    pub instances: usize,
    /// Number of scope sets that requests ask for.
    pub scope_sets: usize,
    /// Lifetime of a token.
    pub token_life: Duration,
    /// The variable `min_remaining_seconds`.
    pub min_remaining: Duration,
    /// Whether OfficeRnD returns the same token until it expires.
    pub reissues: bool,
    /// How long requests and faults continue.
    pub eventful: Duration,
    /// Average pause between two requests.
    pub pause: Duration,
    /// Kinds of faults that occur.
    pub faults: Faults,
}

/// The kinds of faults of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// OfficeRnD is down, hangs, limits, answers garbage or refuses the credential.
    pub upstream: bool,
    /// The store fails sometimes or always, is slow, or loses or corrupts values.
    pub store: bool,
    /// Instances are killed at any await.
    pub kills: bool,
    /// Clocks step by up to 3 s.
    pub clocks: bool,
    /// Many requests arrive at the same moment.
    pub crowds: bool,
}

impl Scenario {
    /// Returns the scenario of a seed. Over many seeds, every kind of fault occurs alone, in
    /// pairs, and with all others.
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

    /// Runs the scenario.
    ///
    /// # Errors
    /// The first broken invariant, with its virtual time.
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

/// A fleet of jobs without any faults.
#[derive(Clone, Debug)]
pub struct Fleet {
    scenario: Scenario,
    jobs: usize,
}

/// Result of a fleet's work.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Requests; each got a token or `Retry-After`.
    pub requests: usize,
    /// Answers with a token.
    pub tokens: usize,
    /// Calls to OfficeRnD.
    pub calls: usize,
    /// The fewest possible calls: one per scope set and usable lifetime.
    pub least: f64,
}

impl Fleet {
    /// Returns a fleet of 50 jobs with 5 scope sets on 8 instances. Each job sends a request
    /// per minute for 24 hours, and tokens live an hour.
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

    /// Runs the fleet.
    ///
    /// # Errors
    /// The first broken invariant.
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
    /// Returns the calls relative to the fewest possible.
    pub fn ratio(&self) -> f64 {
        self.calls as f64 / self.least
    }
}

/// Runs many seeds, on as many threads as the machine has cores.
///
/// # Errors
/// The broken invariant of the lowest failing seed, and the command that replays it.
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
