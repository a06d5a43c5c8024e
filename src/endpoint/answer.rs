//! Builds the answers: a token, or an error by the one table from error to status.

use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, PRAGMA, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde::Serialize;

use crate::audit::Audit;
use crate::broker::Source;
use crate::error::Error;
use crate::json::to_json;
use crate::time::{Timestamp, retry_after_seconds};
use crate::token::Token;

/// The header `Cache-Status`, RFC 9211.
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// The challenge of a 401 (RFC 7617): where the Basic credentials are valid, and that they are
/// UTF-8.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"officernd-token-broker\", charset=\"UTF-8\"");

/// Answer with a token, RFC 6749 section 5.1.
#[derive(Serialize)]
struct TokenAnswer<'a> {
    access_token: &'a str,
    token_type: &'static str,
    expires_in: u64,
    scope: &'a str,
}

/// Answer with an error, RFC 6749 section 5.2.
#[derive(Serialize)]
struct ErrorAnswer<'a> {
    error: &'a str,
    error_description: &'a str,
}

/// Length of a [`TokenAnswer`] without its two texts, in bytes.
const TOKEN_ANSWER_OVERHEAD: usize = 80;

pub(super) fn grant(token: &Token, source: Source, now: Timestamp) -> Response<String> {
    let expires_in = token.remaining(now).as_secs();
    let answer = TokenAnswer {
        access_token: token.access_token.expose(),
        token_type: "Bearer",
        expires_in,
        scope: token.scopes.as_str(),
    };
    let capacity = TOKEN_ANSWER_OVERHEAD + answer.access_token.len() + answer.scope.len();
    let mut response = json(StatusCode::OK, &answer, capacity);
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

/// The one table from error to answer. Also writes the reason into the audit line. Unknown paths
/// and methods get their 404 and 405 before any error exists.
pub(super) fn refuse(error: Error, audit: &mut Audit) -> Response<String> {
    audit.reason = Some(error.reason());
    let (status, code) = match &error {
        Error::InvalidRequest(_) => (StatusCode::BAD_REQUEST, "invalid_request"),
        Error::InvalidClient(_) => (StatusCode::UNAUTHORIZED, "invalid_client"),
        Error::UnsupportedGrantType => (StatusCode::BAD_REQUEST, "unsupported_grant_type"),
        Error::InvalidScope(_) => (StatusCode::BAD_REQUEST, "invalid_scope"),
        Error::MetricsNotPermitted => (StatusCode::FORBIDDEN, "unauthorized_client"),
        Error::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "invalid_request"),
        Error::Unavailable { cause, .. } if cause.is_temporary() => {
            (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable")
        }
        Error::Unavailable { .. } => (StatusCode::BAD_GATEWAY, "server_error"),
        Error::Configuration(_) | Error::DisabledApplication | Error::NoPublicUrl => {
            (StatusCode::INTERNAL_SERVER_ERROR, "server_error")
        }
    };
    let mut response = plain_error(status, code, error.description());
    match error {
        Error::InvalidClient(_) => {
            response.headers_mut().insert(WWW_AUTHENTICATE, CHALLENGE);
        }
        Error::Unavailable { retry_after, .. } => {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(retry_after_seconds(retry_after)));
        }
        _ => {}
    }
    response
}

pub(super) fn plain_error(status: StatusCode, error: &str, error_description: &str) -> Response<String> {
    json(status, &ErrorAnswer { error, error_description }, TYPICAL_ANSWER_LENGTH)
}

/// First buffer for an answer without a token, in bytes. Most are shorter.
pub(super) const TYPICAL_ANSWER_LENGTH: usize = 128;

pub(super) fn json(status: StatusCode, value: &impl Serialize, capacity: usize) -> Response<String> {
    answer(status, String::from_utf8(to_json(value, capacity)).expect("JSON is text"))
}

/// The media type of most answers.
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An answer in JSON. No cache may store it (RFC 6749 section 5.1), and no browser page may
/// read it: it never has a CORS header.
pub(super) fn answer(status: StatusCode, body: String) -> Response<String> {
    answer_of_type(status, JSON, body)
}

/// An answer of another media type, with the same headers.
pub(super) fn answer_of_type(status: StatusCode, media_type: HeaderValue, body: String) -> Response<String> {
    let length = HeaderValue::from(body.len());
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, media_type);
    headers.insert(CONTENT_LENGTH, length);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    response
}
