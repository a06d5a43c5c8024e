//! Ports for the unit tests of this folder: a store in memory, a clock that stands still, and
//! failures on demand.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt;
use http::{Request, Response};

use super::instance::{Broker, Instance};
use super::ports::{Ports, SendError};
use super::wanted::{RequestId, Wanted};
use crate::config::{Config, Variable};
use crate::gate::LEASE_WAIT;
use crate::scope::Scopes;
use crate::time::Timestamp;

/// What the ports of several instances share.
#[derive(Default)]
pub(super) struct State {
    /// Seconds since the tests' epoch, and those by which the wall clock is ahead.
    pub(super) seconds: Cell<u64>,
    pub(super) clock_ahead: Cell<u64>,
    /// Whether a sleep moves the clock; otherwise only the test does.
    pub(super) sleep_takes_time: Cell<bool>,
    /// Seconds by which a sleep that moves the clock ends late.
    pub(super) late: Cell<u64>,
    /// Whether a read never ends.
    pub(super) hangs: Cell<bool>,
    /// Part of a second that was slept.
    slept: Cell<Duration>,
    pub(super) store: RefCell<BTreeMap<String, Vec<u8>>>,
    /// Whether each of the next store operations succeeds; all later ones do.
    pub(super) outcomes: RefCell<VecDeque<bool>>,
    /// Number of the next writes that are never answered. They do not land either.
    pub(super) unanswered_sets: Cell<usize>,
    /// Status and body of OfficeRnD's answers; `None` if it is unreachable.
    pub(super) answer: Cell<Option<(u16, &'static str)>>,
    /// What another instance writes to the store while this one waits for contenders.
    pub(super) written_during_sleep: RefCell<Option<(String, Vec<u8>)>>,
    /// What another request of the instance does during the next sleep.
    pub(super) during_sleep: RefCell<Option<Box<dyn FnOnce()>>>,
    /// What another request of the instance does during the next write.
    pub(super) during_set: RefCell<Option<Box<dyn Fn()>>>,
    /// What another request of the instance does during the next read.
    pub(super) during_get: RefCell<Option<Box<dyn FnOnce()>>>,
    /// Requests that were sent.
    pub(super) sent: Cell<usize>,
    /// What happens elsewhere while a request is on its way.
    pub(super) during_send: RefCell<Option<Box<dyn FnOnce()>>>,
    pub(super) warnings: RefCell<Vec<String>>,
    pub(super) lines: RefCell<Vec<String>>,
    /// The variable `callers`; `None` if the provider fails.
    pub(super) callers: RefCell<Option<&'static str>>,
    pub(super) variables_read: Cell<usize>,
    random: Cell<u64>,
}

#[derive(Clone, Default)]
pub(super) struct TestPorts(pub(super) Rc<State>);

pub(super) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_unix_ms(1_800_000_000_000 + seconds * 1000)
}

impl TestPorts {
    /// A new instance on this store.
    pub(super) fn broker(&self) -> Broker<Self> {
        Broker { ports: self.clone(), instance: Rc::new(Instance::new(7)) }
    }

    fn outcome<T>(&self, value: T) -> Result<T, String> {
        let succeeds = self.0.outcomes.borrow_mut().pop_front().unwrap_or(true);
        if succeeds { Ok(value) } else { Err("out of order".to_owned()) }
    }
}

/// The output of a future in which only [`TestPorts`] are awaited.
pub(super) fn finish<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("these ports never wait")
}

/// A policy with one caller.
pub(super) const CALLERS: &str = r#"{"a": {"secret_sha256":
    ["0000000000000000000000000000000000000000000000000000000000000000"], "scopes": ["a", "b"]}}"#;

/// Scopes `a b` of the default application.
pub(super) fn wanted() -> Wanted {
    let config = Config::parse(|name| match name {
        "callers" => CALLERS,
        "officernd_client_id" => "id",
        "officernd_client_secret" => "secret",
        name => Variable::default_of(name),
    });
    let config = Rc::new(config.unwrap());
    let application = config.applications[0].clone();
    let credential = application.current.clone();
    let caller = config.callers.find("a").unwrap().clone();
    Wanted::new(config, caller, application, credential, Scopes::parse("a b").unwrap(), RequestId::new(7))
}

impl Ports for TestPorts {
    fn now(&self) -> Timestamp {
        at(self.0.seconds.get() + self.0.clock_ahead.get())
    }

    fn uptime(&self) -> Duration {
        Duration::from_secs(self.0.seconds.get())
    }

    fn random(&self) -> u64 {
        self.0.random.replace(self.0.random.get() + 1)
    }

    async fn sleep(&self, duration: Duration) {
        // The deadline of an operation is no sleep: it is not awaited to its end.
        if self.0.sleep_takes_time.get() {
            let slept = self.0.slept.get() + duration;
            self.0.seconds.set(self.0.seconds.get() + slept.as_secs() + self.0.late.get());
            self.0.slept.set(slept - Duration::from_secs(slept.as_secs()));
        }
        if let Some(act) = self.0.during_sleep.take() {
            act();
        }
        if duration >= LEASE_WAIT
            && let Some((key, value)) = self.0.written_during_sleep.take()
        {
            self.0.store.borrow_mut().insert(key, value);
        }
    }

    async fn variable(&self, name: &'static str) -> Result<Option<String>, String> {
        self.0.variables_read.set(self.0.variables_read.get() + 1);
        let callers = self.0.callers.borrow().ok_or("the provider fails")?;
        Ok(match name {
            "callers" => Some(callers),
            "officernd_client_id" | "officernd_client_secret" => Some(name),
            _ => None,
        }
        .map(str::to_owned))
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        if self.0.hangs.get() {
            std::future::pending::<()>().await;
        }
        if let Some(act) = self.0.during_get.take() {
            act();
        }
        self.outcome(self.0.store.borrow().get(key).cloned())
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<(), String> {
        if let Some(left) = self.0.unanswered_sets.get().checked_sub(1) {
            self.0.unanswered_sets.set(left);
            std::future::pending::<()>().await;
        }
        self.outcome(())?;
        if let Some(act) = self.0.during_set.take() {
            act();
        }
        self.0.store.borrow_mut().insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    async fn send(&self, _: Request<String>, _: usize) -> Result<Response<Vec<u8>>, SendError> {
        self.0.sent.set(self.0.sent.get() + 1);
        if let Some(act) = self.0.during_send.take() {
            act();
        }
        let (status, body) = self.0.answer.get().ok_or(SendError::Unreachable)?;
        Ok(Response::builder().status(status).body(body.as_bytes().to_vec()).expect("a valid status"))
    }

    fn audit(&self, line: Vec<u8>) {
        self.0.lines.borrow_mut().push(String::from_utf8(line).unwrap());
    }

    fn warn(&self, line: &str) {
        self.0.warnings.borrow_mut().push(line.to_owned());
    }
}
