//! Requests: what they ask for, and their way through an instance, follow-up included.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request, Response};
use officernd_token_broker::broker::Broker;
use officernd_token_broker::endpoint::{self, Handled};
use officernd_token_broker::scope::Scopes;
use tokio::task::{AbortHandle, JoinHandle, spawn_local};
use tokio::time::{Instant, sleep};

use super::World;
use super::hosts::Running;
use super::operations::{FirstTry, Tenure};
use crate::officernd::{self, Call};
use crate::ports::Simulated;

/// What a request asks for, and with which secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// The caller's own scopes with its own secret.
    Allowed,
    /// The scopes of the next caller, which this one may not have.
    OthersScopes,
    /// A wrong secret.
    WrongSecret,
    /// A scope set of this number, which no request has asked for yet. Only the caller that asks
    /// for new ones may have it.
    NewScopes(u64),
    /// The revocation of the token of this number.
    Revocation(u64),
}

/// A request and its follow-up.
pub(crate) struct Journey {
    pub(super) number: u64,
    pub(crate) caller: usize,
    pub(crate) attempt: Attempt,
    /// When its instance took the request.
    pub(crate) taken: Cell<Instant>,
    /// Whether reads of the store had failed before, and another request was trying one then.
    pub(super) is_beside_a_try: Cell<bool>,
    /// `reason` of the audit line.
    pub(crate) reason: RefCell<Option<String>>,
    /// Calls to OfficeRnD.
    pub(crate) calls: RefCell<Vec<Rc<Call>>>,
    /// What it has done under its lease, and whether its last write of the ledger was lost.
    pub(super) tenure: Tenure,
    pub(super) record_lost: Cell<bool>,
    pub(super) first_try: RefCell<Option<FirstTry>>,
}

/// A request while it or its follow-up runs. Dropping it is what a host does to a request.
pub(crate) struct Ongoing {
    world: Rc<World>,
    pub(crate) running: Rc<Running>,
    pub(crate) journey: Rc<Journey>,
    is_answered: bool,
    is_complete: bool,
}

/// An answer of an instance.
pub(crate) struct Answered {
    pub(crate) running: Rc<Running>,
    pub(crate) journey: Rc<Journey>,
    pub(crate) response: Response<String>,
}

impl Ongoing {
    fn answer(&mut self) {
        if !std::mem::replace(&mut self.is_answered, true) {
            self.running.unanswered.set(self.running.unanswered.get() - 1);
        }
    }

    pub(crate) fn complete(mut self) {
        self.is_complete = true;
    }
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        self.answer();
        let running = &self.running;
        running.unfinished.set(running.unfinished.get() - 1);
        running.idle_since.set(Instant::now());
        if !self.is_complete {
            // It may have been dropped between OfficeRnD's answer and the moment in which the instance
            // remembers the token: after the answer it first looks for a revocation.
            running.seen.release(self.journey.caller, false);
            self.world.forgive_dropped(&self.journey);
        }
    }
}

impl World {
    /// Sends a request to a random host, and checks the answer unless the request is dropped
    /// before.
    pub(super) fn request_somewhere(self: &Rc<Self>, caller: usize, attempt: Attempt) -> JoinHandle<()> {
        let ongoing = self.accept(self.pick_host(), caller, attempt);
        let (world, running) = (self.clone(), ongoing.running.clone());
        let task = spawn_local(async move {
            let answered = world.ask(ongoing).await;
            world.check_answer(&answered);
        });
        running.adopt(task.abort_handle());
        task
    }

    /// Gives a request to an instance of `host`.
    pub(crate) fn accept(self: &Rc<Self>, host: usize, caller: usize, attempt: Attempt) -> Ongoing {
        let running = self.pick_instance(host);
        running.unanswered.set(running.unanswered.get() + 1);
        running.unfinished.set(running.unfinished.get() + 1);
        let number = self.journeys.get();
        self.journeys.set(number + 1);
        let journey = Rc::new(Journey {
            number,
            caller,
            attempt,
            taken: Cell::new(Instant::now()),
            is_beside_a_try: Cell::default(),
            reason: RefCell::default(),
            calls: RefCell::default(),
            tenure: Tenure::default(),
            record_lost: Cell::default(),
            first_try: RefCell::default(),
        });
        Ongoing { world: self.clone(), running, journey, is_answered: false, is_complete: false }
    }

    /// Waits for the answer, and starts the follow-up.
    pub(crate) async fn ask(self: &Rc<Self>, mut ongoing: Ongoing) -> Answered {
        let (running, journey) = (ongoing.running.clone(), ongoing.journey.clone());
        let handled = self.handle(&ongoing).await;
        ongoing.answer();
        match handled.followup {
            None => ongoing.complete(),
            Some(followup) => {
                let task = spawn_local(async move {
                    // As in the component: the answer leaves first.
                    sleep(Duration::from_millis(1)).await;
                    ongoing.running.run(&ongoing.journey, followup).await;
                    ongoing.complete();
                });
                running.adopt(task.abort_handle());
                if self.scenario.faults.kills && self.chance(3) {
                    self.drop_later(task.abort_handle());
                }
            }
        }
        Answered { running, journey, response: handled.response }
    }

    /// Lets the instance handle the request.
    pub(crate) async fn handle(self: &Rc<Self>, ongoing: &Ongoing) -> Handled {
        let Ongoing { running, journey, .. } = ongoing;
        let ports = Simulated { world: self.clone(), running: running.clone(), journey: journey.clone() };
        let broker = Broker { ports, instance: running.instance.clone() };
        let request = request(journey.caller, journey.attempt);
        if matches!(journey.attempt, Attempt::Revocation(_)) {
            running.seen.begin_revocation(journey.caller);
        }
        let handled = async {
            journey.taken.set(Instant::now());
            journey.is_beside_a_try.set(running.seen.is_trying());
            endpoint::handle(&broker, &request, self.clock(running)).await
        };
        running.run(journey, handled).await
    }

    fn drop_later(self: &Rc<Self>, task: AbortHandle) {
        let pause = self.between(Duration::ZERO, Duration::from_secs(10));
        spawn_local(async move {
            sleep(pause).await;
            task.abort();
        });
    }
}

pub(super) fn scopes_of(caller: usize) -> Scopes {
    Scopes::parse(&format!("flex.set{caller}.members.read flex.set{caller}.members.write")).expect("a scope list")
}

/// Scopes that the pattern of the caller with greed matches.
pub(super) const NEW_SCOPES: &str = "flex.new.*.read";

pub(super) fn new_scope(number: u64) -> String {
    NEW_SCOPES.replace('*', &format!("set{number}"))
}

pub(super) fn secret_of(caller: usize) -> String {
    format!("secret-of-{caller}")
}

fn request(caller: usize, attempt: Attempt) -> Request<endpoint::Body> {
    use base64::Engine;
    let secret = if attempt == Attempt::WrongSecret { "guess".to_owned() } else { secret_of(caller) };
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("caller-{caller}:{secret}"));
    let mut body = "grant_type=client_credentials".to_owned();
    match attempt {
        Attempt::OthersScopes => {
            body.push_str(&format!("&scope={}", scopes_of(caller + 1).as_str().replace(' ', "+")));
        }
        Attempt::NewScopes(number) => body.push_str(&format!("&scope={}", new_scope(number))),
        Attempt::Revocation(number) => body = format!("token={}", officernd::token(number)),
        Attempt::Allowed | Attempt::WrongSecret => {}
    }
    let uri = match attempt {
        Attempt::Revocation(_) => "http://broker.example/oauth/revoke",
        _ => "http://broker.example/oauth/token",
    };
    let mut request = Request::new(Ok(body.into_bytes()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = http::Uri::from_static(uri);
    request.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/x-www-form-urlencoded"));
    request.headers_mut().insert(AUTHORIZATION, http::HeaderValue::try_from(format!("Basic {basic}")).expect("ASCII"));
    request
}
