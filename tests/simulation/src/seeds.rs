//! Runs scenarios in virtual time, and many seeds on all cores.

use std::num::NonZero;
use std::ops::Range;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use officernd_token_broker::mutation::{Rule, break_rule};
use tokio::task::LocalSet;

use crate::scenario::Scenario;
use crate::world::{Report, World};

impl Scenario {
    /// Runs the scenario.
    ///
    /// # Errors
    /// The first broken invariant, with its virtual time.
    pub fn run(&self) -> Result<Report, String> {
        in_virtual_time(self.broken, || Rc::new(World::new(self.clone())).play())
    }
}

pub(crate) fn in_virtual_time<T, F>(broken: Option<Rule>, play: impl FnOnce() -> F) -> Result<T, String>
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

/// Runs many seeds, on as many threads as the machine has cores.
///
/// # Errors
/// The broken invariant of the lowest failing seed, and the command that replays it.
pub fn play_seeds(seeds: Range<u64>, broken: Option<Rule>) -> Result<Report, String> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get) as u64;
    // No thread needs to go beyond the lowest failing seed so far.
    let lowest = AtomicU64::new(seeds.end);
    let play_every = |first: u64| {
        let mut total = Report::default();
        for seed in
            (first..seeds.end).step_by(threads as usize).take_while(|seed| *seed < lowest.load(Ordering::Relaxed))
        {
            let scenario = Scenario { broken, ..Scenario::of(seed) };
            total += scenario.run().map_err(|violation| {
                lowest.fetch_min(seed, Ordering::Relaxed);
                let replay = "cargo run --package simulation --example play --";
                let rule = broken.map(|rule| format!(" {rule:?}")).unwrap_or_default();
                (seed, format!("seed {seed}: {violation}\n{scenario:?}\nreplay: {replay} {seed} 1{rule}"))
            })?;
        }
        Ok(total)
    };
    let outcomes: Vec<Result<Report, (u64, String)>> = std::thread::scope(|scope| {
        let play_every = &play_every;
        let workers: Vec<_> =
            (0..threads).map(|worker| scope.spawn(move || play_every(seeds.start + worker))).collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker does not panic")).collect()
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
