//! The vocabulary of the table: requests as bytes, complete answers, the policy, and shorthands
//! for frequent values.

use serde_json::json;
use tests::{Setup, digest_of};

/// A request and the answer it must get.
pub(super) struct Row {
    pub(super) what: &'static str,
    /// The sentence of the standard that decides.
    pub(super) because: &'static str,
    pub(super) request: Wire,
    pub(super) answer: Answer,
}

pub(super) const fn row(what: &'static str, because: &'static str, request: Wire, answer: Answer) -> Row {
    Row { what, because, request, answer }
}

/// A request as bytes. An empty header is not sent.
#[derive(Clone, Copy)]
pub(super) struct Wire {
    /// Request line; HTTP/1.1 if it has no version.
    pub(super) line: &'static str,
    pub(super) host: &'static str,
    /// `Authorization`. A text in square brackets is sent as base64.
    pub(super) authorization: &'static [u8],
    pub(super) content_type: &'static str,
    /// More header lines. If none of them gives the length of the body, and the body is not
    /// empty, a `Content-Length` is added.
    pub(super) more: &'static [&'static str],
    /// Body. `<token>` is the token for [`MEMBERS`] that was issued last, `<scopes N>` is N
    /// scopes of `crowd`, and `<fill N>` makes the body N bytes long.
    pub(super) body: &'static [u8],
}

/// A complete answer: status, all headers but `date` and `connection`, and body.
#[derive(Clone, Copy)]
pub(super) enum Answer {
    /// A token for these scopes, with its source.
    Token(Source, &'static str),
    /// A status, with the `error` and `error_description` of RFC 6749 section 5.2.
    Error(u16, &'static str, &'static str),
    /// 405 with this `Allow`.
    NotAllowed(&'static str),
    /// 200 with this JSON.
    Json(&'static str),
    /// 200 with the metadata of this issuer.
    Metadata(&'static str),
    /// 503 with a `Retry-After` of at most 60 s.
    Later,
    /// One of these statuses, from the HTTP server before the component. Its headers are not
    /// compared.
    Server(&'static [u16]),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Hit,
    Miss,
    Stale,
}

// The policy.

/// Scope of most requests, one of two that `nightly` may have.
pub(super) const MEMBERS: &str = "members.read";
pub(super) const BOTH: &str = "companies.read members.read";
pub(super) const DOORS: &str = "doors.read";
/// Number of scopes of `crowd`, the most that a scope set may have.
pub(super) const CROWD: usize = 512;

/// Returns a setup with three callers: `nightly`, one whose name and secret need every kind of
/// encoding, and one with many scopes.
pub(super) fn setup() -> Setup {
    let crowd: Vec<_> = crowd_scopes(CROWD).split(' ').map(String::from).collect();
    let granted = |scopes: &str| scopes.split(' ').map(String::from).collect::<Vec<_>>();
    let entry = |secret: &str, scopes: &[String]| json!({ "secret_sha256": [digest_of(secret)], "scopes": scopes });
    let policy = json!({
        "nightly": entry("sesame", &granted(BOTH)),
        "front:door 100%": entry("a:b+c d%41\u{e9}", &granted(DOORS)),
        "crowd": entry("many", &crowd),
    });
    // One instance, so that each request finds the tokens of the requests before it.
    let mut setup = Setup::in_one_instance();
    setup.application.scopes = [granted(BOTH), granted(DOORS), crowd].concat();
    setup.variables = vec![("callers", policy.to_string())];
    setup
}

pub(super) fn crowd_scopes(count: usize) -> String {
    (0..count).map(|index| format!("s{index:03}")).collect::<Vec<_>>().join(" ")
}

// Requests that the rows vary.

pub(super) const FORM: &str = "application/x-www-form-urlencoded";
/// An ordinary token request. In rows about the encoding itself, `bmlnaHRseTpzZXNhbWU=` is its
/// `nightly:sesame`.
pub(super) const TOKEN: Wire = Wire {
    line: "POST /oauth/token",
    host: "localhost",
    authorization: b"Basic [nightly:sesame]",
    content_type: FORM,
    more: &[],
    body: b"grant_type=client_credentials&scope=members.read",
};
/// The same request with the credentials in the body.
pub(super) const POSTED: Wire = Wire {
    authorization: b"",
    body: b"grant_type=client_credentials&scope=members.read&client_id=nightly&client_secret=sesame",
    ..TOKEN
};
pub(super) const REVOKE: Wire = Wire { line: "POST /oauth/revoke", body: b"token=unknown", ..TOKEN };
pub(super) const METADATA: Wire = get("GET /.well-known/oauth-authorization-server");
pub(super) const HEALTH: Wire = get("GET /healthz");

pub(super) const fn get(line: &'static str) -> Wire {
    Wire { line, authorization: b"", content_type: "", body: b"", ..TOKEN }
}

pub(super) const fn token_line(line: &'static str) -> Wire {
    Wire { line, ..TOKEN }
}

pub(super) const fn token_body(body: &'static [u8]) -> Wire {
    Wire { body, ..TOKEN }
}

pub(super) const fn authorization(authorization: &'static [u8]) -> Wire {
    Wire { authorization, ..TOKEN }
}

pub(super) const fn content_type(content_type: &'static str) -> Wire {
    Wire { content_type, ..TOKEN }
}

pub(super) const fn more(more: &'static [&'static str]) -> Wire {
    Wire { more, ..TOKEN }
}

/// Headers of a browser, before and with a request from a page of another origin.
pub(super) const FROM_A_PAGE: &[&str] = &[
    "Origin: https://app.example",
    "Access-Control-Request-Method: POST",
    "Access-Control-Request-Headers: authorization",
];

// Answers of more than one row.

pub(super) const GRANTED: Answer = Answer::Token(Source::Hit, MEMBERS);
pub(super) const ALL_GRANTED: Answer = Answer::Token(Source::Hit, BOTH);
pub(super) const DOOR_GRANTED: Answer = Answer::Token(Source::Hit, DOORS);
pub(super) const CROWD_GRANTED: Answer = Answer::Token(Source::Hit, "<scopes 512>");
pub(super) const REVOKED: Answer = Answer::Json("{}");
pub(super) const HEALTHY: Answer = Answer::Json(r#"{"status":"ok"}"#);
pub(super) const READY: Answer =
    Answer::Json(concat!(r#"{"status":"ready","version":""#, env!("CARGO_PKG_VERSION"), r#""}"#));
pub(super) const DESCRIBED: Answer = Answer::Metadata("http://localhost");

pub(super) const INVALID_CLIENT: Answer = Answer::Error(401, "invalid_client", "client authentication failed");
pub(super) const MALFORMED_SCOPE: Answer = Answer::Error(400, "invalid_scope", "scope is malformed");
pub(super) const SCOPE_DENIED: Answer =
    Answer::Error(400, "invalid_scope", "the requested scope is not available to this client");
pub(super) const OTHER_GRANT: Answer =
    Answer::Error(400, "unsupported_grant_type", "grant_type must be client_credentials");
pub(super) const NO_GRANT: Answer = invalid_request("grant_type is missing");
pub(super) const NO_TOKEN: Answer = invalid_request("token is missing");
pub(super) const REPEATED: Answer = invalid_request("a parameter is repeated");
pub(super) const IN_QUERY: Answer = invalid_request("parameters must be in the body, not in the query");
pub(super) const NO_FORM: Answer = invalid_request("the body must be application/x-www-form-urlencoded");
pub(super) const TWO_WAYS: Answer = invalid_request("more than one way of authenticating");
pub(super) const OTHER_SECRET: Answer =
    invalid_request("client_secret differs from the one in the Authorization header");
pub(super) const OTHER_ID: Answer = invalid_request("client_id differs from the authenticated one");
pub(super) const TWO_HEADERS: Answer = invalid_request("more than one Authorization header");
pub(super) const NOT_FOUND: Answer = Answer::Error(404, "not_found", "no such path");
pub(super) const TOO_LARGE: Answer = Answer::Error(413, "invalid_request", "the request body is too large");
pub(super) const POST_ONLY: Answer = Answer::NotAllowed("POST");
pub(super) const READ_ONLY: Answer = Answer::NotAllowed("GET, HEAD");
pub(super) const BAD_HTTP: Answer = Answer::Server(&[400]);

pub(super) const fn invalid_request(description: &'static str) -> Answer {
    Answer::Error(400, "invalid_request", description)
}
