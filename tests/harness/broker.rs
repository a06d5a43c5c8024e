//! A broker that runs in a host, and the sandbox that it calls.

use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use broker_host::sandbox::{self, Call, Sandbox};
use broker_host::{App, Faults, KeyValue, Options, Output, Variables};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request};
use http_body_util::Full;
use officernd_token_broker::config::application::{Application, Credential};
use officernd_token_broker::config::{Config, VARIABLES};
use officernd_token_broker::scope::Scopes;
use officernd_token_broker::seal::NONCE_LENGTH;
use officernd_token_broker::secret::AccessToken;
use officernd_token_broker::time::Timestamp;
use officernd_token_broker::token::{Key, Token};
use tokio::time::sleep;

use crate::answer::{Answer, basic, exchange, form};
use crate::component::{manifest, manifest_of_allocations};
use crate::leak::{Secret, keep_secret, search};
use crate::server::{Log, Server, WasmtimeServe};
use crate::setup::{Caller, Setup, Watched, secret};

/// Label of the key-value store that `spin.toml` gives the component.
const LABEL: &str = "default";

/// Returns the component, built and compiled once per process.
fn app() -> &'static App {
    static APP: OnceLock<App> = OnceLock::new();
    APP.get_or_init(|| App::load(manifest()).expect("the component loads"))
}

/// Returns the component with its instructions counted, compiled once per process.
fn metered_app() -> &'static App {
    static APP: OnceLock<App> = OnceLock::new();
    APP.get_or_init(|| App::load_metered(manifest()).expect("the component loads"))
}

/// Returns the component whose allocator logs what it allocates, compiled once per process.
fn telling_app() -> &'static App {
    static APP: OnceLock<App> = OnceLock::new();
    APP.get_or_init(|| App::load(manifest_of_allocations()).expect("the component loads"))
}

/// A broker in a host, and the sandbox that it calls. Dropping it searches all it leaves behind
/// for secrets.
pub struct Broker {
    watch: Watch,
    /// Application and callers of this broker.
    pub setup: Setup,
    /// Stand-in for OfficeRnD.
    pub sandbox: Arc<Sandbox>,
    /// Host that runs the component.
    pub server: Server,
    /// Variables of the component. A test may change them while the broker runs.
    pub variables: Variables,
}

/// How often a component has reached outside of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touched {
    /// Requests that arrived at the sandbox.
    pub calls: usize,
    /// Requests that the component sent, as the host counts them. `wasmtime serve` does not
    /// count; then it equals `calls`.
    pub sent: u64,
    /// Operations on the store; `None` on a host that does not count.
    pub store: Option<u64>,
}

/// Searches everything a broker leaves behind for every known secret, when it is dropped.
struct Watch {
    output: Log,
    key_value: KeyValue,
    sandbox: Weak<Sandbox>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let tokens = self.sandbox.upgrade().map(|sandbox| sandbox.tokens()).unwrap_or_default();
        tokens.iter().for_each(|token| keep_secret("a token of OfficeRnD's", token));
        search(&[self.output.text().as_bytes()]);
        search_store(Ok(self.key_value.clone()));
    }
}

/// Searches all keys and values of a store for every known secret.
pub(crate) fn search_store(store: anyhow::Result<KeyValue>) {
    let entries = store.and_then(|store| store.entries(LABEL));
    // Panicking again while a failed test unwinds would abort the process; its store may be
    // gone too.
    assert!(entries.is_ok() || std::thread::panicking(), "the store cannot be searched: {entries:?}");
    let entries = entries.unwrap_or_default();
    search(&entries.iter().flat_map(|(key, value)| [key.as_bytes(), value]).collect::<Vec<_>>());
}

impl Setup {
    /// Starts a sandbox and a broker that calls it.
    pub async fn start(self) -> Broker {
        let config = sandbox::Config { applications: vec![self.application.clone()], ..self.sandbox.clone() };
        let sandbox = Arc::new(Sandbox::start(config).await.expect("loopback has a free port"));
        let variables = self.variables(&sandbox.url());
        serve(self, sandbox, variables).await
    }
}

async fn serve(setup: Setup, sandbox: Arc<Sandbox>, variables: Variables) -> Broker {
    let key_value = setup.key_value.clone();
    let (server, output) = if setup.in_wasmtime_serve {
        let variables = variables.clone();
        let start = tokio::task::spawn_blocking(move || WasmtimeServe::start(&variables));
        let server = start.await.expect("wasmtime serve starts");
        let log = server.log();
        (Server::WasmtimeServe(server), log)
    } else {
        serve_here(&setup, &variables).await
    };
    let watch = Watch { output, key_value, sandbox: Arc::downgrade(&sandbox) };
    Broker { watch, setup, sandbox, server, variables }
}

async fn serve_here(setup: &Setup, variables: &Variables) -> (Server, Log) {
    let app = match setup.watched {
        Watched::Nothing => app,
        Watched::Instructions => metered_app,
        Watched::Allocations => telling_app,
    };
    let app = tokio::task::spawn_blocking(app).await.expect("the component builds and loads");
    let output = Output::captured();
    let options = Options {
        variables: variables.clone(),
        key_value: setup.key_value.clone(),
        reuse: setup.reuse,
        clock: setup.clock.clone(),
        output: output.clone(),
        ..Options::default()
    };
    let server = broker_host::start(app, options).await.expect("the host starts");
    (Server::Here(server), Log::Captured(output))
}

impl Broker {
    /// Stops the host and starts another with the same variables and the same store.
    pub async fn restart(self) -> Self {
        let Self { watch, setup, sandbox, server, variables } = self;
        server.stop().await;
        drop(watch);
        serve(setup, sandbox, variables).await
    }

    /// Starts a second host with this store, which calls the same sandbox.
    pub async fn beside(&self, key_value: KeyValue) -> Self {
        self.beside_as(Setup { key_value, ..self.setup.clone() }).await
    }

    /// Starts a second host with this setup, which calls the same sandbox.
    pub async fn beside_as(&self, setup: Setup) -> Self {
        self.needs("a store that two hosts share");
        serve(setup, self.sandbox.clone(), self.variables.clone()).await
    }

    /// Starts a second host with this store and other variables, which calls the same sandbox.
    pub async fn beside_with(&self, variables: Variables) -> Self {
        self.needs("a store that two hosts share");
        serve(self.setup.clone(), self.sandbox.clone(), variables).await
    }

    /// Sends a request and reads the answer.
    pub fn send(&self, request: Request<String>) -> impl Future<Output = Answer> + use<> {
        let exchange = exchange(self.server.addr(), request.map(|body| Full::new(Bytes::from(body))));
        async { exchange.await.expect("the broker answers every request") }
    }

    /// Sends a request without a body or credentials.
    pub fn fetch(&self, method: Method, path: &str) -> impl Future<Output = Answer> + use<> {
        self.send(Request::builder().method(method).uri(path).body(String::new()).expect("a path is a URI"))
    }

    /// Requests a token with HTTP Basic, as most clients do.
    pub fn token(&self, caller: &Caller, scope: Option<&str>) -> impl Future<Output = Answer> + use<> {
        self.send(token_request(caller, scope))
    }

    /// Requests a token as the caller `nightly`.
    pub fn nightly(&self, scope: &str) -> impl Future<Output = Answer> + use<> {
        self.token(&self.setup.nightly, Some(scope))
    }

    /// Fails on `wasmtime serve`, which lacks `what`. A test that comes here must be listed in
    /// `tests/whole_machine/wasmtime_serve.rs`.
    #[track_caller]
    fn needs(&self, what: &str) {
        assert!(!self.setup.in_wasmtime_serve, "not on wasmtime serve: {what}");
    }

    /// Counts how often the component has reached outside of itself so far.
    pub fn touched(&self) -> Touched {
        let (calls, counts) = (self.calls().len(), self.server.counts_if_any());
        let sent = counts.map_or(calls as u64, |counts| counts.outbound);
        Touched { calls, sent, store: counts.map(|counts| counts.store_calls()) }
    }

    /// Waits until the component has done what it does after its answers. The longest pause
    /// between two steps of a fetch is that of the lease, 50 ms.
    pub async fn at_rest(&self) {
        let mut before = None;
        while before != Some(self.touched()) {
            before = Some(self.touched());
            sleep(Duration::from_millis(150)).await;
        }
    }

    /// Makes the store fail in this way from now on.
    pub fn set_store_faults(&self, faults: Faults) {
        self.needs("a store outside of the instances");
        self.setup.key_value.set_faults(faults);
    }

    /// Returns the calls that have arrived at the sandbox so far.
    pub fn calls(&self) -> Vec<Call> {
        self.sandbox.calls()
    }

    /// Returns every secret of this broker's application and callers.
    pub fn secrets(&self) -> Vec<Secret> {
        self.setup.secrets()
    }

    /// Parses the variables as the core does.
    pub fn config(&self) -> Config {
        let values = VARIABLES.map(|variable| {
            let given = self.variables.lookup(variable.name).expect("the provider works");
            (variable.name, given.unwrap_or_else(|| variable.default.unwrap_or_default().to_owned()))
        });
        let lookup = |name: &str| values.iter().find(|(other, _)| *other == name).map_or("", |(_, value)| value);
        Config::parse(lookup).expect("the variables are valid")
    }

    /// Returns the store key of a token for these scopes of the default application, computed
    /// by the core.
    pub fn key(&self, scopes: &str) -> String {
        let application = &self.config().applications[0];
        Key::of(application, &application.current, &Scopes::parse(scopes).expect("scopes")).of_token()
    }

    /// Puts a token with this remaining lifetime, fetched 10 min ago, into the store, and
    /// returns it.
    pub async fn store_token(&self, scopes: &str, remaining: Duration) -> String {
        let access_token = secret("stored-token");
        let application = &self.config().applications[0];
        self.store_token_of(application, &application.current, &access_token, scopes, remaining).await;
        access_token
    }

    /// Puts this token into the store, as if fetched with this credential 10 min ago.
    pub async fn store_token_of(
        &self,
        application: &Application,
        credential: &Credential,
        access_token: &str,
        scopes: &str,
        remaining: Duration,
    ) {
        let scopes = Scopes::parse(scopes).expect("scopes");
        let key = Key::of(application, credential, &scopes);
        let token = Token {
            access_token: AccessToken::new(access_token),
            requested: scopes.clone(),
            scopes,
            expires_at: now() + remaining,
            fetched_at: Timestamp::from_unix_ms(now().unix_ms() - 600_000),
            stalled: false,
            revoked_at: None,
        };
        let mut nonce = [0; NONCE_LENGTH];
        getrandom::fill(&mut nonce).expect("the operating system has random bytes");
        self.store(&key.of_token(), token.seal(key, &credential.seal, nonce)).await;
    }

    /// Writes to the store, as another host would.
    pub async fn store(&self, key: &str, value: Vec<u8>) {
        self.needs("a store outside of the instances");
        self.setup.key_value.set(LABEL, key, value).await.expect("the store works");
    }

    /// Returns all keys and values of the store.
    pub fn stored(&self) -> Vec<(String, Vec<u8>)> {
        self.needs("a store outside of the instances");
        self.setup.key_value.entries(LABEL).expect("the store works")
    }

    /// Deletes a key of the store.
    pub async fn delete_stored(&self, key: &str) {
        self.setup.key_value.delete(LABEL, key).await.expect("the store works");
    }

    /// Deletes every key of the store.
    pub async fn empty_store(&self) {
        for (key, _) in self.stored() {
            self.delete_stored(&key).await;
        }
    }
}

/// Builds a token request with HTTP Basic.
pub fn token_request(caller: &Caller, scope: Option<&str>) -> Request<String> {
    let mut fields = vec![("grant_type", "client_credentials")];
    fields.extend(scope.map(|scope| ("scope", scope)));
    Request::post("/oauth/token")
        .header(AUTHORIZATION, basic(&caller.name, &caller.secret))
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(form(&fields))
        .expect("a request")
}

/// Builds a revocation of `token` with HTTP Basic (RFC 7009 section 2.1).
pub fn revocation_request(caller: &Caller, token: &str) -> Request<String> {
    let mut request = token_request(caller, None);
    *request.uri_mut() = "/oauth/revoke".parse().expect("a path");
    *request.body_mut() = form(&[("token", token), ("token_type_hint", "access_token")]);
    request
}

fn now() -> Timestamp {
    let since_epoch = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("the clock is after 1970");
    Timestamp::from_unix_ms(since_epoch.as_millis().try_into().expect("the time fits into 64 bits"))
}

/// Polls until `condition` holds, and fails with `what` after 20 s, which is long for any
/// machine.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let (caller, begin) = (std::panic::Location::caller(), Instant::now());
    async move {
        while !condition() {
            assert!(begin.elapsed() < Duration::from_secs(20), "{caller}: {what} has not happened within 20 s");
            sleep(Duration::from_millis(20)).await;
        }
    }
}
