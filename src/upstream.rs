//! The token request to OfficeRnD (RFC 6749 section 4.4), and the meaning of its answer. Does
//! no I/O.

use std::borrow::Cow;
use std::time::Duration;

use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, RETRY_AFTER, USER_AGENT};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode};

use crate::config::Origin;
use crate::config::application::Credential;
use crate::error::Cause;
use crate::json::{Json, for_each_entry};
use crate::scope::Scopes;
use crate::secret::AccessToken;
use crate::time::Timestamp;

/// Answer headers that the core reads. A port may omit all others.
pub static HEADERS: [HeaderName; 1] = [RETRY_AFTER];

/// Longest accepted answer, in bytes.
pub const ANSWER_LIMIT: usize = 64 * 1024;

/// Longest duration of a call to OfficeRnD: connecting, sending, and reading the answer.
pub const CALL_LIMIT: Duration = Duration::from_secs(8);

/// Longest lifetime that is believed. Tokens live an hour; a shorter lifetime than the true one
/// only makes callers ask again sooner.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3600);

/// What OfficeRnD granted.
#[derive(Debug)]
pub struct Grant {
    /// Access token as issued; never logged.
    pub access_token: AccessToken,
    /// Granted scopes: the requested ones, or fewer.
    pub scopes: Scopes,
    /// Lifetime from the start of the request, at least 1 s.
    pub expires_in: Duration,
}

/// Why OfficeRnD granted nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// OfficeRnD issues no token now, and may have said when to try again.
    Unavailable(Cause, Option<Duration>),
    /// OfficeRnD refuses one of the scopes to the application.
    ScopeNotGranted,
    /// OfficeRnD answers 400 and does not say that it means the credential. The rest of the
    /// request is always the same, so it may mean the scopes.
    BadRequest,
}

impl Failure {
    /// The value of the audit field `reason`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Unavailable(cause, _) => cause.reason(),
            Self::ScopeNotGranted => "scope_not_granted",
            Self::BadRequest => Cause::ClientError.reason(),
        }
    }
}

/// Name and version, for OfficeRnD's logs.
pub(crate) const PRODUCT: &str = concat!("officernd-token-broker/", env!("CARGO_PKG_VERSION"));

/// Builds the token request in its documented form, with the credential in the body (RFC 6749
/// section 2.3.1).
pub fn token_request(identity: &Origin, credential: &Credential, scopes: &Scopes) -> Request<String> {
    let body = form_urlencoded::Serializer::new(String::new())
        .append_pair("client_id", &credential.client_id)
        .append_pair("client_secret", credential.client_secret.expose())
        .append_pair("grant_type", "client_credentials")
        .append_pair("scope", scopes.as_str())
        .finish();
    let length = HeaderValue::from(body.len());
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = identity.token_endpoint();
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    // Without it, any encoding is acceptable (RFC 9110 section 12.5.3), and a proxy may compress.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    // Firewalls refuse requests without it (RFC 9110 section 10.1.5).
    headers.insert(USER_AGENT, HeaderValue::from_static(PRODUCT));
    headers.insert(CONTENT_LENGTH, length);
    request
}

/// Fields that are read. All others are ignored.
const FIELDS: [&str; 5] = ["access_token", "token_type", "expires_in", "scope", "error"];

/// An answer by RFC 6749 sections 5.1 and 5.2. Every field is optional, because the code decides
/// what a missing one means.
#[derive(Default)]
struct Answer<'a> {
    access_token: Option<Cow<'a, str>>,
    token_type: Option<Cow<'a, str>>,
    expires_in: Option<f64>,
    scope: Option<Cow<'a, str>>,
    error: Option<Cow<'a, str>>,
}

impl<'a> Answer<'a> {
    /// Parses an answer; `None` if it is not a JSON object, or a field is repeated or of
    /// another type.
    fn parse(body: &'a [u8]) -> Option<Self> {
        let mut answer = Self::default();
        let mut is_readable = true;
        let mut take = |name: &str, value: Json<'_, 'a>| is_readable &= answer.take(name, value);
        for_each_entry(std::str::from_utf8(body).ok()?, &mut |name| FIELDS.contains(&name), &mut take).ok()?;
        is_readable.then_some(answer)
    }

    /// Takes over one field; null counts as absent. Returns whether it has the right type and
    /// is the first of its name.
    fn take(&mut self, name: &str, value: Json<'_, 'a>) -> bool {
        let place = match name {
            "access_token" => &mut self.access_token,
            "token_type" => &mut self.token_type,
            "scope" => &mut self.scope,
            "error" => &mut self.error,
            "expires_in" => {
                // Some servers write digits in a string.
                let digits = value.text().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
                let seconds = value.number().or_else(|| digits?.parse::<u32>().ok().map(f64::from));
                return value.is_null() || seconds.is_some_and(|seconds| self.expires_in.replace(seconds).is_none());
            }
            _ => return true,
        };
        value.is_null() || value.text().is_some_and(|text| place.replace(text.clone()).is_none())
    }
}

/// Reads the answer to [`token_request`] for `requested`.
///
/// # Errors
/// Anything but a grant of the requested scopes or fewer. No byte of the answer enters the
/// error.
pub fn read_answer(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    requested: &Scopes,
    now: Timestamp,
) -> Result<Grant, Failure> {
    if matches!(status, StatusCode::OK | StatusCode::CREATED) {
        return read_success(body, requested).map_err(|cause| Failure::Unavailable(cause, None));
    }
    if status == StatusCode::TOO_MANY_REQUESTS {
        return Err(Failure::Unavailable(Cause::RateLimited, read_retry_after(headers, now)));
    }
    if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT {
        return Err(Failure::Unavailable(Cause::ServerError, read_retry_after(headers, now)));
    }
    if !status.is_client_error() {
        return Err(Failure::Unavailable(Cause::UnexpectedStatus, None));
    }
    let error = Answer::parse(body).and_then(|answer| answer.error);
    Err(match (status, error.as_deref()) {
        (_, Some("invalid_client" | "unauthorized_client")) | (StatusCode::UNAUTHORIZED, _) => {
            Failure::Unavailable(Cause::CredentialRefused, None)
        }
        (_, Some("invalid_scope")) => Failure::ScopeNotGranted,
        (StatusCode::BAD_REQUEST, _) => Failure::BadRequest,
        // For example a firewall's 403. It says nothing about the credential.
        _ => Failure::Unavailable(Cause::ClientError, read_retry_after(headers, now)),
    })
}

fn read_success(body: &[u8], requested: &Scopes) -> Result<Grant, Cause> {
    let answer: Answer = Answer::parse(body).ok_or(Cause::UnreadableAnswer)?;
    let token = answer.access_token.ok_or(Cause::UnreadableAnswer)?;
    if !answer.token_type.is_some_and(|kind| kind.eq_ignore_ascii_case("bearer")) {
        return Err(Cause::UnknownTokenType);
    }
    // RFC 6749 appendix A.12 says 1*VSCHAR; RFC 6750 section 2.1 permits no space in a header.
    if token.is_empty() || !token.bytes().all(|byte| matches!(byte, b'!'..=b'~')) {
        return Err(Cause::UnusableToken);
    }
    let expires_in = answer.expires_in.and_then(read_lifetime).ok_or(Cause::NoLifetime)?;
    let scopes = match answer.scope {
        // RFC 6749 section 5.1: an absent scope means the requested ones.
        None => requested.clone(),
        Some(text) => Scopes::parse(&text).map_err(|_| Cause::UnreadableAnswer)?,
    };
    if !scopes.is_subset_of(requested) {
        return Err(Cause::BroaderScope);
    }
    Ok(Grant { access_token: AccessToken::new(token), scopes, expires_in })
}

/// Converts to whole seconds, at least one and at most [`LONGEST_LIFE`].
fn read_lifetime(seconds: f64) -> Option<Duration> {
    // Below this bound, the cast only drops the fraction. A larger number is not a plausible
    // lifetime.
    (1.0..1e15).contains(&seconds).then(|| Duration::from_secs(seconds as u64).min(LONGEST_LIFE))
}

/// Parses `Retry-After` as seconds or as a date (RFC 9110 section 10.2.3); `None` if it is
/// absent or malformed.
fn read_retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // Too many digits mean a very long time; the gate has an upper bound.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX / 1000)));
    }
    Some(Timestamp::parse_http_date(text)?.since(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        // Sun, 06 Nov 1994 08:49:37 GMT
        Timestamp::from_unix_ms(784_111_777_000)
    }

    fn read(status: u16, body: &str) -> Result<Grant, Failure> {
        let requested = Scopes::parse("a b").unwrap();
        read_answer(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), body.as_bytes(), &requested, now())
    }

    #[test]
    fn success_answer_is_parsed_by_rfc_6749() {
        let check = |body: &str, scope: &str, expires_in: u64| {
            let grant = read(200, body).unwrap_or_else(|failure| panic!("{body}: {failure:?}"));
            assert_eq!((grant.scopes.as_str(), grant.expires_in.as_secs()), (scope, expires_in), "{body}");
        };
        check(r#"{"access_token":"t","token_type":"Bearer","expires_in":3599,"scope":"a b"}"#, "a b", 3599);
        check(r#"{"access_token":"t","token_type":"bearer","expires_in":3599}"#, "a b", 3599);
        check(r#"{"access_token":"t","token_type":"BEARER","expires_in":1,"scope":"b a"}"#, "a b", 1);
        check(r#"{"access_token":"t","token_type":"Bearer","expires_in":60.9,"scope":"b"}"#, "b", 60);
        check(r#"{"access_token":"t","token_type":"Bearer","expires_in":1e9,"new":[1]}"#, "a b", 86_400);
        check(r#"{"access_token":"\u0074","token_type":"Bearer","expires_in":5}"#, "a b", 5);
        check(r#"{"access_token":"t","token_type":"Bearer","expires_in":5,"new":["\ud800",1e999]}"#, "a b", 5);
        check(r#"{"access_token":"t","token_type":"Bearer","expires_in":"3599"}"#, "a b", 3599);
        assert!(read(201, r#"{"access_token":"t","token_type":"Bearer","expires_in":5}"#).is_ok());
    }

    #[test]
    fn success_answer_without_a_grant_is_classified() {
        use Cause::*;
        let check = |body: &str, expected: Cause| {
            assert_eq!(read(200, body).unwrap_err(), Failure::Unavailable(expected, None), "{body}")
        };
        for body in [
            "",
            "{}",
            "null",
            "<html>",
            r#"{"error":"invalid_client"}"#,
            r#"{"access_token":1,"token_type":"Bearer","expires_in":1}"#,
            r#"{"access_token":"t","token_type":"Bearer","expires_in":"1h"}"#,
            r#"{"access_token":"t","token_type":"Bearer","expires_in":"+5"}"#,
            r#"{"access_token":"t","token_type":"Bearer","expires_in":""}"#,
            r#"{"access_token":"t","token_type":"Bearer","expires_in":NaN}"#,
            r#"{"access_token":"t","access_token":"u","token_type":"Bearer","expires_in":1}"#,
            r#"{"access_token":"t","token_type":"Bearer","expires_in":1,"scope":""}"#,
            r#"{"access_token":"t","token_type":"Bearer","expires_in":1,"scope":"a \"b\""}"#,
        ] {
            check(body, UnreadableAnswer);
        }
        check(r#"{"access_token":"t","expires_in":1}"#, UnknownTokenType);
        check(r#"{"access_token":"t","token_type":"mac","expires_in":1}"#, UnknownTokenType);
        check(r#"{"access_token":"t","token_type":"Bearer"}"#, NoLifetime);
        check(r#"{"access_token":"t","token_type":"Bearer","expires_in":null}"#, NoLifetime);
        for number in ["0", "-1", "0.5", "1e308", "-1e308"] {
            check(&format!(r#"{{"access_token":"t","token_type":"Bearer","expires_in":{number}}}"#), NoLifetime);
        }
        check(r#"{"access_token":"","token_type":"Bearer","expires_in":1}"#, UnusableToken);
        check(r#"{"access_token":"a\nb","token_type":"Bearer","expires_in":1}"#, UnusableToken);
        check(r#"{"access_token":"a b","token_type":"Bearer","expires_in":1}"#, UnusableToken);
        check(r#"{"access_token":"t","token_type":"Bearer","expires_in":1,"scope":"a b c"}"#, BroaderScope);
        check(r#"{"access_token":"t","token_type":"Bearer","expires_in":1,"scope":"c"}"#, BroaderScope);
    }

    #[test]
    fn error_answer_is_classified_by_status_and_code() {
        let check = |status: u16, body: &str, expected: Failure| {
            assert_eq!(read(status, body).unwrap_err(), expected, "{status} {body}")
        };
        let refused = Failure::Unavailable(Cause::CredentialRefused, None);
        let unexpected = Failure::Unavailable(Cause::UnexpectedStatus, None);
        let client_error = Failure::Unavailable(Cause::ClientError, None);
        check(401, r#"{"error":"invalid_client"}"#, refused);
        check(400, r#"{"error":"invalid_client","error_description":"x"}"#, refused);
        check(400, r#"{"error":"unauthorized_client"}"#, refused);
        check(403, r#"{"error":"invalid_client"}"#, refused);
        check(401, "", refused);
        check(403, "<html>", client_error);
        check(400, r#"{"error":"invalid_scope"}"#, Failure::ScopeNotGranted);
        check(401, r#"{"error":"invalid_scope"}"#, Failure::Unavailable(Cause::CredentialRefused, None));
        for body in [r#"{"error":"invalid_request"}"#, r#"{"message":"x"}"#, "Bad Request", ""] {
            check(400, body, Failure::BadRequest);
        }
        check(404, "", client_error);
        check(204, "", unexpected);
        check(301, "", unexpected);
        check(307, "", unexpected);
        for status in [500, 502, 503, 599, 408] {
            check(status, "invalid_client", Failure::Unavailable(Cause::ServerError, None));
        }
        check(429, "Too many requests, please try again later", Failure::Unavailable(Cause::RateLimited, None));
    }

    #[test]
    fn retry_after_is_parsed_as_seconds_or_date() {
        let check = |value: &str, expected: Option<u64>| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(value).unwrap())]);
            assert_eq!(read_retry_after(&headers, now()).map(|wait| wait.as_secs()), expected, "{value:?}");
        };
        check("0", Some(0));
        check("120", Some(120));
        check("99999999999999999999999999", Some(u64::MAX / 1000));
        check("Sun, 06 Nov 1994 08:50:37 GMT", Some(60));
        check("Sun, 06 Nov 1994 08:48:37 GMT", Some(0));
        check("soon", None);
        check("", None);
        check("-5", None);
        check("1.5", None);
        assert_eq!(read_retry_after(&HeaderMap::new(), now()), None);
    }
}
