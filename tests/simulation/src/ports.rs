//! The core's `Ports` in the simulated world.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use http::{Request, Response};
use officernd_token_broker::broker::{Ports, SendError};
use officernd_token_broker::time::Timestamp;
use tokio::time::{Instant, sleep};

use crate::world::World;

/// Ports of one instance.
#[derive(Clone)]
pub(crate) struct Simulated {
    pub(crate) world: Rc<World>,
    pub(crate) place: usize,
    /// Arrival times of this instance's calls at OfficeRnD.
    pub(crate) arrivals: Rc<RefCell<Vec<Instant>>>,
}

impl Ports for Simulated {
    fn now(&self) -> Timestamp {
        self.world.clock(self.place)
    }

    fn random(&self) -> u64 {
        self.world.random.borrow_mut().u64(..)
    }

    async fn sleep(&self, duration: Duration) {
        sleep(duration).await;
    }

    async fn variable(&self, name: &'static str) -> Result<Option<String>, String> {
        Ok(Some(self.world.variable(name)))
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        let (there, back) = self.world.store_latency()?;
        sleep(there + self.world.delay_of_a_read()).await;
        let value = self.world.store.borrow().get(key).cloned();
        sleep(back).await;
        Ok(value)
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<(), String> {
        let (there, back) = self.world.store_latency()?;
        if self.world.is_read_only() {
            return Err("the simulated store is read-only".into());
        }
        let (world, key, value) = (self.world.clone(), key.to_owned(), value.to_vec());
        let landing = tokio::task::spawn_local(async move {
            sleep(there).await;
            world.store.borrow_mut().insert(key, value);
        });
        landing.await.map_err(|error| error.to_string())?;
        sleep(back).await;
        Ok(())
    }

    async fn send(&self, request: Request<String>, _limit: usize) -> Result<Response<Vec<u8>>, SendError> {
        let (world, place, arrivals) = (self.world.clone(), self.place, self.arrivals.clone());
        let (there, back) = self.world.upstream_latency();
        let arrival = tokio::task::spawn_local(async move {
            sleep(there).await;
            world.arrive(place, &arrivals, request.body())
        });
        let answer = arrival.await.map_err(|_| SendError::Unreachable)?;
        sleep(back).await;
        match answer {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }

    fn audit(&self, _line: Vec<u8>) {}

    fn warn(&self, line: &str) {
        self.world.trace(|| format!("instance {}: {line}", self.place));
    }
}
