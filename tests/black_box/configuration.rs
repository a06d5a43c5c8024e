//! Variables with a mistake, and a provider that fails: who is still served, what the log says, and
//! that a fix needs no restart. `beneath` has providers that are slow or limit reads.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tests::{Broker, MEMBERS, RESOURCES, Setup, find_leaks, random};
use tokio::time::sleep;

use super::readiness::{check_healthy, check_ready};

/// A changed variable takes effect within 10 s; the rest is for a slow machine.
pub(super) const TAKES_EFFECT: Duration = Duration::from_secs(15);

async fn check_unavailable(broker: &Broker) {
    let body = json!({ "status": "unavailable", "problem": "configuration", "version": env!("CARGO_PKG_VERSION") });
    let get = broker.fetch(Method::GET, "/readyz").await;
    assert_eq!((get.status, get.json()), (503, body), "{}", broker.server.output());
    let head = broker.fetch(Method::HEAD, "/readyz").await;
    assert_eq!((head.status, head.body.as_str()), (503, ""));
    assert_eq!(head.headers, get.headers, "HEAD has the headers of GET");
}

/// What a mistake stops.
#[derive(Clone, Copy, PartialEq)]
enum Stops {
    Everyone,
    /// Only the caller `nightly`.
    Nightly,
}

/// Gives a variable a wrong value that contains `marker`. Checks what it stops until it is fixed,
/// and that the log has each of `told` and never the marker.
async fn check(broker: Broker, variable: &str, wrong: String, marker: &str, stops: Stops, told: Vec<String>) {
    // Set after the start, as an operator would: Spin resolves `allowed_outbound_hosts` at the
    // start and would stop at some of the values.
    let right = broker.variables.lookup(variable).unwrap();
    broker.variables.set(variable, &wrong);
    for _ in 0..2 {
        let answer = broker.nightly(MEMBERS).await;
        let expected = if stops == Stops::Everyone { (500, "server_error") } else { (401, "invalid_client") };
        assert_eq!((answer.status, answer.error().as_str()), expected, "{variable}: {wrong}");
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
    let (warning, reason) = match stops {
        Stops::Everyone => ("the configuration is invalid", "\"configuration_invalid\""),
        Stops::Nightly => ("callers and applications with a mistake are disabled", "\"caller_disabled\""),
    };
    let warnings = log.lines().filter(|line| line.contains(warning)).count();
    assert_eq!(warnings, 1, "one warning, not one per request: {log}");
    assert!(log.contains(reason), "{log}");
    assert_eq!((broker.calls().len(), broker.server.counts().store_calls()), (0, 0));
    if stops == Stops::Nightly {
        broker.token(&broker.setup.door, None).await.token();
    }

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
async fn variable_with_mistake_stops_one_caller_or_all_until_fixed() {
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
    let everyone = [
        ("officernd_client_id", String::new()),
        ("officernd_client_secret", "  ".into()),
        ("officernd_identity_url", String::new()),
        ("officernd_identity_url", marker.clone()),
        ("officernd_identity_url", format!("http://{marker}.example")),
        ("officernd_identity_url", format!("https://{marker}.example/path")),
        ("officernd_identity_url", format!("https://user:{marker}@127.0.0.1")),
        ("applications", marker.clone()),
        ("callers", String::new()),
        ("callers", marker.clone()),
        ("callers", "{}".into()),
        ("callers", format!("{{\"{marker}")),
        ("min_remaining_seconds", marker.clone()),
        ("min_remaining_seconds", "29".into()),
        ("min_remaining_seconds", String::new()),
        ("upstream_calls_per_minute", marker.clone()),
        ("upstream_calls_per_minute", "0".into()),
        ("upstream_calls_per_minute", "five".into()),
    ];
    let only_nightly = [
        ("callers", with("scope", json!([marker])), at("scope")),
        ("callers", with("secret_sha256", json!([setup.nightly.secret])), at("secret_sha256")),
        ("callers", with("secret_sha256", json!(marker)), at("secret_sha256")),
        ("callers", with("scopes", json!([format!("{marker} {marker}")])), at("scopes")),
        ("callers", with("scopes", json!([])), at("scopes")),
        ("callers", with("application", json!(marker)), at("application")),
        ("callers", without("scopes"), at("scopes")),
        ("callers", without("secret_sha256"), at("secret_sha256")),
        ("callers", twice, vec![name.clone()]),
    ];
    let everyone = everyone.map(|(variable, wrong)| (variable, wrong, Stops::Everyone, vec![]));
    let only_nightly = only_nightly.map(|(variable, wrong, told)| (variable, wrong, Stops::Nightly, told));
    let checks = everyone.into_iter().chain(only_nightly).map(|(variable, wrong, stops, told)| {
        let setup = setup.clone();
        // Each case has its own store.
        let setup = Setup { key_value: broker_host::KeyValue::memory(), ..setup };
        async move { check(setup.start().await, variable, wrong, marker, stops, told).await }
    });
    join_all(checks).await;
}

#[tokio::test]
async fn failing_variable_provider_at_start_gives_503_with_retry_after() {
    let broker = Setup::in_one_instance().start().await;
    broker.variables.fail(true);
    let answer = broker.nightly(MEMBERS).await;
    assert_eq!((answer.status, answer.error().as_str()), (503, "temporarily_unavailable"));
    assert_eq!(answer.retry_after(), Some(1));
    check_unavailable(&broker).await;
    check_healthy(&broker).await;
    assert!(broker.server.output().contains("\"variables_unreadable\""), "{}", broker.server.output());
    assert_eq!((broker.calls().len(), broker.server.counts().store_calls()), (0, 0));
    // What `Retry-After` promised.
    broker.variables.fail(false);
    sleep(Duration::from_secs(1)).await;
    broker.nightly(MEMBERS).await.token();
}

/// What an instance with a good configuration does after a change of the variables.
async fn check_goes_on(change: impl Fn(&Broker), warning: &str, is_ready: bool) {
    let broker = Setup::in_one_instance().start().await;
    let token = broker.nightly(MEMBERS).await.token();
    change(&broker);
    // Longer than the 10 s for which an instance keeps its configuration.
    sleep(Duration::from_secs(11)).await;
    assert_eq!(broker.nightly(MEMBERS).await.token(), token);
    broker.token(&broker.setup.door, None).await.token();
    let log = broker.server.output();
    let is_told = |line: &str| line.contains(warning) && line.contains("the last good configuration stays in use");
    assert!(log.lines().any(is_told), "{log}");
    match is_ready {
        true => check_ready(&broker).await,
        false => check_unavailable(&broker).await,
    }
    assert_eq!(broker.server.counts().instances, 1);
}

#[tokio::test]
async fn last_good_configuration_outlives_a_failing_provider_and_a_mistake() {
    tokio::join!(
        check_goes_on(|broker| broker.variables.fail(true), "the variables cannot be read", true),
        check_goes_on(|broker| broker.variables.set("callers", "{…},}"), "the configuration is invalid", false),
        check_goes_on(|broker| broker.variables.set("audit", "some"), "the configuration is invalid", false),
        check_goes_on(
            |broker| broker.variables.set("officernd_client_secret", ""),
            "the configuration is invalid",
            false
        ),
    );
}

#[tokio::test]
async fn mistake_in_one_live_entry_refuses_only_that_caller() {
    let broker = Setup::in_one_instance().start().await;
    let token = broker.nightly(MEMBERS).await.token();
    let mut policy = broker.setup.policy();
    let entry = policy[&broker.setup.door.name].as_object_mut().unwrap();
    let scopes = entry.remove("scopes").unwrap();
    entry.insert("scope".to_owned(), scopes);
    broker.variables.set("callers", policy.to_string());
    sleep(Duration::from_secs(11)).await;
    assert_eq!(broker.nightly(MEMBERS).await.token(), token);
    let refused = broker.token(&broker.setup.door, Some(RESOURCES)).await;
    let mut stranger = broker.setup.door.clone();
    stranger.secret = random("wrong");
    let wrong = broker.token(&stranger, Some(RESOURCES)).await;
    assert_eq!((refused.status, &refused.body), (401, &wrong.body), "the caller learns no more than a stranger");
    check_unavailable(&broker).await;
    let log = broker.server.output();
    for part in [&format!("{}.scope: is unknown", broker.setup.door.name), "\"caller_disabled\""] {
        assert!(log.contains(part), "{part}: {log}");
    }
}

#[tokio::test]
async fn entry_nested_as_deep_as_the_parser_goes_fits_on_the_stack() {
    // The parser refuses 128 levels. Two of them are the policy and the entry.
    for (levels, told) in [(125, ".scope: is unknown"), (126, "is not valid, expected a JSON object")] {
        let mut setup = Setup::in_one_instance();
        let mut policy = setup.policy();
        policy[&setup.door.name]["scope"] = "levels".into();
        let nested = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        setup.variables.push(("callers", policy.to_string().replace("\"levels\"", &nested)));
        let broker = setup.start().await;
        let status = broker.nightly(MEMBERS).await.status;
        let log = broker.server.output();
        assert_eq!((status, log.contains(told)), (if levels == 125 { 200 } else { 500 }, true), "{levels}: {log}");
    }
}

#[tokio::test]
async fn mistake_in_one_application_refuses_only_its_callers() {
    let mut setup = Setup::in_one_instance();
    setup.variables.push(("applications", r#"{"berlin": {"client_id": "b"}}"#.to_owned()));
    let mut policy: Value = setup.policy();
    policy[&setup.door.name]["application"] = json!("berlin");
    setup.variables.push(("callers", policy.to_string()));
    let broker = setup.start().await;
    broker.nightly(MEMBERS).await.token();
    let refused = broker.token(&broker.setup.door, None).await;
    assert_eq!((refused.status, refused.error().as_str()), (500, "server_error"));
    check_unavailable(&broker).await;
    let log = broker.server.output();
    for part in ["applications: berlin.client_secret: is missing", "\"application_disabled\""] {
        assert!(log.contains(part), "{part}: {log}");
    }
}
