//! `/metrics`, and the files of `deploy/` for it, as Prometheus and its libraries read them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::process::Stdio;
use std::time::{Duration, Instant};

use broker_host::sandbox::Answer as Upstream;
use http::StatusCode;
use serde_json::{Value, json};
use tests::{
    Broker, COMPANIES, Caller, MEMBERS, Prometheus, Setup, basic, digest_of, read, run_peer_with, seconds_since_epoch,
    set,
};
use tokio::time::sleep;

use super::metrics::read as read_metrics;

/// A broker that the caller `prometheus` may scrape, and that caller. A secret of another caller,
/// whose name must be escaped, expires in ten days.
async fn scraped() -> (Broker, Caller) {
    let mut setup = Setup::in_one_instance();
    let reader = Caller { name: "prometheus".to_owned(), ..Caller::new("prometheus", &[]) };
    let in_ten_days = jiff::Timestamp::from_second(seconds_since_epoch() as i64 + 864_000).unwrap().to_string();
    let expiring = json!({ "sha256": digest_of("x"), "expires": in_ten_days });
    let mut policy = setup.policy();
    set(
        &mut policy,
        json!({
            &reader.name: { "secret_sha256": [digest_of(&reader.secret)], "metrics": true },
            "a\"b\\c": { "secret_sha256": [expiring], "scopes": ["x"] },
        }),
    );
    setup.variables.push(("callers", policy.to_string()));
    (setup.start().await, reader)
}

/// Makes two calls that bring tokens, and one that is refused.
async fn call(broker: &Broker) {
    broker.nightly(MEMBERS).await.token();
    broker.nightly(COMPANIES).await.token();
    broker.sandbox.answer_next(Upstream::json(StatusCode::UNAUTHORIZED, &json!({ "error": "invalid_client" })));
    assert_eq!(broker.token(&broker.setup.door, None).await.status, 502);
    broker.at_rest().await;
}

/// The metrics of docs/monitoring.md by the name of their family: type, unit and labels.
fn documented() -> BTreeMap<String, (String, &'static str, Vec<String>)> {
    let page = read("docs/monitoring.md");
    let table = page.split("\n## Metrics\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let rows = rows.map(|row| {
        let (name, rest) = row.split_once("` | ").unwrap();
        let (kind, labels) =
            rest.split(" | ").next().unwrap().split_once("; ").unwrap_or((rest.split(' ').next().unwrap(), ""));
        let mut labels: Vec<_> = labels.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        labels.sort();
        let family = format!("officernd_broker_{}", name.strip_suffix("_total").unwrap_or(name));
        (family, (kind.to_owned(), if name.ends_with("_seconds") { "seconds" } else { "" }, labels))
    });
    let documented: BTreeMap<_, _> = rows.collect();
    assert!(documented.len() >= 12, "{documented:?}");
    documented
}

#[tokio::test(flavor = "multi_thread")]
async fn both_formats_are_read_by_other_projects_and_match_monitoring_md() {
    let (broker, reader) = scraped().await;
    let authorization = basic(&reader.name, &reader.secret);
    let folder = tempfile::tempdir().unwrap();
    for called in [false, true] {
        if called {
            call(&broker).await;
        }
        let files =
            ["application/openmetrics-text", "text/plain"].map(|accept| (accept, folder.path().join(&accept[..4])));
        for (accept, file) in &files {
            fs::write(file, read_metrics(&broker, &authorization, accept).await.body).unwrap();
        }
        let paths = files.map(|(_, file)| file.to_str().unwrap().to_owned());
        let check = move || {
            let [openmetrics, text] = &paths;
            // It reads only the text format, and its rules are stricter than the format.
            let lint = run_peer_with(&["promtool", "check", "metrics"], &[], Stdio::from(File::open(text).unwrap()));
            let python = [".venv/bin/python", "check_metrics.py", openmetrics, text];
            (lint, run_peer_with(&python, &[], Stdio::null()))
        };
        let (lint, printed) = tokio::task::spawn_blocking(check).await.unwrap();
        assert_eq!(lint, "");
        let families: BTreeMap<String, (String, String, Vec<String>)> = serde_json::from_str(&printed).unwrap();
        for (family, (kind, unit, labels)) in documented() {
            let (its_kind, its_unit, its_labels) = &families[&family];
            assert_eq!((its_kind, its_unit.as_str()), (&kind, unit), "{family}");
            // Before a call no series has a result, and an open gate has no reason.
            let expected: Vec<_> = if called { labels } else { its_labels.clone() };
            assert_eq!(*its_labels, expected, "{family}");
        }
        assert_eq!(families.keys().cloned().collect::<BTreeSet<_>>(), documented().into_keys().collect());
    }
}

/// The expressions of the dashboard with the variable `$instance` replaced, as Grafana does.
fn dashboard_expressions(instance: &str) -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    targets.map(|target| target["expr"].as_str().unwrap().replace("$instance", instance)).collect()
}

/// Waits until an expression is answered by at least one series, and by numbers only.
async fn answered(prometheus: &Prometheus, expression: &str, is_it: impl Fn(&[f64]) -> bool) {
    let begin = Instant::now();
    loop {
        let numbers = prometheus.query(expression).await;
        if !numbers.is_empty() && numbers.iter().all(|number| number.is_finite()) && is_it(&numbers) {
            return;
        }
        if begin.elapsed() > Duration::from_secs(20) {
            let targets = prometheus.ask("targets", &[]).await;
            panic!("{expression}: {numbers:?}, last error: {}", targets["activeTargets"][0]["lastError"]);
        }
        sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_with_the_files_of_deploy_answers_dashboard_and_alerts() {
    let (broker, reader) = scraped().await;
    let prometheus = Prometheus::start(broker.server.addr(), &reader.secret).await.unwrap();
    // A rate needs a scrape from before the calls.
    answered(&prometheus, "officernd_broker_call_duration_seconds_count", |numbers| numbers == [0.0]).await;
    call(&broker).await;
    let seen = broker.calls().len() as f64;
    answered(&prometheus, "sum(officernd_broker_calls_total)", |numbers| numbers == [seen]).await;
    for (result, number) in [("granted", 2.0), ("credential_refused", 1.0)] {
        let of_result = format!("officernd_broker_calls_total{{application=\"default\",result=\"{result}\"}}");
        assert_eq!(prometheus.query(&of_result).await, [number], "{result}");
    }

    let targets = prometheus.ask("targets", &[]).await;
    let target = &targets["activeTargets"][0];
    assert_eq!((&target["health"], &target["lastError"]), (&json!("up"), &json!("")), "{targets}");
    let metadata = prometheus.ask("metadata", &[]).await;
    for (family, (kind, unit, _)) in documented() {
        // The unit arrives only in OpenMetrics, and so shows which format was scraped.
        let of_family = &metadata[&family][0];
        assert_eq!((&of_family["type"], &of_family["unit"]), (&json!(kind), &json!(unit)), "{family}: {metadata}");
        assert!(of_family["help"].as_str().is_some_and(|help| help.ends_with('.')), "{family}: {metadata}");
    }

    // Each has a series in this state, and none needs an exception.
    let instances = prometheus.ask("label/instance/values", &[("match[]", "officernd_broker_store_up")]).await;
    assert_eq!(instances, json!([broker.server.addr().to_string()]));
    for expression in dashboard_expressions(instances[0].as_str().unwrap()) {
        answered(&prometheus, &expression, |_| true).await;
    }

    // An alert that does not fire has no series, so it must only be answered without an error.
    let is_firing = "ALERTS{alertstate=\"firing\"}";
    answered(&prometheus, is_firing, |numbers| numbers.len() == 2).await;
    let rules = prometheus.ask("rules", &[]).await;
    let rules = rules["groups"][0]["rules"].as_array().unwrap();
    assert_eq!(rules.len(), read("deploy/prometheus/alerts.yml").matches("- alert: ").count());
    for rule in rules {
        assert_eq!((&rule["health"], rule.get("lastError")), (&json!("ok"), None), "{rule}");
        prometheus.query(rule["query"].as_str().unwrap()).await;
    }
    let firing = rules.iter().filter(|rule| rule["state"] == "firing");
    let firing: BTreeSet<_> = firing.map(|rule| rule["name"].as_str().unwrap()).collect();
    assert_eq!(firing, BTreeSet::from(["CallerExpiresSoon", "CredentialRefused"]));

    let log = prometheus.log();
    assert!(!log.contains("level=warn") && !log.contains("level=error"), "{log}");
}
