//! Starts instances for requests, limits their reuse, and ends them.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant as StdInstant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Sleep, sleep};
use wasmtime::component::GuestTaskId;
use wasmtime::{Store, StoreContextMut};
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::handler::{
    HandlerState, Instance as Worker, ShouldAccept, WorkerExpiration, WorkerState, WorkerStatus,
};

use super::options::Reuse;
use super::phase::{Phase, ended, reached};
use crate::runtime::app::App;
use crate::runtime::instance::Instance;
use crate::runtime::shared::Shared;

/// Starts instances for wasmtime's `ProxyHandler`, which passes requests to them.
pub(super) struct Instances {
    pub(super) app: App,
    pub(super) shared: Arc<Shared>,
    pub(super) reuse: Reuse,
    /// Number of further instances that may start now.
    pub(super) free: Arc<Semaphore>,
    pub(super) phase: watch::Sender<Phase>,
    /// Each message on it ends the present instances.
    pub(super) ending: watch::Sender<()>,
}

/// The limit of instances is reached.
#[derive(Debug)]
pub(super) struct Occupied;

impl std::fmt::Display for Occupied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the limit of instances is reached")
    }
}

impl std::error::Error for Occupied {}

impl HandlerState for Instances {
    type StoreData = Instance;
    type WorkerExpiration = Expiration;
    type WorkerState = InstanceLife;

    async fn instantiate(&self) -> wasmtime::Result<Worker<Instance, Expiration, InstanceLife>> {
        let place = self.free.clone().try_acquire_owned().map_err(|_| Occupied)?;
        let ending = self.ending.subscribe();
        let (store, proxy) = self.app.instantiate(self.shared.clone()).await.inspect_err(|error| {
            self.shared.counters.add(|counts| counts.traps += 1);
            self.shared.output.report(&format!("an instance could not be started: {error:#}"));
        })?;
        self.shared.counters.add(|counts| counts.instances += 1);
        Ok(Worker {
            store,
            proxy,
            view: Instance::http,
            expiration: Expiration {
                idle: self.reuse.idle,
                sleep: Box::pin(sleep(self.reuse.idle)),
                draining: Box::pin(reached(self.phase.subscribe(), Phase::Draining)),
                ended: Box::pin(ended(self.phase.subscribe(), ending.clone())),
            },
            state: InstanceLife {
                reuse: self.reuse,
                shared: self.shared.clone(),
                phase: self.phase.subscribe(),
                ending,
                fuel_left: AtomicU64::new(0),
                _place: place,
            },
        })
    }
}

/// State of an instance: decides whether it accepts a request, and reports how it ended.
pub(super) struct InstanceLife {
    reuse: Reuse,
    shared: Arc<Shared>,
    phase: watch::Receiver<Phase>,
    ending: watch::Receiver<()>,
    /// Fuel left at the start of the latest request; zero before the first one.
    fuel_left: AtomicU64,
    _place: OwnedSemaphorePermit,
}

impl WorkerState for InstanceLife {
    type StoreData = Instance;
    type RequestData = ();

    fn should_accept_request(&self, concurrent: usize, total: usize) -> ShouldAccept {
        if total >= self.reuse.max_requests {
            ShouldAccept::Never
        } else if concurrent >= self.reuse.max_concurrent {
            ShouldAccept::No
        } else {
            ShouldAccept::Yes
        }
    }

    /// Counts fuel. Sets no deadline for the request, as Spin sets none.
    fn on_request_start(
        &self,
        store: StoreContextMut<'_, Instance>,
        (): (),
        _: GuestTaskId,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + Sync>> {
        if let Ok(left) = store.get_fuel() {
            let before = self.fuel_left.swap(left, Ordering::Relaxed);
            self.shared.counters.add(|counts| counts.fuel += before.saturating_sub(left));
        }
        Box::pin(std::future::pending())
    }

    fn drop(&self, store: Store<Instance>, result: wasmtime::Result<()>) {
        drop(store);
        // An instance that the server ended has not trapped.
        let is_ended = *self.phase.borrow() == Phase::Ended || self.ending.has_changed().unwrap_or(true);
        if let Err(error) = result
            && !is_ended
        {
            self.shared.counters.add(|counts| counts.traps += 1);
            self.shared.output.report(&format!("an instance trapped: {error:#}"));
        }
    }
}

/// Decides when an instance is dropped: after its idle time, with the server, or when the
/// server is told to end its instances.
pub(super) struct Expiration {
    idle: Duration,
    sleep: Pin<Box<Sleep>>,
    draining: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
    ended: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
}

impl WorkerExpiration for Expiration {
    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>, status: WorkerStatus, since: StdInstant) -> Poll<()> {
        if self.ended.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if status != WorkerStatus::Idle {
            return Poll::Pending;
        }
        if self.draining.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let deadline = (since + self.idle).into();
        if self.sleep.deadline() != deadline {
            self.sleep.as_mut().reset(deadline);
        }
        self.sleep.as_mut().poll(cx)
    }
}
