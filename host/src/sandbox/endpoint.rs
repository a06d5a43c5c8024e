//! The token endpoint of the sandbox: answers as OfficeRnD does, without a socket.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use serde_json::json;

use crate::clock::Clock;

/// Path of the token endpoint.
const TOKEN_PATH: &str = "/oauth/token";

pub(super) const JSON: &str = "application/json; charset=utf-8";
pub(super) const TEXT: &str = "text/plain; charset=utf-8";

/// Time in which the rate limit counts calls.
const WINDOW: Duration = Duration::from_secs(60);

/// Settings of the sandbox: its applications and its limits.
#[derive(Clone, Debug)]
pub struct Config {
    /// Applications that may obtain tokens.
    pub applications: Vec<Application>,
    /// Calls that one client may make in any 60 s, including failed calls. Calls over the limit
    /// are refused and do not count. The broker assumes one limit for all of its clients, because
    /// OfficeRnD does not say which of the two it has.
    pub calls_per_minute: usize,
    /// Lifetime of a token.
    pub token_life: Duration,
    /// Whether a repeated request gets the earlier token, with its remaining lifetime, until
    /// that token expires.
    pub reissue: bool,
    /// Clock of the sandbox, by which calls are counted and tokens expire.
    pub clock: Clock,
}

impl Default for Config {
    /// No applications, OfficeRnD's 5 calls in 60 s and 3600 s of lifetime, a new token for
    /// each request.
    fn default() -> Self {
        Self {
            applications: Vec::new(),
            calls_per_minute: 5,
            token_life: Duration::from_secs(3600),
            reissue: false,
            clock: Clock::default(),
        }
    }
}

/// An OfficeRnD application: it has one id and one secret.
#[derive(Clone, Debug)]
pub struct Application {
    /// `client_id`.
    pub id: String,
    /// `client_secret`.
    pub secret: String,
    /// Scopes that the application has been granted.
    pub scopes: Vec<String>,
}

/// The token endpoint, with its settings, its counted calls and its tokens.
pub(super) struct Endpoint {
    config: Config,
    limiter: Limiter,
    /// Latest token by client id and scopes.
    tokens: HashMap<(String, String), Token>,
    /// Every token whose application has not been deleted, with the application's id.
    valid: HashMap<String, (String, Instant)>,
}

#[derive(Clone)]
struct Token {
    text: String,
    issued: Instant,
}

impl Endpoint {
    pub(super) fn new(config: Config) -> Self {
        let limiter = Limiter::new(config.calls_per_minute);
        Self { limiter, config, tokens: HashMap::new(), valid: HashMap::new() }
    }

    pub(super) fn set_applications(&mut self, applications: Vec<Application>) {
        self.config.applications = applications;
        let exists = |client: &String| self.config.applications.iter().any(|application| application.id == *client);
        self.valid.retain(|_, (client, _)| exists(client));
    }

    pub(super) fn create_application(&mut self, application: Application) {
        assert!(!self.config.applications.iter().any(|known| known.id == application.id), "an id has one secret");
        self.config.applications.push(application);
    }

    pub(super) fn delete_application(&mut self, id: &str) {
        let others = self.config.applications.iter().filter(|application| application.id != id);
        self.set_applications(others.cloned().collect());
    }

    /// Whether OfficeRnD's API would accept a token.
    pub(super) fn accepts(&self, token: &str) -> bool {
        let age = |issued: Instant| self.config.clock.instant().duration_since(issued);
        self.valid.get(token).is_some_and(|(_, issued)| age(*issued) < self.config.token_life)
    }

    /// Returns the latest token of each client and scopes.
    pub(super) fn tokens(&self) -> Vec<String> {
        self.tokens.values().map(|token| token.text.clone()).collect()
    }

    /// Returns the client id of a token, if the token is the latest one for its client and
    /// scopes.
    pub(super) fn owner(&self, token: &str) -> Option<String> {
        self.tokens.iter().find(|(_, known)| known.text == token).map(|((client, _), _)| client.clone())
    }

    /// Resets the rate limit.
    pub(super) fn forget_limit(&mut self) {
        self.limiter.calls.clear();
    }

    /// Answers as OfficeRnD would.
    pub(super) fn answer(&mut self, method: &Method, path: &str, headers: &HeaderMap, body: &[u8]) -> Response<Bytes> {
        if path != TOKEN_PATH {
            return response(StatusCode::NOT_FOUND, TEXT, "Not Found");
        }
        if method != Method::POST {
            let mut response = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "Method Not Allowed");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return response;
        }
        let fields: HashMap<String, String> = url::form_urlencoded::parse(body).into_owned().collect();
        let field = |name| fields.get(name).map_or("", String::as_str);
        let client = field("client_id");
        if !self.limiter.admits(client, self.config.clock.instant()) {
            let text = "Too many requests, please try again later";
            return response(StatusCode::TOO_MANY_REQUESTS, TEXT, text);
        }
        if !is_form(headers) {
            return refusal(StatusCode::BAD_REQUEST, "invalid_request", "The body must be a form");
        }
        if field("grant_type") != "client_credentials" {
            return refusal(StatusCode::BAD_REQUEST, "unsupported_grant_type", "Only client_credentials is supported");
        }
        let known =
            |application: &&Application| application.id == client && application.secret == field("client_secret");
        let Some(application) = self.config.applications.iter().find(known).cloned() else {
            return refusal(StatusCode::UNAUTHORIZED, "invalid_client", "Client authentication failed");
        };
        let scopes: Vec<&str> = field("scope").split_ascii_whitespace().collect();
        if scopes.iter().any(|scope| !application.scopes.iter().any(|granted| granted == scope)) {
            return refusal(
                StatusCode::BAD_REQUEST,
                "invalid_scope",
                "The application does not have a requested scope",
            );
        }
        // A request without a scope gets all scopes of the application.
        let scope = if scopes.is_empty() { application.scopes.join(" ") } else { scopes.join(" ") };
        self.token(client, &scope)
    }

    fn token(&mut self, client: &str, scope: &str) -> Response<Bytes> {
        let (life, now) = (self.config.token_life, self.config.clock.instant());
        let age = |token: &Token| now.duration_since(token.issued);
        let key = (client.to_owned(), scope.to_owned());
        let earlier = self.tokens.get(&key).filter(|token| self.config.reissue && age(token) < life).cloned();
        let token = earlier.unwrap_or_else(|| Token { text: random_token(), issued: now });
        // Whole seconds, rounded down, so a new token has 3599 s, as in OfficeRnD's own
        // example.
        let expires_in = life.saturating_sub(self.config.clock.instant().duration_since(token.issued)).as_secs();
        let body = json!({
            "access_token": token.text,
            "token_type": "Bearer",
            "expires_in": expires_in,
            "scope": scope,
        });
        self.valid.insert(token.text.clone(), (client.to_owned(), token.issued));
        self.tokens.insert(key, token);
        response(StatusCode::OK, JSON, body.to_string())
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = media_type.split_once(';').map_or(media_type, |(media_type, _)| media_type);
    media_type.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

fn refusal(status: StatusCode, error: &str, description: &str) -> Response<Bytes> {
    response(status, JSON, json!({ "error": error, "error_description": description }).to_string())
}

pub(super) fn response(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Makes a token of 40 hexadecimal digits.
fn random_token() -> String {
    let mut bytes = [0; 20];
    getrandom::fill(&mut bytes).expect("the operating system has random bytes");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Rate limit: at most `limit` calls of one client in any [`WINDOW`].
struct Limiter {
    limit: usize,
    calls: HashMap<String, VecDeque<Instant>>,
}

impl Limiter {
    fn new(limit: usize) -> Self {
        Self { limit, calls: HashMap::new() }
    }

    /// Returns whether a call is admitted, and counts it if so.
    fn admits(&mut self, client: &str, now: Instant) -> bool {
        let calls = self.calls.entry(client.to_owned()).or_default();
        while calls.front().is_some_and(|first| now.duration_since(*first) >= WINDOW) {
            calls.pop_front();
        }
        let admitted = calls.len() < self.limit;
        if admitted {
            calls.push_back(now);
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_limit_is_a_sliding_window_that_refused_calls_do_not_extend() {
        let start = Instant::now();
        let mut limiter = Limiter::new(2);
        let mut admits = |client, seconds| limiter.admits(client, start + Duration::from_secs(seconds));
        assert!(admits("a", 0) && admits("a", 30));
        assert!(!admits("a", 31) && !admits("a", 59));
        assert!(admits("b", 59), "each client has a limit of its own");
        assert!(admits("a", 60) && !admits("a", 61));
        assert!(admits("a", 90));
    }
}
