//! Denials: which requests are refused, with which answer, and that a refusal touches neither
//! store nor OfficeRnD.

use std::convert::Infallible;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request};
use http_body_util::StreamBody;
use hyper::body::Frame;
use tests::{
    Answer, Broker, COMPANIES, MEMBERS, PAYMENTS, RESOURCES, Setup, Touched, basic, eventually, exchange, find_leaks,
    form, token_request,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Every denial is tried on a broker without and with a cached token.
const CACHED: [bool; 2] = [false, true];

async fn start(cached: bool) -> Broker {
    // One instance, so that its memory has the token too.
    let broker = Setup::in_one_instance().start().await;
    if cached {
        broker.token(&broker.setup.nightly, None).await.token();
        broker.nightly(MEMBERS).await.token();
        broker.at_rest().await;
    }
    broker
}

/// Sends a request and returns its answer. Checks that the request touched nothing and that the
/// answer has the form of every error.
async fn denied(broker: &Broker, what: &str, request: Request<String>) -> Answer {
    let before = broker.touched();
    let answer = broker.send(request).await;
    check_untouched(broker, what, &answer, before);
    answer
}

fn check_untouched(broker: &Broker, what: &str, answer: &Answer, before: Touched) {
    assert_eq!(broker.touched(), before, "{what}");
    assert_eq!(broker.server.traps(), 0, "{what}: {}", broker.server.output());

    let mut expected = vec![
        ("content-type", "application/json".to_owned()),
        ("content-length", answer.body.len().to_string()),
        ("cache-control", "no-store".to_owned()),
        ("pragma", "no-cache".to_owned()),
    ];
    match answer.status {
        401 => expected.push(("www-authenticate", "Basic realm=\"officernd-token-broker\", charset=\"UTF-8\"".into())),
        405 => expected.push(("allow", "POST".into())),
        _ => {}
    }
    let mut expected: Vec<_> = expected.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let mut headers = answer.headers.clone();
    expected.sort();
    headers.sort();
    assert_eq!(headers, expected, "{what}");
    let body = answer.json();
    let fields: Vec<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, ["error", "error_description"], "{what}");
    assert_eq!(find_leaks(answer.body.as_bytes(), &broker.secrets()), [""; 0], "{what}");
    for name in [&broker.setup.nightly.name, &broker.setup.door.name, &broker.setup.application.id] {
        assert!(!answer.body.contains(name), "{what}: {answer:?}");
    }
}

fn with_form(broker: &Broker, fields: &[(&str, &str)]) -> Request<String> {
    with_body(broker, &form(fields))
}

fn with_body(broker: &Broker, body: &str) -> Request<String> {
    let mut request = token_request(&broker.setup.nightly, None);
    *request.body_mut() = body.to_owned();
    request
}

fn with_authorization(broker: &Broker, value: &[u8]) -> Request<String> {
    let mut request = token_request(&broker.setup.nightly, Some(MEMBERS));
    request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
    request
}

const GRANT: (&str, &str) = ("grant_type", "client_credentials");

#[tokio::test]
async fn invalid_request_is_refused_before_store_or_officernd_is_touched() {
    for cached in CACHED {
        let broker = start(cached).await;
        let check = async |what: &str, request: Request<String>, status: u16, error: &str| {
            let what = format!("{what}, cached: {cached}");
            let answer = denied(&broker, &what, request).await;
            assert_eq!((answer.status, answer.error().as_str()), (status, error), "{what}");
        };
        let (nightly, door) = (&broker.setup.nightly, &broker.setup.door);
        let id = ("client_id", nightly.name.as_str());
        let secret = ("client_secret", nightly.secret.as_str());

        check("a scope of another caller", token_request(nightly, Some(RESOURCES)), 400, "invalid_scope").await;
        check("a scope of no caller", token_request(nightly, Some(PAYMENTS)), 400, "invalid_scope").await;
        check("a scope that is not granted", token_request(nightly, Some("flex.other")), 400, "invalid_scope").await;
        let one_too_many = format!("{MEMBERS} {RESOURCES}");
        check("one scope too many", token_request(nightly, Some(&one_too_many)), 400, "invalid_scope").await;
        check("another's scopes", token_request(door, Some(MEMBERS)), 400, "invalid_scope").await;
        for scope in [" ", "a  b", "\"", "a\tb", "a\nb", "\u{e9}", "*", &MEMBERS.to_uppercase(), &MEMBERS[..20]] {
            check(&format!("the scope {scope:?}"), token_request(nightly, Some(scope)), 400, "invalid_scope").await;
        }

        let two_secrets = with_form(&broker, &[GRANT, id, ("client_secret", "another")]);
        check("two different secrets", two_secrets, 400, "invalid_request").await;
        let another = with_form(&broker, &[GRANT, ("client_id", &door.name)]);
        check("another id in the body", another, 400, "invalid_request").await;
        let mut twice = token_request(nightly, None);
        let authorization = twice.headers()[AUTHORIZATION].clone();
        twice.headers_mut().append(AUTHORIZATION, authorization);
        check("two Authorization headers", twice, 400, "invalid_request").await;

        let scope = ("scope", MEMBERS);
        for repeated in [GRANT, scope, id] {
            let request = with_form(&broker, &[GRANT, scope, id, repeated]);
            check(&format!("{repeated:?} twice"), request, 400, "invalid_request").await;
        }
        let mut twice = with_form(&broker, &[GRANT, id, secret, secret]);
        twice.headers_mut().remove(AUTHORIZATION);
        check("client_secret twice", twice, 400, "invalid_request").await;

        check("no grant type", with_form(&broker, &[scope]), 400, "invalid_request").await;
        check("an empty grant type", with_form(&broker, &[scope, ("grant_type", "")]), 400, "invalid_request").await;
        check("no body", with_body(&broker, ""), 400, "invalid_request").await;
        for grant in ["password", "authorization_code", "refresh_token", "Client_Credentials", "client_credentials "] {
            let request = with_form(&broker, &[("grant_type", grant)]);
            check(&format!("the grant type {grant:?}"), request, 400, "unsupported_grant_type").await;
        }

        for query in ["grant_type=client_credentials", "scope=a", "client_id=a", "client_secret=a", "a=1&s%63ope=b"] {
            let mut request = token_request(nightly, Some(MEMBERS));
            *request.uri_mut() = format!("/oauth/token?{query}").parse().unwrap();
            check(&format!("{query} in the query"), request, 400, "invalid_request").await;
        }
        let mut request = token_request(nightly, None);
        request.headers_mut().remove(AUTHORIZATION);
        *request.uri_mut() = format!("/oauth/token?{}", form(&[GRANT, id, secret])).parse().unwrap();
        check("credentials in the query", request, 400, "invalid_request").await;

        for content_type in ["application/json", "multipart/form-data; boundary=x", "text/plain", "", "application/x"] {
            let mut request = token_request(nightly, Some(MEMBERS));
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_str(content_type).unwrap());
            check(&format!("the content type {content_type:?}"), request, 400, "invalid_request").await;
        }
        let mut request = token_request(nightly, Some(MEMBERS));
        request.headers_mut().remove(CONTENT_TYPE);
        check("no content type", request, 400, "invalid_request").await;
    }
}

#[tokio::test]
async fn failed_authentications_all_get_the_same_answer() {
    for cached in CACHED {
        let broker = start(cached).await;
        let (nightly, door) = (&broker.setup.nightly, &broker.setup.door);
        let encode = |text: &[u8]| format!("Basic {}", STANDARD.encode(text)).into_bytes();
        let request = |authorization: &str| with_authorization(&broker, authorization.as_bytes());
        let mut cases: Vec<(String, Request<String>)> = vec![
            ("an unknown caller".into(), request(&basic("nobody", &nightly.secret))),
            ("an unknown caller of an empty name".into(), request(&basic("", &nightly.secret))),
            ("a name in capitals".into(), request(&basic(&nightly.name.to_uppercase(), &nightly.secret))),
            ("a wrong secret".into(), request(&basic(&nightly.name, "wrong"))),
            ("an empty secret".into(), request(&basic(&nightly.name, ""))),
            ("another caller's secret".into(), request(&basic(&nightly.name, &door.secret))),
            ("a secret in capitals".into(), request(&basic(&nightly.name, &nightly.secret.to_uppercase()))),
            ("a shortened secret".into(), request(&basic(&nightly.name, &nightly.secret[..20]))),
        ];
        // A reader of the policy must not be able to use a digest as a secret.
        let digest = broker.setup.policy()[&nightly.name]["secret_sha256"][0].as_str().unwrap().to_owned();
        cases.push(("the digest of the secret".into(), request(&basic(&nightly.name, &digest))));

        let good = format!("{}:{}", nightly.name, nightly.secret);
        let broken: [(&str, Vec<u8>); 9] = [
            ("Basic without a value", b"Basic".to_vec()),
            ("Basic with an empty value", b"Basic ".to_vec()),
            ("Basic that is no base64", b"Basic !!!".to_vec()),
            ("Basic in plain text", format!("Basic {good}").into_bytes()),
            ("Basic without a colon", encode(good.replace(':', "").as_bytes())),
            ("Basic that is no UTF-8", encode(&[good.as_bytes(), b"\xff"].concat())),
            ("Basic with a broken escape", encode(format!("{good}%ff").as_bytes())),
            ("Bearer", format!("Bearer {}", nightly.secret).into_bytes()),
            ("a header that is no text", b"Basic \xff\xfe".to_vec()),
        ];
        cases.extend(broken.iter().map(|(what, value)| ((*what).to_owned(), with_authorization(&broker, value))));

        let fields: [(&str, &[(&str, &str)]); 5] = [
            ("no credentials", &[GRANT]),
            ("an id alone", &[GRANT, ("client_id", &nightly.name)]),
            ("a secret alone", &[GRANT, ("client_secret", &nightly.secret)]),
            ("a wrong secret in the body", &[GRANT, ("client_id", &nightly.name), ("client_secret", "wrong")]),
            ("an unknown caller in the body", &[GRANT, ("client_id", "nobody"), ("client_secret", "wrong")]),
        ];
        for (what, fields) in fields {
            let mut request = with_form(&broker, fields);
            request.headers_mut().remove(AUTHORIZATION);
            cases.push((what.into(), request));
        }
        // Other mistakes of the request are not reported if authentication fails.
        let mut request = with_form(&broker, &[("grant_type", "password"), ("scope", PAYMENTS)]);
        request.headers_mut().insert(AUTHORIZATION, basic(&nightly.name, "wrong").parse().unwrap());
        cases.push(("a wrong secret and much else".into(), request));

        let mut first = None;
        for (what, request) in cases {
            let what = format!("{what}, cached: {cached}");
            let answer = denied(&broker, &what, request).await;
            assert_eq!((answer.status, answer.error().as_str()), (401, "invalid_client"), "{what}");
            // Equal in every byte, headers included.
            let seen = (answer.status, answer.headers, answer.body);
            assert_eq!(&seen, first.get_or_insert(seen.clone()), "{what}");
        }
    }
}

#[tokio::test]
async fn other_methods_get_405_and_no_answer_has_cors_headers() {
    for cached in CACHED {
        let broker = start(cached).await;
        for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND", "post"] {
            let what = format!("{method}, cached: {cached}");
            let mut request = token_request(&broker.setup.nightly, Some(MEMBERS));
            *request.method_mut() = Method::from_bytes(method.as_bytes()).unwrap();
            for (name, value) in [
                ("origin", "https://app.example"),
                ("access-control-request-method", "POST"),
                ("access-control-request-headers", "authorization"),
            ] {
                request.headers_mut().insert(name, HeaderValue::from_static(value));
            }
            if method == "HEAD" {
                let before = broker.touched();
                let answer = broker.send(request).await;
                assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")), "{what}");
                assert_eq!(answer.body, "");
                assert_eq!(broker.touched(), before, "{what}");
                continue;
            }
            let answer = denied(&broker, &what, request).await;
            assert_eq!((answer.status, answer.error().as_str()), (405, "invalid_request"), "{what}");
        }
        // POST from a web page is answered, but without the headers that would let the page
        // read the answer.
        let mut request = token_request(&broker.setup.nightly, Some(RESOURCES));
        request.headers_mut().insert("origin", HeaderValue::from_static("https://app.example"));
        assert_eq!(denied(&broker, "POST with an Origin", request).await.status, 400);
    }
    let broker = start(true).await;
    let mut request = token_request(&broker.setup.nightly, Some(MEMBERS));
    request.headers_mut().insert("origin", HeaderValue::from_static("https://app.example"));
    let answer = broker.send(request).await;
    answer.token();
    assert!(
        !answer.headers.iter().any(|(name, _)| name.starts_with("access-control-") || name == "vary"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn body_over_16_kib_gets_413_with_or_without_content_length() {
    for cached in CACHED {
        let broker = start(cached).await;
        // A body of exactly 16 KiB is read. The padding is an unknown parameter.
        let padded = |length: usize| {
            let begin = form(&[GRANT, ("scope", RESOURCES), ("padding", "")]);
            format!("{begin}{}", "x".repeat(length - begin.len()))
        };
        let check = async |length: usize, status: u16, error: &str| {
            let what = format!("{length} bytes, cached: {cached}");
            let answer = denied(&broker, &what, with_body(&broker, &padded(length))).await;
            assert_eq!((answer.status, answer.error().as_str()), (status, error), "{what}");

            let what = format!("{what}, in chunks");
            let before = broker.touched();
            let body = padded(length).into_bytes();
            let frames: Vec<_> = body
                .chunks(1000)
                .map(|chunk| Ok::<_, Infallible>(Frame::data(Bytes::copy_from_slice(chunk))))
                .collect();
            let request = token_request(&broker.setup.nightly, None);
            let request = request.map(|_| StreamBody::new(futures_util::stream::iter(frames)));
            let answer = exchange(broker.server.addr(), request).await.unwrap();
            check_untouched(&broker, &what, &answer, before);
            assert_eq!((answer.status, answer.error().as_str()), (status, error), "{what}");
        };
        check(16 * 1024, 400, "invalid_scope").await;
        check(16 * 1024 + 1, 413, "invalid_request").await;
        check(64 * 1024, 413, "invalid_request").await;
    }
}

#[tokio::test]
async fn unknown_path_gets_404() {
    let broker = start(true).await;
    for path in ["/", "/oauth", "/oauth/token/", "/oauth/token/x", "/OAuth/Token", "//oauth/token", "/oauth%2Ftoken"] {
        for method in ["GET", "POST", "OPTIONS"] {
            let what = format!("{method} {path}");
            let mut request = token_request(&broker.setup.nightly, Some(MEMBERS));
            *request.uri_mut() = path.parse().unwrap();
            *request.method_mut() = method.parse().unwrap();
            assert_eq!(denied(&broker, &what, request).await.status, 404, "{what}");
        }
    }
}

#[tokio::test]
async fn truncated_body_gets_no_token_even_if_its_beginning_is_valid() {
    let broker = Setup::in_one_instance().start().await;
    let nightly = &broker.setup.nightly;
    let body = form(&[("grant_type", "client_credentials"), ("scope", MEMBERS)]);
    let chunk = format!("{:x}\r\n{body}\r\n", body.len());
    let length = |length: usize| format!("Content-Length: {length}");
    // The client closes its side after the truncated body, or keeps it open.
    for (framing, body, is_closed) in [
        (length(body.len() + 1), &body, true),
        (length(body.len() + 1), &body, false),
        ("Transfer-Encoding: chunked".to_owned(), &chunk, true),
        ("Transfer-Encoding: chunked".to_owned(), &chunk, false),
    ] {
        let before = broker.server.output().lines().count();
        let mut stream = TcpStream::connect(broker.server.addr()).await.unwrap();
        let head = format!(
            "POST /oauth/token HTTP/1.1\r\nHost: broker.example\r\nAuthorization: {}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n{framing}\r\n\r\n{body}",
            basic(&nightly.name, &nightly.secret),
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        if is_closed {
            stream.shutdown().await.unwrap();
        }
        let line = || broker.server.output().lines().nth(before).map(str::to_owned);
        eventually("the line of the request", || line().is_some()).await;
        let line: serde_json::Value = serde_json::from_str(&line().unwrap()).unwrap();
        assert_eq!((&line["status"], &line["reason"]), (&400.into(), &"invalid_request".into()), "{framing}: {line}");
    }
    assert_eq!(broker.calls().len(), 0);
}

#[tokio::test]
async fn unknown_path_or_method_is_answered_without_its_body() {
    let broker = Setup::default().start().await;
    broker.fetch(Method::GET, "/healthz").await;
    for (request, status) in [
        ("POST /nowhere", 404),
        ("PUT /oauth/token", 405),
        ("POST /healthz", 405),
        ("POST /.well-known/oauth-authorization-server", 405),
    ] {
        let mut stream = TcpStream::connect(broker.server.addr()).await.unwrap();
        let head = format!("{request} HTTP/1.1\r\nHost: broker.example\r\nContent-Length: 100\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut begin = [0; 12];
        // The broker waits 4 s for a body that it needs.
        let read = tokio::time::timeout(Duration::from_secs(2), stream.read_exact(&mut begin)).await;
        assert!(read.is_ok(), "{request}: no answer before the body");
        assert_eq!(String::from_utf8_lossy(&begin), format!("HTTP/1.1 {status}"), "{request}");
    }
}

#[tokio::test]
async fn caller_with_a_pattern_must_name_its_scopes() {
    let mut setup = Setup::default();
    setup.nightly.scopes = vec!["flex.community.*.read".into()];
    let broker = setup.start().await;
    let unnamed = broker.token(&broker.setup.nightly, None).await;
    assert_eq!((unnamed.status, unnamed.error().as_str()), (400, "invalid_scope"));
    let description = &unnamed.json()["error_description"];
    assert_eq!(description, "scope is missing: this client must name its scopes");
    for refused in [RESOURCES, PAYMENTS, "flex.community.*.read", "flex.community.members.notes.read"] {
        let answer = broker.nightly(refused).await;
        assert_eq!((answer.status, answer.error().as_str()), (400, "invalid_scope"), "{refused}");
    }
    assert_eq!(broker.calls().len(), 0);
    let answer = broker.nightly(&format!("{MEMBERS} {COMPANIES}")).await;
    assert_eq!(answer.scope(), format!("{COMPANIES} {MEMBERS}"));
}
