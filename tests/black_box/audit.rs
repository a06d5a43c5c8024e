//! Audit lines, and the schema and the page that describe them.

use std::time::Duration;

use broker_host::sandbox::Answer as Upstream;
use http::{Method, Request, StatusCode};
use serde_json::Value;
use tests::{
    Answer, Broker, COMPANIES, Caller, MEMBERS, PAYMENTS, Setup, digest_of, read, revocation_request, secret,
    token_request,
};
use tokio::time::sleep;

use super::applications::two_applications;

#[tokio::test]
async fn audit_lines_match_their_schema_and_page() {
    let (broker, abroad, _) = two_applications().await;
    let nightly = &broker.setup.nightly;
    let mut answers = vec![
        broker.nightly(MEMBERS).await,
        broker.nightly(MEMBERS).await,
        broker.token(&abroad, Some(MEMBERS)).await,
        broker.token(&abroad, Some(COMPANIES)).await,
        broker.nightly(PAYMENTS).await,
        broker.nightly("\"").await,
        broker.token(&Caller { secret: "wrong".into(), ..nightly.clone() }, None).await,
        broker.token(&Caller { name: "nobody".into(), ..nightly.clone() }, None).await,
        broker.token(&Caller { name: "late".into(), secret: "late".into(), scopes: Vec::new() }, None).await,
        broker.fetch(Method::GET, "/oauth/token").await,
        broker.fetch(Method::GET, "/nowhere").await,
        broker.fetch(Method::GET, "/.well-known/oauth-authorization-server").await,
        broker.fetch(Method::GET, "/healthz").await,
        broker.fetch(Method::HEAD, "/readyz").await,
    ];
    answers.push(broker.send(revocation_request(nightly, &answers[0].token())).await);
    sleep(Duration::from_millis(2100)).await;
    answers.push(broker.nightly(MEMBERS).await);
    answers.push(broker.send(revocation_request(nightly, &answers.last().unwrap().token())).await);
    let mut bad_form = token_request(nightly, None);
    bad_form.headers_mut().remove("content-type");
    answers.push(broker.send(bad_form).await);
    let mut large = token_request(nightly, None);
    *large.body_mut() = "x".repeat(20_000);
    answers.push(broker.send(large).await);
    let crowd = (0..20).map(|_| broker.token(nightly, None));
    answers.extend(futures_util::future::join_all(crowd).await);
    broker.sandbox.answer_always(Upstream::text(StatusCode::INTERNAL_SERVER_ERROR, "oops"));
    answers.push(broker.token(&broker.setup.door, None).await);

    let described: Value = serde_json::from_str(&read("docs/audit.schema.json")).unwrap();
    let schema = jsonschema::validator_for(&described).unwrap();
    let log = broker.server.output();
    let (calls, lines) = calls_and_requests(&log);
    assert_eq!(lines.len(), answers.len(), "{log}");
    for line in lines.iter().chain(&calls) {
        let problems: Vec<_> = schema.iter_errors(line).map(|error| error.to_string()).collect();
        assert!(problems.is_empty(), "{line}: {problems:?}");
    }
    // Each answer names its own line by `x-request-id`.
    for answer in &answers {
        let own: Vec<_> = lines.iter().filter(|line| line["request_id"] == answer.request_id.as_str()).collect();
        assert_eq!(own.len(), 1, "{answer:?}");
        assert_eq!(own[0]["status"], answer.status);
    }
    let seen = |field: &str| lines.iter().filter(|line| !line[field].is_null()).count();
    for field in ["caller", "application", "scopes", "reason", "cache", "token"] {
        assert!(seen(field) > 0, "no {field} in {log}");
    }
    for cache in ["hit", "miss", "stale", "collapsed"] {
        assert!(lines.iter().any(|line| line["cache"] == cache), "no {cache} in {log}");
    }
    // The line says which job still uses its old secret.
    let late: Vec<_> = lines.iter().filter(|line| line["reason"] == "expired_secret").collect();
    assert_eq!((late.len(), &late[0]["caller"]), (1, &"late".into()));
    // It says which job has a wrong one, and nothing of a name that the policy lacks.
    let wrong: Vec<_> = lines.iter().filter(|line| line["reason"] == "wrong_secret").collect();
    assert_eq!((wrong.len(), &wrong[0]["caller"]), (1, &nightly.name.as_str().into()));
    assert!(!log.contains("nobody"), "{log}");
    let token = answers[0].token();
    assert_eq!(lines[0]["token"], digest_of(&token)[..16]);

    // Check the schema itself: it refuses a line with an additional, a missing or a wrong
    // field.
    let mut more = lines[0].clone();
    more["secret"] = "x".into();
    let mut less = lines[0].clone();
    less.as_object_mut().unwrap().remove("caller");
    let mut other = lines[0].clone();
    other["status"] = 500.into();
    let mut call = calls[0].clone();
    call["credential"] = "hunter2".into();
    let mut both = calls[0].clone();
    both["caller"] = "x".into();
    assert!([more, less, other, call, both].iter().all(|line| !schema.is_valid(line)));

    // The page describes every field and every reason of the schema.
    let page = read("docs/audit.md");
    for kind in ["request", "call"] {
        let properties = &described["$defs"][kind]["properties"];
        let reasons = properties["reason"]["enum"].as_array().unwrap().iter().map(|word| word.as_str().unwrap());
        for word in properties.as_object().unwrap().keys().map(String::as_str).chain(reasons) {
            assert!(page.contains(&format!("`{word}`")), "docs/audit.md does not have {word}");
        }
    }
}

/// The lines of calls and those of requests.
fn calls_and_requests(log: &str) -> (Vec<Value>, Vec<Value>) {
    let lines = log.lines().filter(|line| !line.starts_with("officernd-token-broker: "));
    let lines = lines.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")));
    lines.partition(|line: &Value| line["route"].is_null())
}

/// What the log says about each call, without its time and duration, and the request that led it.
fn calls_of(broker: &Broker) -> Vec<(String, String)> {
    let (calls, _) = calls_and_requests(&broker.server.output());
    let text = |line: &Value, field: &str| line[field].as_str().unwrap_or("-").to_owned();
    let words = |line: &Value| {
        let fields = ["application", "credential", "outcome", "reason"].map(|field| text(line, field));
        format!("{} {}", fields.join(" "), line["upstream_status"])
    };
    calls.iter().map(|line| (words(line), text(line, "request_id"))).collect()
}

#[tokio::test]
async fn each_call_leaves_one_line() {
    let mut setup = Setup::in_one_instance();
    setup.variables.push(("upstream_calls_per_minute", "100".into()));
    setup.variables.push(("audit", "exceptions".into()));
    setup.sandbox.calls_per_minute = 100;
    let broker = setup.start().await;
    let nightly = &broker.setup.nightly;
    let both = format!("{MEMBERS} {COMPANIES}");
    let mut expected = Vec::new();
    let mut check = async |what: &str, line: &str, leader: &Answer| {
        broker.at_rest().await;
        expected.extend((!line.is_empty()).then(|| (line.to_owned(), leader.request_id.clone())));
        assert_eq!(calls_of(&broker), expected, "{what}");
        assert_eq!(broker.calls().len(), expected.len(), "{what}");
    };
    const GRANTED: &str = "default current ok - 200";

    let crowd = futures_util::future::join_all((0..10).map(|_| broker.nightly(MEMBERS))).await;
    let leads = |answer: &&Answer| answer.headers.iter().any(|(_, value)| value.contains("fwd=miss; stored"));
    let leader = crowd.iter().find(leads);
    check("ten requests share a fetch", GRANTED, leader.expect("one of them led the call")).await;
    check("a memory hit", "", &broker.nightly(MEMBERS).await).await;

    // 400 s are less than `min_remaining_seconds` and 5 min: renewed after the answer.
    let aging = broker.store_token(COMPANIES, Duration::from_secs(400)).await;
    let hit = broker.nightly(COMPANIES).await;
    assert_eq!(hit.token(), aging);
    check("a renewal after the answer", GRANTED, &hit).await;

    // 200 s are less: a request waits 4 s for the renewal, which takes longer here.
    let late = broker.store_token(&both, Duration::from_secs(200)).await;
    broker.sandbox.answer_next(Upstream::Late(Duration::from_secs(5)));
    let hit = broker.nightly(&both).await;
    assert_eq!(hit.token(), late);
    sleep(Duration::from_secs(2)).await;
    check("a call that outlasts its answer", GRANTED, &hit).await;

    let token = broker.nightly(MEMBERS).await.token();
    check("a revocation", "", &broker.send(revocation_request(nightly, &token)).await).await;
    sleep(Duration::from_millis(2100)).await;
    check("the request after a revocation", GRANTED, &broker.nightly(MEMBERS).await).await;

    let door = &broker.setup.door;
    broker.sandbox.answer_next(Upstream::text(StatusCode::BAD_REQUEST, r#"{"error":"invalid_scope"}"#));
    let refused = broker.token(door, None).await;
    check("a refusal", "default current failed scope_not_granted 400", &refused).await;
    check("a request that the refusal answers", "", &broker.token(door, None).await).await;
    let quick = broker.store_token(&both, Duration::from_secs(400)).await;
    broker.server.end_instances();
    broker.sandbox.answer_next(Upstream::close());
    let hit = broker.nightly(&both).await;
    assert_eq!(hit.token(), quick);
    check("a renewal that fails after the answer", "default current failed upstream_unreachable null", &hit).await;
}

#[tokio::test]
async fn first_line_of_an_instance_has_its_version() {
    for is_cold in [true, false] {
        let broker = Setup::in_one_instance().start().await;
        if !is_cold {
            broker.fetch(Method::GET, "/healthz").await;
        }
        broker.nightly(MEMBERS).await.token();
        broker.nightly(MEMBERS).await.token();
        let log = broker.server.output();
        // The fetch leaves the line of its call before its own.
        let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        assert_eq!((lines.len(), lines[0]["route"].is_null()), (if is_cold { 3 } else { 4 }, is_cold), "{log}");
        assert_eq!(lines[0]["version"], env!("CARGO_PKG_VERSION"), "{log}");
        assert!(lines[1..].iter().all(|line| line["version"].is_null()), "{log}");
    }
}

#[tokio::test]
async fn calls_with_both_credentials_of_a_rotation_leave_a_line_each() {
    let mut setup = Setup::in_one_instance();
    setup.variables.push(("officernd_client_secret_next", setup.application.secret.clone()));
    setup.variables.push(("officernd_client_secret", secret("revoked-secret")));
    let broker = setup.start().await;
    let leader = broker.nightly(MEMBERS).await;
    leader.token();
    let lines = ["default current failed credential_refused 401", "default next ok - 200"];
    assert_eq!(calls_of(&broker), lines.map(|line| (line.to_owned(), leader.request_id.clone())));
    assert_eq!(broker.calls().len(), 2);
}

#[tokio::test]
async fn request_id_is_the_trace_id_or_a_new_one() {
    let broker = Setup::default().start().await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let mut request = token_request(&broker.setup.nightly, Some(MEMBERS));
    let traceparent = format!("00-{trace}-00f067aa0ba902b7-01");
    request.headers_mut().insert("traceparent", traceparent.parse().unwrap());
    assert_eq!(broker.send(request).await.request_id, trace);
    assert!(broker.server.output().contains(&format!(r#""request_id":"{trace}""#)));
    let mut ids = std::collections::HashSet::new();
    for _ in 0..300 {
        let request = Request::get("/healthz").header("traceparent", "00-secret\"-x-01").body(String::new()).unwrap();
        let id = broker.send(request).await.request_id;
        assert!(id.len() == 32 && ids.insert(id.clone()), "{id}");
    }
}

#[tokio::test]
async fn audit_exceptions_writes_no_line_for_cache_hits() {
    let mut setup = Setup::default();
    setup.variables.push(("audit", "exceptions".into()));
    let broker = setup.start().await;
    for _ in 0..5 {
        broker.nightly(MEMBERS).await.token();
    }
    broker.nightly(PAYMENTS).await;
    let log = broker.server.output();
    let (calls, requests) = calls_and_requests(&log);
    let statuses: Vec<_> = requests.iter().map(|line| line["status"].clone()).collect();
    assert_eq!(statuses, [200, 400], "the fetch and the denial: {log}");
    assert_eq!(calls.len(), 1, "the call has a line also with exceptions: {log}");
}

#[tokio::test]
async fn long_audit_line_is_written_whole() {
    let mut setup = Setup::default();
    let scopes = setup.with_scopes(200).join(" ");
    assert!(scopes.len() > 4096);
    let broker = setup.start().await;
    broker.nightly(&scopes).await.token();
    for answer in futures_util::future::join_all((0..32).map(|_| broker.nightly(&scopes))).await {
        answer.token();
    }
    let log = broker.server.output();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    assert_eq!(
        lines.filter(|line| line["scopes"].as_str().is_some_and(|text| text.len() == scopes.len())).count(),
        33,
        "{log}"
    );
}
