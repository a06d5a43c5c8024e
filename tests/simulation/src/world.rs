//! The world: hosts with instances, clocks, the store, the variables, OfficeRnD and the callers.

mod answers;
mod calls;
mod faults;
mod hosts;
mod operations;
mod requests;
mod seen;
mod store;
mod variables;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use officernd_token_broker::config::Config;
use officernd_token_broker::gate::{lease_key, ledger_key};
use officernd_token_broker::time::Timestamp;
use officernd_token_broker::token::Key;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, sleep_until};

use self::hosts::Host;
use self::requests::scopes_of;
use self::store::Store;
use self::variables::Variables;
use crate::officernd::{Call, OfficeRnd, WINDOW};
use crate::scenario::Scenario;

pub(crate) use self::hosts::Running;
pub(crate) use self::operations::Operation;
pub(crate) use self::requests::{Attempt, Journey, Ongoing};
pub(crate) use self::store::Kind;

/// Call quota of OfficeRnD, and the value of `upstream_calls_per_minute`.
const LIMIT: usize = 5;

/// How many of them one caller may take.
const SHARE: usize = 3;

/// Largest difference between two clocks, and between two readings of one that steps.
const LARGEST_DIFFERENCE: Duration = Duration::from_millis(2 * faults::LARGEST_ERROR as u64);

/// Result of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Answered requests.
    pub answered: usize,
    /// Answers with a token.
    pub tokens: usize,
    /// Answers with `Retry-After`.
    pub told_when: usize,
    /// Calls that arrived at OfficeRnD.
    pub calls: usize,
    /// Instances that were started.
    pub instances: usize,
    /// Killed instances.
    pub killed: usize,
    /// Longest time until an answer.
    pub longest: Duration,
}

impl std::ops::AddAssign for Report {
    fn add_assign(&mut self, other: Self) {
        self.answered += other.answered;
        self.tokens += other.tokens;
        self.told_when += other.told_when;
        self.calls += other.calls;
        self.instances += other.instances;
        self.killed += other.killed;
        self.longest = self.longest.max(other.longest);
    }
}

/// State of a run: hosts, store, variables, OfficeRnD and what has been observed.
pub struct World {
    scenario: Scenario,
    config: Config,
    pub(crate) started: Instant,
    traced: bool,
    pub(crate) random: RefCell<fastrand::Rng>,
    hosts: Vec<Host>,
    variables: Variables,
    store: Store,
    lease_key: String,
    ledger_key: String,
    /// Key of each caller's token.
    token_keys: Vec<String>,
    officernd: RefCell<OfficeRnd>,
    /// Calls of the last minutes.
    calls: RefCell<Vec<Rc<Call>>>,
    /// The token that each caller was given last, and when which tokens were revoked.
    given: RefCell<BTreeMap<usize, u64>>,
    revoked: RefCell<BTreeMap<String, Instant>>,
    /// Number of requests so far.
    journeys: Cell<u64>,
    report: Cell<Report>,
    violation: RefCell<Option<String>>,
}

impl World {
    pub(crate) fn new(scenario: Scenario) -> Self {
        let variables = Variables::new(&scenario);
        let config = variables.config();
        let application = &config.applications[0];
        let token_key = |caller| Key::of(application, &application.current, &scopes_of(caller)).of_token();
        Self {
            started: Instant::now(),
            traced: std::env::var_os("TRACE").is_some(),
            random: RefCell::new(fastrand::Rng::with_seed(scenario.seed)),
            hosts: (0..scenario.hosts).map(|_| Host::default()).collect(),
            variables,
            store: Store::default(),
            lease_key: lease_key(&config.identity),
            ledger_key: ledger_key(&config.identity),
            token_keys: (0..scenario.callers).map(token_key).collect(),
            officernd: RefCell::new(OfficeRnd::new(LIMIT, scenario.token_life, scenario.reissues)),
            calls: RefCell::default(),
            given: RefCell::default(),
            revoked: RefCell::default(),
            journeys: Cell::default(),
            report: Cell::default(),
            violation: RefCell::default(),
            config,
            scenario,
        }
    }

    /// Runs faults and requests for the eventful time. Then the faults end, and every caller
    /// must get a token by following `Retry-After`.
    pub(crate) async fn play(self: Rc<Self>) -> Result<Report, String> {
        self.trace(|| format!("keys of tokens: {:?}", self.token_keys));
        let faults = self.run_faults();
        let end = self.started + self.scenario.eventful;
        let mut requests = Vec::new();
        while Instant::now() < end && self.violation.borrow().is_none() {
            let pause = self.between(Duration::ZERO, self.scenario.pause * 2);
            sleep(pause).await;
            let crowd = if self.scenario.faults.crowds && self.chance(10) { 24 } else { 1 };
            for _ in 0..crowd {
                requests.push(self.request_somewhere(self.pick_caller(), Attempt::Allowed));
            }
            if self.scenario.faults.greed {
                let greedy = Attempt::NewScopes(requests.len() as u64);
                requests.push(self.request_somewhere(self.scenario.callers, greedy));
            }
            if self.scenario.faults.revocations && self.chance(15) {
                let caller = self.pick_caller();
                let given = self.given.borrow().get(&caller).copied();
                let revocation = given.map(|token| self.request_somewhere(caller, Attempt::Revocation(token)));
                requests.extend(revocation);
            }
            if self.chance(10) {
                requests.push(self.request_somewhere(self.pick_caller(), Attempt::OthersScopes));
                requests.push(self.request_somewhere(self.pick_caller(), Attempt::WrongSecret));
            }
        }
        if self.violation.borrow().is_some() {
            return self.outcome();
        }
        // Requests and faults of the eventful time must end before the peace is judged.
        for fault in faults {
            fault.await.map_err(|error| format!("the faults ended early: {error}"))?;
        }
        for request in requests {
            if let Err(error) = request.await
                && error.is_panic()
            {
                return Err(format!("a request panicked: {error}"));
            }
        }
        if self.violation.borrow().is_none() {
            self.peace().await;
        }
        self.outcome()
    }

    /// Runs jobs that each send a request per minute, without faults.
    pub(crate) async fn employ(self: Rc<Self>, jobs: usize) -> Result<Report, String> {
        let end = self.started + self.scenario.eventful;
        let jobs: Vec<_> = (0..jobs)
            .map(|job| {
                let world = self.clone();
                spawn_local(async move {
                    sleep(world.between(Duration::ZERO, WINDOW)).await;
                    while Instant::now() < end {
                        let due = Instant::now() + WINDOW;
                        let request = world.request_somewhere(job % world.scenario.callers, Attempt::Allowed);
                        request.await.expect("no instance is killed");
                        sleep_until(due).await;
                    }
                })
            })
            .collect();
        for job in jobs {
            job.await.map_err(|error| format!("a job panicked: {error}"))?;
        }
        self.outcome()
    }

    pub(crate) fn outcome(&self) -> Result<Report, String> {
        let mut report = self.report.get();
        report.calls = self.officernd.borrow().calls;
        self.violation.take().map_or(Ok(report), Err)
    }

    /// Lets each caller follow `Retry-After` until it has a token. Of `n` callers one succeeds
    /// every time, so none needs more than `n` tries. As many again may be needed if OfficeRnD
    /// reissues tokens that expire soon, and two more after the last faults. If the clocks differ,
    /// each wait may end too early for the next host, whose clock is behind, which costs a try.
    async fn peace(self: &Rc<Self>) {
        self.trace(|| "peace".to_owned());
        let mut callers = Vec::new();
        for caller in 0..self.scenario.callers {
            let world = self.clone();
            callers.push(spawn_local(async move {
                let tries_for_a_wait = if world.clock_slack().is_zero() { 1 } else { 2 };
                for _ in 0..tries_for_a_wait * (2 * world.scenario.callers + 2) {
                    let ongoing = world.accept(world.pick_host(), caller, Attempt::Allowed);
                    let answered = world.ask(ongoing).await;
                    let wait = world.check_answer(&answered);
                    if answered.response.status() == 200 {
                        return;
                    }
                    sleep(Duration::from_secs(wait.unwrap_or(1))).await;
                }
                world.violate(format!("caller {caller} gets no token although all faults have ended"));
            }));
        }
        for caller in callers {
            if let Err(error) = caller.await {
                self.violate(format!("a caller panicked: {error}"));
            }
        }
    }

    fn truth(&self) -> Timestamp {
        Timestamp::from_unix_ms(1_800_000_000_000 + self.started.elapsed().as_millis() as u64)
    }

    /// The clock of an instance's host, as the instance feels the time.
    pub(crate) fn clock(&self, running: &Running) -> Timestamp {
        let elapsed = running.now() - self.started;
        let offset = self.hosts[running.host].clock_offset.get();
        Timestamp::from_unix_ms((1_800_000_000_000 + elapsed.as_millis() as u64).saturating_add_signed(offset))
    }

    fn clock_stepped_since(&self, host: usize, then: Instant) -> bool {
        self.hosts[host].clock_stepped_at.get().is_some_and(|at| at >= then)
    }

    fn pick_caller(&self) -> usize {
        self.below(self.scenario.callers)
    }

    fn below(&self, end: usize) -> usize {
        self.random.borrow_mut().usize(..end)
    }

    fn chance(&self, percent: u8) -> bool {
        self.random.borrow_mut().u8(..100) < percent
    }

    /// Draws a duration in whole milliseconds, the unit of tokio's timers and of the core.
    fn between(&self, low: Duration, high: Duration) -> Duration {
        Duration::from_millis(self.random.borrow_mut().u64(low.as_millis() as u64..=high.as_millis() as u64))
    }

    /// Prints an event to stderr if `TRACE` is set, for the replay of a single run.
    #[expect(clippy::print_stderr, reason = "a replay is for reading")]
    pub(crate) fn trace(&self, what: impl FnOnce() -> String) {
        if self.traced {
            eprintln!("{:>10.3} {}", self.started.elapsed().as_secs_f64(), what());
        }
    }

    pub(crate) fn violate(&self, what: String) {
        self.trace(|| format!("VIOLATION: {what}"));
        let elapsed = self.started.elapsed();
        self.violation.borrow_mut().get_or_insert_with(|| format!("at {elapsed:?}: {what}"));
    }
}
