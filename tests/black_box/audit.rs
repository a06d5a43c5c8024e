//! Audit lines, and the schema and the page that describe them.

use std::time::Duration;

use broker_host::sandbox::Answer as Upstream;
use http::{Method, Request, StatusCode};
use serde_json::Value;
use tests::{COMPANIES, Caller, MEMBERS, PAYMENTS, Setup, digest_of, read, revocation_request, token_request};
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
    let lines: Vec<Value> = log
        .lines()
        .filter(|line| !line.starts_with("officernd-token-broker: "))
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    assert_eq!(lines.len(), answers.len(), "{log}");
    for line in &lines {
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
    for field in ["caller", "application", "scopes", "reason", "cache", "upstream_status", "upstream_ms", "token"] {
        assert!(seen(field) > 0, "no {field} in {log}");
    }
    for cache in ["hit", "miss", "stale", "collapsed"] {
        assert!(lines.iter().any(|line| line["cache"] == cache), "no {cache} in {log}");
    }
    // The line says which job still uses its old secret.
    let late: Vec<_> = lines.iter().filter(|line| line["reason"] == "expired_secret").collect();
    assert_eq!((late.len(), &late[0]["caller"]), (1, &"late".into()));
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
    assert!([more, less, other].iter().all(|line| !schema.is_valid(line)));

    // The page describes every field and every reason of the schema.
    let page = read("docs/audit.md");
    let properties = &described["properties"];
    let reasons = properties["reason"]["enum"].as_array().unwrap().iter().map(|word| word.as_str().unwrap());
    for word in properties.as_object().unwrap().keys().map(String::as_str).chain(reasons) {
        assert!(page.contains(&format!("`{word}`")), "docs/audit.md does not have {word}");
    }
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
    let statuses: Vec<_> =
        log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["status"].clone()).collect();
    assert_eq!(statuses, [200, 400], "the fetch and the denial: {log}");
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
