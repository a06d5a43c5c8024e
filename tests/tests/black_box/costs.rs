//! What a request costs the component, in instructions of its own: exact, so that nothing gets dearer unnoticed.

use std::fmt::Write as _;

use serde_json::json;
use tests::{Broker, Caller, MEMBERS, Setup, digest_of};

/// What it cost when somebody last looked, and wrote it down.
const BASELINE: &str = include_str!("../../costs.txt");

/// Instructions of one request of a kind, at best of several: digits of times and numbers differ.
async fn measure<F: Future<Output = u16>>(broker: &Broker, status: u16, request: impl Fn() -> F) -> u64 {
    let mut least = u64::MAX;
    assert_eq!(request().await, status);
    for _ in 0..20 {
        let before = broker.server.counts().fuel;
        // What one request cost is known when the next one starts.
        assert_eq!(request().await, status);
        least = least.min(broker.server.counts().fuel - before);
    }
    least
}

#[tokio::test]
async fn no_request_costs_three_percent_more_than_it_did() {
    let mut setup = Setup::in_one_instance();
    setup.is_metered = true;
    let broker = setup.start().await;
    let (nightly, wrong) = (&broker.setup.nightly, Caller { secret: "wrong".into(), ..broker.setup.nightly.clone() });
    broker.nightly(MEMBERS).await.token();
    let mut table = String::new();
    let mut note = |what: &str, cost: u64| writeln!(table, "{cost:>7} {what}").unwrap();
    note("memory hit", measure(&broker, 200, async || broker.token(nightly, Some(MEMBERS)).await.status).await);
    note("wrong secret", measure(&broker, 401, async || broker.token(&wrong, Some(MEMBERS)).await.status).await);
    note("health", measure(&broker, 200, async || broker.fetch(http::Method::GET, "/healthz").await.status).await);
    println!("{table}");
    for (found, known) in table.lines().zip(BASELINE.lines()) {
        let parse = |line: &str| {
            let (cost, what) = line.trim().split_once(' ').expect("a number and a name");
            (cost.parse::<f64>().expect("a number"), what.to_owned())
        };
        let ((found, what), (known, same)) = (parse(found), parse(known));
        assert_eq!(what, same, "tests/costs.txt is out of date:\n{table}");
        let ratio = found / known;
        assert!(
            (0.97..=1.03).contains(&ratio),
            "{what}: {ratio:.3} times what tests/costs.txt says; it should say:\n{table}"
        );
    }
    assert_eq!(table.lines().count(), BASELINE.lines().count(), "tests/costs.txt should say:\n{table}");
}

#[tokio::test]
async fn nobody_costs_what_a_caller_with_a_wrong_secret_costs() {
    let mut setup = Setup::in_one_instance();
    setup.is_metered = true;
    let broker = setup.start().await;
    let nightly = &broker.setup.nightly;
    // One caller with three secrets, of which one has expired, and one with one.
    let mut policy = broker.setup.policy();
    let digests = &mut policy[&nightly.name]["secret_sha256"];
    *digests = json!([digests[0], { "sha256": digest_of("expired"), "expires": "2020-01-01" }, digest_of("another")]);
    broker.variables.set("callers", policy.to_string());
    let as_caller = |name: &str, secret: &str| Caller { name: name.into(), secret: secret.into(), scopes: Vec::new() };
    // Of one length, because the rest of a request costs by the byte.
    let unknown = "x".repeat(nightly.name.len());
    let mut costs = Vec::new();
    for (what, caller) in [
        ("a caller of three secrets, a wrong one", as_caller(&nightly.name, "nothing")),
        ("a caller of three secrets, an expired one", as_caller(&nightly.name, "expired")),
        ("nobody", as_caller(&unknown, "nothing")),
    ] {
        costs.push((what, measure(&broker, 401, async || broker.token(&caller, Some(MEMBERS)).await.status).await));
    }
    println!("{costs:?}");
    let ratio = |left: usize, right: usize| costs[left].1 as f64 / costs[right].1 as f64;
    assert!((0.995..1.005).contains(&ratio(2, 0)), "who is there can be told from who is not: {costs:?}");
    // A secret that matches costs no more comparing; its line in the log is longer, because it names the caller.
    assert!((0.95..1.05).contains(&ratio(1, 0)), "{costs:?}");
}
