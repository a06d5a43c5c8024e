//! Fuzzes a whole request as text: a line with method and path, headers, an empty line, a line
//! with OfficeRnD's answer (if empty, it grants everything), and the body. If the request gets
//! a token, it has valid credentials and the policy allows its scopes.

#![no_main]

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use fuzz::{CLIENT_SECRET, World, digest_of, parameter, permits};
use http::header::{AUTHORIZATION, CONTENT_LENGTH};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use libfuzzer_sys::{Corpus, fuzz_target};
use officernd_token_broker::endpoint::{BODY_LIMIT, Body, BodyError};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

/// Callers: one with patterns, and one with only full scope names, which may leave `scope` out.
const CALLERS: [(&str, &str, &[&str]); 2] =
    [("nightly", "n \"1\"", &["a", "flex.*.read", "flex.billing.**"]), ("door", "d \"2\"", &["b", "a", "c.d"])];

fuzz_target!(|input: &[u8]| -> Corpus { check(input).map_or(Corpus::Reject, |()| Corpus::Keep) });

struct Asked<'a> {
    request: http::request::Builder,
    upstream: &'a [u8],
    body: &'a [u8],
}

fn check(input: &[u8]) -> Option<()> {
    let Asked { request, upstream, body } = read(input)?;
    let head = request.body(()).ok()?;
    let (status, answer) = ask(&head, upstream, body);

    // A printed form is read as the same form.
    let printed = form_urlencoded::Serializer::new(String::new()).extend_pairs(form_urlencoded::parse(body)).finish();
    if body.len() <= BODY_LIMIT && printed.len() <= BODY_LIMIT {
        assert_eq!(ask(&head, upstream, printed.as_bytes()), (status, answer.clone()), "{printed}");
    }

    if answer["access_token"].is_null() {
        return Some(());
    }
    assert_eq!((head.method(), status), (&Method::POST, StatusCode::OK));
    let entries = authenticated(&head, body).expect("who gets a token has shown credentials");
    assert_eq!(parameter(body, "grant_type").as_deref(), Some("client_credentials"));
    let granted: BTreeSet<_> = answer["scope"].as_str().expect("a token has scopes").split(' ').collect();
    assert!(granted.iter().all(|scope| permits(entries, scope)), "{granted:?} is more than {entries:?}");
    let requested = parameter(body, "scope");
    if let Some(requested) = &requested {
        let requested: BTreeSet<_> = requested.split_ascii_whitespace().collect();
        assert!(granted.is_subset(&requested), "{granted:?} is more than {requested:?}");
        // Order and repetition change nothing.
        let scope = requested.iter().rev().chain(&requested).copied().collect::<Vec<_>>().join(" ");
        let others = form_urlencoded::parse(body).filter(|(name, _)| name != "scope");
        let mut form = form_urlencoded::Serializer::new(String::new());
        let again = form.extend_pairs(others).append_pair("scope", &scope).finish();
        if again.len() <= BODY_LIMIT {
            assert_eq!(ask(&head, upstream, again.as_bytes()), (status, answer.clone()), "{again}");
        }
    }
    Some(())
}

fn read(input: &[u8]) -> Option<Asked<'_>> {
    let mut rest = input;
    let mut line = || {
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let line = &rest[..end];
        rest = &rest[end + 1..];
        Some(line)
    };
    let (method, uri) = std::str::from_utf8(line()?).ok()?.split_once(' ')?;
    let mut request = Request::builder().method(method).uri(uri);
    loop {
        let header = line()?;
        if header.is_empty() {
            break;
        }
        let colon = header.windows(2).position(|pair| pair == b": ")?;
        let name = HeaderName::from_bytes(&header[..colon]).ok()?;
        request = request.header(name, HeaderValue::from_bytes(&header[colon + 2..]).ok()?);
    }
    let upstream = line()?;
    Some(Asked { request, upstream, body: rest })
}

/// Returns the answer. Checks that it is complete, and that neither answer nor log has a
/// secret.
fn ask(head: &Request<()>, upstream: &[u8], body: &[u8]) -> (StatusCode, Value) {
    let callers = CALLERS.iter().map(|(name, secret, scopes)| {
        ((*name).to_owned(), json!({ "secret_sha256": [digest_of(secret)], "scopes": scopes }))
    });
    let callers = Value::Object(callers.collect()).to_string();
    let body: Body = if body.len() > BODY_LIMIT { Err(BodyError::TooLarge) } else { Ok(body.to_owned()) };
    let (response, log) = World::new(&callers, upstream, |_| None).ask(head.clone().map(|()| body));

    let length = response.body().len().to_string();
    assert!(*head.method() == Method::HEAD || response.headers()[CONTENT_LENGTH] == length, "{response:?}");
    assert!(matches!(response.status().as_u16(), 200 | 400 | 401 | 404 | 405 | 413 | 500 | 502 | 503), "{response:?}");
    let parsed = log.iter().map(|line| {
        assert_eq!(line.find('\n'), Some(line.len() - 1), "{line:?}");
        serde_json::from_str(line).expect("a line of the log is JSON")
    });
    let (calls, requests): (Vec<Value>, Vec<Value>) = parsed.partition(|line: &Value| line["route"].is_null());
    let [line] = &requests[..] else { panic!("not one line of the request: {log:?}") };
    assert!(calls.len() <= 1 && calls.iter().all(|call| call["credential"] == "current"), "{log:?}");
    assert_eq!(line["status"], response.status().as_u16());
    for secret in CALLERS.iter().map(|(_, secret, _)| *secret).chain([CLIENT_SECRET]) {
        let is_told = |text: &str| text.contains(secret) || text.contains(&secret.replace('"', "\\\""));
        assert!(!is_told(&log.concat()) && !is_told(response.body()), "{secret} in {log:?} or {response:?}");
    }
    let answer =
        if response.body().is_empty() { Value::Null } else { serde_json::from_str(response.body()).expect("JSON") };
    (response.status(), answer)
}

/// Returns the scopes that the caller of this request may have, if its credentials are valid.
fn authenticated(head: &Request<()>, body: &[u8]) -> Option<&'static [&'static str]> {
    let (id, secret) = match head.headers().get_all(AUTHORIZATION).iter().find(|value| !value.is_empty()) {
        Some(authorization) => {
            let encoded = authorization.to_str().ok()?.get("basic ".len()..)?.trim();
            let decoded = String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok()?;
            let (id, secret) = decoded.split_once(':')?;
            let decode =
                |text: &str| Some(percent_decode_str(&text.replace('+', " ")).decode_utf8().ok()?.into_owned());
            (decode(id)?, decode(secret)?)
        }
        None => (parameter(body, "client_id")?, parameter(body, "client_secret")?),
    };
    CALLERS.iter().find(|caller| (caller.0, caller.1) == (&*id, &*secret)).map(|caller| caller.2)
}
