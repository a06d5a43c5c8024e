//! HTTP in and out: answers each path by authentication, authorization and the broker.

mod answer;
mod authentication;
mod exposition;
mod request;
mod route;
mod trace;

use std::pin::Pin;
use std::rc::Rc;

use futures_util::future::{Either, Ready, join, ready};
use http::header::{ACCEPT, ALLOW, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use serde::Serialize;

use crate::audit::Audit;
use crate::broker::{self, Broker, Followup, Ports, TokenOutcome};
use crate::config::caller::Caller;
use crate::config::{Audited, Config, Origin};
use crate::error::{Cause, Error};
use crate::scope::{ScopeRefusal, Scopes};
use crate::signature::Algorithm;
use crate::time::Timestamp;
use crate::token::LEAST_REMAINING;
use answer::{TYPICAL_ANSWER_LENGTH, answer, answer_of_type, grant, json, plain_error, refuse};
use authentication::{Authenticated, authenticate, authenticate_by_secret};
use exposition::Format;
use request::{ClientRequest, credentials_of_header};
use route::Route;
use trace::{TRACEPARENT, request_id};

pub use request::{BODY_LIMIT, Body, BodyError};

/// Request headers that the core reads. A port may omit all others.
pub fn headers_read(method: &Method) -> &'static [HeaderName] {
    static HEADERS: [HeaderName; 4] = [AUTHORIZATION, TRACEPARENT, CONTENT_TYPE, ACCEPT];
    // Each costs a call of the host.
    if *method == Method::POST { &HEADERS[..3] } else { &HEADERS }
}

/// The request's name in the log.
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// An answer, and the work to do after it.
pub struct Handled {
    /// The answer, with every header including `Content-Length`.
    pub response: Response<String>,
    /// Follow-up, which the port must run to its end.
    pub followup: Option<Followup>,
}

/// Whether the answer depends on the body. Otherwise the port must not wait for it: a stranger
/// could hold the request open.
pub fn needs_body<T>(request: &Request<T>) -> bool {
    request.method() == Method::POST && matches!(Route::of(request.uri().path()), Route::Token | Route::Revocation)
}

/// Answers a request whose headers arrived at `arrived`.
///
/// Most requests are memory hits, so the future has room for those only, and everything else is
/// boxed. Not an `async fn`, because that would store its arguments twice.
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
                let outcome = authorize_and_issue(broker, config, request, &mut audit).await;
                token_answer(outcome, &mut audit)
            }
            Route::Revocation if request.method() == Method::POST => {
                Box::pin(revocation(broker, request, &mut audit)).await
            }
            Route::Metadata if is_read => (Box::pin(metadata(broker, request, &mut audit)).await, None),
            Route::Health if is_read => (health(StatusCode::OK, "ok", None, None), None),
            Route::Metrics if is_read => Box::pin(metrics(broker, request, &mut audit)).await,
            Route::Readiness if is_read => (Box::pin(readiness(broker, &mut audit)).await, None),
            Route::Unknown => (plain_error(StatusCode::NOT_FOUND, "not_found", "no such path"), None),
            _ => (method_not_allowed(route), None),
        };
        if *request.method() == Method::HEAD {
            response.body_mut().clear();
        }
        let request_id = HeaderValue::from_str(audit.request_id.as_str()).expect("hexadecimal digits");
        response.headers_mut().insert(X_REQUEST_ID, request_id);
        audit.status = response.status().as_u16();
        let is_scrape = route == Route::Metrics && audit.status == 200;
        if !((audit.is_routine() || is_scrape) && broker.instance.audited() == Audited::Exceptions) {
            broker.ports.audit(audit.line());
        }
        Handled { response, followup }
    }
}

async fn readiness<P: Ports>(broker: &Broker<P>, audit: &mut Audit) -> Response<String> {
    let (problem, degradation) = match broker.config(audit.time).await {
        Ok(config) => (broker.readiness_problem(&config).await, broker.degradation(&config)),
        Err(_) => (Some("configuration"), None),
    };
    audit.reason = problem;
    match problem {
        None => health(StatusCode::OK, "ready", degradation, VERSION),
        Some(_) => health(StatusCode::SERVICE_UNAVAILABLE, "unavailable", problem, VERSION),
    }
}

/// A [`TokenOutcome`]: ready at once after a memory hit, otherwise a boxed future.
type TokenFuture<'a> = Either<Ready<TokenOutcome>, Pin<Box<dyn Future<Output = TokenOutcome> + 'a>>>;

/// The token endpoint (RFC 6749 section 4.4): authenticates, authorizes, and only then looks
/// for a token. Not an `async fn`, because its future would have room for an assertion's.
fn authorize_and_issue<'a, P: Ports>(
    broker: &'a Broker<P>,
    config: Result<Rc<Config>, Error>,
    request: &'a Request<Body>,
    audit: &'a mut Audit,
) -> TokenFuture<'a> {
    let at = audit.time;
    let refused = move |error| TokenOutcome::refused(error, at);
    let parsed = config.and_then(|config| Ok((ClientRequest::parse(request)?, config)));
    match parsed {
        Ok((token_request, config)) if token_request.has_assertion() => Either::Right(Box::pin(async move {
            let outcome = async {
                let authenticated = authenticate(broker, &config, &token_request.credentials, audit).await?;
                let outcome = issue(broker, &config, authenticated.caller, token_request, audit)?.await;
                Ok(TokenOutcome { followup: both(authenticated.followup, outcome.followup), ..outcome })
            };
            outcome.await.unwrap_or_else(refused)
        })),
        Ok((token_request, config)) => {
            let caller = authenticate_by_secret(&config, &token_request.credentials, audit);
            let outcome = caller.and_then(|caller| issue(broker, &config, caller, token_request, audit));
            outcome.unwrap_or_else(|error| Either::Left(ready(refused(error))))
        }
        Err(error) => Either::Left(ready(refused(error))),
    }
}

/// Authorizes the request of a caller, and looks for a token.
fn issue<P: Ports>(
    broker: &Broker<P>,
    config: &Rc<Config>,
    caller: Rc<Caller>,
    token_request: ClientRequest<'_>,
    audit: &mut Audit,
) -> Result<broker::TokenFuture, Error> {
    let scopes = authorize(&caller, token_request, audit)?;
    let application = config.application(&caller).ok_or(Error::DisabledApplication)?;
    Ok(broker.issue(config, caller, application, scopes, audit.request_id, audit.time))
}

/// Two follow-ups side by side: one may hold the lease, and the other may wait for a slow issuer.
fn both(first: Option<Followup>, second: Option<Followup>) -> Option<Followup> {
    match (first, second) {
        (Some(first), Some(second)) => Some(Box::pin(async {
            join(first, second).await;
        })),
        (first, second) => first.or(second),
    }
}

/// Determines the scopes that the request of a caller gets.
fn authorize(caller: &Caller, token_request: ClientRequest<'_>, audit: &mut Audit) -> Result<Scopes, Error> {
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
    Ok(scopes)
}

/// The token endpoint's answer, and the follow-up.
fn token_answer(outcome: TokenOutcome, audit: &mut Audit) -> (Response<String>, Option<Followup>) {
    audit.source = outcome.token.is_ok().then_some(outcome.source);
    audit.is_called = outcome.is_called;
    let response = match outcome.token {
        // The store may have taken the last seconds in which the token was usable.
        Ok(token) if token.remaining(outcome.at) < LEAST_REMAINING => {
            let retry_after = std::time::Duration::from_secs(1);
            refuse(Error::Unavailable { cause: Cause::TokenExpiring, retry_after }, audit)
        }
        Ok(token) => {
            let response = grant(&token, outcome.source, outcome.at);
            audit.token = Some(token);
            response
        }
        Err(error) => refuse(error, audit),
    };
    (response, outcome.followup)
}

/// The revocation endpoint (RFC 7009).
async fn revocation<P: Ports>(
    broker: &Broker<P>,
    request: &Request<Body>,
    audit: &mut Audit,
) -> (Response<String>, Option<Followup>) {
    match authenticate_and_revoke(broker, request, audit).await {
        Ok(followup) => (answer(StatusCode::OK, "{}".to_owned()), followup),
        Err(error) => (refuse(error, audit), None),
    }
}

async fn authenticate_and_revoke<P: Ports>(
    broker: &Broker<P>,
    request: &Request<Body>,
    audit: &mut Audit,
) -> Result<Option<Followup>, Error> {
    let config = broker.config(audit.time).await?;
    let client_request = ClientRequest::parse(request)?;
    let Authenticated { caller, followup } = authenticate(broker, &config, &client_request.credentials, audit).await?;
    let token = client_request.token.ok_or(Error::InvalidRequest("token is missing"))?;
    let revoked = broker.revoke(&config, &caller, token.expose(), audit.request_id, audit.time).await;
    revoked.map(|after| both(followup, after))
}

/// The metrics, for callers that may read them.
async fn metrics<P: Ports>(
    broker: &Broker<P>,
    request: &Request<Body>,
    audit: &mut Audit,
) -> (Response<String>, Option<Followup>) {
    match authenticate_and_measure(broker, request, audit).await {
        Ok((text, format, followup)) => (answer_of_type(StatusCode::OK, format.media_type(), text), followup),
        Err(error) => (refuse(error, audit), None),
    }
}

async fn authenticate_and_measure<P: Ports>(
    broker: &Broker<P>,
    request: &Request<Body>,
    audit: &mut Audit,
) -> Result<(String, Format, Option<Followup>), Error> {
    let config = broker.config(audit.time).await?;
    let credentials = credentials_of_header(request)?;
    let Authenticated { caller, followup } = authenticate(broker, &config, &credentials, audit).await?;
    if !caller.reads_metrics {
        return Err(Error::MetricsNotPermitted);
    }
    let format = Format::preferred(request.headers());
    Ok((exposition::write(&broker.metrics(&config).await, &config, format), format, followup))
}

/// The metadata endpoint (RFC 8414): what the broker offers and where. It reveals nothing about
/// the policy.
async fn metadata<P: Ports>(broker: &Broker<P>, request: &Request<Body>, audit: &mut Audit) -> Response<String> {
    let config = match broker.config(audit.time).await {
        Ok(config) => config,
        Err(error) => return refuse(error, audit),
    };
    let issuer = match (&config.public_url, request.uri().scheme_str(), request.uri().authority()) {
        (Some(url), _, _) => url.as_str().to_owned(),
        // RFC 9110 section 4.2.4: an authority with user information is refused.
        (None, Some(scheme), Some(authority)) if !authority.as_str().contains('@') => {
            match Origin::parse(&format!("{scheme}://{authority}")) {
                Some(origin) => origin.as_str().to_owned(),
                None => return refuse(Error::NoPublicUrl, audit),
            }
        }
        (None, ..) => return refuse(Error::InvalidRequest("the request does not name its host"), audit),
    };
    // Without `public_url` no assertion has an audience that the broker could require.
    let takes_assertions = config.public_url.is_some();
    let methods = &AUTHENTICATION_METHODS[..if takes_assertions { 3 } else { 2 }];
    let algorithms = takes_assertions.then(|| Algorithm::ALL.map(Algorithm::name));
    json(
        StatusCode::OK,
        &Metadata {
            token_endpoint: format!("{issuer}/oauth/token"),
            revocation_endpoint: format!("{issuer}/oauth/revoke"),
            issuer,
            grant_types_supported: ["client_credentials"],
            response_types_supported: [],
            token_endpoint_auth_methods_supported: methods,
            revocation_endpoint_auth_methods_supported: methods,
            token_endpoint_auth_signing_alg_values_supported: algorithms,
            revocation_endpoint_auth_signing_alg_values_supported: algorithms,
        },
        TYPICAL_ANSWER_LENGTH,
    )
}

/// HTTP Basic, id and secret in the body, and an assertion that the caller has signed with its own
/// key (RFC 7591 section 2, OpenID Connect Core section 9).
const AUTHENTICATION_METHODS: [&str; 3] = ["client_secret_basic", "client_secret_post", "private_key_jwt"];

/// Answer of the metadata endpoint, RFC 8414 section 2.
#[derive(Serialize)]
struct Metadata {
    issuer: String,
    token_endpoint: String,
    revocation_endpoint: String,
    grant_types_supported: [&'static str; 1],
    response_types_supported: [&'static str; 0],
    token_endpoint_auth_methods_supported: &'static [&'static str],
    revocation_endpoint_auth_methods_supported: &'static [&'static str],
    #[serde(skip_serializing_if = "Option::is_none")]
    token_endpoint_auth_signing_alg_values_supported: Option<[&'static str; 3]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revocation_endpoint_auth_signing_alg_values_supported: Option<[&'static str; 3]>,
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
}

/// The version that `/readyz` reports.
const VERSION: Option<&str> = Some(env!("CARGO_PKG_VERSION"));

fn health(
    code: StatusCode,
    status: &'static str,
    problem: Option<&'static str>,
    version: Option<&'static str>,
) -> Response<String> {
    json(code, &Health { status, problem, version }, TYPICAL_ANSWER_LENGTH)
}

fn method_not_allowed(route: Route) -> Response<String> {
    let description = "this path does not support the method";
    let mut response = plain_error(StatusCode::METHOD_NOT_ALLOWED, "invalid_request", description);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(route.allow()));
    response
}
