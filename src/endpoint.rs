//! HTTP in and out: routes, RFC 6749 forms and answers, and the one table from error to status.

mod request;
mod trace;

use std::rc::Rc;

use futures_util::future::{Either, ready};
use http::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, PRAGMA, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde::Serialize;

use crate::audit::Audit;
use crate::broker::{Broker, Followup, Issue, Issuing, Ports, Source};
use crate::config::caller::{Caller, Unauthenticated};
use crate::config::{Audited, Config};
use crate::error::{Error, Trouble};
use crate::json::to_json;
use crate::scope::{ScopeRefusal, Scopes};
use crate::time::{Timestamp, retry_after_seconds};
use crate::token::{LEAST_REMAINING, Token};

pub use request::BODY_LIMIT;
use request::{ClientRequest, Credentials};
use trace::{TRACEPARENT, request_id};

/// The headers of a request that are read here or below. A port may leave out all others.
pub static HEADERS: [HeaderName; 3] = [AUTHORIZATION, CONTENT_TYPE, TRACEPARENT];

/// `Cache-Status`, RFC 9211.
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// What the log calls the request.
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// RFC 7617: where the Basic credentials are good for, and that they are UTF-8.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"officernd-token-broker\", charset=\"UTF-8\"");

/// A request body as a port read it.
pub type Body = Result<Vec<u8>, BodyError>;

/// Why there is no body to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// It is longer than [`BODY_LIMIT`].
    TooLarge,
    /// It broke off, or took too long.
    Incomplete,
}

/// An answer, and what is still to be done after it.
pub struct Handled {
    /// The answer; every header is set, `Content-Length` included.
    pub response: Response<String>,
    /// Whoever sends the answer runs this to its end.
    pub followup: Option<Followup>,
}

/// The paths that mean something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Token,
    Revocation,
    Metadata,
    Health,
    Readiness,
    Unknown,
}

impl Route {
    fn of(path: &str) -> Self {
        if !path.contains('%') {
            return Self::of_decoded(path);
        }
        // RFC 3986 section 6.2.2.2: `%6F` is `o`; but an encoded slash is none.
        let decoded = percent_decode_str(path).decode_utf8_lossy();
        let slashes = |text: &str| text.bytes().filter(|byte| *byte == b'/').count();
        if slashes(&decoded) == slashes(path) { Self::of_decoded(&decoded) } else { Self::Unknown }
    }

    fn of_decoded(path: &str) -> Self {
        match path {
            "/oauth/token" => Self::Token,
            "/oauth/revoke" => Self::Revocation,
            "/.well-known/oauth-authorization-server" => Self::Metadata,
            "/healthz" => Self::Health,
            "/readyz" => Self::Readiness,
            _ => Self::Unknown,
        }
    }

    /// For the log: never what a caller wrote.
    fn as_str(self) -> &'static str {
        match self {
            Self::Token => "/oauth/token",
            Self::Revocation => "/oauth/revoke",
            Self::Metadata => "/.well-known/oauth-authorization-server",
            Self::Health => "/healthz",
            Self::Readiness => "/readyz",
            Self::Unknown => "unknown",
        }
    }

    /// The methods it has, as `Allow` says them (RFC 9110 section 10.2.1).
    fn allow(self) -> &'static str {
        match self {
            Self::Token | Self::Revocation => "POST",
            Self::Metadata | Self::Health | Self::Readiness | Self::Unknown => "GET, HEAD",
        }
    }
}

/// Answers a request whose headers arrived at `arrived`.
///
/// Most requests are for a token that memory has, and its future has room for those: what others need is boxed. It is no `async fn`
/// because that would have its arguments twice.
pub fn handle<P: Ports>(
    broker: &Broker<P>,
    request: &Request<Body>,
    arrived: Timestamp,
) -> impl Future<Output = Handled> {
    let route = Route::of(request.uri().path());
    let request_id = request_id(request.headers(), || broker.instance.name_request());
    let mut audit = Audit::begin(arrived, request_id, route.as_str());
    async move {
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        let (mut response, followup) = match route {
            Route::Token if request.method() == Method::POST => {
                let config = broker.config(audit.time).await;
                let issue = authorize_and_issue(broker, config, request, &mut audit).await;
                token_answer(issue, &mut audit)
            }
            Route::Revocation if request.method() == Method::POST => {
                (Box::pin(revocation(broker, request, &mut audit)).await, None)
            }
            Route::Metadata if is_read => (Box::pin(metadata(broker, request, &mut audit)).await, None),
            Route::Health if is_read => {
                (json(StatusCode::OK, &Health { status: "ok", problem: None }, ANSWER_ROOM), None)
            }
            Route::Readiness if is_read => (Box::pin(readiness(broker, &mut audit)).await, None),
            Route::Unknown => (plain_error(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path"), None),
            _ => (method_not_allowed(route), None),
        };
        if *request.method() == Method::HEAD {
            response.body_mut().clear();
        }
        let request_id = HeaderValue::from_str(&audit.request_id).expect("hexadecimal digits");
        response.headers_mut().insert(X_REQUEST_ID, request_id);
        audit.status = response.status().as_u16();
        if !(audit.is_routine() && broker.instance.audited() == Audited::Exceptions) {
            broker.ports.audit(audit.line());
        }
        Handled { response, followup }
    }
}

async fn readiness<P: Ports>(broker: &Broker<P>, audit: &mut Audit) -> Response<String> {
    let problem = match broker.config(audit.time).await {
        Ok(config) => broker.problem(&config).await,
        Err(_) => Some("configuration"),
    };
    audit.reason = problem;
    match problem {
        None => json(StatusCode::OK, &Health { status: "ready", problem: broker.ports.lack() }, ANSWER_ROOM),
        Some(_) => json(StatusCode::SERVICE_UNAVAILABLE, &Health { status: "unavailable", problem }, ANSWER_ROOM),
    }
}

/// The token endpoint, RFC 6749 section 4.4: authenticates, authorizes, and only then looks for a token.
fn authorize_and_issue<P: Ports>(
    broker: &Broker<P>,
    config: Result<Rc<Config>, Error>,
    request: &Request<Body>,
    audit: &mut Audit,
) -> Issuing {
    let issuing = config.and_then(|config| {
        let (caller, scopes) = authorize(&config, request, audit)?;
        Ok(broker.issue(&config, &caller, scopes, audit.time))
    });
    issuing.unwrap_or_else(|error| Either::Left(ready(Issue::refused(error, audit.time))))
}

/// Establishes who calls, and what that may have of what it asks for.
fn authorize(config: &Config, request: &Request<Body>, audit: &mut Audit) -> Result<(Rc<Caller>, Scopes), Error> {
    let (token_request, caller) = authenticate(config, request, audit)?;
    match token_request.grant_type.as_deref() {
        None => return Err(Error::InvalidRequest("grant_type is missing")),
        Some("client_credentials") => {}
        Some(_) => return Err(Error::UnsupportedGrantType),
    }
    let requested = token_request
        .scope
        .map(|text| Scopes::parse(&text))
        .transpose()
        .map_err(|_| Error::InvalidScope(ScopeRefusal::Malformed))?;
    let scopes = caller.authorize(requested).map_err(Error::InvalidScope)?;
    audit.scopes = Some(scopes.clone());
    Ok((caller, scopes))
}

/// The answer of the token endpoint, and what is to be done after it.
fn token_answer(issue: Issue, audit: &mut Audit) -> (Response<String>, Option<Followup>) {
    audit.source = issue.token.is_ok().then_some(issue.source);
    audit.upstream = issue.upstream;
    let response = match issue.token {
        // The store may have taken the last seconds it could be handed out in.
        Ok(token) if token.remaining(issue.at) < LEAST_REMAINING => {
            let retry_after = std::time::Duration::from_secs(1);
            refuse(Error::NoToken { because: Trouble::TokenExpiring, retry_after }, audit)
        }
        Ok(token) => {
            let response = grant(&token, issue.source, issue.at);
            audit.token = Some(token);
            response
        }
        Err(error) => refuse(error, audit),
    };
    (response, issue.followup)
}

/// Establishes who calls: what both endpoints for clients begin with (RFC 6749 section 2.3, RFC 7009 section 2.1).
fn authenticate<'a>(
    config: &Config,
    request: &'a Request<Body>,
    audit: &mut Audit,
) -> Result<(ClientRequest<'a>, Rc<Caller>), Error> {
    let client_request = ClientRequest::parse(request)?;
    let credentials = client_request.credentials.as_ref().map_err(|because| Error::InvalidClient(*because))?;
    let Credentials { id, secret } = credentials;
    let caller = config.callers.authenticate(id, secret, audit.time);
    audit.caller = match &caller {
        Ok(caller) => Some(caller.clone()),
        // The secret was its own: the log says which job still has it.
        Err(Unauthenticated::ExpiredSecret) => config.callers.find(id).cloned(),
        Err(_) => None,
    };
    let caller = caller.map_err(Error::InvalidClient)?;
    Ok((client_request, caller))
}

/// The revocation endpoint, RFC 7009.
async fn revocation<P: Ports>(broker: &Broker<P>, request: &Request<Body>, audit: &mut Audit) -> Response<String> {
    match authenticate_and_revoke(broker, request, audit).await {
        Ok(()) => answer(StatusCode::OK, "{}".to_owned()),
        Err(error) => refuse(error, audit),
    }
}

async fn authenticate_and_revoke<P: Ports>(
    broker: &Broker<P>,
    request: &Request<Body>,
    audit: &mut Audit,
) -> Result<(), Error> {
    let config = broker.config(audit.time).await?;
    let (client_request, caller) = authenticate(&config, request, audit)?;
    let token = client_request.token.ok_or(Error::InvalidRequest("token is missing"))?;
    broker.revoke(&config, &caller, token.expose()).await
}

/// RFC 8414. It says what the broker can do and where, and nothing of the policy.
async fn metadata<P: Ports>(broker: &Broker<P>, request: &Request<Body>, audit: &mut Audit) -> Response<String> {
    let config = match broker.config(audit.time).await {
        Ok(config) => config,
        Err(error) => return refuse(error, audit),
    };
    let issuer = match (&config.public_url, request.uri().scheme_str(), request.uri().authority()) {
        (Some(url), _, _) => url.as_str().to_owned(),
        // RFC 9110 section 4.2.4: user information has no place here.
        (None, Some(scheme), Some(authority)) if !authority.as_str().contains('@') => format!("{scheme}://{authority}"),
        (None, ..) => return refuse(Error::InvalidRequest("the request does not say which host it is for"), audit),
    };
    json(
        StatusCode::OK,
        &Metadata {
            token_endpoint: format!("{issuer}/oauth/token"),
            revocation_endpoint: format!("{issuer}/oauth/revoke"),
            issuer,
            grant_types_supported: ["client_credentials"],
            response_types_supported: [],
            token_endpoint_auth_methods_supported: AUTHENTICATION_METHODS,
            revocation_endpoint_auth_methods_supported: AUTHENTICATION_METHODS,
        },
        ANSWER_ROOM,
    )
}

/// RFC 7591 section 2: HTTP Basic, and the body.
const AUTHENTICATION_METHODS: [&str; 2] = ["client_secret_basic", "client_secret_post"];

/// RFC 8414 section 2.
#[derive(Serialize)]
struct Metadata {
    issuer: String,
    token_endpoint: String,
    revocation_endpoint: String,
    grant_types_supported: [&'static str; 1],
    response_types_supported: [&'static str; 0],
    token_endpoint_auth_methods_supported: [&'static str; 2],
    revocation_endpoint_auth_methods_supported: [&'static str; 2],
}

/// RFC 6749 section 5.1.
#[derive(Serialize)]
struct TokenAnswer<'a> {
    access_token: &'a str,
    token_type: &'static str,
    expires_in: u64,
    scope: &'a str,
}

/// RFC 6749 section 5.2.
#[derive(Serialize)]
struct ErrorAnswer<'a> {
    error: &'a str,
    error_description: &'a str,
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'static str>,
}

/// Room for what a [`TokenAnswer`] has besides its two texts, in bytes.
const GRANT_ROOM: usize = 80;

fn grant(token: &Token, source: Source, now: Timestamp) -> Response<String> {
    let expires_in = token.remaining(now).as_secs();
    let answer = TokenAnswer {
        access_token: token.access_token.expose(),
        token_type: "Bearer",
        expires_in,
        scope: token.scopes.as_str(),
    };
    let room = GRANT_ROOM + answer.access_token.len() + answer.scope.len();
    let mut response = json(StatusCode::OK, &answer, room);
    let how = match source {
        Source::Hit => "hit",
        Source::Miss => "fwd=miss; stored",
        Source::Stale => "fwd=stale; stored",
        Source::Collapsed => "fwd=miss; collapsed",
    };
    let status = format!("officernd-token-broker; {how}; ttl={expires_in}");
    response
        .headers_mut()
        .insert(CACHE_STATUS, HeaderValue::try_from(status).expect("ASCII without control characters"));
    response
}

/// The one table from error to answer.
fn refuse(error: Error, audit: &mut Audit) -> Response<String> {
    audit.reason = Some(error.reason());
    let (status, code) = match &error {
        Error::InvalidRequest(_) => (StatusCode::BAD_REQUEST, "invalid_request"),
        Error::InvalidClient(_) => (StatusCode::UNAUTHORIZED, "invalid_client"),
        Error::UnsupportedGrantType => (StatusCode::BAD_REQUEST, "unsupported_grant_type"),
        Error::InvalidScope(_) => (StatusCode::BAD_REQUEST, "invalid_scope"),
        Error::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "invalid_request"),
        Error::NoToken { because, .. } if because.is_temporary() => {
            (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable")
        }
        Error::NoToken { .. } => (StatusCode::BAD_GATEWAY, "server_error"),
        Error::Configuration(_) | Error::Variables(_) => (StatusCode::INTERNAL_SERVER_ERROR, "server_error"),
    };
    let mut response = plain_error(status, code, error.description());
    match error {
        Error::InvalidClient(_) => {
            response.headers_mut().insert(WWW_AUTHENTICATE, CHALLENGE);
        }
        Error::NoToken { retry_after, .. } => {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(retry_after_seconds(retry_after)));
        }
        _ => {}
    }
    response
}

fn method_not_allowed(route: Route) -> Response<String> {
    let description = "this path does not have that method";
    let mut response = plain_error(StatusCode::METHOD_NOT_ALLOWED, "invalid_request", description);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(route.allow()));
    response
}

fn plain_error(status: StatusCode, error: &str, error_description: &str) -> Response<String> {
    json(status, &ErrorAnswer { error, error_description }, ANSWER_ROOM)
}

/// Room for most answers that are no token, in bytes.
const ANSWER_ROOM: usize = 128;

fn json(status: StatusCode, value: &impl Serialize, room: usize) -> Response<String> {
    answer(status, String::from_utf8(to_json(value, room)).expect("JSON is text"))
}

/// Nothing the broker says may be kept by anybody on the way (RFC 6749 section 5.1), and none of it is for a page in a
/// browser: there is no CORS header, ever.
fn answer(status: StatusCode, body: String) -> Response<String> {
    let length = HeaderValue::from(body.len());
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, length);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    response
}
