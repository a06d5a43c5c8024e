//! Harness of the fuzz targets: ports that answer at once, and second readings of the rules
//! that the targets compare with the core.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response};
use officernd_token_broker::broker::{Broker, Instance, Ports, SendError};
use officernd_token_broker::config::VARIABLES;
use officernd_token_broker::endpoint::{self, Body};
use officernd_token_broker::time::Timestamp;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use sha2::{Digest, Sha256};

/// Start time of every run: 2027-01-15T08:00:00Z.
pub const NOW: Timestamp = Timestamp::from_unix_ms(1_800_000_000_000);

/// Client secret of the application. It has a space and a quote, so no scope and no name can
/// contain it.
pub const CLIENT_SECRET: &str = "a client's \"secret\"";

/// The broker's origin, which an assertion has to name.
pub const PUBLIC_URL: &str = "https://broker.example";

/// A world whose ports all answer at once. Its clock moves only when the core sleeps.
#[derive(Clone)]
pub struct World(Rc<State>);

/// Value of the store under a key.
type Store = dyn Fn(&str) -> Option<Vec<u8>>;

struct State {
    now: Cell<Timestamp>,
    random: Cell<u64>,
    callers: String,
    issuers: String,
    answer: Vec<u8>,
    keys: Response<Vec<u8>>,
    store: Box<Store>,
    written: RefCell<Vec<(String, Vec<u8>)>>,
    log: RefCell<Vec<String>>,
}

impl World {
    /// Returns a world with this policy. OfficeRnD gives `answer` to every call, or grants the
    /// requested scopes if it is empty. The store has the values of `store` until the core
    /// writes one.
    pub fn new(callers: &str, answer: &[u8], store: impl Fn(&str) -> Option<Vec<u8>> + 'static) -> Self {
        Self(Rc::new(State {
            now: Cell::new(NOW),
            random: Cell::new(1),
            callers: callers.to_owned(),
            issuers: String::new(),
            answer: answer.to_owned(),
            keys: Response::default(),
            store: Box::new(store),
            written: RefCell::default(),
            log: RefCell::default(),
        }))
    }

    /// Returns a world with this policy and these issuers.
    pub fn with_issuers(callers: &str, issuers: &str) -> Self {
        let Self(state) = Self::new(callers, b"", |_| None);
        let state = Rc::into_inner(state).expect("a new world has one owner");
        Self(Rc::new(State { issuers: issuers.to_owned(), ..state }))
    }

    /// Returns a world with this policy and these issuers, which give `answer` to the request for their
    /// keys.
    pub fn with_fetched_keys(callers: &str, issuers: &str, answer: Response<Vec<u8>>) -> Self {
        let Self(state) = Self::with_issuers(callers, issuers);
        let state = Rc::into_inner(state).expect("a new world has one owner");
        Self(Rc::new(State { keys: answer, ..state }))
    }

    /// Lets a new instance handle a request, and returns the answer and the log.
    pub fn ask(&self, request: Request<Body>) -> (Response<String>, Vec<String>) {
        let broker = Broker { ports: self.clone(), instance: Rc::new(Instance::new(7)) };
        let handled = at_once(endpoint::handle(&broker, &request, NOW));
        if let Some(followup) = handled.followup {
            at_once(followup);
        }
        (handled.response, self.0.log.take())
    }
}

impl Ports for World {
    fn now(&self) -> Timestamp {
        self.0.now.get()
    }

    fn uptime(&self) -> Duration {
        self.0.now.get().since(NOW)
    }

    fn random(&self) -> u64 {
        self.0.random.set(self.0.random.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        self.0.random.get()
    }

    async fn sleep(&self, duration: Duration) {
        self.0.now.set(self.0.now.get() + duration);
    }

    async fn variable(&self, name: &'static str) -> Result<Option<String>, String> {
        Ok(match name {
            "officernd_client_id" => Some("id".to_owned()),
            "officernd_client_secret" => Some(CLIENT_SECRET.to_owned()),
            "callers" => Some(self.0.callers.clone()),
            "issuers" => Some(self.0.issuers.clone()),
            "public_url" => Some(PUBLIC_URL.to_owned()),
            _ => None,
        })
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        let written = self.0.written.borrow();
        let found = written.iter().rfind(|(other, _)| other == key).map(|(_, value)| value.clone());
        Ok(found.or_else(|| (self.0.store)(key)))
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<(), String> {
        self.0.written.borrow_mut().push((key.to_owned(), value.to_owned()));
        Ok(())
    }

    async fn send(&self, request: Request<String>, limit: usize) -> Result<Response<Vec<u8>>, SendError> {
        let answer = if request.method() == Method::GET {
            self.0.keys.clone()
        } else if self.0.answer.is_empty() {
            let scope = parameter(request.body().as_bytes(), "scope");
            let granted = serde_json::json!({
                "access_token": "granted", "token_type": "Bearer", "expires_in": 3600, "scope": scope,
            });
            Response::new(granted.to_string().into_bytes())
        } else {
            Response::new(self.0.answer.clone())
        };
        if answer.body().len() > limit { Err(SendError::TooLong) } else { Ok(answer) }
    }

    fn audit(&self, line: Vec<u8>) {
        self.0.log.borrow_mut().push(String::from_utf8(line).expect("it is JSON"));
    }

    fn warn(&self, line: &str) {
        assert!(!line.contains(CLIENT_SECRET), "{line}");
    }
}

/// Returns the default of a variable.
pub fn default_of(name: &str) -> &'static str {
    VARIABLES.iter().find(|variable| variable.name == name).and_then(|variable| variable.default).unwrap_or_default()
}

/// Returns the output of a future that never waits.
pub fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the future waits, and nothing would wake it"),
    }
}

/// Returns the SHA-256 of a secret in hexadecimal digits.
pub fn digest_of(secret: &str) -> String {
    Sha256::digest(secret.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the first value of a form's parameter that is not empty.
pub fn parameter(form: &[u8], name: &str) -> Option<String> {
    form_urlencoded::parse(form)
        .find(|(other, value)| other == name && !value.is_empty())
        .map(|(_, value)| value.into())
}

/// Returns the private key that signs the assertions of the targets.
pub fn private_key() -> SigningKey {
    SigningKey::from_slice(&[7; 32]).expect("a private key")
}

/// Returns an assertion with this header and these claims.
pub fn signed(key: &SigningKey, header: &str, claims: &str) -> String {
    let signed = [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part)).join(".");
    let signature: Signature = key.sign(signed.as_bytes());
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature.to_bytes()))
}

/// Returns a request for a token with an assertion.
pub fn assertion_request(assertion: &str) -> Request<Body> {
    let body = form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", "client_credentials")
        .append_pair("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
        .append_pair("client_assertion", assertion)
        .finish();
    let request = Request::post("/oauth/token").header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    request.body(Ok(body.into_bytes())).expect("a valid request")
}

/// Whether an entry of a policy is valid, judged by its parts.
pub fn is_entry(entry: &str) -> bool {
    let parts: Vec<_> = entry.split('.').collect();
    let parts = match &parts[..] {
        [others @ .., "**"] if !others.is_empty() => others,
        all => all,
    };
    is_scope(entry) && parts.iter().all(|part| *part == "*" || !part.contains('*'))
}

/// Whether a text is a scope token, judged by its characters (RFC 6749 section 3.3).
pub fn is_scope(token: &str) -> bool {
    !token.is_empty() && token.chars().all(|letter| letter.is_ascii_graphic() && letter != '"' && letter != '\\')
}

/// Whether one of the entries permits a scope, judged by the parts of both.
pub fn permits(entries: &[&str], scope: &str) -> bool {
    fn matches(pattern: &[&str], scope: &[&str]) -> bool {
        let is_part = |part: &str| !part.is_empty() && !part.contains('*');
        match (pattern, scope) {
            (["**"], rest) => rest.iter().all(|part| is_part(part)),
            (["*", pattern @ ..], [part, scope @ ..]) => is_part(part) && matches(pattern, scope),
            ([name, pattern @ ..], [part, scope @ ..]) => name == part && matches(pattern, scope),
            (pattern, scope) => pattern.is_empty() && scope.is_empty(),
        }
    }
    let scope: Vec<_> = scope.split('.').collect();
    entries.iter().any(|entry| matches(&entry.split('.').collect::<Vec<_>>(), &scope))
}
