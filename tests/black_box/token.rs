//! The main case: a caller requests a token and gets it.

use std::time::Duration;

use broker_host::sandbox::Answer as Upstream;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, COOKIE, USER_AGENT};
use http::{HeaderValue, StatusCode};
use serde_json::json;
use tests::{COMPANIES, MEMBERS, RESOURCES, Setup, basic, eventually, form, random, secret, token_request};
use tokio::time::sleep;

#[tokio::test]
async fn call_to_officernd_contains_nothing_of_the_caller() {
    let broker = Setup::default().start().await;
    let mut request = token_request(&broker.setup.nightly, Some(&format!("{MEMBERS} {COMPANIES}")));
    // None of these headers and parameters may reach OfficeRnD.
    let marker = random("from-the-caller");
    request.headers_mut().insert(COOKIE, HeaderValue::from_str(&marker).unwrap());
    request.headers_mut().insert(USER_AGENT, HeaderValue::from_str(&marker).unwrap());
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static("text/from-the-caller"));
    request.headers_mut().insert("traceparent", HeaderValue::from_str(&marker).unwrap());
    request.headers_mut().insert("x-forwarded-for", HeaderValue::from_static("192.0.2.1"));
    *request.body_mut() += &format!("&{}", form(&[("resource", &marker), ("audience", &marker)]));
    broker.send(request).await.token();

    let calls = broker.calls();
    assert_eq!(calls.len(), 1);
    let call = &calls[0];
    assert_eq!((call.method.as_str(), call.path.as_str()), ("POST", "/oauth/token"));
    let scopes = format!("{COMPANIES} {MEMBERS}");
    let body = form(&[
        ("client_id", &broker.setup.application.id),
        ("client_secret", &broker.setup.application.secret),
        ("grant_type", "client_credentials"),
        ("scope", &scopes),
    ]);
    assert_eq!(String::from_utf8_lossy(&call.body), body);
    let mut headers = call.headers.clone();
    headers.sort();
    let host = broker.sandbox.url().replace("http://", "");
    let expected = [
        ("accept", "application/json"),
        ("accept-encoding", "identity"),
        ("content-length", &body.len().to_string()),
        ("content-type", "application/x-www-form-urlencoded"),
        ("host", &host),
        ("user-agent", concat!("officernd-token-broker/", env!("CARGO_PKG_VERSION"))),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(headers, expected);

    // No further call follows after the answer.
    sleep(Duration::from_millis(500)).await;
    assert_eq!((broker.calls().len(), broker.touched().sent), (1, 1));
}

#[tokio::test]
async fn token_answer_follows_rfc_6749() {
    let broker = Setup::default().start().await;
    let answer = broker.nightly(MEMBERS).await;
    let token = answer.token();
    assert_eq!(token.len(), 40, "a token of the sandbox has 40 characters");
    let body = answer.json();
    let expires_in = answer.expires_in();
    let expected = json!({ "access_token": token, "token_type": "Bearer", "expires_in": expires_in, "scope": MEMBERS });
    assert_eq!(body, expected);
    assert!((3590..=3600).contains(&expires_in), "{expires_in}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("content-length"), Some(answer.body.len().to_string().as_str()));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("pragma"), Some("no-cache"));
    assert_eq!(
        answer.header("cache-status"),
        Some(format!("officernd-token-broker; fwd=miss; stored; ttl={expires_in}").as_str())
    );
    assert_eq!(answer.headers.len(), 5, "five headers and no other: {answer:?}");
}

#[tokio::test]
async fn caller_authenticates_by_basic_or_in_the_body() {
    let broker = Setup::default().start().await;
    let (name, secret) = (broker.setup.nightly.name.clone(), broker.setup.nightly.secret.clone());
    let token = broker.nightly(MEMBERS).await.token();
    let check = async |authorization: Option<String>, content_type: &str, fields: &[(&str, &str)]| {
        let mut request = token_request(&broker.setup.nightly, None);
        request.headers_mut().remove(AUTHORIZATION);
        if let Some(authorization) = authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.parse().unwrap());
        }
        request.headers_mut().insert(CONTENT_TYPE, content_type.parse().unwrap());
        *request.body_mut() = form(&[fields, &[("grant_type", "client_credentials"), ("scope", MEMBERS)]].concat());
        assert_eq!(broker.send(request).await.token(), token, "{content_type} {fields:?}");
    };
    let plain = "application/x-www-form-urlencoded";
    let credentials = [("client_id", name.as_str()), ("client_secret", secret.as_str())];
    check(None, plain, &credentials).await;
    check(None, "Application/X-WWW-Form-Urlencoded; charset=UTF-8", &credentials).await;
    check(Some(basic(&name, &secret)), plain, &[]).await;
    check(Some(basic(&name, &secret).replace("Basic", "bAsIc")), plain, &[]).await;
    // Many clients repeat the id in the body, and send parameters without a value.
    check(Some(basic(&name, &secret)), plain, &[("client_id", &name), ("client_secret", ""), ("scope", "")]).await;
    check(Some(basic(&name, &secret)), plain, &[("resource", "a"), ("resource", "b")]).await;
    assert_eq!(broker.calls().len(), 1);
}

#[tokio::test]
async fn basic_header_is_form_decoded() {
    let mut setup = Setup::default();
    setup.nightly.name = random("a name: 100% & more");
    setup.nightly.secret = secret("a secret+with:everything% &=\u{e9}");
    setup.start().await.nightly(MEMBERS).await.token();
}

#[tokio::test]
async fn expires_in_decreases_with_the_clock() {
    let broker = Setup::default().start().await;
    let first = broker.nightly(MEMBERS).await;
    sleep(Duration::from_secs(2)).await;
    let second = broker.nightly(MEMBERS).await;
    assert_eq!(first.token(), second.token());
    let fallen = first.expires_in() - second.expires_in();
    assert!((1..=5).contains(&fallen), "{first:?} {second:?}");
    let expected = format!("officernd-token-broker; hit; ttl={}", second.expires_in());
    assert_eq!(second.header("cache-status"), Some(expected.as_str()));
    assert_eq!(broker.calls().len(), 1);
}

#[tokio::test]
async fn scope_set_is_fetched_once_in_any_spelling() {
    let broker = Setup::default().start().await;
    let (nightly, door) = (broker.setup.nightly.clone(), broker.setup.door.clone());
    let both = format!("{COMPANIES} {MEMBERS}");
    let mut tokens = Vec::new();
    let mut check = async |caller, requested: Option<&str>, granted: &str, calls: usize| {
        let answer = broker.token(caller, requested).await;
        assert_eq!(answer.scope(), granted, "{requested:?}");
        assert_eq!(broker.calls().len(), calls, "{requested:?}");
        tokens.push((granted.to_owned(), answer.token()));
    };
    check(&nightly, Some(MEMBERS), MEMBERS, 1).await;
    check(&nightly, Some(MEMBERS), MEMBERS, 1).await;
    check(&nightly, Some(&format!("{MEMBERS} {MEMBERS}")), MEMBERS, 1).await;
    check(&nightly, Some(COMPANIES), COMPANIES, 2).await;
    check(&nightly, Some(&format!("{MEMBERS} {COMPANIES}")), &both, 3).await;
    check(&nightly, Some(&format!("{COMPANIES} {MEMBERS}")), &both, 3).await;
    check(&nightly, Some(&format!("{MEMBERS} {COMPANIES} {MEMBERS} {COMPANIES}")), &both, 3).await;
    // A request without `scope` asks for all scopes of the caller.
    check(&nightly, None, &both, 3).await;
    check(&nightly, Some(""), &both, 3).await;
    check(&door, None, RESOURCES, 4).await;
    check(&door, Some(RESOURCES), RESOURCES, 4).await;

    // Each scope set has one token, and no two share one.
    tokens.sort();
    tokens.dedup();
    assert_eq!(tokens.len(), 4, "{tokens:?}");
    tokens.dedup_by(|(_, left), (_, right)| left == right);
    assert_eq!(tokens.len(), 4);
}

#[tokio::test]
async fn callers_with_the_same_scopes_share_a_token() {
    let mut setup = Setup::default();
    setup.door.scopes = vec![MEMBERS.into(), RESOURCES.into()];
    let broker = setup.start().await;
    let token = broker.nightly(MEMBERS).await.token();
    assert_eq!(broker.token(&broker.setup.door, Some(MEMBERS)).await.token(), token);
    assert_eq!(broker.calls().len(), 1);
}

#[tokio::test]
async fn narrower_grant_is_reported_to_the_caller() {
    let broker = Setup::default().start().await;
    let grant = |scope: serde_json::Value| {
        let mut grant = json!({ "access_token": random("token"), "token_type": "bearer", "expires_in": 1800 });
        if !scope.is_null() {
            grant["scope"] = scope;
        }
        Upstream::json(StatusCode::OK, &grant)
    };
    broker.sandbox.answer_next(grant(MEMBERS.into()));
    let both = format!("{COMPANIES} {MEMBERS}");
    let first = broker.nightly(&both).await;
    assert_eq!((first.scope().as_str(), first.json()["token_type"].as_str()), (MEMBERS, Some("Bearer")));
    assert_eq!(broker.nightly(&both).await.scope(), MEMBERS, "from the cache too");
    // RFC 6749 section 5.1: an answer without `scope` grants the requested scopes.
    broker.sandbox.answer_next(grant(serde_json::Value::Null));
    let second = broker.nightly(MEMBERS).await;
    assert_eq!(second.scope(), MEMBERS);
    assert_ne!(first.token(), second.token());
    assert_eq!(broker.calls().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_requests_in_one_instance_make_one_call() {
    let broker = Setup::in_one_instance().start().await;
    broker.sandbox.answer_always(Upstream::Late(Duration::from_millis(300)));
    let requests: Vec<_> = (0..16).map(|_| tokio::spawn(broker.nightly(MEMBERS))).collect();
    let mut tokens = Vec::new();
    for request in requests {
        tokens.push(request.await.unwrap().token());
    }
    tokens.dedup();
    assert_eq!((tokens.len(), broker.calls().len()), (1, 1));
    let counts = broker.server.counts();
    assert_eq!((counts.requests, counts.instances, counts.outbound, counts.traps), (16, 1, 1, 0), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_requests_for_different_scopes_do_not_share_a_token() {
    let broker = Setup::in_one_instance().start().await;
    broker.sandbox.answer_always(Upstream::Late(Duration::from_millis(200)));
    let both = format!("{COMPANIES} {MEMBERS}");
    let kinds = [MEMBERS, COMPANIES, &both];
    let requests: Vec<_> = (0..15).map(|index| tokio::spawn(broker.nightly(kinds[index % 3]))).collect();
    let mut tokens = Vec::new();
    for (index, request) in requests.into_iter().enumerate() {
        let answer = request.await.unwrap();
        assert_eq!(answer.scope(), kinds[index % 3]);
        tokens.push(answer.token());
    }
    tokens.sort();
    tokens.dedup();
    assert_eq!((tokens.len(), broker.calls().len()), (3, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn client_disconnect_during_a_fetch_blocks_no_other_request() {
    // The next request arrives while the fetch still runs in the same instance, or after that
    // instance has gone.
    for setup in [Setup::in_one_instance(), Setup::default()] {
        let broker = setup.start().await;
        broker.sandbox.answer_always(Upstream::Late(Duration::from_secs(1)));
        let first = tokio::spawn(broker.nightly(MEMBERS));
        eventually("the call to OfficeRnD", || broker.calls().len() == 1).await;
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());

        let second = broker.nightly(MEMBERS).await;
        let calls = broker.calls().len();
        assert!(calls <= 2, "{calls} calls");
        assert_eq!(broker.nightly(MEMBERS).await.token(), second.token());
        assert_eq!(broker.calls().len(), calls);
        assert_eq!(broker.server.traps(), 0, "{}", broker.server.output());
    }
}
