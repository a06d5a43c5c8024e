//! Serves an application: HTTP in front, and as many instances behind it as Spin would run.

mod front;
pub(crate) mod options;
mod phase;
mod workers;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
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
use crate::runtime::shared::HostState;
use crate::spin::allowed_hosts::AllowedHosts;

/// How long [`Server::stop`] lets requests and what instances do after them go on.
const GRACE: Duration = Duration::from_secs(2);

/// A running server. Dropping it ends everything at once; [`stop`](Self::stop) lets requests finish.
pub struct Server {
    addr: SocketAddr,
    host: Arc<HostState>,
    phase: watch::Sender<Phase>,
    ending: watch::Sender<()>,
}

/// Serves `app`.
///
/// # Errors
///
/// When a required variable has no value, when `allowed_outbound_hosts` does not parse with the values it has now, or
/// when `options.listen` cannot be listened on.
pub async fn start(app: &App, options: Options) -> anyhow::Result<Server> {
    let Options { listen, variables, key_value, reuse, output } = options;
    let manifest = app.manifest.clone();
    manifest.check_variables(&variables)?;
    let allowed_hosts = AllowedHosts::resolve(&manifest, &variables)?;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let addr = listener.local_addr().context("the listener has no address")?;

    let (phase, ending) = (watch::Sender::new(Phase::Serving), watch::Sender::new(()));
    let host = Arc::new(HostState { manifest, variables, key_value, allowed_hosts, counters: Arc::default(), output });
    let front = Arc::new(Front {
        routes: host.manifest.routes.clone(),
        handler: ProxyHandler::new(Instances {
            app: app.clone(),
            host: host.clone(),
            reuse,
            free: Arc::new(Semaphore::new(if reuse.single_instance { 1 } else { Semaphore::MAX_PERMITS })),
            phase: phase.clone(),
            ending: ending.clone(),
        }),
        host: host.clone(),
    });
    tokio::spawn(accept(listener, front, phase.subscribe()));
    Ok(Server { addr, host, phase, ending })
}

impl Server {
    /// The address it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What the component has written so far, when its output is captured.
    pub fn output(&self) -> String {
        self.host.output.text()
    }

    /// What has happened so far.
    pub fn counts(&self) -> Counts {
        self.host.counters.read()
    }

    /// Ends the instances that live now, whatever they are doing, as a trap would: who waits for one is answered with 500. The
    /// next request gets a new one.
    pub fn end_instances(&self) {
        self.ending.send_replace(());
    }

    /// Takes no new request, and waits for those under way and for what instances do after them: 2 s at most, then it
    /// ends them.
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
