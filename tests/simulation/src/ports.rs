//! The core's `Ports` in the simulated world.

use std::rc::Rc;
use std::time::Duration;

use http::{Request, Response};
use officernd_token_broker::broker::{Ports, SendError};
use officernd_token_broker::time::Timestamp;
use tokio::time::sleep_until;

use crate::world::{Journey, Kind, Operation, Running, World};

/// Ports of one request and its follow-up.
#[derive(Clone)]
pub(crate) struct Simulated {
    pub(crate) world: Rc<World>,
    pub(crate) running: Rc<Running>,
    pub(crate) journey: Rc<Journey>,
}

impl Ports for Simulated {
    fn now(&self) -> Timestamp {
        self.world.clock(&self.running)
    }

    fn uptime(&self) -> Duration {
        self.running.now() - self.world.started
    }

    fn random(&self) -> u64 {
        self.world.random.borrow_mut().u64(..)
    }

    async fn sleep(&self, duration: Duration) {
        sleep_until(self.running.now() + duration).await;
    }

    async fn variable(&self, name: &'static str) -> Result<Option<String>, String> {
        self.world.read_variable(&self.running, name).await.map(Some).map_err(str::to_owned)
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        let operation = Operation::begin(self, Kind::Read, key);
        let outcome = self.read(key).await;
        self.world.trace(|| format!("instance {}: {key} is {}", self.running.number, outcome_of(&outcome)));
        operation.end_read(&outcome);
        outcome.map_err(str::to_owned)
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<(), String> {
        let operation = Operation::begin_write(self, key, value);
        let outcome = self.write(key, value).await;
        self.world
            .trace(|| format!("instance {}: {key} becomes {} bytes: {outcome:?}", self.running.number, value.len()));
        operation.end_write(&outcome, value);
        outcome.map_err(str::to_owned)
    }

    async fn send(&self, request: Request<String>, _limit: usize) -> Result<Response<Vec<u8>>, SendError> {
        let call = self.begin_call();
        let (there, back) = self.world.upstream_latency();
        let arrival = self.running.now() + there;
        let this = self.clone();
        // The call arrives even if the request is dropped.
        let answer = tokio::task::spawn_local(async move {
            sleep_until(arrival).await;
            this.arrive(&call, request.body())
        });
        let answer = answer.await.map_err(|_| SendError::Unreachable)?;
        sleep_until(arrival + back).await;
        match answer {
            Some(answer) => answer.inspect(|answer| self.end_call(answer)),
            None => std::future::pending().await,
        }
    }

    fn audit(&self, line: Vec<u8>) {
        let line = String::from_utf8_lossy(&line);
        // The line of a call, not of the request.
        if line.contains(r#""credential":"#) {
            return;
        }
        let reason = line.split_once(r#""reason":""#).and_then(|(_, rest)| rest.split('"').next());
        self.journey.reason.replace(reason.map(str::to_owned));
    }

    fn warn(&self, line: &str) {
        self.world.trace(|| format!("instance {}: {line}", self.running.number));
    }
}

/// The outcome of a read, in short.
fn outcome_of(outcome: &Result<Option<Vec<u8>>, &'static str>) -> String {
    match outcome {
        Ok(value) => format!("{:?} bytes", value.as_ref().map(Vec::len)),
        Err(problem) => (*problem).to_owned(),
    }
}
