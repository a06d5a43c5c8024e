//! A table of requests, from the letter of the standards to the whole answer.
//!
//! A row rests on the sentence it quotes, in short, and not on what the broker happens to do. Every request is written as
//! bytes, because no HTTP library would send half of them, and on a connection of its own.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tests::Setup;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A request and its answer.
struct Row {
    what: &'static str,
    /// The sentence that decides.
    because: &'static str,
    request: Wire,
    answer: Answer,
}

const fn row(what: &'static str, because: &'static str, request: Wire, answer: Answer) -> Row {
    Row { what, because, request, answer }
}

/// A request as bytes. A header that is empty here is not sent.
#[derive(Clone, Copy)]
struct Wire {
    /// The request line; without a version it is HTTP/1.1.
    line: &'static str,
    host: &'static str,
    /// What is in square brackets goes out as base64.
    authorization: &'static [u8],
    content_type: &'static str,
    /// More header lines. Unless they tell how long a body is, a `Content-Length` does; where there is none, nothing does.
    more: &'static [&'static str],
    /// `<token>` is the token for [`MEMBERS`] that was issued last, `<scopes N>` so many scopes of `crowd`, and `<fill N>`
    /// makes the body so long.
    body: &'static [u8],
}

/// The whole of an answer: the status, every header but `date` and `connection`, and the body.
#[derive(Clone, Copy)]
enum Answer {
    /// A token for these scopes, and where it comes from.
    Token(Source, &'static str),
    /// A status, and the `error` and `error_description` of RFC 6749 section 5.2.
    Error(u16, &'static str, &'static str),
    /// 405, with this in `Allow`.
    NotAllowed(&'static str),
    /// 200 and this JSON.
    Json(&'static str),
    /// The metadata of this issuer.
    Metadata(&'static str),
    /// 503, for a minute at most.
    Later,
    /// One of these statuses from whatever stands before the component and reads HTTP for it. Its other headers are its own.
    Server(&'static [u16]),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Hit,
    Miss,
    Stale,
}

// Who is there.

/// The scope of most requests, one of two that `nightly` may have.
const MEMBERS: &str = "members.read";
const BOTH: &str = "companies.read members.read";
const DOORS: &str = "doors.read";
/// `crowd` may have so many scopes: a set has no more.
const CROWD: usize = 512;

/// Three callers: `nightly`, one of whom everything has to be encoded, and one with many scopes.
fn setup() -> Setup {
    let crowd: Vec<_> = crowd_scopes(CROWD).split(' ').map(String::from).collect();
    let granted = |scopes: &str| scopes.split(' ').map(String::from).collect::<Vec<_>>();
    let entry = |secret: &str, scopes: &[String]| {
        let digest = Sha256::digest(secret).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        json!({ "secret_sha256": [digest], "scopes": scopes })
    };
    let policy = json!({
        "nightly": entry("sesame", &granted(BOTH)),
        "front:door 100%": entry("a:b+c d%41\u{e9}", &granted(DOORS)),
        "crowd": entry("many", &crowd),
    });
    // One instance: what one request leaves behind, the next one finds.
    let mut setup = Setup::in_one_instance();
    setup.application.scopes = [granted(BOTH), granted(DOORS), crowd].concat();
    setup.variables = vec![("callers", policy.to_string())];
    setup
}

fn crowd_scopes(count: usize) -> String {
    (0..count).map(|index| format!("s{index:03}")).collect::<Vec<_>>().join(" ")
}

// What most requests are variations of.

const FORM: &str = "application/x-www-form-urlencoded";
/// In this one nothing is odd. `bmlnaHRseTpzZXNhbWU=`, in rows about the encoding itself, is its `nightly:sesame`.
const TOKEN: Wire = Wire {
    line: "POST /oauth/token",
    host: "broker.example",
    authorization: b"Basic [nightly:sesame]",
    content_type: FORM,
    more: &[],
    body: b"grant_type=client_credentials&scope=members.read",
};
/// With the credentials in the body.
const POSTED: Wire = Wire {
    authorization: b"",
    body: b"grant_type=client_credentials&scope=members.read&client_id=nightly&client_secret=sesame",
    ..TOKEN
};
const REVOKE: Wire = Wire { line: "POST /oauth/revoke", body: b"token=unknown", ..TOKEN };
const METADATA: Wire = get("GET /.well-known/oauth-authorization-server");
const HEALTH: Wire = get("GET /healthz");

const fn get(line: &'static str) -> Wire {
    Wire { line, authorization: b"", content_type: "", body: b"", ..TOKEN }
}

const fn token_line(line: &'static str) -> Wire {
    Wire { line, ..TOKEN }
}

const fn token_body(body: &'static [u8]) -> Wire {
    Wire { body, ..TOKEN }
}

const fn authorization(authorization: &'static [u8]) -> Wire {
    Wire { authorization, ..TOKEN }
}

const fn content_type(content_type: &'static str) -> Wire {
    Wire { content_type, ..TOKEN }
}

const fn more(more: &'static [&'static str]) -> Wire {
    Wire { more, ..TOKEN }
}

/// What a browser says before and with a request from a page of another origin.
const FROM_A_PAGE: &[&str] = &[
    "Origin: https://app.example",
    "Access-Control-Request-Method: POST",
    "Access-Control-Request-Headers: authorization",
];

// The answers that come more than once.

const GRANTED: Answer = Answer::Token(Source::Hit, MEMBERS);
const ALL_GRANTED: Answer = Answer::Token(Source::Hit, BOTH);
const DOOR_GRANTED: Answer = Answer::Token(Source::Hit, DOORS);
const CROWD_GRANTED: Answer = Answer::Token(Source::Hit, "<scopes 512>");
const REVOKED: Answer = Answer::Json("{}");
const HEALTHY: Answer = Answer::Json(r#"{"status":"ok"}"#);
const READY: Answer = Answer::Json(r#"{"status":"ready"}"#);
const DESCRIBED: Answer = Answer::Metadata("http://broker.example");

const INVALID_CLIENT: Answer = Answer::Error(401, "invalid_client", "client authentication failed");
const MALFORMED_SCOPE: Answer = Answer::Error(400, "invalid_scope", "scope is malformed");
const SCOPE_DENIED: Answer = Answer::Error(400, "invalid_scope", "the requested scope is not available to this client");
const OTHER_GRANT: Answer = Answer::Error(400, "unsupported_grant_type", "grant_type must be client_credentials");
const NO_GRANT: Answer = invalid_request("grant_type is missing");
const NO_TOKEN: Answer = invalid_request("token is missing");
const REPEATED: Answer = invalid_request("a parameter is repeated");
const IN_QUERY: Answer = invalid_request("parameters must be in the body, not in the query");
const NO_FORM: Answer = invalid_request("the body must be application/x-www-form-urlencoded");
const TWO_WAYS: Answer = invalid_request("there is more than one way of authenticating");
const OTHER_ID: Answer = invalid_request("client_id is not the one that authenticates");
const TWO_HEADERS: Answer = invalid_request("there is more than one Authorization header");
const NOT_FOUND: Answer = Answer::Error(404, "not_found", "there is nothing at this path");
const TOO_LARGE: Answer = Answer::Error(413, "invalid_request", "the request body is too large");
const POST_ONLY: Answer = Answer::NotAllowed("POST");
const READ_ONLY: Answer = Answer::NotAllowed("GET, HEAD");
const BAD_HTTP: Answer = Answer::Server(&[400]);

const fn invalid_request(description: &'static str) -> Answer {
    Answer::Error(400, "invalid_request", description)
}

/// In this order: a token comes from OfficeRnD at the first request for it, and is there for the rest.
static ROWS: &[Row] = &[
    // RFC 6749 section 4.4: the request as it should be.
    row(
        "the request of the standard, with HTTP Basic",
        "RFC 6749 4.4.2: grant_type=client_credentials, scope, and the client authenticates",
        TOKEN,
        Answer::Token(Source::Miss, MEMBERS),
    ),
    row(
        "the same again",
        "RFC 6749 5.1: expires_in is the lifetime from the time the response was generated",
        TOKEN,
        GRANTED,
    ),
    row(
        "credentials in the body",
        "RFC 6749 2.3.1: the server MAY support including the client credentials in the request-body",
        POSTED,
        GRANTED,
    ),
    row(
        "no scope",
        "RFC 6749 3.3: if scope is omitted, the server MUST use a pre-defined default or fail",
        token_body(b"grant_type=client_credentials"),
        Answer::Token(Source::Miss, BOTH),
    ),
    // RFC 6749 section 3.2: parameters.
    row(
        "an empty scope",
        "RFC 6749 3.2: parameters sent without a value MUST be treated as if they were omitted",
        token_body(b"grant_type=client_credentials&scope="),
        ALL_GRANTED,
    ),
    row(
        "scope without an equals sign",
        "RFC 6749 3.2: parameters sent without a value MUST be treated as if they were omitted",
        token_body(b"grant_type=client_credentials&scope"),
        ALL_GRANTED,
    ),
    row(
        "an empty scope beside one that is not",
        "RFC 6749 3.2: without a value is omitted, so this one is not there twice",
        token_body(b"scope=&grant_type=client_credentials&scope=members.read"),
        GRANTED,
    ),
    row(
        "an empty client_id and client_secret beside Basic",
        "RFC 6749 3.2: without a value is omitted, so this is one way of authenticating",
        token_body(b"grant_type=client_credentials&scope=members.read&client_id=&client_secret="),
        GRANTED,
    ),
    row(
        "an empty grant_type",
        "RFC 6749 3.2 and 5.2: without a value is omitted, and invalid_request is a missing required parameter",
        token_body(b"grant_type=&scope=members.read"),
        NO_GRANT,
    ),
    row(
        "no grant_type",
        "RFC 6749 5.2: invalid_request: the request is missing a required parameter",
        token_body(b"scope=members.read"),
        NO_GRANT,
    ),
    row(
        "an empty body",
        "RFC 6749 5.2: invalid_request: the request is missing a required parameter",
        Wire { more: &["Content-Length: 0"], body: b"", ..TOKEN },
        NO_GRANT,
    ),
    row(
        "an unknown parameter",
        "RFC 6749 3.2: the server MUST ignore unrecognized request parameters",
        token_body(b"grant_type=client_credentials&audience=a&scope=members.read"),
        GRANTED,
    ),
    row(
        "an unknown parameter twice",
        "RFC 6749 3.2: the server MUST ignore unrecognized request parameters (RFC 8707 2 repeats its own)",
        token_body(b"grant_type=client_credentials&resource=a&resource=b&scope=members.read"),
        GRANTED,
    ),
    row(
        "an unknown parameter that is not UTF-8",
        "RFC 6749 3.2: the server MUST ignore unrecognized request parameters",
        token_body(b"grant_type=client_credentials&x=%FF\xFE&scope=members.read"),
        GRANTED,
    ),
    row(
        "grant_type twice",
        "RFC 6749 3.2: request parameters MUST NOT be included more than once",
        token_body(b"grant_type=client_credentials&grant_type=client_credentials"),
        REPEATED,
    ),
    row(
        "scope twice",
        "RFC 6749 3.2: request parameters MUST NOT be included more than once",
        token_body(b"grant_type=client_credentials&scope=members.read&scope=companies.read"),
        REPEATED,
    ),
    row(
        "scope twice, once in disguise",
        "RFC 6749 3.2 and appendix B: a name is encoded as a value is, and this one is there twice",
        token_body(b"grant_type=client_credentials&scope=members.read&s%63ope=members.read"),
        REPEATED,
    ),
    row(
        "client_id twice",
        "RFC 6749 3.2: request parameters MUST NOT be included more than once",
        Wire {
            body: b"grant_type=client_credentials&client_id=nightly&client_id=nightly&client_secret=sesame",
            ..POSTED
        },
        REPEATED,
    ),
    row(
        "client_secret twice",
        "RFC 6749 3.2: request parameters MUST NOT be included more than once",
        Wire {
            body: b"grant_type=client_credentials&client_id=nightly&client_secret=sesame&client_secret=x",
            ..POSTED
        },
        REPEATED,
    ),
    row(
        "the name of a parameter in capitals",
        "RFC 6749 1.9: all the protocol parameter names and values are case sensitive",
        token_body(b"GRANT_TYPE=client_credentials"),
        NO_GRANT,
    ),
    row(
        "the name of a parameter with an escape",
        "RFC 6749 appendix B: names and values are encoded the same way",
        token_body(b"grant%5Ftype=client%5fcredentials&scope=members.read"),
        GRANTED,
    ),
    row(
        "ampersands that separate nothing",
        "RFC 6749 appendix B: what is empty between two of them has neither name nor value",
        token_body(b"&&grant_type=client_credentials&&scope=members.read&"),
        GRANTED,
    ),
    row(
        "a semicolon between parameters",
        "RFC 6749 appendix B: the separator is an ampersand, so this is one value, and of no known grant",
        token_body(b"grant_type=client_credentials;scope=members.read"),
        OTHER_GRANT,
    ),
    row(
        "a byte order mark before the first parameter",
        "RFC 6749 1.9: names are as they are, and this is another one",
        token_body(b"\xEF\xBB\xBFgrant_type=client_credentials"),
        NO_GRANT,
    ),
    // RFC 6749 sections 4.4.2 and 5.2: the grant.
    row(
        "the grant in capitals",
        "RFC 6749 4.4.2 and 1.9: the value MUST be client_credentials, and case matters",
        token_body(b"grant_type=CLIENT_CREDENTIALS"),
        OTHER_GRANT,
    ),
    row(
        "the grant with a space after it",
        "RFC 6749 4.4.2: the value MUST be set to client_credentials",
        token_body(b"grant_type=client_credentials+"),
        OTHER_GRANT,
    ),
    row(
        "the grant with a line break after it",
        "RFC 6749 4.4.2: the value MUST be set to client_credentials",
        token_body(b"grant_type=client_credentials\n"),
        OTHER_GRANT,
    ),
    row(
        "the grant of a password",
        "RFC 6749 5.2: unsupported_grant_type: the grant type is not supported by the server",
        token_body(b"grant_type=password&username=a&password=b"),
        OTHER_GRANT,
    ),
    row(
        "the grant of a code",
        "RFC 6749 5.2: unsupported_grant_type: the grant type is not supported by the server",
        token_body(b"grant_type=authorization_code&code=a&redirect_uri=https%3A%2F%2Fapp.example"),
        OTHER_GRANT,
    ),
    row(
        "the grant of a refresh token",
        "RFC 6749 4.4.3: this grant has no refresh token; 5.2: unsupported_grant_type",
        token_body(b"grant_type=refresh_token&refresh_token=a"),
        OTHER_GRANT,
    ),
    row(
        "the grant of an extension",
        "RFC 6749 4.5: an extension grant is an absolute URI; 5.2: unsupported_grant_type",
        token_body(b"grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&subject_token=a"),
        OTHER_GRANT,
    ),
    row(
        "another grant of somebody unknown",
        "RFC 6749 3.2.1: confidential clients MUST authenticate; what they ask for comes after it",
        Wire { authorization: b"Basic [nobody:sesame]", body: b"grant_type=password", ..TOKEN },
        INVALID_CLIENT,
    ),
    // RFC 6749 section 3.3: the scope.
    row(
        "two scopes",
        "RFC 6749 3.3: a list of space-delimited strings",
        token_body(b"grant_type=client_credentials&scope=companies.read+members.read"),
        ALL_GRANTED,
    ),
    row(
        "two scopes the other way round",
        "RFC 6749 3.3: if the value contains multiple strings, their order does not matter",
        token_body(b"grant_type=client_credentials&scope=members.read%20companies.read"),
        ALL_GRANTED,
    ),
    row(
        "a scope repeated",
        "RFC 6749 3.3: each string adds an access range; the same one adds nothing",
        token_body(b"grant_type=client_credentials&scope=members.read+members.read+members.read"),
        GRANTED,
    ),
    row(
        "a scope with every letter escaped",
        "RFC 6749 appendix B: %XX is the octet",
        token_body(b"grant_type=client_credentials&scope=%6d%65%6D%62%65%72%73%2e%72%65%61%64"),
        GRANTED,
    ),
    row(
        "a scope in capitals",
        "RFC 6749 3.3: case-sensitive strings; 5.2: invalid_scope: unknown",
        token_body(b"grant_type=client_credentials&scope=MEMBERS.READ"),
        SCOPE_DENIED,
    ),
    row(
        "two scopes, one of them another caller's",
        "RFC 6749 5.2: invalid_scope: the requested scope exceeds what may be granted",
        token_body(b"grant_type=client_credentials&scope=members.read+doors.read"),
        SCOPE_DENIED,
    ),
    row(
        "a comma between scopes",
        "RFC 6749 3.3: a comma is a character of a scope-token, and of no known one",
        token_body(b"grant_type=client_credentials&scope=members.read,companies.read"),
        SCOPE_DENIED,
    ),
    row(
        "an asterisk for a scope",
        "RFC 6749 3.3: a scope-token like any other, and of no known meaning",
        token_body(b"grant_type=client_credentials&scope=*"),
        SCOPE_DENIED,
    ),
    row(
        "two spaces between scopes",
        "RFC 6749 3.3: scope = scope-token *( SP scope-token )",
        token_body(b"grant_type=client_credentials&scope=members.read++companies.read"),
        MALFORMED_SCOPE,
    ),
    row(
        "a space before the scope",
        "RFC 6749 3.3: scope = scope-token *( SP scope-token )",
        token_body(b"grant_type=client_credentials&scope=+members.read"),
        MALFORMED_SCOPE,
    ),
    row(
        "a space after the scope",
        "RFC 6749 3.3: scope = scope-token *( SP scope-token )",
        token_body(b"grant_type=client_credentials&scope=members.read+"),
        MALFORMED_SCOPE,
    ),
    row(
        "a space for a scope",
        "RFC 6749 3.3: a scope has at least one scope-token; a space is a value, so it is not omitted",
        token_body(b"grant_type=client_credentials&scope=+"),
        MALFORMED_SCOPE,
    ),
    row(
        "a tab between scopes",
        "RFC 6749 3.3: SP is the only delimiter",
        token_body(b"grant_type=client_credentials&scope=members.read%09companies.read"),
        MALFORMED_SCOPE,
    ),
    row(
        "a line break after the scope",
        "RFC 6749 3.3: scope-token = 1*( %x21 / %x23-5B / %x5D-7E )",
        token_body(b"grant_type=client_credentials&scope=members.read%0A"),
        MALFORMED_SCOPE,
    ),
    row(
        "quotes around the scope",
        "RFC 6749 3.3: %x22 is not in a scope-token",
        token_body(b"grant_type=client_credentials&scope=%22members.read%22"),
        MALFORMED_SCOPE,
    ),
    row(
        "a backslash in the scope",
        "RFC 6749 3.3: %x5C is not in a scope-token",
        token_body(b"grant_type=client_credentials&scope=members%5Cread"),
        MALFORMED_SCOPE,
    ),
    row(
        "a scope beyond ASCII",
        "RFC 6749 3.3: %x7E is the last character of a scope-token",
        token_body(b"grant_type=client_credentials&scope=members.r%C3%A9ad"),
        MALFORMED_SCOPE,
    ),
    row(
        "a no-break space between scopes",
        "RFC 6749 3.3: SP is the only delimiter",
        token_body(b"grant_type=client_credentials&scope=members.read%C2%A0companies.read"),
        MALFORMED_SCOPE,
    ),
    row(
        "a scope that is not UTF-8",
        "RFC 6749 appendix B: values are encoded with UTF-8; 5.2: invalid_scope: malformed",
        token_body(b"grant_type=client_credentials&scope=members.read%FF"),
        MALFORMED_SCOPE,
    ),
    row(
        "a scope with DEL",
        "RFC 6749 3.3: %x7E is the last character of a scope-token",
        token_body(b"grant_type=client_credentials&scope=members.read%7F"),
        MALFORMED_SCOPE,
    ),
    row(
        "512 scopes",
        "RFC 6749 3.3: the grammar has no limit, and the policy allows them",
        Wire {
            authorization: b"Basic [crowd:many]",
            body: b"grant_type=client_credentials&scope=<scopes 512>",
            ..TOKEN
        },
        Answer::Token(Source::Miss, "<scopes 512>"),
    ),
    row(
        "512 scopes, and one of them once more",
        "RFC 6749 3.3: the same string adds nothing",
        Wire {
            authorization: b"Basic [crowd:many]",
            body: b"grant_type=client_credentials&scope=<scopes 512>+s000",
            ..TOKEN
        },
        CROWD_GRANTED,
    ),
    row(
        "513 scopes",
        "RFC 6749 5.2: invalid_scope: the requested scope is invalid, or exceeds what may be granted",
        Wire {
            authorization: b"Basic [crowd:many]",
            body: b"grant_type=client_credentials&scope=<scopes 513>",
            ..TOKEN
        },
        MALFORMED_SCOPE,
    ),
    // RFC 6749 section 2.3.1, RFC 7617, RFC 9110 section 11: HTTP Basic.
    row(
        "the scheme in small letters",
        "RFC 9110 11.1: the scheme is case-insensitive (RFC 7617 2 too)",
        authorization(b"basic [nightly:sesame]"),
        GRANTED,
    ),
    row(
        "the scheme in capitals",
        "RFC 9110 11.1: the scheme is case-insensitive (RFC 7617 2 too)",
        authorization(b"BASIC [nightly:sesame]"),
        GRANTED,
    ),
    row(
        "several spaces after the scheme",
        "RFC 9110 11.4: credentials = auth-scheme 1*SP token68",
        authorization(b"Basic    [nightly:sesame]"),
        GRANTED,
    ),
    row(
        "a tab after the scheme",
        "RFC 9110 11.4: credentials = auth-scheme 1*SP token68, and a tab is no SP",
        authorization(b"Basic\t[nightly:sesame]"),
        INVALID_CLIENT,
    ),
    row(
        "white space around the value",
        "RFC 9112 5.1: white space around a field value is excluded from it",
        authorization(b" \t Basic [nightly:sesame] \t"),
        GRANTED,
    ),
    row(
        "no white space before the value, and names of headers in capitals",
        "RFC 9110 5.1: field names are case-insensitive; RFC 9112 5: white space before the value is optional",
        Wire {
            authorization: b"",
            content_type: "",
            more: &["AUTHORIZATION:Basic bmlnaHRseTpzZXNhbWU=", "CONTENT-TYPE:application/x-www-form-urlencoded"],
            ..TOKEN
        },
        GRANTED,
    ),
    row(
        "escapes and pluses in id and secret",
        "RFC 6749 2.3.1: id and secret are form-encoded each (appendix B), then joined for Basic",
        Wire {
            authorization: b"Basic [front%3Adoor+100%25:a%3Ab%2Bc+d%2541%C3%A9]",
            body: b"grant_type=client_credentials",
            ..TOKEN
        },
        Answer::Token(Source::Miss, DOORS),
    ),
    row(
        "a secret with a plain colon and plain UTF-8",
        "RFC 7617 2: the first colon is the one that separates; 2.1: charset=\"UTF-8\"",
        Wire {
            authorization: b"Basic [front%3Adoor%20100%25:a:b%2bc%20d%2541\xC3\xA9]",
            body: b"grant_type=client_credentials",
            ..TOKEN
        },
        DOOR_GRANTED,
    ),
    row(
        "an id with a plain colon",
        "RFC 7617 2: a user-id with a colon cannot be encoded: the first colon separates",
        authorization(b"Basic [front:door+100%25:a%3Ab%2Bc+d%2541%C3%A9]"),
        INVALID_CLIENT,
    ),
    row(
        "a plain plus in the secret",
        "RFC 6749 appendix B: + is a space",
        authorization(b"Basic [front%3Adoor+100%25:a%3Ab+c+d%2541%C3%A9]"),
        INVALID_CLIENT,
    ),
    row(
        "an escape decoded only once",
        "RFC 6749 2.3.1: one encoding, so %41 of the secret goes out as %2541",
        authorization(b"Basic [front%3Adoor+100%25:a%3Ab%2Bc+d%41%C3%A9]"),
        INVALID_CLIENT,
    ),
    row(
        "a secret in Latin-1",
        "RFC 7617 2.1: charset=\"UTF-8\", and this is not",
        authorization(b"Basic [front%3Adoor+100%25:a%3Ab%2Bc+d%2541\xE9]"),
        INVALID_CLIENT,
    ),
    row(
        "an escaped secret in Latin-1",
        "RFC 6749 appendix B: values are encoded with UTF-8 before they are escaped",
        authorization(b"Basic [front%3Adoor+100%25:a%3Ab%2Bc+d%2541%E9]"),
        INVALID_CLIENT,
    ),
    row(
        "no padding",
        "RFC 4648 3.2, by RFC 7617 2: padding MUST be there",
        authorization(b"Basic bmlnaHRseTpzZXNhbWU"),
        INVALID_CLIENT,
    ),
    row(
        "too much padding",
        "RFC 4648 4, by RFC 7617 2: two octets are followed by one =",
        authorization(b"Basic bmlnaHRseTpzZXNhbWU=="),
        INVALID_CLIENT,
    ),
    row(
        "a space within base64",
        "RFC 4648 3.3, by RFC 7617 2: characters outside the alphabet MUST be rejected",
        authorization(b"Basic bmlnaHRs eTpzZXNhbWU="),
        INVALID_CLIENT,
    ),
    row(
        "credentials in plain text",
        "RFC 7617 2: the credentials are base64",
        authorization(b"Basic nightly:sesame"),
        INVALID_CLIENT,
    ),
    row(
        "no colon",
        "RFC 7617 2: user-pass = user-id \":\" password",
        authorization(b"Basic [nightly]"),
        INVALID_CLIENT,
    ),
    row(
        "an empty secret",
        "RFC 6749 5.2: invalid_client: client authentication failed",
        authorization(b"Basic [nightly:]"),
        INVALID_CLIENT,
    ),
    row(
        "an empty id",
        "RFC 6749 5.2: invalid_client: unknown client",
        authorization(b"Basic [:sesame]"),
        INVALID_CLIENT,
    ),
    row(
        "nothing but a colon",
        "RFC 6749 5.2: invalid_client: unknown client",
        authorization(b"Basic [:]"),
        INVALID_CLIENT,
    ),
    row(
        "a wrong secret",
        "RFC 6749 5.2: who tried the Authorization header MUST get 401 and WWW-Authenticate of that scheme",
        authorization(b"Basic [nightly:wrong]"),
        INVALID_CLIENT,
    ),
    row(
        "a caller nobody knows",
        "RFC 6749 5.2: invalid_client: unknown client",
        authorization(b"Basic [nobody:sesame]"),
        INVALID_CLIENT,
    ),
    row(
        "an id in capitals",
        "RFC 6749 1.9: all the protocol parameter names and values are case sensitive",
        authorization(b"Basic [Nightly:sesame]"),
        INVALID_CLIENT,
    ),
    row(
        "a secret with a line break after it",
        "RFC 7617 2: user-id and password MUST NOT contain control characters",
        authorization(b"Basic [nightly:sesame\n]"),
        INVALID_CLIENT,
    ),
    row("the scheme alone", "RFC 7617 2: the scheme has credentials", authorization(b"Basic"), INVALID_CLIENT),
    row(
        "an empty Authorization header",
        "RFC 9110 11.6.2: Authorization = credentials, and there are none",
        Wire { authorization: b"", more: &["Authorization:"], ..TOKEN },
        INVALID_CLIENT,
    ),
    row(
        "an Authorization header that is no text",
        "RFC 9110 5.5: such octets are opaque data, and no base64",
        authorization(b"Basic \xFF\xFE"),
        INVALID_CLIENT,
    ),
    row(
        "a bearer token",
        "RFC 6749 5.2: invalid_client: unsupported authentication method; RFC 9110 15.5.2: with a challenge that applies",
        authorization(b"Bearer bmlnaHRseTpzZXNhbWU="),
        INVALID_CLIENT,
    ),
    row(
        "digest authentication",
        "RFC 6749 5.2: invalid_client: unsupported authentication method; RFC 9110 15.5.2: with a challenge that applies",
        authorization(b"Digest username=\"nightly\", realm=\"officernd-token-broker\", uri=\"/oauth/token\""),
        INVALID_CLIENT,
    ),
    row(
        "two credentials in one header",
        "RFC 9110 11.6.2: Authorization = credentials, and not a list",
        authorization(b"Basic [nightly:sesame], Basic [nightly:sesame]"),
        INVALID_CLIENT,
    ),
    row(
        "two Authorization headers",
        "RFC 6749 5.2: invalid_request: includes multiple credentials",
        more(&["Authorization: Basic bmlnaHRseTpzZXNhbWU="]),
        TWO_HEADERS,
    ),
    // RFC 6749 section 2.3: one way of authenticating, and no other than these.
    row(
        "no credentials",
        "RFC 6749 5.2: invalid_client: no client authentication included; RFC 9110 15.5.2: 401 MUST have a challenge",
        Wire { authorization: b"", ..TOKEN },
        INVALID_CLIENT,
    ),
    row(
        "client_id alone",
        "RFC 6749 2.3.1: client_secret may only be omitted if it is the empty string",
        Wire { body: b"grant_type=client_credentials&client_id=nightly", ..POSTED },
        INVALID_CLIENT,
    ),
    row(
        "client_id and an empty client_secret",
        "RFC 6749 3.2: without a value is omitted, so no client authentication is included",
        Wire { body: b"grant_type=client_credentials&client_id=nightly&client_secret=", ..POSTED },
        INVALID_CLIENT,
    ),
    row(
        "client_secret alone",
        "RFC 6749 2.3.1: client_id is REQUIRED",
        Wire { body: b"grant_type=client_credentials&client_secret=sesame", ..POSTED },
        INVALID_CLIENT,
    ),
    row(
        "a wrong client_secret",
        "RFC 6749 5.2: invalid_client: client authentication failed",
        Wire { body: b"grant_type=client_credentials&client_id=nightly&client_secret=wrong", ..POSTED },
        INVALID_CLIENT,
    ),
    row(
        "credentials in the body with escapes",
        "RFC 6749 appendix B: decoded once, as every parameter",
        Wire {
            body: b"grant_type=client_credentials&client_id=front%3Adoor+100%25&client_secret=a:b%2Bc%20d%2541%c3%a9",
            ..POSTED
        },
        DOOR_GRANTED,
    ),
    row(
        "credentials in the body, encoded twice",
        "RFC 6749 appendix B: decoded once, as every parameter",
        Wire { body: b"grant_type=client_credentials&client_id=nightly&client_secret=%2573esame", ..POSTED },
        INVALID_CLIENT,
    ),
    row(
        "client_id beside Basic, the same",
        "RFC 6749 3.2.1: a client MAY use client_id to identify itself; it is no second authentication",
        token_body(b"grant_type=client_credentials&scope=members.read&client_id=nightly"),
        GRANTED,
    ),
    row(
        "client_id beside Basic, another",
        "RFC 6749 5.2: invalid_request: the request is otherwise malformed",
        token_body(b"grant_type=client_credentials&scope=members.read&client_id=crowd"),
        OTHER_ID,
    ),
    row(
        "client_id and client_secret beside Basic",
        "RFC 6749 2.3: the client MUST NOT use more than one authentication method in each request",
        token_body(b"grant_type=client_credentials&client_id=nightly&client_secret=sesame"),
        TWO_WAYS,
    ),
    row(
        "client_secret beside Basic",
        "RFC 6749 2.3: the client MUST NOT use more than one authentication method in each request",
        token_body(b"grant_type=client_credentials&client_secret=sesame"),
        TWO_WAYS,
    ),
    row(
        "credentials in the body beside a bearer token",
        "RFC 6749 5.2: invalid_request: utilizes more than one mechanism for authenticating the client",
        Wire { authorization: b"Bearer a", ..POSTED },
        TWO_WAYS,
    ),
    row(
        "an assertion for a secret",
        "RFC 6749 5.2: invalid_client: unsupported authentication method",
        Wire {
            body: b"grant_type=client_credentials&client_id=nightly&client_assertion=a.b.c&client_assertion_type=\
                urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer",
            ..POSTED
        },
        INVALID_CLIENT,
    ),
    row(
        "an assertion beside Basic",
        "RFC 6749 3.2: the server MUST ignore unrecognized request parameters",
        token_body(b"grant_type=client_credentials&scope=members.read&client_assertion=a.b.c"),
        GRANTED,
    ),
    // RFC 6749 section 2.3.1: nothing in the query.
    row(
        "credentials in the query",
        "RFC 6749 2.3.1: the parameters MUST NOT be included in the request URI",
        Wire {
            authorization: b"",
            body: b"grant_type=client_credentials",
            ..token_line("POST /oauth/token?client_id=nightly&client_secret=sesame")
        },
        IN_QUERY,
    ),
    row(
        "the secret in the query, in disguise",
        "RFC 6749 2.3.1: the parameters MUST NOT be included in the request URI",
        token_line("POST /oauth/token?x=1&client%5Fsecret=sesame"),
        IN_QUERY,
    ),
    row(
        "the whole request in the query",
        "RFC 6749 4.4.2: parameters are in the HTTP request entity-body",
        Wire { body: b"", ..token_line("POST /oauth/token?grant_type=client_credentials") },
        IN_QUERY,
    ),
    row(
        "a query of other things",
        "RFC 6749 3.2: the endpoint URI MAY include a query component; unrecognized parameters MUST be ignored",
        token_line("POST /oauth/token?tenant=a&tenant=b"),
        GRANTED,
    ),
    row(
        "an empty query",
        "RFC 6749 3.2: the endpoint URI MAY include a query component",
        token_line("POST /oauth/token?"),
        GRANTED,
    ),
    row(
        "a parameter without a value in the query",
        "RFC 6749 3.2: parameters sent without a value MUST be treated as if they were omitted from the request",
        token_line("POST /oauth/token?scope=&client_id"),
        GRANTED,
    ),
    // RFC 6749 appendix B, RFC 9110 section 8.3: the media type.
    row(
        "the media type in capitals",
        "RFC 9110 8.3.1: type and subtype are case-insensitive",
        content_type("APPLICATION/X-WWW-FORM-URLENCODED"),
        GRANTED,
    ),
    row(
        "a charset",
        "RFC 9110 8.3.1: media-type = type \"/\" subtype parameters",
        content_type("application/x-www-form-urlencoded;charset=UTF-8"),
        GRANTED,
    ),
    row(
        "a charset in quotes, with white space",
        "RFC 9110 5.6.6: parameters = *( OWS \";\" OWS [ parameter ] ), a value may be a quoted-string",
        content_type("application/x-www-form-urlencoded \t; charset=\"utf-8\""),
        GRANTED,
    ),
    row(
        "a semicolon and no parameter",
        "RFC 9110 5.6.6: parameters = *( OWS \";\" OWS [ parameter ] )",
        content_type("application/x-www-form-urlencoded;"),
        GRANTED,
    ),
    row(
        "another charset",
        "RFC 6749 appendix B: the encoding is UTF-8; the media type has no parameter that changes it",
        content_type("application/x-www-form-urlencoded; charset=ISO-8859-1"),
        GRANTED,
    ),
    row(
        "JSON",
        "RFC 6749 4.4.2: application/x-www-form-urlencoded; 5.2: invalid_request: otherwise malformed",
        Wire {
            content_type: "application/json",
            body: br#"{"grant_type":"client_credentials","scope":"members.read"}"#,
            ..TOKEN
        },
        NO_FORM,
    ),
    row(
        "a form of the other kind",
        "RFC 6749 4.4.2: application/x-www-form-urlencoded",
        Wire {
            content_type: "multipart/form-data; boundary=x",
            body: b"--x\r\nContent-Disposition: form-data; name=\"grant_type\"\r\n\r\nclient_credentials\r\n--x--\r\n",
            ..TOKEN
        },
        NO_FORM,
    ),
    row(
        "a form that says it is text",
        "RFC 6749 4.4.2: application/x-www-form-urlencoded",
        content_type("text/plain"),
        NO_FORM,
    ),
    row(
        "a media type that only begins like it",
        "RFC 9110 8.3.1: the subtype is a token, and this is another one",
        content_type("application/x-www-form-urlencoded2"),
        NO_FORM,
    ),
    row(
        "two media types in one header",
        "RFC 9110 8.3: Content-Type = media-type, and not a list",
        content_type("application/x-www-form-urlencoded, application/json"),
        NO_FORM,
    ),
    row("no media type", "RFC 6749 4.4.2: application/x-www-form-urlencoded", content_type(""), NO_FORM),
    row(
        "an empty media type",
        "RFC 9110 8.3: Content-Type = media-type, which is not empty",
        Wire { content_type: "", more: &["Content-Type:"], ..TOKEN },
        NO_FORM,
    ),
    // RFC 9110 section 8.6 and RFC 9112 sections 6 and 7: how long a body is.
    row(
        "a body of 16 KiB",
        "RFC 9110 15.5.14: only what is larger than the server is willing to process is refused",
        token_body(b"grant_type=client_credentials&scope=members.read&padding=<fill 16384>"),
        GRANTED,
    ),
    row(
        "a body of 16 KiB and one byte",
        "RFC 9110 15.5.14: 413: the content is larger than the server is willing to process",
        token_body(b"grant_type=client_credentials&scope=members.read&padding=<fill 16385>"),
        TOO_LARGE,
    ),
    row(
        "a body in chunks",
        "RFC 9112 7.1: a recipient MUST be able to parse and decode the chunked transfer coding",
        Wire {
            more: &["Transfer-Encoding: chunked"],
            body: b"b\r\ngrant_type=\r\n1E\r\nclient_credentials&scope=membe\r\n6\r\nrs.rea\r\n1\r\nd\r\n0\r\n\r\n",
            ..TOKEN
        },
        GRANTED,
    ),
    row(
        "a body in chunks with extensions",
        "RFC 9112 7.1.1: a recipient MUST ignore unrecognized chunk extensions",
        Wire {
            more: &["Transfer-Encoding: Chunked"],
            body: b"030;a=b;c=\"d\"\r\ngrant_type=client_credentials&scope=members.read\r\n0;e\r\n\r\n",
            ..TOKEN
        },
        GRANTED,
    ),
    row(
        "credentials after the body",
        "RFC 9110 6.5.1: a trailer MUST NOT be merged into the header section unless its field permits it",
        Wire {
            authorization: b"",
            more: &["Transfer-Encoding: chunked", "Trailer: Authorization"],
            body: b"30\r\ngrant_type=client_credentials&scope=members.read\r\n0\r\n\
                Authorization: Basic bmlnaHRseTpzZXNhbWU=\r\n\r\n",
            ..TOKEN
        },
        INVALID_CLIENT,
    ),
    row(
        "chunks and a length",
        "RFC 9112 6.3: Transfer-Encoding overrides Content-Length; a server MAY process it by the former alone",
        Wire {
            more: &["Content-Length: 3", "Transfer-Encoding: chunked"],
            body: b"30\r\ngrant_type=client_credentials&scope=members.read\r\n0\r\n\r\n",
            ..TOKEN
        },
        GRANTED,
    ),
    row(
        "chunks, and a length that the first one has",
        "RFC 9112 6.3: Transfer-Encoding overrides Content-Length",
        Wire {
            more: &["Content-Length: 11", "Transfer-Encoding: chunked"],
            body: b"b\r\ngrant_type=\r\n25\r\nclient_credentials&scope=members.read\r\n0\r\n\r\n",
            ..TOKEN
        },
        GRANTED,
    ),
    row(
        "a transfer coding that does not end in chunked",
        "RFC 9112 6.3: the length cannot be determined: the server MUST respond with 400",
        more(&["Transfer-Encoding: gzip"]),
        BAD_HTTP,
    ),
    row(
        "two different lengths",
        "RFC 9112 6.3: an invalid Content-Length is unrecoverable: the server MUST respond with 400",
        more(&["Content-Length: 48", "Content-Length: 47"]),
        BAD_HTTP,
    ),
    row(
        "a length that is no number",
        "RFC 9112 6.3: an invalid Content-Length is unrecoverable: the server MUST respond with 400",
        more(&["Content-Length: +48"]),
        BAD_HTTP,
    ),
    row(
        "no length",
        "RFC 9112 6.3: a request without either header has a body of length zero, so grant_type is missing",
        token_body(b""),
        NO_GRANT,
    ),
    row(
        "a client that waits to be told to continue",
        "RFC 9110 10.1.1: the server MUST send 100 or a final status to who expects it",
        more(&["Expect: 100-Continue"]),
        GRANTED,
    ),
    // RFC 9112 sections 2, 3 and 5: the message.
    row(
        "HTTP/1.0",
        "RFC 9112 9.3: answered, and without keep-alive the connection is closed",
        token_line("POST /oauth/token HTTP/1.0"),
        GRANTED,
    ),
    row(
        "HTTP/1.0 with a wrong secret",
        "RFC 6749 5.2: 401 and WWW-Authenticate, whatever the version",
        Wire { authorization: b"Basic [nightly:wrong]", ..token_line("POST /oauth/token HTTP/1.0") },
        INVALID_CLIENT,
    ),
    row(
        "HTTP/1.0 without Host",
        "RFC 9110 4.2.1: a URI with an empty host MUST be rejected as invalid",
        Wire { host: "", ..get("GET /.well-known/oauth-authorization-server HTTP/1.0") },
        BAD_HTTP,
    ),
    row(
        "HTTP/1.0 in chunks",
        "RFC 9112 6.1: the framing of an HTTP/1.0 message with Transfer-Encoding MUST be treated as faulty",
        Wire {
            more: &["Transfer-Encoding: chunked"],
            body: b"30\r\ngrant_type=client_credentials&scope=members.read\r\n0\r\n\r\n",
            ..token_line("POST /oauth/token HTTP/1.0")
        },
        BAD_HTTP,
    ),
    row(
        "an empty line before the request",
        "RFC 9112 2.2: a server SHOULD ignore at least one empty line before the request-line",
        token_line("\r\nPOST /oauth/token"),
        GRANTED,
    ),
    row(
        "HTTP/1.1 without Host",
        "RFC 9112 3.2: a server MUST respond with 400 to an HTTP/1.1 request that lacks Host",
        Wire { host: "", ..TOKEN },
        BAD_HTTP,
    ),
    row(
        "a Host that is no host",
        "RFC 9112 3.2: a server MUST respond with 400 to a Host with an invalid field value",
        Wire { host: "broker example", ..TOKEN },
        BAD_HTTP,
    ),
    row(
        "white space before the colon of a header",
        "RFC 9112 5.1: a server MUST reject it with 400",
        more(&["X-Other : a"]),
        BAD_HTTP,
    ),
    row(
        "a header over two lines",
        "RFC 9112 5.2: a server MUST either reject obs-fold with 400 or replace it with spaces",
        more(&["X-Other: a\r\n b"]),
        BAD_HTTP,
    ),
    row(
        "a request target of 70,000 bytes",
        "RFC 9112 3: a server MUST respond with 414 to a target longer than any URI it wishes to parse",
        token_line("POST /oauth/token?<fill 70000>"),
        Answer::Server(&[414]),
    ),
    row(
        "a target in absolute form",
        "RFC 9112 3.2.2: a server MUST accept the absolute-form in requests",
        token_line("POST http://broker.example/oauth/token"),
        GRANTED,
    ),
    row(
        "an offer of HTTP/2",
        "RFC 9110 7.8: a server MAY ignore a received Upgrade",
        more(&["Connection: close, Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"]),
        GRANTED,
    ),
    row(
        "a client that wants HTML, compressed",
        "RFC 9110 12.5.1 and RFC 6749 5.1: Accept may be disregarded, and the answer is application/json",
        more(&["Accept: text/html", "Accept-Encoding: gzip, br, identity;q=0", "Accept-Language: de"]),
        GRANTED,
    ),
    row(
        "a client that wants nothing cached",
        "RFC 9111 5.2.1: directives of a request are advice to caches of HTTP, and the broker keeps tokens and no answers",
        more(&["Cache-Control: no-cache", "Pragma: no-cache"]),
        GRANTED,
    ),
    row(
        "a page of another origin",
        "RFC 6749 5.1: the answer is the same; nothing lets a browser hand it to a page",
        more(FROM_A_PAGE),
        GRANTED,
    ),
    // RFC 9110 section 9: methods of the token endpoint.
    row(
        "GET of a token",
        "RFC 6749 3.2: the client MUST use POST; RFC 9110 15.5.6: 405 MUST have Allow",
        get("GET /oauth/token"),
        POST_ONLY,
    ),
    row(
        "GET with the request in the query",
        "RFC 6749 3.2: the client MUST use POST",
        get("GET /oauth/token?grant_type=client_credentials&client_id=nightly&client_secret=sesame"),
        POST_ONLY,
    ),
    row(
        "HEAD of a token",
        "RFC 9110 9.3.2: as GET, and the server MUST NOT send content",
        get("HEAD /oauth/token"),
        POST_ONLY,
    ),
    row(
        "OPTIONS of a token, from a page",
        "RFC 9110 9.1: methods but GET and HEAD are OPTIONAL; 15.5.6: 405 MUST have Allow",
        Wire { more: FROM_A_PAGE, ..get("OPTIONS /oauth/token") },
        POST_ONLY,
    ),
    row(
        "PUT of a token",
        "RFC 9110 15.5.6: 405: known, and not supported by the target; it MUST have Allow",
        token_line("PUT /oauth/token"),
        POST_ONLY,
    ),
    row(
        "DELETE of a token",
        "RFC 9110 15.5.6: 405: known, and not supported by the target; it MUST have Allow",
        get("DELETE /oauth/token"),
        POST_ONLY,
    ),
    row(
        "PATCH of a token",
        "RFC 9110 15.5.6: 405: known, and not supported by the target; it MUST have Allow",
        token_line("PATCH /oauth/token"),
        POST_ONLY,
    ),
    row(
        "TRACE of a token",
        "RFC 9110 9.3.8: only who supports it reflects the request; 15.5.6: 405 MUST have Allow",
        Wire { content_type: "", body: b"", ..token_line("TRACE /oauth/token") },
        POST_ONLY,
    ),
    row(
        "a tunnel",
        "RFC 9110 9.3.6: CONNECT is for proxies; an origin server may refuse it as it likes",
        Wire { host: "other.example:443", ..get("CONNECT other.example:443") },
        Answer::Server(&[400, 403, 404, 405, 501]),
    ),
    row(
        "a method nobody knows",
        "RFC 9110 15.5.6: 405 and Allow, which tells more than the 501 that 9.1 says a server SHOULD give",
        token_line("BREW /oauth/token"),
        POST_ONLY,
    ),
    row(
        "POST in small letters",
        "RFC 9110 9.1: the method is case-sensitive, so this is another one",
        token_line("post /oauth/token"),
        POST_ONLY,
    ),
    // RFC 3986 section 6, RFC 9110 section 4.2.3: paths.
    row(
        "a path with an escaped letter",
        "RFC 9110 4.2.3: characters that are not reserved are equivalent to their percent-encoded octets",
        token_line("POST /oauth/%74oken"),
        GRANTED,
    ),
    row(
        "a path with an escaped slash",
        "RFC 3986 2.2: a reserved character and its escape are not equivalent; RFC 9110 15.5.5",
        token_line("POST /oauth%2Ftoken"),
        NOT_FOUND,
    ),
    row(
        "a path with a slash after it",
        "RFC 9110 4.2.3: another path is another resource; 15.5.5: 404",
        token_line("POST /oauth/token/"),
        NOT_FOUND,
    ),
    row(
        "a path with two slashes before it",
        "RFC 9110 4.2.3: another path is another resource; 15.5.5: 404",
        token_line("POST //oauth/token"),
        NOT_FOUND,
    ),
    row(
        "a path with two slashes within it",
        "RFC 9110 4.2.3: another path is another resource; 15.5.5: 404",
        token_line("POST /oauth//token"),
        NOT_FOUND,
    ),
    row(
        "a path in capitals",
        "RFC 9110 4.2.3: all but scheme and host is compared in a case-sensitive manner",
        token_line("POST /OAuth/Token"),
        NOT_FOUND,
    ),
    row(
        "a path with a parameter",
        "RFC 3986 3.3: what a semicolon means is up to the server; RFC 9110 15.5.5: 404",
        token_line("POST /oauth/token;v=1"),
        NOT_FOUND,
    ),
    row(
        "a path that is not UTF-8 when it is decoded",
        "RFC 9110 15.5.5: 404: no current representation for the target",
        token_line("POST /oauth/token%FF"),
        NOT_FOUND,
    ),
    row("GET of nothing", "RFC 9110 15.5.5: 404: no current representation for the target", get("GET /"), NOT_FOUND),
    row("HEAD of nothing", "RFC 9110 9.3.2: as GET, and the server MUST NOT send content", get("HEAD /"), NOT_FOUND),
    row(
        "OPTIONS of nothing, from a page",
        "RFC 9110 15.5.5: 404: no current representation for the target",
        Wire { more: FROM_A_PAGE, ..get("OPTIONS /nothing") },
        NOT_FOUND,
    ),
    // RFC 7009: revocation.
    row(
        "revocation of a token nobody issued",
        "RFC 7009 2.2: the server responds with 200 if the client submitted an invalid token",
        REVOKE,
        REVOKED,
    ),
    row(
        "revocation with credentials in the body",
        "RFC 7009 2.1: the client includes its credentials as described in RFC 6749 2.3",
        Wire { authorization: b"", body: b"token=unknown&client_id=nightly&client_secret=sesame", ..REVOKE },
        REVOKED,
    ),
    row(
        "revocation with a hint nobody knows",
        "RFC 7009 2.1: a server MAY ignore token_type_hint",
        Wire { body: b"token=unknown&token_type_hint=other", ..REVOKE },
        REVOKED,
    ),
    row(
        "revocation of a refresh token",
        "RFC 7009 2.2: there is none, so it is an invalid token: 200",
        Wire { body: b"token=unknown&token_type_hint=refresh_token", ..REVOKE },
        REVOKED,
    ),
    row(
        "revocation with an unknown parameter",
        "RFC 6749 3.2, by RFC 7009 2.1: unrecognized parameters are ignored",
        Wire { body: b"token=unknown&reason=a&reason=b", ..REVOKE },
        REVOKED,
    ),
    row(
        "revocation without a token",
        "RFC 7009 2.1: token is REQUIRED; 2.2.1: errors are those of RFC 6749 5.2",
        Wire { body: b"token_type_hint=access_token", ..REVOKE },
        NO_TOKEN,
    ),
    row(
        "revocation of an empty token",
        "RFC 6749 3.2, by RFC 7009 2.1: without a value is omitted, and token is REQUIRED",
        Wire { body: b"token=", ..REVOKE },
        NO_TOKEN,
    ),
    row(
        "revocation of two tokens",
        "RFC 6749 3.2, by RFC 7009 2.1: request parameters MUST NOT be included more than once",
        Wire { body: b"token=a&token=b", ..REVOKE },
        REPEATED,
    ),
    row(
        "revocation of a token in the query",
        "RFC 7009 2.1: parameters are in the HTTP request entity-body",
        Wire { line: "POST /oauth/revoke?token=unknown", body: b"", ..REVOKE },
        IN_QUERY,
    ),
    row(
        "revocation in JSON",
        "RFC 7009 2.1: the format is application/x-www-form-urlencoded",
        Wire { content_type: "application/json", body: br#"{"token":"unknown"}"#, ..REVOKE },
        NO_FORM,
    ),
    row(
        "revocation by nobody",
        "RFC 7009 2.1: the server first validates the client credentials; RFC 9110 15.5.2: 401 MUST have a challenge",
        Wire { authorization: b"", ..REVOKE },
        INVALID_CLIENT,
    ),
    row(
        "revocation with a wrong secret",
        "RFC 7009 2.1: the server first validates the client credentials, before it looks at the token",
        Wire { authorization: b"Basic [nightly:wrong]", body: b"token=<token>", ..REVOKE },
        INVALID_CLIENT,
    ),
    row(
        "revocation with two ways of authenticating",
        "RFC 6749 2.3, by RFC 7009 2.1: not more than one authentication method in each request",
        Wire { body: b"token=unknown&client_id=nightly&client_secret=sesame", ..REVOKE },
        TWO_WAYS,
    ),
    row(
        "GET of revocation",
        "RFC 7009 2.1: the client sends a POST; RFC 9110 15.5.6: 405 MUST have Allow",
        get("GET /oauth/revoke?token=unknown"),
        POST_ONLY,
    ),
    row(
        "HEAD of revocation",
        "RFC 9110 9.3.2: as GET, and the server MUST NOT send content",
        get("HEAD /oauth/revoke"),
        POST_ONLY,
    ),
    row(
        "OPTIONS of revocation, from a page",
        "RFC 7009 2.3: CORS is OPTIONAL; RFC 9110 15.5.6: 405 MUST have Allow",
        Wire { more: FROM_A_PAGE, ..get("OPTIONS /oauth/revoke") },
        POST_ONLY,
    ),
    row(
        "revocation of another caller's token",
        "RFC 7009 2.1 and 2.2: it was not issued to this client, to whom it is an invalid token: 200",
        Wire { authorization: b"Basic [crowd:many]", body: b"token=<token>", ..REVOKE },
        REVOKED,
    ),
    row(
        "the token that somebody else would revoke",
        "RFC 7009 2.1: the server verifies whether the token was issued to the client making the request",
        TOKEN,
        GRANTED,
    ),
    row(
        "revocation of the caller's own token",
        "RFC 7009 2.2: the server responds with 200 if the token has been revoked successfully",
        Wire { body: b"token=<token>&token_type_hint=access_token", ..REVOKE },
        REVOKED,
    ),
    row(
        "revocation once more",
        "RFC 7009 2.2: invalid tokens do not cause an error response, and this one is invalid by now: 200",
        Wire { body: b"token=<token>", ..REVOKE },
        REVOKED,
    ),
    row(
        "a token after its revocation",
        "RFC 7009 2.1: the invalidation takes place immediately, and the token cannot be used again",
        TOKEN,
        Answer::Token(Source::Stale, MEMBERS),
    ),
    row(
        "revocation of its successor, at once",
        "RFC 7009 2.2.1: with 503 the token still exists, and Retry-After says how long the service is unavailable",
        Wire { body: b"token=<token>", ..REVOKE },
        Answer::Later,
    ),
    row(
        "the successor, which still exists",
        "RFC 7009 2.2.1: if the server responds with 503, the client must assume the token still exists",
        TOKEN,
        GRANTED,
    ),
    // RFC 8414: metadata.
    row("metadata", "RFC 8414 3.1 and 3.2: GET, 200, application/json", METADATA, DESCRIBED),
    row(
        "metadata with a port in Host",
        "RFC 8414 3.3: issuer MUST be identical to the identifier the URL was made of",
        Wire { host: "broker.example:8443", ..METADATA },
        Answer::Metadata("http://broker.example:8443"),
    ),
    row(
        "metadata with an IPv6 address in Host",
        "RFC 9110 7.2: Host = uri-host [ \":\" port ], and RFC 3986 3.2.2 has IP-literal",
        Wire { host: "[::1]:3000", ..METADATA },
        Answer::Metadata("http://[::1]:3000"),
    ),
    row(
        "metadata with an IPv4 address in Host",
        "RFC 9110 7.2: Host = uri-host [ \":\" port ]",
        Wire { host: "127.0.0.1", ..METADATA },
        Answer::Metadata("http://127.0.0.1"),
    ),
    row(
        "metadata with user information in Host",
        "RFC 9110 7.2: Host = uri-host [ \":\" port ]; RFC 9112 3.2: 400 to an invalid field value",
        Wire { host: "user@broker.example", ..METADATA },
        invalid_request("the request does not say which host it is for"),
    ),
    row(
        "metadata with an empty Host",
        "RFC 9110 4.2.1: a URI with an empty host MUST be rejected as invalid",
        Wire { host: "", more: &["Host:"], ..METADATA },
        BAD_HTTP,
    ),
    row(
        "metadata in absolute form",
        "RFC 9112 3.2.2: a server MUST accept the absolute-form in requests",
        get("GET http://broker.example/.well-known/oauth-authorization-server"),
        DESCRIBED,
    ),
    row(
        "metadata with HTTP/1.0",
        "RFC 8414 3.1: GET, whatever the version",
        get("GET /.well-known/oauth-authorization-server HTTP/1.0"),
        DESCRIBED,
    ),
    row(
        "metadata with headers of a proxy",
        "RFC 8414 3.3: issuer is what the URL was made of, and not what anybody can write beside it",
        Wire {
            more: &[
                "X-Forwarded-Host: evil.example",
                "X-Forwarded-Proto: https",
                "Forwarded: host=evil.example;proto=https",
            ],
            ..METADATA
        },
        DESCRIBED,
    ),
    row(
        "metadata, from a page",
        "RFC 8414 3.2: 200; nothing lets a browser hand it to a page",
        Wire { more: FROM_A_PAGE, ..METADATA },
        DESCRIBED,
    ),
    row(
        "metadata with a query, for a part of it, and with wrong credentials",
        "RFC 9110 14.2: a server MAY ignore Range; RFC 8414 3.1: the request is a plain GET",
        Wire {
            authorization: b"Basic [nobody:wrong]",
            more: &["Range: bytes=0-3"],
            ..get("GET /.well-known/oauth-authorization-server?a=b")
        },
        DESCRIBED,
    ),
    row(
        "metadata at an escaped path",
        "RFC 9110 4.2.3: characters that are not reserved are equivalent to their percent-encoded octets",
        get("GET /%2Ewell%2dknown/oauth-authorization-server"),
        DESCRIBED,
    ),
    row(
        "metadata for HEAD",
        "RFC 9110 9.3.2: as GET, and the server MUST NOT send content",
        get("HEAD /.well-known/oauth-authorization-server"),
        DESCRIBED,
    ),
    row(
        "metadata for POST",
        "RFC 8414 3.1: it MUST be queried using GET; RFC 9110 15.5.6: 405 MUST have Allow",
        Wire { line: "POST /.well-known/oauth-authorization-server", ..TOKEN },
        READ_ONLY,
    ),
    row(
        "metadata for OPTIONS, from a page",
        "RFC 9110 9.1: methods but GET and HEAD are OPTIONAL; 15.5.6: 405 MUST have Allow",
        Wire { more: FROM_A_PAGE, ..get("OPTIONS /.well-known/oauth-authorization-server") },
        READ_ONLY,
    ),
    row(
        "metadata of an issuer with a path",
        "RFC 8414 3.1: the path of the issuer follows, and there is no such issuer: RFC 9110 15.5.5",
        get("GET /.well-known/oauth-authorization-server/tenant"),
        NOT_FOUND,
    ),
    row(
        "metadata with a slash after it",
        "RFC 8414 3.1: any terminating slash MUST be removed by who asks: RFC 9110 15.5.5",
        get("GET /.well-known/oauth-authorization-server/"),
        NOT_FOUND,
    ),
    row(
        "metadata of OpenID Connect",
        "RFC 8414 5: an application that uses another suffix is another application",
        get("GET /.well-known/openid-configuration"),
        NOT_FOUND,
    ),
    // RFC 9110: health.
    row("health", "RFC 9110 9.3.1: GET", HEALTH, HEALTHY),
    row(
        "health with a body",
        "RFC 9110 9.3.1: content in a GET has no generally defined semantics",
        Wire { content_type: "text/plain", body: b"GET / HTTP/1.1\r\n\r\n", ..HEALTH },
        HEALTHY,
    ),
    row(
        "health for HEAD",
        "RFC 9110 9.3.2: as GET, and the server MUST NOT send content",
        get("HEAD /healthz"),
        HEALTHY,
    ),
    row("health for POST", "RFC 9110 15.5.6: 405 MUST have Allow", Wire { line: "POST /healthz", ..TOKEN }, READ_ONLY),
    row(
        "health for OPTIONS, from a page",
        "RFC 9110 15.5.6: 405 MUST have Allow",
        Wire { more: FROM_A_PAGE, ..get("OPTIONS /healthz") },
        READ_ONLY,
    ),
    row("health with a slash after it", "RFC 9110 15.5.5: 404", get("GET /healthz/"), NOT_FOUND),
    row("readiness", "RFC 9110 9.3.1: GET", get("GET /readyz"), READY),
    row(
        "readiness for HEAD",
        "RFC 9110 9.3.2: as GET, and the server MUST NOT send content",
        get("HEAD /readyz"),
        READY,
    ),
    row("readiness for DELETE", "RFC 9110 15.5.6: 405 MUST have Allow", get("DELETE /readyz"), READ_ONLY),
];

/// The rows that `wasmtime serve` answers otherwise, and why.
const NOT_ON_WASMTIME_SERVE: [(&str, &[&str]); 3] = [
    ("it looks at no Host", &["HTTP/1.1 without Host", "a Host that is no host"]),
    (
        "it hands the component no Host, and so no issuer without public_url",
        &[
            "metadata",
            "metadata with a port in Host",
            "metadata with an IPv6 address in Host",
            "metadata with an IPv4 address in Host",
            "metadata with HTTP/1.0",
            "metadata with headers of a proxy",
            "metadata, from a page",
            "metadata with a query, for a part of it, and with wrong credentials",
            "metadata at an escaped path",
            "metadata for HEAD",
        ],
    ),
    ("there is no store, and readiness says so", &["readiness", "readiness for HEAD"]),
];

#[tokio::test]
async fn every_request_of_the_table_gets_the_answer_that_the_standards_want() {
    assert!(ROWS.len() >= 80, "{} rows", ROWS.len());
    let broker = setup().start().await;
    let mut tokens = HashMap::new();
    let mut failures = Vec::new();
    for (index, Row { what, because, request, answer }) in ROWS.iter().enumerate() {
        let token = tokens.get(MEMBERS).map_or("", String::as_str);
        let outcome = match exchange(broker.server.addr(), request, token).await {
            Ok(got) => check(answer, &got, request.line.starts_with("HEAD "), &mut tokens).map_err(|problem| {
                let Got { status, headers, body } = got;
                format!("{problem}\n      got {status} {headers:?}\n      {}", String::from_utf8_lossy(&body))
            }),
            Err(problem) => Err(problem),
        };
        let is_otherwise =
            broker.setup.in_wasmtime_serve && NOT_ON_WASMTIME_SERVE.iter().any(|(_, rows)| rows.contains(what));
        let outcome = match outcome {
            Ok(()) if is_otherwise => Err("as the standards want it, and listed".to_owned()),
            Err(_) if is_otherwise => Ok(()),
            outcome => outcome,
        };
        if let Err(problem) = outcome {
            failures.push(format!("{:3}. {what}\n      {because}\n      {problem}", index + 1));
        }
    }
    let failed = failures.len();
    // What is refused costs nothing, and what is granted no more than one call for each token.
    let fetches = |row: &&Row| matches!(row.answer, Answer::Token(Source::Miss | Source::Stale, _));
    let (calls, expected) = (broker.calls().len(), ROWS.iter().filter(fetches).count());
    assert!(
        failures.is_empty() && calls == expected,
        "{failed} of {} rows fail, {calls} calls instead of {expected}:\n{}",
        ROWS.len(),
        failures.join("\n")
    );
    assert_eq!(broker.server.traps(), 0, "{}", broker.server.output());
}

/// An answer as it came.
struct Got {
    status: u16,
    /// But `date` and `connection`, which are the host's. Names in small letters, sorted.
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// Compares the whole of an answer, and notes the token in it.
fn check(answer: &Answer, got: &Got, is_head: bool, tokens: &mut HashMap<String, String>) -> Result<(), String> {
    if let Answer::Server(statuses) = answer {
        let is_cors = |(name, _): &(String, String)| name.starts_with("access-control-");
        let is_sound = statuses.contains(&got.status) && !got.headers.iter().any(is_cors);
        return if is_sound { Ok(()) } else { Err(format!("expected one of {statuses:?}")) };
    }
    // Serialized without spaces, so the length of what is expected can be known for HEAD, in which it is not sent.
    let found: Value = serde_json::from_slice(&got.body).unwrap_or_default();
    let lifetime = found["expires_in"].as_u64().unwrap_or_default();
    let mut more = BTreeMap::new();
    let (status, body) = match *answer {
        Answer::Token(source, scope) => {
            let scope = if scope == "<scopes 512>" { crowd_scopes(CROWD) } else { scope.to_owned() };
            let token = found["access_token"].as_str().unwrap_or_default();
            let before = tokens.get(&scope).map(String::as_str);
            if (source == Source::Hit) != (before == Some(token)) {
                return Err(format!("expected the token of before, or, after a fetch, another one: {before:?}"));
            }
            if !is_b64token(token) || !(3000..=3600).contains(&lifetime) {
                return Err("expected an access_token for about an hour".to_owned());
            }
            tokens.insert(scope.clone(), token.to_owned());
            let how = match source {
                Source::Hit => "hit",
                Source::Miss => "fwd=miss; stored",
                Source::Stale => "fwd=stale; stored",
            };
            more.insert("cache-status", format!("officernd-token-broker; {how}; ttl={lifetime}"));
            let body = json!({ "access_token": token, "token_type": "Bearer", "expires_in": lifetime, "scope": scope });
            (200, body)
        }
        Answer::Error(status, error, description) => {
            if status == 401 {
                let challenge = "Basic realm=\"officernd-token-broker\", charset=\"UTF-8\"";
                more.insert("www-authenticate", challenge.to_owned());
            }
            (status, error_body(error, description))
        }
        Answer::NotAllowed(methods) => {
            more.insert("allow", methods.to_owned());
            (405, error_body("invalid_request", "this path does not have that method"))
        }
        Answer::Later => {
            let value = got.headers.iter().find(|(name, _)| name == "retry-after").map(|(_, value)| value.clone());
            let seconds = value.filter(|value| (1..=60).contains(&value.parse().unwrap_or(0)));
            more.insert("retry-after", seconds.unwrap_or_else(|| "1 to 60".to_owned()));
            (503, error_body("temporarily_unavailable", "this cannot be done right now, retry later"))
        }
        Answer::Json(text) => (200, serde_json::from_str(text).expect("the table has JSON")),
        Answer::Metadata(issuer) => (200, metadata_body(issuer)),
        Answer::Server(_) => unreachable!("it has been checked"),
    };
    let length = if is_head { body.to_string().len() } else { got.body.len() };
    more.insert("cache-control", "no-store".to_owned());
    more.insert("content-length", length.to_string());
    more.insert("content-type", "application/json".to_owned());
    more.insert("pragma", "no-cache".to_owned());
    let headers: Vec<_> = more.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let is_body = if is_head { got.body.is_empty() } else { found == body };
    if got.status == status && got.headers == headers && is_body {
        return Ok(());
    }
    let body = if is_head { "no body".to_owned() } else { body.to_string() };
    Err(format!("expected {status} {headers:?}\n      {body}"))
}

fn error_body(error: &str, description: &str) -> Value {
    // RFC 6749 section 5.2, for both.
    let is_allowed = |byte: u8| matches!(byte, 0x20..=0x21 | 0x23..=0x5B | 0x5D..=0x7E);
    assert!(error.bytes().chain(description.bytes()).all(is_allowed), "{error}: {description}");
    json!({ "error": error, "error_description": description })
}

fn metadata_body(issuer: &str) -> Value {
    let methods = ["client_secret_basic", "client_secret_post"];
    json!({
        "issuer": issuer,
        "token_endpoint": format!("{issuer}/oauth/token"),
        "revocation_endpoint": format!("{issuer}/oauth/revoke"),
        "grant_types_supported": ["client_credentials"],
        "response_types_supported": [],
        "token_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_methods_supported": methods,
    })
}

/// RFC 6750 section 2.1: what can be sent as a bearer token.
fn is_b64token(text: &str) -> bool {
    let text = text.trim_end_matches('=');
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte))
}

impl Wire {
    /// The bytes up to the body, and the body.
    fn encode(&self, token: &str) -> (Vec<u8>, Vec<u8>) {
        let body = fill_in(self.body, token);
        let mut head = fill_in(self.line.as_bytes(), token);
        let is_old = self.line.ends_with(" HTTP/1.0");
        head.extend_from_slice(if is_old { b"\r\n" } else { b" HTTP/1.1\r\n" });
        let mut add = |name: &str, value: &[u8]| {
            if !value.is_empty() {
                head.extend_from_slice(&[name.as_bytes(), b": ", value, b"\r\n"].concat());
            }
        };
        add("Host", self.host.as_bytes());
        add("Authorization", &encode_brackets(self.authorization));
        add("Content-Type", self.content_type.as_bytes());
        let says = |what: &str| self.more.iter().any(|line| line.contains(what));
        if !says("Content-Length:") && !says("Transfer-Encoding:") && !body.is_empty() {
            add("Content-Length", body.len().to_string().as_bytes());
        }
        // HTTP/1.0 closes without being told.
        if !is_old && !says("Connection:") {
            add("Connection", b"close");
        }
        for line in self.more {
            head.extend_from_slice(&[line.as_bytes(), b"\r\n"].concat());
        }
        head.extend_from_slice(b"\r\n");
        (head, body)
    }
}

/// Replaces what is in square brackets by its base64, brackets included.
fn encode_brackets(text: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    let mut rest = text;
    while let Some(begin) = rest.iter().position(|byte| *byte == b'[') {
        let length = rest[begin..].iter().position(|byte| *byte == b']').expect("brackets come in pairs");
        encoded.extend_from_slice(&rest[..begin]);
        encoded.extend_from_slice(STANDARD.encode(&rest[begin + 1..begin + length]).as_bytes());
        rest = &rest[begin + length + 1..];
    }
    [&encoded, rest].concat()
}

/// Replaces `<token>`, `<scopes N>` and `<fill N>`, of which a text has one at most.
fn fill_in(text: &[u8], token: &str) -> Vec<u8> {
    let Some(begin) = text.iter().position(|byte| *byte == b'<') else { return text.to_vec() };
    let length = text[begin..].iter().position(|byte| *byte == b'>').expect("brackets come in pairs");
    let (before, name, after) = (&text[..begin], &text[begin + 1..begin + length], &text[begin + length + 1..]);
    let name = std::str::from_utf8(name).expect("a name is ASCII");
    let count = |text: &str| text.parse::<usize>().expect("a number");
    let value = match name.split_once(' ') {
        None => token.to_owned(),
        Some(("scopes", number)) => crowd_scopes(count(number)).replace(' ', "+"),
        Some((_, number)) => "x".repeat(count(number) - before.len() - after.len()),
    };
    [before, value.as_bytes(), after].concat()
}

/// Sends a request, and reads the answer until the server closes.
async fn exchange(addr: SocketAddr, request: &Wire, token: &str) -> Result<Got, String> {
    let conversation = async {
        let (head, body) = request.encode(token);
        let mut stream = TcpStream::connect(addr).await.map_err(|error| error.to_string())?;
        let mut answer = Vec::new();
        stream.write_all(&head).await.map_err(|error| error.to_string())?;
        if request.more.iter().any(|line| line.starts_with("Expect:")) {
            let mut buffer = [0; 1024];
            let length = stream.read(&mut buffer).await.map_err(|error| error.to_string())?;
            answer.extend_from_slice(&buffer[..length]);
        }
        // A server that refuses a request by its head may close before it has the body, and reset what has been sent; the
        // answer is read as far as it came, and must be whole.
        let _ = stream.write_all(&body).await;
        let _ = stream.read_to_end(&mut answer).await;
        parse(&answer).ok_or_else(|| format!("no whole answer: {:?}", String::from_utf8_lossy(&answer)))
    };
    tokio::time::timeout(Duration::from_secs(20), conversation)
        .await
        .unwrap_or_else(|_| Err("no answer in 20 s".into()))
}

/// Takes an answer apart. Those that are only informational are passed over (RFC 9110 section 15.2).
fn parse(answer: &[u8]) -> Option<Got> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let body = &answer[end + 4..];
    let mut lines = head.split("\r\n");
    let mut status_line = lines.next()?.split(' ');
    status_line.next().filter(|version| version.starts_with("HTTP/1."))?;
    let status = status_line.next()?.parse().ok()?;
    if (100..200).contains(&status) {
        return parse(body);
    }
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let name = name.to_ascii_lowercase();
        if name != "date" && name != "connection" {
            headers.push((name, value.trim().to_owned()));
        }
    }
    headers.sort();
    // No two answers share it, and the host's own have none.
    headers.retain(|(name, value)| {
        let is_id = value.len() == 32 && value.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        name != "x-request-id" || !is_id
    });
    Some(Got { status, headers, body: body.to_vec() })
}
