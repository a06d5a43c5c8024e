//! The world: instances, clocks, the store, and the callers.

mod faults;
mod invariants;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request, Response};
use officernd_token_broker::broker::{Broker, Instance};
use officernd_token_broker::config::{Config, VARIABLES, Variable};
use officernd_token_broker::endpoint::{self, Handled};
use officernd_token_broker::scope::Scopes;
use officernd_token_broker::time::Timestamp;
use sha2::{Digest, Sha256};
use tokio::task::{AbortHandle, JoinHandle, spawn_local};
use tokio::time::{Instant, sleep, sleep_until};

use self::faults::StoreMood;
use crate::Scenario;
use crate::officernd::{OfficeRnd, WINDOW};
use crate::ports::Simulated;

/// Call quota of OfficeRnD, and the value of `upstream_calls_per_minute`.
const LIMIT: usize = 5;

/// Number of requests after which an instance is replaced, as by Spin.
const REQUESTS_AN_INSTANCE: usize = 128;

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
    /// Killed instances.
    pub killed: usize,
}

impl std::ops::AddAssign for Report {
    fn add_assign(&mut self, other: Self) {
        self.answered += other.answered;
        self.tokens += other.tokens;
        self.told_when += other.told_when;
        self.calls += other.calls;
        self.killed += other.killed;
    }
}

struct Place {
    instance: Rc<Instance>,
    /// Arrival times of this instance's calls at OfficeRnD.
    arrivals: Rc<RefCell<Vec<Instant>>>,
    requests: usize,
    /// Running tasks of the instance, follow-ups included.
    running: Vec<AbortHandle>,
    /// Error of its clock in milliseconds.
    clock_offset: i64,
}

/// State of a run: instances, store, OfficeRnD and what has been observed.
pub struct World {
    scenario: Scenario,
    config: Config,
    started: Instant,
    traced: bool,
    pub(crate) random: RefCell<fastrand::Rng>,
    pub(crate) store: RefCell<BTreeMap<String, Vec<u8>>>,
    store_mood: Cell<StoreMood>,
    /// When the store last had a fault.
    store_unsound_at: Cell<Option<Instant>>,
    /// When a clock last stepped.
    clock_stepped_at: Cell<Option<Instant>>,
    officernd: RefCell<OfficeRnd>,
    places: RefCell<Vec<Place>>,
    report: Cell<Report>,
    violation: RefCell<Option<String>>,
}

impl World {
    pub(crate) fn new(scenario: Scenario) -> Self {
        let variables = variables(&scenario);
        let lookup =
            |name: &str| variables.iter().find(|(other, _)| *other == name).map_or("", |(_, value)| value.as_str());
        let config = Config::parse(lookup).expect("the simulated variables are valid");
        Self {
            config,
            started: Instant::now(),
            traced: std::env::var_os("TRACE").is_some(),
            random: RefCell::new(fastrand::Rng::with_seed(scenario.seed)),
            store: RefCell::default(),
            store_mood: Cell::new(StoreMood::Sound),
            store_unsound_at: Cell::new(None),
            clock_stepped_at: Cell::new(None),
            officernd: RefCell::new(OfficeRnd::new(LIMIT, scenario.token_life, scenario.reissues)),
            places: RefCell::default(),
            report: Cell::default(),
            violation: RefCell::default(),
            scenario,
        }
    }

    /// Runs faults and requests for the eventful time. Then the faults end, and every caller
    /// must get a token by following `Retry-After`.
    pub(crate) async fn play(self: Rc<Self>) -> Result<Report, String> {
        self.open_places();
        let faults = spawn_local(self.clone().run_faults());
        let end = self.started + self.scenario.eventful;
        let mut requests = Vec::new();
        while Instant::now() < end && self.violation.borrow().is_none() {
            let pause = self.between(Duration::ZERO, self.scenario.pause * 2);
            sleep(pause).await;
            let crowd = if self.scenario.faults.crowds && self.chance(10) { 24 } else { 1 };
            for _ in 0..crowd {
                requests.push(self.clone().request_somewhere(self.below(self.scenario.scope_sets), Attempt::Allowed));
            }
            if self.chance(10) {
                requests
                    .push(self.clone().request_somewhere(self.below(self.scenario.scope_sets), Attempt::OthersScopes));
                requests
                    .push(self.clone().request_somewhere(self.below(self.scenario.scope_sets), Attempt::WrongSecret));
            }
        }
        // Requests and faults of the eventful time must end before the peace is judged.
        faults.await.map_err(|error| format!("the faults ended early: {error}"))?;
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
        self.open_places();
        let end = self.started + self.scenario.eventful;
        let jobs: Vec<_> = (0..jobs)
            .map(|job| {
                let world = self.clone();
                spawn_local(async move {
                    sleep(world.between(Duration::ZERO, WINDOW)).await;
                    while Instant::now() < end {
                        let due = Instant::now() + WINDOW;
                        let request =
                            world.clone().request_somewhere(job % world.scenario.scope_sets, Attempt::Allowed);
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

    pub(crate) fn open_places(&self) {
        for _ in 0..self.scenario.instances {
            let instance = self.fresh_instance();
            self.places.borrow_mut().push(instance);
        }
    }

    pub(crate) fn outcome(&self) -> Result<Report, String> {
        let mut report = self.report.get();
        report.calls = self.officernd.borrow().calls;
        self.violation.take().map_or(Ok(report), Err)
    }

    /// Lets one caller per scope set follow `Retry-After` until it has a token. Of `n` callers
    /// one succeeds every time, so none needs more than `n` tries. As many again may be needed
    /// if OfficeRnD reissues tokens that expire soon, and two more for wrong clocks.
    async fn peace(self: &Rc<Self>) {
        let mut callers = Vec::new();
        for set in 0..self.scenario.scope_sets {
            let world = self.clone();
            callers.push(spawn_local(async move {
                for _ in 0..2 * world.scenario.scope_sets + 2 {
                    let (asked, place) = (Instant::now(), world.pick_place());
                    let response = world.ask(place, set, Attempt::Allowed).await;
                    if response.status() == 200 {
                        return;
                    }
                    let wait = world.check_response(set, Attempt::Allowed, asked, &response);
                    sleep(Duration::from_secs(wait.unwrap_or(1))).await;
                }
                world.violate(format!("set {set} gets no token although all faults have ended"));
            }));
        }
        for caller in callers {
            if let Err(error) = caller.await {
                self.violate(format!("a caller panicked: {error}"));
            }
        }
    }

    fn fresh_instance(&self) -> Place {
        let instance = Rc::new(Instance::new(self.random.borrow_mut().u64(..)));
        Place { instance, arrivals: Rc::default(), requests: 0, running: Vec::new(), clock_offset: 0 }
    }

    pub(crate) fn kill(&self, place: usize) {
        let fresh = self.fresh_instance();
        let killed = std::mem::replace(&mut self.places.borrow_mut()[place], fresh);
        killed.running.iter().for_each(AbortHandle::abort);
        let mut report = self.report.get();
        report.killed += 1;
        self.report.set(report);
    }

    /// Sends a request to a random instance, and checks the answer unless the instance is
    /// killed before.
    fn request_somewhere(self: Rc<Self>, set: usize, attempt: Attempt) -> JoinHandle<()> {
        let place = self.pick_place();
        let world = self.clone();
        let task = spawn_local(async move {
            let asked = Instant::now();
            let response = world.ask(place, set, attempt).await;
            world.check_response(set, attempt, asked, &response);
        });
        let mut places = self.places.borrow_mut();
        let here = &mut places[place];
        here.running.retain(|task| !task.is_finished());
        here.running.push(task.abort_handle());
        drop(places);
        task
    }

    pub(crate) async fn ask(self: &Rc<Self>, place: usize, set: usize, attempt: Attempt) -> Response<String> {
        let handled = self.handle(place, set, attempt).await;
        if let Some(followup) = handled.followup {
            let task = spawn_local(followup);
            self.places.borrow_mut()[place].running.push(task.abort_handle());
        }
        handled.response
    }

    /// Lets the instance at `place` handle a request.
    pub(crate) async fn handle(self: &Rc<Self>, place: usize, set: usize, attempt: Attempt) -> Handled {
        let (instance, arrivals) = {
            let mut places = self.places.borrow_mut();
            if places[place].requests >= REQUESTS_AN_INSTANCE {
                // The old instance's tasks continue; only new requests go to the new one.
                places[place] = Place { clock_offset: places[place].clock_offset, ..self.fresh_instance() };
            }
            places[place].requests += 1;
            (places[place].instance.clone(), places[place].arrivals.clone())
        };
        let broker = Broker { ports: Simulated { world: self.clone(), place, arrivals }, instance };
        endpoint::handle(&broker, &request(set, attempt), self.clock(place)).await
    }

    fn truth(&self) -> Timestamp {
        Timestamp::from_unix_ms(1_800_000_000_000 + self.started.elapsed().as_millis() as u64)
    }

    pub(crate) fn clock(&self, place: usize) -> Timestamp {
        let offset = self.places.borrow()[place].clock_offset;
        Timestamp::from_unix_ms(self.truth().unix_ms().saturating_add_signed(offset))
    }

    pub(crate) fn variable(&self, name: &str) -> String {
        variables(&self.scenario)
            .into_iter()
            .find(|(other, _)| *other == name)
            .map(|(_, value)| value)
            .unwrap_or_default()
    }

    fn pick_place(&self) -> usize {
        self.below(self.scenario.instances)
    }

    fn below(&self, end: usize) -> usize {
        self.random.borrow_mut().usize(..end)
    }

    fn chance(&self, percent: u8) -> bool {
        self.random.borrow_mut().u8(..100) < percent
    }

    fn between(&self, low: Duration, high: Duration) -> Duration {
        Duration::from_micros(self.random.borrow_mut().u64(low.as_micros() as u64..=high.as_micros() as u64))
    }

    /// Prints an event to stderr if `TRACE` is set, for the replay of a single run.
    #[expect(clippy::print_stderr, reason = "a replay is for reading")]
    pub(crate) fn trace(&self, what: impl FnOnce() -> String) {
        if self.traced {
            eprintln!("{:>10.3} {}", self.started.elapsed().as_secs_f64(), what());
        }
    }

    pub(crate) fn violate(&self, what: String) {
        let elapsed = self.started.elapsed();
        self.violation.borrow_mut().get_or_insert_with(|| format!("at {elapsed:?}: {what}"));
    }
}

/// What a request asks for, and with which secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// The caller's own scopes with its own secret.
    Allowed,
    /// The scopes of the next set, which the caller may not have.
    OthersScopes,
    /// A wrong secret.
    WrongSecret,
}

fn scopes_of(set: usize) -> Scopes {
    Scopes::parse(&format!("flex.set{set}.members.read flex.set{set}.members.write")).expect("a scope list")
}

fn secret_of(set: usize) -> String {
    format!("secret-of-{set}")
}

fn request(set: usize, attempt: Attempt) -> Request<endpoint::Body> {
    use base64::Engine;
    let secret = if attempt == Attempt::WrongSecret { "guess".to_owned() } else { secret_of(set) };
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("caller-{set}:{secret}"));
    let mut body = "grant_type=client_credentials".to_owned();
    if attempt == Attempt::OthersScopes {
        body.push_str(&format!("&scope={}", scopes_of(set + 1).as_str().replace(' ', "+")));
    }
    let mut request = Request::new(Ok(body.into_bytes()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = http::Uri::from_static("http://broker.example/oauth/token");
    request.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/x-www-form-urlencoded"));
    request.headers_mut().insert(AUTHORIZATION, http::HeaderValue::try_from(format!("Basic {basic}")).expect("ASCII"));
    request
}

fn variables(scenario: &Scenario) -> [(&'static str, String); VARIABLES.len()] {
    let callers: Vec<_> = (0..scenario.scope_sets)
        .map(|set| {
            let digest: String = Sha256::digest(secret_of(set)).iter().map(|byte| format!("{byte:02x}")).collect();
            let scopes: Vec<_> = scopes_of(set).tokens().map(|token| format!("{token:?}")).collect();
            format!(r#""caller-{set}": {{"secret_sha256": ["{digest}"], "scopes": [{}]}}"#, scopes.join(", "))
        })
        .collect();
    let value = |variable: Variable| match variable.name {
        "officernd_client_id" => "simulated-id".into(),
        "officernd_client_secret" => "simulated-secret".into(),
        "officernd_identity_url" => "https://identity.example".into(),
        "callers" => format!("{{{}}}", callers.join(", ")),
        "min_remaining_seconds" => scenario.min_remaining.as_secs().to_string(),
        "upstream_calls_per_minute" => LIMIT.to_string(),
        _ => variable.default.unwrap_or_default().to_owned(),
    };
    VARIABLES.map(|variable| (variable.name, value(variable)))
}
