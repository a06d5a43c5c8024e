//! Variables with a mistake: the broker serves nothing, the log names the place, and a fix
//! needs no restart.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::Method;
use serde_json::json;
use tests::{Broker, MEMBERS, Setup, find_leaks, random};
use tokio::time::sleep;

use super::readiness::{check_healthy, check_ready};

/// A changed variable takes effect within 10 s; the rest is for a slow machine.
pub(super) const TAKES_EFFECT: Duration = Duration::from_secs(15);

async fn check_unavailable(broker: &Broker) {
    let body = json!({ "status": "unavailable", "problem": "configuration" });
    let get = broker.fetch(Method::GET, "/readyz").await;
    assert_eq!((get.status, get.json()), (503, body), "{}", broker.server.output());
    let head = broker.fetch(Method::HEAD, "/readyz").await;
    assert_eq!((head.status, head.body.as_str()), (503, ""));
    assert_eq!(head.headers, get.headers, "HEAD has the headers of GET");
}

/// Gives a variable a wrong value that contains `marker`. Checks that the broker serves nothing
/// until it is fixed, and that the log has each of `told` and never the marker.
async fn check(broker: Broker, variable: &str, wrong: String, marker: &str, told: Vec<String>) {
    // Set after the start, as an operator would: Spin resolves `allowed_outbound_hosts` at the
    // start and would stop at some of the values.
    let right = broker.variables.lookup(variable).unwrap();
    broker.variables.set(variable, &wrong);
    for _ in 0..2 {
        let answer = broker.nightly(MEMBERS).await;
        assert_eq!((answer.status, answer.error().as_str()), (500, "server_error"), "{variable}: {wrong}");
        assert_eq!(answer.retry_after(), None);
        assert!(!format!("{answer:?}").contains(variable), "the answer names the variable: {answer:?}");
    }
    check_unavailable(&broker).await;
    check_healthy(&broker).await;

    let log = broker.server.output();
    for part in told.iter().map(String::as_str).chain([variable]) {
        assert!(log.contains(part), "{wrong}: the log does not name {part}: {log}");
    }
    assert!(!log.contains(marker), "{variable}: {log}");
    assert_eq!(find_leaks(log.as_bytes(), &broker.secrets()), [""; 0], "{variable}");
    let warnings = log.lines().filter(|line| line.contains("the configuration is invalid")).count();
    assert_eq!(warnings, 1, "one warning, not one per request: {log}");
    assert_eq!((broker.calls().len(), broker.server.counts().store_calls()), (0, 0));

    let fixed = Instant::now();
    match right {
        Some(right) => broker.variables.set(variable, right),
        None => broker.variables.unset(variable),
    }
    // An instance that gets requests all the time is never replaced, and must notice the fix
    // itself.
    while broker.nightly(MEMBERS).await.status != 200 {
        assert!(
            fixed.elapsed() < TAKES_EFFECT,
            "{variable}: {wrong}: still refused after the fix: {}",
            broker.server.output()
        );
        sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(broker.server.counts().instances, 1);
    check_ready(&broker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn variable_with_mistake_stops_all_service_until_fixed() {
    let marker = &random("wrong");
    let setup = Setup::in_one_instance();
    let (name, policy) = (setup.nightly.name.clone(), setup.policy());
    // The policy with one field of one caller replaced.
    let with = |field: &str, value: serde_json::Value| {
        let mut policy = policy.clone();
        policy[&name][field] = value;
        policy.to_string()
    };
    let without = |field: &str| {
        let mut policy = policy.clone();
        policy[&name].as_object_mut().unwrap().remove(field);
        policy.to_string()
    };
    let at = |field: &str| vec![format!("{name}.{field}")];
    let twice = format!("{{\"{name}\": {}, {}", policy[&name], &policy.to_string()[1..]);
    let cases = [
        ("officernd_client_id", String::new(), vec![]),
        ("officernd_client_secret", "  ".into(), vec![]),
        ("officernd_identity_url", String::new(), vec![]),
        ("officernd_identity_url", marker.clone(), vec![]),
        ("officernd_identity_url", format!("http://{marker}.example"), vec![]),
        ("officernd_identity_url", format!("https://{marker}.example/path"), vec![]),
        ("officernd_identity_url", format!("https://user:{marker}@127.0.0.1"), vec![]),
        ("callers", String::new(), vec![]),
        ("callers", marker.clone(), vec![]),
        ("callers", "{}".into(), vec![]),
        ("callers", format!("{{\"{marker}"), vec![]),
        ("callers", with("scope", json!([marker])), at("scope")),
        ("callers", with("secret_sha256", json!([setup.nightly.secret])), at("secret_sha256")),
        ("callers", with("secret_sha256", json!(marker)), at("secret_sha256")),
        ("callers", with("scopes", json!([format!("{marker} {marker}")])), at("scopes")),
        ("callers", with("scopes", json!([])), at("scopes")),
        ("callers", without("scopes"), at("scopes")),
        ("callers", without("secret_sha256"), at("secret_sha256")),
        ("callers", twice, vec![name.clone()]),
        ("min_remaining_seconds", marker.clone(), vec![]),
        ("min_remaining_seconds", "29".into(), vec![]),
        ("min_remaining_seconds", String::new(), vec![]),
        ("upstream_calls_per_minute", marker.clone(), vec![]),
        ("upstream_calls_per_minute", "0".into(), vec![]),
        ("upstream_calls_per_minute", "five".into(), vec![]),
    ];
    let checks = cases.map(|(variable, wrong, told)| {
        let setup = setup.clone();
        // Each case has its own store.
        let setup = Setup { key_value: broker_host::KeyValue::memory(), ..setup };
        async move { check(setup.start().await, variable, wrong, marker, told).await }
    });
    join_all(checks).await;
}

#[tokio::test]
async fn failing_variable_provider_at_start_gives_500() {
    let broker = Setup::in_one_instance().start().await;
    broker.variables.fail(true);
    let answer = broker.nightly(MEMBERS).await;
    assert_eq!((answer.status, answer.error().as_str()), (500, "server_error"));
    check_unavailable(&broker).await;
    check_healthy(&broker).await;
    assert!(broker.server.output().contains("\"variables_unreadable\""), "{}", broker.server.output());
    assert_eq!((broker.calls().len(), broker.server.counts().store_calls()), (0, 0));
}

#[tokio::test]
async fn failing_variable_provider_later_keeps_the_last_configuration() {
    let mut setup = Setup::in_one_instance();
    // The instance must be kept while no requests arrive.
    setup.reuse.idle = Duration::from_secs(60);
    let broker = setup.start().await;
    let token = broker.nightly(MEMBERS).await.token();
    broker.variables.fail(true);
    // Longer than the 10 s for which an instance keeps its configuration.
    sleep(Duration::from_secs(11)).await;
    assert_eq!(broker.nightly(MEMBERS).await.token(), token);
    assert!(broker.server.output().contains("the variables cannot be read"), "{}", broker.server.output());
    // A mistake is different from an unreadable variable: the broker serves nothing until it is
    // fixed.
    broker.variables.fail(false);
    broker.variables.set("callers", "{}");
    sleep(Duration::from_secs(11)).await;
    assert_eq!(broker.nightly(MEMBERS).await.status, 500);
}
