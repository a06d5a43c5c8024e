//! Health and readiness: `/healthz` and `/readyz`.

use broker_host::{Fail, Faults};
use http::Method;
use serde_json::json;
use tests::{Broker, MEMBERS, Setup};

use super::applications::two_applications;

pub(super) async fn check_healthy(broker: &Broker) {
    for (method, body) in [(Method::GET, r#"{"status":"ok"}"#), (Method::HEAD, "")] {
        let answer = broker.fetch(method, "/healthz").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, body));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
}

pub(super) async fn check_ready(broker: &Broker) {
    let body = concat!(r#"{"status":"ready","version":""#, env!("CARGO_PKG_VERSION"), r#""}"#);
    for (method, body) in [(Method::GET, body), (Method::HEAD, "")] {
        let answer = broker.fetch(method, "/readyz").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, body), "{}", broker.server.output());
    }
}

#[tokio::test]
async fn broker_without_a_token_yet_is_ready() {
    let broker = Setup::default().start().await;
    check_healthy(&broker).await;
    assert_eq!(broker.server.counts().store_calls(), 0);
    check_ready(&broker).await;
    let counts = broker.server.counts();
    assert_eq!((counts.get, counts.set), (1, 1), "two checks within 5 s cost one read and one write");
    for path in ["/readyz", "/healthz"] {
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
            let answer = broker.fetch(method.clone(), path).await;
            assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method} {path}");
        }
    }
    assert_eq!((broker.calls().len(), broker.server.counts().get), (0, 1), "a refused method reads nothing");
}

#[tokio::test]
async fn readiness_reports_only_the_class_of_the_problem() {
    let (broker, abroad, berlin) = two_applications().await;
    let check = async |problem: Option<&str>| {
        let answer = broker.fetch(Method::GET, "/readyz").await;
        let version = env!("CARGO_PKG_VERSION");
        let expected = match problem {
            None => (200, json!({ "status": "ready", "version": version })),
            Some(problem) => (503, json!({ "status": "unavailable", "problem": problem, "version": version })),
        };
        assert_eq!((answer.status, answer.json()), expected, "{}", broker.server.output());
    };
    broker.set_store_faults(Faults { fail: Fail::Always, ..Faults::default() });
    check(Some("store")).await;
    broker.set_store_faults(Faults::default());
    // An instance remembers the outcome for 5 s.
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    check(None).await;
    broker.sandbox.set_applications(vec![berlin]);
    assert_eq!(broker.nightly(MEMBERS).await.status, 502);
    // Callers of the other application are still served.
    check(None).await;
    broker.sandbox.set_applications(Vec::new());
    assert_eq!(broker.token(&abroad, Some(MEMBERS)).await.status, 502);
    check(Some("credential")).await;
}
