//! `/metrics`: who may read it, in which formats, and that its counters are those of all instances.

use std::collections::BTreeMap;
use std::time::Duration;

use broker_host::sandbox::{Answer as Upstream, Config};
use broker_host::{Fail, Faults, KeyValue};
use http::header::{ACCEPT, AUTHORIZATION};
use http::{Method, Request, StatusCode};
use serde_json::json;
use tests::{
    Answer, Broker, COMPANIES, Caller, Draft, MEMBERS, PrivateKey, Redis, Setup, all_at_once, basic, crowd, digest_of,
    set, token_request,
};
use tokio::time::sleep;

const PUBLIC_URL: &str = "https://broker.example.com";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A setup with one caller more, which may read the metrics and has no scopes.
pub(crate) fn with_reader(mut setup: Setup) -> (Setup, Caller) {
    let reader = Caller::new("prometheus", &[]);
    let mut policy = setup.policy();
    set(&mut policy, json!({ &reader.name: { "secret_sha256": [digest_of(&reader.secret)], "metrics": true } }));
    setup.variables.push(("callers", policy.to_string()));
    (setup, reader)
}

pub(crate) async fn read(broker: &Broker, authorization: &str, accept: &str) -> Answer {
    let request = Request::get("/metrics").header(AUTHORIZATION, authorization).header(ACCEPT, accept);
    broker.send(request.body(String::new()).unwrap()).await
}

/// The samples by name and labels, as the text has them.
async fn samples(broker: &Broker, reader: &Caller) -> BTreeMap<String, f64> {
    let answer = read(broker, &basic(&reader.name, &reader.secret), "").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(OPENMETRICS)), "{answer:?}");
    let lines = answer.body.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.strip_prefix("officernd_broker_").unwrap().to_owned(), value.parse().unwrap())
    };
    lines.map(sample).collect()
}

/// How many calls ended, by application and result.
fn calls(samples: &BTreeMap<String, f64>) -> Vec<(&str, f64)> {
    let calls = samples.iter().filter(|(name, _)| name.starts_with("calls_total"));
    calls.map(|(name, value)| (name.trim_start_matches("calls_total"), *value)).collect()
}

#[tokio::test]
async fn caller_with_metrics_reads_them_in_the_format_that_it_accepts() {
    let (setup, reader) = with_reader(Setup::in_one_instance());
    let broker = setup.start().await;
    let secret = basic(&reader.name, &reader.secret);
    let of_prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
        application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
        text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    for (accept, expected) in [
        ("", OPENMETRICS),
        ("*/*", OPENMETRICS),
        ("text/html", OPENMETRICS),
        (of_prometheus_3, OPENMETRICS),
        ("text/plain", PROMETHEUS),
        ("Text/Plain; Q=0.5, application/openmetrics-text; q=0.1", PROMETHEUS),
        ("application/openmetrics-text; q=0, text/plain; q=x", OPENMETRICS),
    ] {
        let answer = read(&broker, &secret, accept).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(expected)), "{accept}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.body.ends_with("# EOF\n"), expected == OPENMETRICS, "{}", answer.body);
        let counter = if expected == OPENMETRICS { "calls counter" } else { "calls_total counter" };
        assert!(answer.body.contains(&format!("# TYPE officernd_broker_{counter}\n")), "{}", answer.body);
    }
    let head = Request::head("/metrics").header(AUTHORIZATION, &secret).body(String::new()).unwrap();
    let head = broker.send(head).await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[tokio::test]
async fn metrics_are_refused_as_tokens_are_and_without_permission() {
    let (mut setup, reader) = with_reader(Setup::in_one_instance());
    let key = PrivateKey::p256();
    let mut policy: serde_json::Value = serde_json::from_str(&setup.variables.pop().unwrap().1).unwrap();
    set(&mut policy[&reader.name], json!({ "keys": [key.jwk(json!({}))] }));
    setup.variables.push(("callers", policy.to_string()));
    setup.variables.push(("public_url", PUBLIC_URL.to_owned()));
    let broker = setup.start().await;
    let nightly = &broker.setup.nightly;
    let unauthenticated = broker.send(token_request(&Caller { secret: "wrong".into(), ..nightly.clone() }, None)).await;
    let assertion = Draft::of(&reader.name, PUBLIC_URL, key.algorithm());
    let forged = Draft::of(&reader.name, "https://another.example.com", key.algorithm());
    for (authorization, status) in [
        (basic(&reader.name, &reader.secret), 200),
        (format!("Bearer {}", assertion.sign(&key)), 200),
        (format!("bearer {}", forged.sign(&key)), 401),
        ("Bearer x".to_owned(), 401),
        (String::new(), 401),
        ("Digest x".to_owned(), 401),
        (basic(&reader.name, &nightly.secret), 401),
        (basic("stranger", &reader.secret), 401),
        (basic(&nightly.name, &nightly.secret), 403),
    ] {
        let answer = read(&broker, &authorization, "").await;
        assert_eq!(answer.status, status, "{authorization}: {answer:?}");
        if status == 401 {
            assert_eq!(answer.body, unauthenticated.body);
            assert_eq!(answer.header("www-authenticate"), unauthenticated.header("www-authenticate"));
        }
    }
    let log = broker.server.output();
    assert!(log.contains(r#""outcome":"denied","status":403,"reason":"metrics_not_permitted""#), "{log}");
    let in_query = format!("/metrics?client_id={}&client_secret=x", reader.name);
    assert_eq!(broker.fetch(Method::GET, &in_query).await.status, 400);
    let post = broker.fetch(Method::POST, "/metrics").await;
    assert_eq!((post.status, post.header("allow")), (405, Some("GET, HEAD")));
    // It may have no scope, and its entry does not make others leave calls to it.
    let refused = broker.token(&reader, None).await;
    assert_eq!((refused.status, refused.error().as_str()), (400, "invalid_scope"));
}

#[tokio::test]
async fn metrics_show_calls_gate_credentials_and_expirations() {
    let (mut setup, reader) = with_reader(Setup::in_one_instance());
    let mut policy: serde_json::Value = serde_json::from_str(&setup.variables.pop().unwrap().1).unwrap();
    let digest = json!({ "sha256": digest_of("x"), "expires": "2100-01-01" });
    let later = json!({ "sha256": digest_of("y"), "expires": "2101-01-01" });
    let past = json!({ "sha256": digest_of("z"), "expires": "2020-01-01" });
    set(
        &mut policy,
        json!({
            "a\"b\\c": { "secret_sha256": [later, digest, past], "scopes": ["x"] },
            "over": { "secret_sha256": [past], "scopes": ["x"] },
            "wrong": {},
        }),
    );
    setup.variables.push(("callers", policy.to_string()));
    let broker = setup.start().await;
    let fresh = samples(&broker, &reader).await;
    assert_eq!(calls(&fresh), []);
    assert!(!fresh.keys().any(|name| name.contains("_created")), "no call has been counted: {fresh:#?}");
    for (name, value) in [
        ("call_duration_seconds_count", 0.0),
        ("call_quota", 5.0),
        ("recent_calls", 0.0),
        (r#"gate_closed{application="default"}"#, 0.0),
        (r#"gate_opens_timestamp_seconds{application="default"}"#, 0.0),
        (r#"credential_refused{application="default"}"#, 0.0),
        (r#"next_credential_in_use{application="default"}"#, 0.0),
        ("configuration_mistakes", 2.0),
        ("scope_sets", 0.0),
        ("store_up", 1.0),
        (r#"caller_expiry_timestamp_seconds{caller="a\"b\\c"}"#, 4_102_444_800.0),
        (r#"caller_expiry_timestamp_seconds{caller="over"}"#, 1_577_836_800.0),
    ] {
        assert_eq!(fresh.get(name), Some(&value), "{name} of {fresh:#?}");
    }
    broker.nightly(MEMBERS).await.token();
    broker.sandbox.answer_next(Upstream::json(StatusCode::UNAUTHORIZED, &json!({ "error": "invalid_client" })));
    broker.token(&broker.setup.door, None).await;
    broker.at_rest().await;
    let used = samples(&broker, &reader).await;
    let expected = [
        (r#"{application="default",result="credential_refused"}"#, 1.0),
        (r#"{application="default",result="granted"}"#, 1.0),
    ];
    assert_eq!(calls(&used), expected);
    for (name, value) in [
        ("call_duration_seconds_bucket{le=\"+Inf\"}", 2.0),
        ("call_duration_seconds_bucket{le=\"4.0\"}", 2.0),
        ("call_duration_seconds_count", 2.0),
        ("recent_calls", 2.0),
        (r#"gate_closed{application="default",reason="credential_refused"}"#, 1.0),
        (r#"credential_refused{application="default"}"#, 1.0),
        ("scope_sets", 1.0),
    ] {
        assert_eq!(used.get(name), Some(&value), "{name} of {used:#?}");
    }
    assert!(used[r#"gate_opens_timestamp_seconds{application="default"}"#] > 1e9, "{used:#?}");
    for name in [r#"calls_created{application="default",result="granted"}"#, "call_duration_seconds_created"] {
        assert!(used[name] > 1e9, "{name} of {used:#?}");
    }

    broker.set_store_faults(Faults { fail: Fail::Always, ..Faults::default() });
    let without = samples(&broker, &reader).await;
    assert_eq!((without["store_up"], calls(&without)), (0.0, calls(&used)), "what the instance knows");
}

#[tokio::test]
async fn no_counter_decreases_if_the_store_fails_for_one_instance_or_for_a_new_one() {
    let (setup, reader) = with_reader(Setup::in_one_instance());
    let broker = setup.start().await;
    broker.nightly(MEMBERS).await.token();
    broker.at_rest().await;
    let before = samples(&broker, &reader).await;
    // The store has the reservation of the next call, and never learns of its end from this instance.
    broker.sandbox.answer_next(Upstream::Late(Duration::from_millis(500)));
    let (answer, ()) = tokio::join!(broker.nightly(COMPANIES), async {
        tests::eventually("a call in progress", || broker.calls().len() == 2).await;
        broker.set_store_faults(Faults { fail: Fail::Always, ..Faults::default() });
    });
    answer.token();
    let during = samples(&broker, &reader).await;
    assert_eq!((during["store_up"], calls(&during)), (0.0, calls(&before)));
    broker.server.end_instances();
    let fresh = samples(&broker, &reader).await;
    assert_eq!(fresh["store_up"], 0.0);
    assert!(!fresh.keys().any(|name| name.starts_with("call_duration") || name.starts_with("calls_")), "{fresh:#?}");
    broker.set_store_faults(Faults::default());
    // The failure is remembered for 2 s.
    sleep(Duration::from_secs(3)).await;
    let after = samples(&broker, &reader).await;
    let ended = |samples: &BTreeMap<String, f64>| calls(samples).iter().map(|(_, number)| number).sum::<f64>();
    assert_eq!((after["store_up"], ended(&after)), (1.0, ended(&before)));
}

/// The sum of all calls that the metrics of each host have.
async fn totals(hosts: &[Broker], reader: &Caller) -> Vec<f64> {
    let mut totals = Vec::new();
    for host in hosts {
        totals.push(calls(&samples(host, reader).await).iter().map(|(_, number)| number).sum());
    }
    totals
}

/// Crowds of two hosts ask for many scope sets, OfficeRnD is slow and fails at times, and every
/// instance dies in mid-flight several times.
#[tokio::test(flavor = "multi_thread")]
async fn counters_of_two_hosts_equal_the_calls_that_officernd_saw_although_instances_die() {
    let _alone = crowd().await;
    let redis = Redis::start().await.unwrap();
    let sandbox = Config { calls_per_minute: 1000, ..Config::default() };
    let (mut setup, reader) = with_reader(Setup { key_value: redis.key_value(), sandbox, ..Setup::default() });
    let mut policy: serde_json::Value = serde_json::from_str(&setup.variables.pop().unwrap().1).unwrap();
    let scopes = setup.with_scopes(36);
    set(&mut policy[&setup.nightly.name], json!({ "scopes": ["flex.**"] }));
    setup.variables.push(("callers", policy.to_string()));
    setup.variables.push(("upstream_calls_per_minute", "100".to_owned()));
    let one = setup.start().await;
    one.sandbox.answer_always(Upstream::Late(Duration::from_millis(150)));
    let hosts = [one.beside(redis.key_value()).await, one];
    for (round, scope) in scopes.iter().enumerate() {
        if round % 9 == 4 {
            hosts[1].sandbox.answer_next(Upstream::text(StatusCode::BAD_REQUEST, r#"{"error":"invalid_scope"}"#));
        }
        let before = hosts[1].calls().len();
        if round % 12 == 5 {
            let requests = hosts.each_ref().map(|host| tokio::spawn(host.nightly(scope)));
            tests::eventually("a call in progress", || hosts[1].calls().len() > before).await;
            hosts.iter().for_each(|host| host.server.end_instances());
            for request in requests {
                drop(request.await);
            }
            // The lease of the dead instance.
            sleep(Duration::from_secs(11)).await;
        } else {
            all_at_once(&[&hosts[0], &hosts[1]], 4, scope).await;
        }
    }
    for host in &hosts {
        host.at_rest().await;
    }
    let seen = hosts[1].calls().len() as f64;
    println!("{seen} calls by two hosts");
    assert_eq!(totals(&hosts, &reader).await, [seen, seen]);
    let counted = samples(&hosts[0], &reader).await;
    let of = |result: &str| counted[&format!(r#"calls_total{{application="default",result="{result}"}}"#)];
    println!("{:?}", calls(&counted));
    assert!(of("granted") > 0.0 && of("scope_not_granted") > 0.0 && of("upstream_abandoned") > 0.0);
    assert_eq!(counted["call_duration_seconds_count"], seen - of("upstream_abandoned"));
}

#[tokio::test]
async fn counters_survive_a_restart_of_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let key_value = KeyValue::sqlite(folder.path()).unwrap();
    let (setup, reader) = with_reader(Setup { key_value, ..Setup::default() });
    let broker = setup.start().await;
    broker.nightly(MEMBERS).await.token();
    broker.at_rest().await;
    let before = samples(&broker, &reader).await;
    let broker = broker.restart().await;
    let after = samples(&broker, &reader).await;
    let counted = |samples: &BTreeMap<String, f64>| {
        samples
            .iter()
            .filter(|(name, _)| name.starts_with("call"))
            .map(|(name, value)| (name.clone(), *value))
            .collect::<Vec<_>>()
    };
    assert_eq!(counted(&before), counted(&after));
}
