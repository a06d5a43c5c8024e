//! Serves an application: HTTP in front, and as many instances behind it as Spin would run.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant as StdInstant};

use anyhow::{Context, bail};
use http::header::{CONNECTION, HOST};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Sleep, sleep, timeout};
use wasmtime::component::GuestTaskId;
use wasmtime::{Store, StoreContextMut};
use wasmtime_wasi_http::handler::{
    HandlerState, Instance as Worker, InstantiationError, ProxyHandler, ShouldAccept, WorkerExpiration, WorkerState,
    WorkerStatus,
};
use wasmtime_wasi_http::{WasiBody, WasiHttpView};

use crate::app::{HostState, Instance};
use crate::manifest::Route;
use crate::outbound::AllowedHosts;
use crate::{App, Counts, KeyValue, Output, Variables};

/// How long [`Server::stop`] lets requests and what instances do after them go on.
const GRACE: Duration = Duration::from_secs(2);

/// What Spin takes from its command line and its runtime configuration.
#[derive(Clone)]
pub struct Options {
    /// Where to listen; port 0 is a free one.
    pub listen: SocketAddr,
    /// The values of the application's variables.
    pub variables: Variables,
    /// The store behind every label in `key_value_stores`.
    pub key_value: KeyValue,
    /// How far an instance is reused.
    pub reuse: Reuse,
    /// Where the component's output goes.
    pub output: Output,
}

impl Default for Options {
    /// A free port on loopback, no variables, a store in memory, Spin's reuse of instances, output inherited.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            variables: Variables::default(),
            key_value: KeyValue::memory(),
            reuse: Reuse::default(),
            output: Output::inherited(),
        }
    }
}

/// How far an instance is reused before it is dropped.
#[derive(Clone, Copy, Debug)]
pub struct Reuse {
    /// Requests in its life.
    pub max_requests: usize,
    /// Requests at the same time.
    pub max_concurrent: usize,
    /// Time without a request.
    pub idle: Duration,
    /// One instance at a time for the whole server: what it cannot take yet waits for it, or for its successor.
    pub single_instance: bool,
}

impl Default for Reuse {
    /// Spin's defaults: 128 requests, 16 at the same time, 1 s; as many instances as are needed.
    fn default() -> Self {
        Self { max_requests: 128, max_concurrent: 16, idle: Duration::from_secs(1), single_instance: false }
    }
}

/// A running server. Dropping it ends everything at once; [`stop`](Self::stop) lets requests finish.
pub struct Server {
    addr: SocketAddr,
    host: Arc<HostState>,
    phase: watch::Sender<Phase>,
    ending: watch::Sender<()>,
}

/// What a server is about. Connections and instances hold a receiver while they live, so the sender knows when all
/// are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    /// No new connection or request; what is under way goes on.
    Draining,
    Ended,
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

/// Resolves once `phase` is `wanted` or a later one.
async fn reached(mut phase: watch::Receiver<Phase>, wanted: Phase) {
    // An error means that the sender is gone, and with it the server.
    drop(phase.wait_for(|now| *now >= wanted).await);
}

/// Resolves once the server has ended, or somebody wants the instances to end.
async fn ended(phase: watch::Receiver<Phase>, mut ending: watch::Receiver<()>) {
    tokio::select! {
        () = reached(phase, Phase::Ended) => {}
        _ = ending.changed() => {}
    }
}

async fn accept(listener: TcpListener, front: Arc<Front>, phase: watch::Receiver<Phase>) {
    let mut draining = pin!(reached(phase.clone(), Phase::Draining));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut draining => return,
        };
        match accepted {
            Ok((stream, client)) => drop(tokio::spawn(front.clone().serve(stream, client, phase.clone()))),
            Err(error) => {
                // Mostly: too many open files. Trying again at once would only burn the processor.
                front.host.output.report(&format!("cannot accept a connection: {error}"));
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Between hyper and the instances.
struct Front {
    routes: Vec<Route>,
    handler: ProxyHandler<Instances>,
    host: Arc<HostState>,
}

impl Front {
    async fn serve(self: Arc<Self>, stream: TcpStream, client: SocketAddr, phase: watch::Receiver<Phase>) {
        // Without it, an answer that leaves in two writes can wait 40 ms for the client's delayed acknowledgement.
        drop(stream.set_nodelay(true));
        let server = auto::Builder::new(TokioExecutor::new());
        let service = service_fn(|request| {
            let front = self.clone();
            async move { anyhow::Ok(front.answer(request, client).await) }
        });
        let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
        // A client that breaks off or speaks no HTTP is its own affair: the result is of no interest.
        tokio::select! {
            _ = connection.as_mut() => return,
            () = reached(phase.clone(), Phase::Draining) => connection.as_mut().graceful_shutdown(),
        }
        tokio::select! {
            _ = connection => {}
            () = reached(phase, Phase::Ended) => {}
        }
    }

    async fn answer(&self, mut request: Request<Incoming>, client: SocketAddr) -> Response<WasiBody> {
        let path = request.uri().path().to_owned();
        let Some((route, below)) = self.routes.iter().find_map(|route| Some((route, route.matches(&path)?))) else {
            return plain(StatusCode::NOT_FOUND, "");
        };
        if let Err(error) = complete_uri(&mut request) {
            return plain(StatusCode::BAD_REQUEST, &format!("{error:#}\n"));
        }
        complete_headers(&mut request, route, below, client);

        self.host.counters.add(|counts| counts.requests += 1);
        let method = request.method().clone();
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        match self.handle(request).await {
            Ok(response) => response,
            // Whoever ends the server ends the connection too, and nobody is told in between what became of an instance.
            Err(_) if *self.handler.state().phase.borrow() == Phase::Ended => std::future::pending().await,
            Err(error) => {
                self.host.output.report(&format!("{method} {path} is answered with 500: {error:#}"));
                plain(StatusCode::INTERNAL_SERVER_ERROR, "")
            }
        }
    }

    async fn handle(&self, mut request: Request<WasiBody>) -> wasmtime::Result<Response<WasiBody>> {
        loop {
            let error = match self.handler.handle((), request).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            let error: InstantiationError<()> = error.downcast()?;
            if !error.error.is::<Occupied>() {
                return Err(error.into());
            }
            // The one instance has no room at this moment, and the handler gave the request back.
            request = error.request.into_inner().expect("nothing locks the request but this");
            sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Gives the request the absolute URI that a component sees, from `Host` or, with HTTP/2, `:authority`.
///
/// Spin closes the connection where this fails; an answer is easier to understand.
fn complete_uri<B>(request: &mut Request<B>) -> anyhow::Result<()> {
    let host = match request.headers().get(HOST) {
        Some(host) => Some(Authority::try_from(host.as_bytes()).context("the Host header is no host")?),
        None => None,
    };
    let mut parts = request.uri().clone().into_parts();
    let authority = match (host, parts.authority) {
        (None, None) => bail!("the request has no Host header"),
        (Some(host), Some(authority)) if host != authority => bail!("the Host header contradicts the URI"),
        (Some(authority), _) | (None, Some(authority)) => authority,
    };
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(authority);
    *request.uri_mut() = Uri::from_parts(parts).context("the request has no path")?;
    Ok(())
}

/// Adds what Spin tells a component about a request. As with Spin, a client's own header of that name stays before
/// it.
fn complete_headers<B>(request: &mut Request<B>, route: &Route, below: &str, client: SocketAddr) {
    let uri = request.uri().to_string();
    let headers: &mut HeaderMap = request.headers_mut();
    headers.remove(CONNECTION);
    let (raw_route, prefix) = match route {
        Route::Exact(path) => (path.clone(), path),
        Route::Tree(path) => (format!("{path}/..."), path),
    };
    let values = [
        ("spin-path-info", below),
        ("spin-full-url", &uri),
        ("spin-matched-route", &raw_route),
        ("spin-base-path", "/"),
        ("spin-raw-component-route", &raw_route),
        ("spin-component-route", prefix),
        ("spin-client-addr", &client.to_string()),
    ];
    for (name, value) in values {
        // Paths and URIs have been parsed: nothing in them is forbidden in a header, and a route that is gets none.
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.append(name, value);
        }
    }
}

fn plain(status: StatusCode, text: &str) -> Response<WasiBody> {
    let body = Full::new(Bytes::copy_from_slice(text.as_bytes())).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

/// Starts instances for [`ProxyHandler`], which hands them the requests.
struct Instances {
    app: App,
    host: Arc<HostState>,
    reuse: Reuse,
    /// How many more instances may live at this moment.
    free: Arc<Semaphore>,
    phase: watch::Sender<Phase>,
    /// Whenever something is sent, the instances that live end.
    ending: watch::Sender<()>,
}

/// There are as many instances as there may be.
#[derive(Debug)]
struct Occupied;

impl std::fmt::Display for Occupied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("as many instances are alive as may be")
    }
}

impl std::error::Error for Occupied {}

impl HandlerState for Instances {
    type StoreData = Instance;
    type WorkerExpiration = Expiration;
    type WorkerState = Life;

    async fn instantiate(&self) -> wasmtime::Result<Worker<Instance, Expiration, Life>> {
        let place = self.free.clone().try_acquire_owned().map_err(|_| Occupied)?;
        let ending = self.ending.subscribe();
        let (store, proxy) = self.app.instantiate(self.host.clone()).await.inspect_err(|error| {
            self.host.counters.add(|counts| counts.traps += 1);
            self.host.output.report(&format!("an instance could not be started: {error:#}"));
        })?;
        self.host.counters.add(|counts| counts.instances += 1);
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
            state: Life {
                reuse: self.reuse,
                host: self.host.clone(),
                phase: self.phase.subscribe(),
                ending,
                fuel_left: AtomicU64::new(0),
                _place: place,
            },
        })
    }
}

/// What an instance may take, and its end.
struct Life {
    reuse: Reuse,
    host: Arc<HostState>,
    phase: watch::Receiver<Phase>,
    ending: watch::Receiver<()>,
    /// At the start of the last request; zero before the first.
    fuel_left: AtomicU64,
    _place: OwnedSemaphorePermit,
}

impl WorkerState for Life {
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

    /// As with Spin, the host sets a request no deadline.
    fn on_request_start(
        &self,
        store: StoreContextMut<'_, Instance>,
        (): (),
        _: GuestTaskId,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + Sync>> {
        if let Ok(left) = store.get_fuel() {
            let before = self.fuel_left.swap(left, Ordering::Relaxed);
            self.host.counters.add(|counts| counts.fuel += before.saturating_sub(left));
        }
        Box::pin(std::future::pending())
    }

    fn drop(&self, store: Store<Instance>, result: wasmtime::Result<()>) {
        drop(store);
        // An instance that is ended, alone or together with its server, has done nothing wrong.
        let is_ended = *self.phase.borrow() == Phase::Ended || self.ending.has_changed().unwrap_or(true);
        if let Err(error) = result
            && !is_ended
        {
            self.host.counters.add(|counts| counts.traps += 1);
            self.host.output.report(&format!("an instance trapped: {error:#}"));
        }
    }
}

/// When an instance is dropped: after some time idle, with the server, and when somebody wants it to end.
struct Expiration {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uri_is_made_of_host_and_path_or_refused() {
        let cases = [
            (Some("a.example"), "/x?y=1", Ok("http://a.example/x?y=1")),
            (Some("a.example:3000"), "/", Ok("http://a.example:3000/")),
            (None, "http://a.example/x", Ok("http://a.example/x")),
            (Some("a.example"), "http://a.example/x", Ok("http://a.example/x")),
            (Some("b.example"), "http://a.example/x", Err("contradicts")),
            (None, "/x", Err("no Host")),
            (Some("a b"), "/x", Err("is no host")),
        ];
        for (host, uri, expected) in cases {
            let mut request = Request::builder().uri(uri);
            if let Some(host) = host {
                request = request.header(HOST, host);
            }
            let mut request = request.body(()).unwrap();
            let result =
                complete_uri(&mut request).map(|()| request.uri().to_string()).map_err(|error| error.to_string());
            match (result, expected) {
                (Ok(uri), Ok(expected)) => assert_eq!(uri, expected),
                (Err(error), Err(expected)) => assert!(error.contains(expected), "{error}"),
                (result, _) => panic!("{host:?} {uri}: {result:?}"),
            }
        }
    }
}
