//! Serves an application over HTTP, with as many instances as Spin would run.

mod front;
pub(crate) mod options;
mod phase;
mod workers;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use broker_operator::spin::AllowedHosts;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use wasmtime_wasi_http::handler::ProxyHandler;

use self::front::{Front, accept};
use self::options::Options;
use self::phase::Phase;
use self::workers::Instances;
use crate::counts::Counts;
use crate::runtime::app::App;
use crate::runtime::shared::Shared;

/// Time that [`Server::stop`] gives to requests and to the follow-ups of instances.
const GRACE: Duration = Duration::from_secs(2);

/// A running server. Dropping it ends everything at once, while [`stop`](Self::stop) lets
/// requests finish.
pub struct Server {
    addr: SocketAddr,
    shared: Arc<Shared>,
    phase: watch::Sender<Phase>,
    ending: watch::Sender<()>,
}

/// Starts a server for `app`.
///
/// # Errors
///
/// If a required variable has no value, if `allowed_outbound_hosts` does not parse with the
/// present values, or if `options.listen` is not available.
pub async fn start(app: &App, options: Options) -> anyhow::Result<Server> {
    let Options { listen, variables, key_value, reuse, clock, output } = options;
    let manifest = app.manifest.clone();
    manifest.check_variables(&variables)?;
    let allowed_hosts = AllowedHosts::resolve(&manifest, &variables)?;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let addr = listener.local_addr().context("the listener has no address")?;

    let (phase, ending) = (watch::Sender::new(Phase::Serving), watch::Sender::new(()));
    let shared =
        Arc::new(Shared { manifest, variables, key_value, allowed_hosts, counters: Arc::default(), clock, output });
    let front = Arc::new(Front {
        routes: shared.manifest.routes.clone(),
        handler: ProxyHandler::new(Instances {
            app: app.clone(),
            shared: shared.clone(),
            reuse,
            free: Arc::new(Semaphore::new(if reuse.single_instance { 1 } else { Semaphore::MAX_PERMITS })),
            phase: phase.clone(),
            ending: ending.clone(),
        }),
        shared: shared.clone(),
    });
    tokio::spawn(accept(listener, front, phase.subscribe()));
    Ok(Server { addr, shared, phase, ending })
}

impl Server {
    /// Address that the server listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the output so far, if it is captured.
    pub fn output(&self) -> String {
        self.shared.output.text()
    }

    /// Returns the counts so far.
    pub fn counts(&self) -> Counts {
        self.shared.counters.read()
    }

    /// Ends the present instances at once, as a trap would: requests that wait for them get
    /// status 500. The next request starts a new instance.
    pub fn end_instances(&self) {
        self.ending.send_replace(());
    }

    /// Stops accepting requests, waits at most 2 s for present requests and follow-ups, and
    /// then ends them.
    pub async fn stop(self) {
        self.phase.send_replace(Phase::Draining);
        if timeout(GRACE, self.phase.closed()).await.is_err() {
            self.phase.send_replace(Phase::Ended);
            self.phase.closed().await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.phase.send_replace(Phase::Ended);
    }
}
