//! Answers to callers when OfficeRnD fails, and the details that must not reach them.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant, SystemTime};

use broker_host::sandbox::{Answer as Upstream, Config, Sandbox, Then};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};
use serde_json::{Value, json};
use tests::{COMPANIES, MEMBERS, PAYMENTS, RESOURCES, Setup, all_at_once, random, secret};
use tokio::time::sleep;

/// First pause after a failure, and after a refused credential, with up to a fifth of jitter.
const PAUSE: Option<RangeInclusive<u64>> = Some(5..=6);
const REFUSED: Option<RangeInclusive<u64>> = Some(30..=36);
/// Pause of one scope set.
const SCOPES: Option<RangeInclusive<u64>> = Some(60..=60);

/// Lets OfficeRnD give this answer and checks what two callers in a row get. The second must
/// not cause another call, and nothing of the answer, which contains `marker`, may reach
/// callers or the log.
async fn check(
    what: &str,
    marker: &str,
    upstream: Upstream,
    (status, error): (u16, &str),
    retry_after: Option<RangeInclusive<u64>>,
    reason: &str,
) {
    let broker = Setup::default().start().await;
    broker.sandbox.answer_always(upstream);
    let first = broker.nightly(MEMBERS).await;
    assert_eq!(broker.calls().len(), 1, "{what}");
    let second = broker.nightly(MEMBERS).await;
    assert_eq!(broker.calls().len(), 1, "{what}: the second request caused a call");
    assert_eq!(broker.touched().sent, 1, "{what}");

    for answer in [&first, &second] {
        assert_eq!((answer.status, answer.error().as_str()), (status, error), "{what}");
        let mut headers: Vec<_> = answer.headers.iter().map(|(name, _)| name.as_str()).collect();
        headers.sort_unstable();
        let mut expected = vec!["cache-control", "content-length", "content-type", "pragma"];
        if retry_after.is_some() {
            expected.push("retry-after");
        }
        assert_eq!(headers, expected, "{what}");
        let everything = format!("{answer:?}");
        assert!(!everything.contains(marker), "{what}: {everything}");
    }
    if let Some(expected) = retry_after {
        let told = first.retry_after().unwrap();
        assert!(expected.contains(&told), "{what}: Retry-After is {told} s");
        let later = second.retry_after().unwrap();
        assert!((1..=told).contains(&later) && told - later <= 3, "{what}: {told} s, then {later} s");
    }
    let log = broker.server.output();
    assert!(log.contains(&format!("\"{reason}\"")), "{what}: the log lacks the reason: {log}");
    assert!(!log.contains(marker), "{what}: {log}");
    assert_eq!(broker.server.traps(), 0, "{what}: {log}");
}

/// Wasmtime 49.0 may lose a body that does not arrive with its head.
#[tokio::test]
async fn body_of_officernd_that_arrives_after_its_head_is_read_whole() {
    const BODY: &[u8] =
        br#"{"access_token":"whose-last-bytes-come-in-packets-of-their-own","token_type":"Bearer","expires_in":3599}"#;
    let broker = Setup::default().start().await;
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", BODY.len());
    broker.sandbox.answer_always(Upstream::Raw(head.into(), Then::Repeat(BODY, Duration::from_millis(100))));
    assert_eq!(broker.nightly(MEMBERS).await.token(), "whose-last-bytes-come-in-packets-of-their-own");
}

fn fixed(status: u16, body: impl Into<Bytes>) -> Upstream {
    let response = Response::builder().status(status).header(CONTENT_TYPE, "text/html");
    Upstream::Fixed(response.body(body.into()).unwrap())
}

fn json(status: u16, body: &Value) -> Upstream {
    Upstream::json(StatusCode::from_u16(status).unwrap(), body)
}

/// Returns a complete answer, given byte by byte.
fn raw(head: &str, body: &str) -> Upstream {
    let text = format!("{head}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    Upstream::Raw(text.into(), Then::Close)
}

const UNAVAILABLE: (u16, &str) = (503, "temporarily_unavailable");
const SERVER_ERROR: (u16, &str) = (502, "server_error");

#[tokio::test]
async fn error_status_of_officernd_gets_the_answer_of_the_table() {
    let marker = &random("upstream");
    let cases = [
        (
            "400 without an error",
            json(400, &json!({ "message": marker })),
            UNAVAILABLE,
            SCOPES,
            "upstream_client_error",
        ),
        (
            "400 invalid_request",
            json(400, &json!({ "error": "invalid_request", "error_description": marker })),
            UNAVAILABLE,
            SCOPES,
            "upstream_client_error",
        ),
        ("400 in plain text", fixed(400, marker.clone()), UNAVAILABLE, SCOPES, "upstream_client_error"),
        (
            "400 invalid_client",
            json(400, &json!({ "error": "invalid_client", "error_description": marker })),
            SERVER_ERROR,
            REFUSED,
            "credential_refused",
        ),
        (
            "400 unauthorized_client",
            json(400, &json!({ "error": "unauthorized_client", "error_uri": marker })),
            SERVER_ERROR,
            REFUSED,
            "credential_refused",
        ),
        (
            "401 invalid_client",
            json(401, &json!({ "error": "invalid_client", "error_description": marker })),
            SERVER_ERROR,
            REFUSED,
            "credential_refused",
        ),
        ("401 in HTML", fixed(401, format!("<html>{marker}")), SERVER_ERROR, REFUSED, "credential_refused"),
        ("401 empty", fixed(401, ""), SERVER_ERROR, REFUSED, "credential_refused"),
        (
            "401 with a challenge",
            raw(&format!("HTTP/1.1 401 {marker}\r\nwww-authenticate: Basic realm={marker}"), marker),
            SERVER_ERROR,
            REFUSED,
            "credential_refused",
        ),
        (
            "403 invalid_client",
            json(403, &json!({ "error": "invalid_client", "error_description": marker })),
            SERVER_ERROR,
            REFUSED,
            "credential_refused",
        ),
        ("403 of a firewall", fixed(403, marker.clone()), UNAVAILABLE, PAUSE, "upstream_client_error"),
        ("404", fixed(404, marker.clone()), UNAVAILABLE, PAUSE, "upstream_client_error"),
        ("429", fixed(429, marker.clone()), UNAVAILABLE, Some(60..=60), "upstream_rate_limited"),
        (
            "429 with seconds",
            raw("HTTP/1.1 429 No\r\nretry-after: 17", marker),
            UNAVAILABLE,
            Some(17..=17),
            "upstream_rate_limited",
        ),
        (
            "429 with very many seconds",
            raw("HTTP/1.1 429 No\r\nretry-after: 99999", marker),
            UNAVAILABLE,
            Some(300..=300),
            "upstream_rate_limited",
        ),
        (
            "429 with a date",
            raw(
                &format!(
                    "HTTP/1.1 429 No\r\nretry-after: {}",
                    httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(90))
                ),
                marker,
            ),
            UNAVAILABLE,
            // The cases before this one took a while. An unreadable value would give 60.
            Some(61..=90),
            "upstream_rate_limited",
        ),
        (
            "429 with nonsense",
            raw(&format!("HTTP/1.1 429 No\r\nretry-after: {marker}"), marker),
            UNAVAILABLE,
            Some(60..=60),
            "upstream_rate_limited",
        ),
        ("500", fixed(500, marker.clone()), UNAVAILABLE, PAUSE, "upstream_server_error"),
        (
            "500 that speaks of the client",
            json(500, &json!({ "error": "invalid_client", "error_description": marker })),
            UNAVAILABLE,
            PAUSE,
            "upstream_server_error",
        ),
        ("502", fixed(502, marker.clone()), UNAVAILABLE, PAUSE, "upstream_server_error"),
        (
            "503 with seconds",
            raw("HTTP/1.1 503 No\r\nretry-after: 33", marker),
            UNAVAILABLE,
            Some(33..=33),
            "upstream_server_error",
        ),
    ];
    for (what, upstream, answer, retry_after, reason) in cases {
        check(what, marker, upstream, answer, retry_after, reason).await;
    }
}

#[tokio::test]
async fn success_of_officernd_without_a_usable_token_gets_503_or_502() {
    let marker = &random("upstream");
    let grant = |field: &str, value: Value| {
        let mut grant = json!({ "access_token": marker, "token_type": "Bearer", "expires_in": 3599, "scope": MEMBERS });
        grant[field] = value;
        json(200, &grant)
    };
    let without = |field: &str| {
        let mut grant = json!({ "access_token": marker, "token_type": "Bearer", "expires_in": 3599, "scope": MEMBERS });
        grant.as_object_mut().unwrap().remove(field);
        json(200, &grant)
    };
    let too_long = format!("{}{}", json!({ "note": marker }), " ".repeat(64 * 1024));
    let cases = [
        ("an empty 200", fixed(200, ""), "upstream_unreadable_answer"),
        ("garbage", fixed(200, format!("\u{1}{marker}\u{2}")), "upstream_unreadable_answer"),
        ("a page", fixed(200, format!("<html>{marker}</html>")), "upstream_unreadable_answer"),
        ("JSON of something else", json(200, &json!([marker])), "upstream_unreadable_answer"),
        ("JSON that breaks off", fixed(200, format!("{{\"access_token\":\"{marker}\"")), "upstream_unreadable_answer"),
        (
            "an error with status 200",
            json(200, &json!({ "error": "invalid_client", "error_description": marker })),
            "upstream_unreadable_answer",
        ),
        ("64 KiB and a byte more", fixed(200, too_long[..64 * 1024 + 1].to_owned()), "upstream_answer_too_long"),
        ("another token type", grant("token_type", "mac".into()), "upstream_unknown_token_type"),
        ("no token type", without("token_type"), "upstream_unknown_token_type"),
        ("no expires_in", without("expires_in"), "upstream_no_lifetime"),
        ("a negative expires_in", grant("expires_in", (-1).into()), "upstream_no_lifetime"),
        ("no access_token", without("access_token"), "upstream_unreadable_answer"),
        ("an empty access_token", grant("access_token", "".into()), "upstream_unusable_token"),
        (
            "an access_token with a line break",
            grant("access_token", format!("{marker}\r\nx-evil: 1").into()),
            "upstream_unusable_token",
        ),
        ("a broader scope", grant("scope", format!("{MEMBERS} {PAYMENTS}").into()), "upstream_broader_scope"),
        ("another scope", grant("scope", COMPANIES.into()), "upstream_broader_scope"),
        (
            "a scope that is none",
            grant("scope", format!("{MEMBERS} \"{marker}\"").into()),
            "upstream_unreadable_answer",
        ),
        ("204", fixed(204, ""), "upstream_unexpected_status"),
    ];
    for (what, upstream, reason) in cases {
        // What is no answer of a token endpoint at all may be another one next time.
        let may_pass = matches!(reason, "upstream_unreadable_answer" | "upstream_answer_too_long");
        let answer = if may_pass { UNAVAILABLE } else { SERVER_ERROR };
        check(what, marker, upstream, answer, PAUSE, reason).await;
    }
}

#[tokio::test]
async fn unusual_success_of_officernd_is_taken() {
    let broker = Setup::default().start().await;
    let token = random("token");
    let grant = json!({ "access_token": token, "token_type": "Bearer", "expires_in": "3599" });
    broker.sandbox.answer_next(json(201, &grant));
    assert_eq!(broker.nightly(MEMBERS).await.token(), token);
}

#[tokio::test]
async fn bad_request_pauses_only_its_scopes() {
    let broker = Setup::default().start().await;
    broker.sandbox.answer_next(json(400, &json!({ "message": "a scope is not known" })));
    assert_eq!(broker.nightly(COMPANIES).await.status, 503);
    broker.nightly(MEMBERS).await.token();
    let again = broker.nightly(COMPANIES).await;
    assert_eq!((again.status, again.error().as_str()), UNAVAILABLE);
    assert!((55..=60).contains(&again.retry_after().unwrap()), "{again:?}");
    assert_eq!(broker.calls().len(), 2);
}

#[tokio::test]
async fn answer_of_officernd_of_64_kib_is_read() {
    let broker = Setup::default().start().await;
    let token = random("token");
    let grant = json!({ "access_token": token, "token_type": "Bearer", "expires_in": 3599 }).to_string();
    let padding = " ".repeat(64 * 1024 - grant.len());
    broker.sandbox.answer_next(fixed(200, grant + &padding));
    assert_eq!(broker.nightly(MEMBERS).await.token(), token);
}

#[tokio::test]
async fn broken_connection_to_officernd_gets_503() {
    let marker = &random("upstream");
    let close = |text: String| Upstream::Raw(text.into(), Then::Close);
    let cases = [
        ("a closed connection", Upstream::close()),
        ("no HTTP", close(format!("{marker}\r\n\r\n"))),
        ("half a head", close(format!("HTTP/1.1 200 {marker}\r\nconte"))),
        ("half a body", close(format!("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{{\"access_token\":\"{marker}"))),
        (
            "a broken chunk",
            close(format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{marker}\r\n0\r\n\r\n")),
        ),
    ];
    for (what, upstream) in cases {
        check(what, marker, upstream, UNAVAILABLE, PAUSE, "upstream_unreachable").await;
    }
    // Connection refused: the sandbox has gone, and its port is closed.
    let broker = Setup::default().start().await;
    let tests::Broker { sandbox, server, .. } = broker;
    drop(sandbox);
    let request = tests::token_request(&broker.setup.nightly, Some(MEMBERS));
    let request = request.map(|body| http_body_util::Full::new(Bytes::from(body)));
    let answer = tests::exchange(server.addr(), request).await.unwrap();
    assert_eq!((answer.status, answer.error().as_str()), UNAVAILABLE);
    assert!(PAUSE.unwrap().contains(&answer.retry_after().unwrap()));
}

#[tokio::test]
async fn silent_officernd_is_given_up_after_8_s() {
    let marker = &random("upstream");
    let hang = |text: String| Upstream::Raw(text.into(), Then::Hang);
    let check = async |what, upstream| {
        let begin = Instant::now();
        check(what, marker, upstream, UNAVAILABLE, PAUSE, "upstream_timed_out").await;
        let seconds = begin.elapsed().as_secs();
        assert!((7..=12).contains(&seconds), "{what}: given up after {seconds} s");
    };
    tokio::join!(
        check("no answer", Upstream::hang()),
        check("half a head", hang(format!("HTTP/1.1 200 OK\r\nx-marker: {marker}\r\nconte"))),
        check("half a body", hang(format!("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{{\"a\":\"{marker}"))),
        check(
            "half the chunks",
            hang(format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{marker}\r\n", marker.len()))
        ),
        async {
            let broker = Setup::default().start().await;
            broker.sandbox.answer_always(Upstream::Late(Duration::from_secs(7)));
            let answer = broker.nightly(MEMBERS).await;
            assert_eq!(answer.status, 200, "{answer:?} {}", broker.server.output());
        },
        async {
            // Requests that wait for the same silent call get an answer after at most 12 s,
            // without a call of their own.
            let broker = Setup::default().start().await;
            broker.sandbox.answer_always(Upstream::hang());
            let begin = Instant::now();
            let answers = all_at_once(&[&broker], 30, MEMBERS).await;
            assert!(begin.elapsed() < Duration::from_secs(18), "{:?}", begin.elapsed());
            for answer in answers {
                assert_eq!((answer.status, answer.error().as_str()), UNAVAILABLE);
                assert!((1..=6).contains(&answer.retry_after().unwrap()), "{answer:?}");
            }
            assert_eq!(broker.calls().len(), 1);
        },
    );
}

#[tokio::test]
async fn redirect_of_officernd_is_not_followed() {
    let marker = &random("upstream");
    let elsewhere = Sandbox::start(Config::default()).await.unwrap();
    for status in ["301 Moved", "302 Found", "303 See", "307 Temporary", "308 Permanent"] {
        let location = format!("{}/oauth/token?{marker}", elsewhere.url());
        let upstream = raw(&format!("HTTP/1.1 {status}\r\nlocation: {location}"), marker);
        check(status, marker, upstream, SERVER_ERROR, PAUSE, "upstream_unexpected_status").await;
    }
    assert_eq!(elsewhere.calls().len(), 0, "the credential went elsewhere");
}

#[tokio::test]
async fn refused_scope_set_is_remembered_only_for_that_set() {
    let marker = &random("upstream");
    let refusal = json(400, &json!({ "error": "invalid_scope", "error_description": marker }));
    check("400 invalid_scope", marker, refusal, (400, "invalid_scope"), None, "scope_not_granted").await;

    // The usual cause: the policy allows a scope that the application is not granted.
    let mut setup = Setup::default();
    setup.application.scopes.retain(|scope| scope != COMPANIES);
    let broker = setup.start().await;
    for scope in [COMPANIES, &format!("{COMPANIES} {MEMBERS}")] {
        let calls = broker.calls().len();
        for _ in 0..3 {
            let answer = broker.nightly(scope).await;
            assert_eq!((answer.status, answer.error().as_str()), (400, "invalid_scope"), "{scope}");
        }
        assert_eq!(broker.calls().len(), calls + 1, "{scope}");
    }
    broker.nightly(MEMBERS).await.token();
    broker.token(&broker.setup.door, Some(RESOURCES)).await.token();
    assert_eq!(broker.calls().len(), 4);
}

#[tokio::test]
async fn token_with_20_s_lifetime_is_not_served() {
    let broker = Setup::default().start().await;
    let token = random("upstream");
    let grant = json!({ "access_token": token, "token_type": "Bearer", "expires_in": 20, "scope": MEMBERS });
    broker.sandbox.answer_always(json(200, &grant));
    for _ in 0..3 {
        let answer = broker.nightly(MEMBERS).await;
        assert_eq!((answer.status, answer.error().as_str()), UNAVAILABLE);
        let told = answer.retry_after().unwrap();
        assert!((1..=61).contains(&told), "{told}");
        assert!(!format!("{answer:?}{}", broker.server.output()).contains(&token));
    }
    assert_eq!(broker.calls().len(), 1);
}

#[tokio::test]
async fn request_after_retry_after_is_served() {
    // Served by the instance that has seen the failure, and by one that has not.
    for setup in [Setup::in_one_instance(), Setup::default()] {
        let broker = setup.start().await;
        broker.sandbox.answer_next(raw("HTTP/1.1 503 No\r\nretry-after: 2", ""));
        let told = broker.nightly(MEMBERS).await.retry_after().unwrap();
        assert_eq!(told, 2);
        assert_eq!(broker.nightly(MEMBERS).await.status, 503);
        sleep(Duration::from_secs(told)).await;
        broker.nightly(MEMBERS).await.token();
        assert_eq!(broker.calls().len(), 2);
    }
}

#[tokio::test]
async fn changed_credential_is_tried_at_once_after_a_refusal() {
    let mut setup = Setup::default();
    let secret = std::mem::replace(&mut setup.application.secret, secret("new-application-secret"));
    // The broker still has the old secret.
    setup.variables.push(("officernd_client_secret", secret));
    let broker = setup.start().await;
    let answer = broker.nightly(MEMBERS).await;
    assert_eq!((answer.status, answer.error().as_str()), SERVER_ERROR);
    assert_eq!(answer.header("www-authenticate"), None, "the caller's own credentials are valid");
    broker.variables.set("officernd_client_secret", &broker.setup.application.secret);
    // A new instance reads the new secret at once, and an old one within 10 s. No pause is in
    // force for it.
    let broker = broker.restart().await;
    broker.nightly(MEMBERS).await.token();
    assert_eq!(broker.calls().len(), 2);
}

#[tokio::test]
async fn call_that_the_host_denies_uses_no_quota_and_closes_no_gate() {
    let mut setup = Setup::in_one_instance();
    let scopes = setup.with_scopes(7);
    let broker = setup.start().await;
    // The host has decided at its start what the component may reach.
    broker.variables.set("officernd_identity_url", "https://other.example".to_owned());
    for scope in &scopes {
        let answer = broker.nightly(scope).await;
        assert_eq!((answer.status, answer.error().as_str()), UNAVAILABLE, "{scope}");
        assert_eq!(answer.retry_after(), Some(5), "{scope}");
    }
    let output = broker.server.output();
    let denied = output.lines().filter(|line| line.contains("/oauth/token") && line.contains("\"outbound_denied\""));
    assert_eq!(denied.count(), scopes.len(), "{output}");
    assert!(broker.calls().is_empty());
}
