//! The world: instances, clocks, the store, the callers, the faults, and the invariants that are checked at every step.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{Method, Request, Response};
use officernd_token_broker::broker::{Broker, Instance};
use officernd_token_broker::token::{Key, LEAST_REMAINING, Token};
use officernd_token_broker::config::{Config, VARIABLES, Variable};
use officernd_token_broker::endpoint::{self, Handled};
use officernd_token_broker::scope::Scopes;
use officernd_token_broker::time::Timestamp;
use sha2::{Digest, Sha256};
use tokio::task::{AbortHandle, JoinHandle, spawn_local};
use tokio::time::{Instant, sleep, sleep_until};

use crate::Scenario;
use crate::officernd::{Mood, OfficeRnd, WINDOW};
use crate::ports::Simulated;

/// Calls OfficeRnD takes in a minute, and the broker is told.
const LIMIT: usize = 5;

/// A request waits no longer.
const LONGEST_WAIT: Duration = Duration::from_secs(12);

/// The furthest that any clock of the world steps away from the truth.
const LARGEST_STEP: i64 = 3000;

/// An instance is replaced after this many requests, as Spin does.
const REQUESTS_AN_INSTANCE: usize = 128;

/// What a run came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Requests that were answered.
    pub answered: usize,
    /// Answers with a token.
    pub tokens: usize,
    /// Answers that said when to come back.
    pub told_when: usize,
    /// Calls that arrived at OfficeRnD.
    pub calls: usize,
    /// Instances that were killed.
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

/// How the store behaves at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StoreMood {
    Sound,
    Fails,
    FailsSometimes,
    Slow,
    Sluggish,
    ReadOnly,
}

struct Place {
    instance: Rc<Instance>,
    /// When the calls of this instance arrived at OfficeRnD.
    arrivals: Rc<RefCell<Vec<Instant>>>,
    requests: usize,
    /// What runs in the instance, follow-ups included.
    running: Vec<AbortHandle>,
    /// How far its clock is from the truth, in milliseconds.
    clock_offset: i64,
}

/// Everything there is.
pub struct World {
    scenario: Scenario,
    config: Config,
    started: Instant,
    traced: bool,
    pub(crate) random: RefCell<fastrand::Rng>,
    pub(crate) store: RefCell<BTreeMap<String, Vec<u8>>>,
    store_mood: Cell<StoreMood>,
    /// When the store was last anything but sound.
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
        let config = Config::parse(lookup).expect("the simulated variables are sound");
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

    /// Faults and requests for as long as the scenario is eventful, then peace, in which every caller must get a token
    /// by coming back when it is told to.
    pub(crate) async fn play(self: Rc<Self>) -> Result<Report, String> {
        self.open_places();
        let faults = spawn_local(self.clone().trouble());
        let end = self.started + self.scenario.eventful;
        let mut requests = Vec::new();
        while Instant::now() < end && self.violation.borrow().is_none() {
            let pause = self.between(Duration::ZERO, self.scenario.pause * 2);
            sleep(pause).await;
            let crowd = if self.scenario.faults.crowds && self.chance(10) { 24 } else { 1 };
            for _ in 0..crowd {
                requests.push(self.clone().request_somewhere(self.below(self.scenario.scope_sets), Cheek::Right));
            }
            if self.chance(10) {
                requests
                    .push(self.clone().request_somewhere(self.below(self.scenario.scope_sets), Cheek::OthersScopes));
                requests.push(self.clone().request_somewhere(self.below(self.scenario.scope_sets), Cheek::WrongSecret));
            }
        }
        // Whatever began before the peace is over before it is judged.
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

    /// Jobs that each ask once a minute, without faults.
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
                        let request = world.clone().request_somewhere(job % world.scenario.scope_sets, Cheek::Right);
                        request.await.expect("nobody kills an instance");
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

    /// One caller per set of scopes comes back whenever it is told to. Among `n` of them somebody gets through every
    /// time, so nobody needs more than `n` tries; as many again where OfficeRnD re-issues tokens that are about to end,
    /// and two for clocks that were off.
    async fn peace(self: &Rc<Self>) {
        let mut callers = Vec::new();
        for set in 0..self.scenario.scope_sets {
            let world = self.clone();
            callers.push(spawn_local(async move {
                for _ in 0..2 * world.scenario.scope_sets + 2 {
                    let (asked, place) = (Instant::now(), world.pick_place());
                    let response = world.ask(place, set, Cheek::Right).await;
                    if response.status() == 200 {
                        return;
                    }
                    let wait = world.check_response(set, Cheek::Right, asked, &response);
                    sleep(Duration::from_secs(wait.unwrap_or(1))).await;
                }
                world.violate(format!("set {set} gets no token although everything is well again"));
            }));
        }
        for caller in callers {
            if let Err(error) = caller.await {
                self.violate(format!("a caller panicked: {error}"));
            }
        }
    }

    /// The faults, one after another with pauses, all over when the eventful time is.
    async fn trouble(self: Rc<Self>) {
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

    /// A request to some instance, whose answer is checked unless the instance is killed under it.
    fn request_somewhere(self: Rc<Self>, set: usize, cheek: Cheek) -> JoinHandle<()> {
        let place = self.pick_place();
        let world = self.clone();
        let task = spawn_local(async move {
            let asked = Instant::now();
            let response = world.ask(place, set, cheek).await;
            world.check_response(set, cheek, asked, &response);
        });
        let mut places = self.places.borrow_mut();
        let here = &mut places[place];
        here.running.retain(|task| !task.is_finished());
        here.running.push(task.abort_handle());
        drop(places);
        task
    }

    pub(crate) async fn ask(self: &Rc<Self>, place: usize, set: usize, cheek: Cheek) -> Response<String> {
        let handled = self.handle(place, set, cheek).await;
        if let Some(followup) = handled.followup {
            let task = spawn_local(followup);
            self.places.borrow_mut()[place].running.push(task.abort_handle());
        }
        handled.response
    }

    /// As the instance at `place` handles it.
    pub(crate) async fn handle(self: &Rc<Self>, place: usize, set: usize, cheek: Cheek) -> Handled {
        let (instance, arrivals) = {
            let mut places = self.places.borrow_mut();
            if places[place].requests >= REQUESTS_AN_INSTANCE {
                // What runs in the old one goes on: it only takes no more requests.
                places[place] = Place { clock_offset: places[place].clock_offset, ..self.fresh_instance() };
            }
            places[place].requests += 1;
            (places[place].instance.clone(), places[place].arrivals.clone())
        };
        let broker = Broker { ports: Simulated { world: self.clone(), place, arrivals }, instance };
        endpoint::handle(&broker, &request(set, cheek), self.clock(place)).await
    }

    /// Checks an answer, and says when it tells to come back.
    pub(crate) fn check_response(
        &self,
        set: usize,
        cheek: Cheek,
        asked: Instant,
        response: &Response<String>,
    ) -> Option<u64> {
        let mut report = self.report.get();
        report.answered += 1;
        let status = response.status().as_u16();
        let slack = self.clock_slack();
        if asked.elapsed() > LONGEST_WAIT + slack {
            self.violate(format!("an answer took {:?}", asked.elapsed()));
        }
        match (cheek, status) {
            (Cheek::Right, 200) => {
                report.tokens += 1;
                self.check_token(set, slack, response.body());
            }
            (Cheek::Right, 502 | 503) => {
                report.told_when += 1;
                self.trace(|| {
                    format!("set {set} is told when: {} {:?}", response.body(), response.headers().get(RETRY_AFTER))
                });
                self.check_nothing_better(set, asked, slack);
            }
            (Cheek::OthersScopes, 400) | (Cheek::WrongSecret, 401) => {}
            (_, status) => self.violate(format!("{cheek:?} got {status} {}", response.body())),
        }
        self.report.set(report);
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        if matches!(status, 502 | 503) && retry_after.is_none() {
            self.violate(format!("an answer of status {status} does not say when to come back"));
        }
        let retry_after = retry_after?;
        if !(1..=900).contains(&retry_after) {
            self.violate(format!("an answer says Retry-After: {retry_after}"));
        }
        Some(retry_after)
    }

    /// Never a token with less than 30 s, never one that somebody has no right to, never a lie about its life.
    fn check_token(&self, set: usize, slack: Duration, body: &str) {
        let answer: serde_json::Value = serde_json::from_str(body).expect("an answer is JSON");
        let officernd = self.officernd.borrow();
        let issued = &officernd.issued[answer["access_token"].as_str().expect("an answer has a token")];
        if issued.scopes != scopes_of(set) || issued.client_id != self.config.applications[0].client_id {
            self.violate(format!("set {set} got a token for {:?}", issued.scopes));
        }
        let remaining = issued.until.saturating_duration_since(Instant::now());
        if remaining + slack * 2 < LEAST_REMAINING {
            self.violate(format!("set {set} got a token with {remaining:?} left"));
        }
        let claimed = Duration::from_secs(answer["expires_in"].as_u64().expect("an answer has a lifetime"));
        if claimed > remaining + slack * 2 {
            self.violate(format!("set {set} was told {claimed:?} of a token with {remaining:?} left"));
        }
    }

    /// A token that lives is served through any trouble with OfficeRnD: who gets none could get none from the store.
    fn check_nothing_better(&self, set: usize, asked: Instant, slack: Duration) {
        if !self.store_was_sound_since(asked) {
            return;
        }
        let Some(token) = self.stored_token(set) else { return };
        let known_for = self.truth().since(token.fetched_at);
        let remaining = token.remaining(self.truth());
        // A token that came while the answer was under way is nobody's fault.
        if known_for > asked.elapsed() + slack + Duration::from_secs(3)
            && remaining > LEAST_REMAINING + slack + Duration::from_secs(3)
        {
            self.violate(format!("set {set} got no token although the store has one with {remaining:?} left"));
        }
    }

    /// A call arrives at OfficeRnD.
    pub(crate) fn arrive(
        &self,
        place: usize,
        own: &RefCell<Vec<Instant>>,
        body: &str,
    ) -> Option<Result<Response<Vec<u8>>, officernd_token_broker::broker::SendError>> {
        let answer = self.officernd.borrow_mut().call(body);
        self.trace(|| format!("instance {place} calls for {:?}", body.rsplit('=').next()));
        // A clock that steps forward shortens the minute that the ledger sees by as much.
        let slack = self.clock_slack();
        let window_began = Instant::now() - (WINDOW - slack * 2).min(self.started.elapsed());
        let arrivals = self.officernd.borrow().arrivals.iter().filter(|arrival| **arrival > window_began).count();
        // Whatever the store does, an instance limits itself.
        let mut own = own.borrow_mut();
        own.push(Instant::now());
        own.retain(|arrival| *arrival > window_began);
        if own.len() > LIMIT {
            self.violate(format!("an instance made {} calls in a minute", own.len()));
        }
        let minute_ago = Instant::now() - WINDOW.min(self.started.elapsed());
        let store_was_sound = self.store_was_sound_since(minute_ago);
        if arrivals > LIMIT && store_was_sound {
            self.violate(format!("OfficeRnD got {arrivals} calls in a minute"));
        }
        if self.scenario.faults.kills && self.chance(5) {
            self.kill(place);
        }
        let set = (0..self.scenario.scope_sets)
            .find(|set| body.contains(&format!("scope={}", scopes_of(*set).as_str().replace(' ', "+"))));
        if let Some(set) = set
            && slack.is_zero()
            && store_was_sound
            && let Some(token) = self.stored_token(set)
        {
            let age = self.truth().since(token.fetched_at);
            // The call was decided on up to a second before it arrives.
            let lived = token.remaining(self.truth()) > LEAST_REMAINING;
            if lived && age < WINDOW - Duration::from_secs(2) {
                self.violate(format!("OfficeRnD was called for set {set} {age:?} after it had been"));
            }
        }
        answer
    }

    fn stored_token(&self, set: usize) -> Option<Token> {
        let scopes = scopes_of(set);
        let application = &self.config.applications[0];
        let key = Key::of(application, &application.current, &scopes);
        Token::open(self.store.borrow().get(&key.of_token())?, key, &application.current.seal)
    }

    fn store_was_sound_since(&self, then: Instant) -> bool {
        self.store_mood.get() == StoreMood::Sound && self.store_unsound_at.get().is_none_or(|at| at < then)
    }

    /// How far a clock may be from the truth.
    fn clock_slack(&self) -> Duration {
        if self.clock_stepped_at.get().is_some() { Duration::from_millis(LARGEST_STEP as u64) } else { Duration::ZERO }
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

    pub(crate) fn is_read_only(&self) -> bool {
        self.store_mood.get() == StoreMood::ReadOnly
    }

    /// How long an operation takes to the store and back, or that it fails. Both together are under Fischer's 50 ms.
    pub(crate) fn store_latency(&self) -> Result<(Duration, Duration), String> {
        match self.store_mood.get() {
            StoreMood::Fails => return Err("the simulated store fails".into()),
            StoreMood::FailsSometimes if self.chance(50) => return Err("the simulated store fails sometimes".into()),
            StoreMood::Slow => return Ok((Duration::from_secs(1), Duration::from_secs(1))),
            // Slower than Fischer's condition allows, faster than a time-out.
            StoreMood::Sluggish => {
                let leg = Duration::from_millis(400);
                return Ok((self.between(Duration::ZERO, leg), self.between(Duration::ZERO, leg)));
            }
            StoreMood::Sound | StoreMood::FailsSometimes | StoreMood::ReadOnly => {}
        }
        let leg = Duration::from_millis(10);
        Ok((self.between(Duration::ZERO, leg), self.between(Duration::ZERO, leg)))
    }

    /// Some reads reach the store late, as they do where it is busy. What they read is as new as ever, so Fischer's
    /// condition holds; but much may have happened since the read before.
    pub(crate) fn delay_of_a_read(&self) -> Duration {
        if self.chance(3) { self.between(Duration::ZERO, Duration::from_millis(300)) } else { Duration::ZERO }
    }

    pub(crate) fn upstream_latency(&self) -> (Duration, Duration) {
        let leg = Duration::from_millis(400);
        (self.between(Duration::from_millis(10), leg), self.between(Duration::from_millis(10), leg))
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

    /// What happens, on stderr, when a single run is replayed with `TRACE` set.
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

/// What a request tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cheek {
    /// Nothing it may not.
    Right,
    /// The scopes of the next set, which are not its own.
    OthersScopes,
    /// A secret that is not its own.
    WrongSecret,
}

fn scopes_of(set: usize) -> Scopes {
    Scopes::parse(&format!("flex.set{set}.members.read flex.set{set}.members.write")).expect("a scope list")
}

fn secret_of(set: usize) -> String {
    format!("secret-of-{set}")
}

fn request(set: usize, cheek: Cheek) -> Request<endpoint::Body> {
    use base64::Engine;
    let secret = if cheek == Cheek::WrongSecret { "guess".to_owned() } else { secret_of(set) };
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("caller-{set}:{secret}"));
    let mut body = "grant_type=client_credentials".to_owned();
    if cheek == Cheek::OthersScopes {
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
