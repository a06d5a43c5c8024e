//! The core's `Ports` in the world of the issuers.

use std::rc::Rc;
use std::time::Duration;

use http::{Method, Request, Response};
use officernd_token_broker::broker::{Ports, SendError};
use officernd_token_broker::time::Timestamp;
use tokio::time::{Instant, sleep};

use super::world::World;

/// Ports of one instance, whose clock is ahead.
#[derive(Clone)]
pub(super) struct Simulated {
    world: Rc<World>,
    number: u64,
    ahead_ms: u64,
}

impl Simulated {
    pub(super) fn new(world: &Rc<World>, ahead_ms: u64) -> Self {
        Self { world: world.clone(), number: world.next_instance(), ahead_ms }
    }
}

impl Ports for Simulated {
    fn now(&self) -> Timestamp {
        let ms = (Instant::now() - self.world.started).as_millis() as u64;
        Timestamp::from_unix_ms(1_800_000_000_000 + ms + self.ahead_ms)
    }

    fn uptime(&self) -> Duration {
        Instant::now() - self.world.started
    }

    fn random(&self) -> u64 {
        self.world.random.borrow_mut().u64(..)
    }

    async fn sleep(&self, duration: Duration) {
        sleep(duration).await;
    }

    async fn variable(&self, _: &'static str) -> Result<Option<String>, String> {
        unreachable!("the test has the configuration")
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        self.world.store_latency().await?;
        Ok(self.world.stored(key))
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<(), String> {
        self.world.store_latency().await?;
        self.world.store(key, value);
        Ok(())
    }

    async fn send(&self, request: Request<String>, limit: usize) -> Result<Response<Vec<u8>>, SendError> {
        assert_eq!((request.method(), request.body().as_str()), (&Method::GET, ""));
        self.world.serve(self.number, &request.uri().to_string(), limit).await
    }

    fn audit(&self, _: Vec<u8>) {}

    fn warn(&self, _: &str) {}
}
