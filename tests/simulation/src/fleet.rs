//! A fleet of jobs without any faults, and how many calls it needs.

use std::rc::Rc;
use std::time::Duration;

use crate::scenario::{Reuse, Scenario};
use crate::seeds::in_virtual_time;
use crate::world::World;

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
            hosts: 8,
            reuse: Reuse::Kept(1),
            callers: 5,
            eventful: Duration::from_secs(24 * 3600),
            ..Scenario::calm(1)
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
            least: lives * self.scenario.callers as f64,
        })
    }
}

impl Work {
    /// Returns the calls relative to the fewest possible.
    pub fn ratio(&self) -> f64 {
        self.calls as f64 / self.least
    }
}
