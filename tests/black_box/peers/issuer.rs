//! An outside issuer of another project (npm's oidc-provider), which rotates its keys under load.

use futures_util::future::join_all;
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use std::time::Duration;
use tests::{Broker, MEMBERS, PeerServer, Setup, assertion_request, eventually, exchange, form, keep_secret, set};

use super::signed::AUDIENCE;
use crate::assertions::last_line;

/// The id and the secret of the job at its issuer.
const JOB: [&str; 2] = ["job-of-the-platform", "secret-of-the-job-at-its-platform"];

/// Requests at the same time.
const CROWD: usize = 20;

/// A token that the issuer gives the job.
async fn token(issuer: &PeerServer) -> String {
    let [id, secret] = JOB;
    let body = form(&[
        ("grant_type", "client_credentials"),
        ("client_id", id),
        ("client_secret", secret),
        ("resource", AUDIENCE),
    ]);
    let addr = issuer.url().strip_prefix("http://").expect("it is on loopback").parse().expect("host and port");
    let request = Request::post("/token")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Full::new(body.into()))
        .expect("the request is valid");
    let answer = exchange(addr, request).await.expect("the issuer answers");
    let token = answer.json()["access_token"].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned();
    keep_secret("token of an issuer", &token);
    token
}

/// Sends a crowd of requests with one token, and returns how many were served.
async fn served(broker: &Broker, token: &str) -> usize {
    let send = |_| broker.send(assertion_request(token, &[("scope", MEMBERS)]));
    let answers = join_all((0..CROWD).map(send)).await;
    answers.iter().filter(|answer| answer.status == 200).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_projects_issuer_rotates_its_keys_under_load() {
    let mut issuer = PeerServer::issuer(JOB, AUDIENCE);
    let mut setup = Setup::in_one_instance();
    let mut policy = setup.policy();
    let identities = json!([{ "issuer": "platform", "claims": { "sub": JOB[0] } }]);
    set(&mut policy[&setup.nightly.name], json!({ "identities": identities, "secret_sha256": null }));
    let jwks_uri = format!("{}/jwks", issuer.url());
    let entry = json!({ "issuer": issuer.url(), "jwks_uri": jwks_uri, "max_lifetime_seconds": 7200 });
    setup.variables.push(("callers", policy.to_string()));
    setup.variables.push(("issuers", json!({ "platform": entry }).to_string()));
    setup.variables.push(("public_url", AUDIENCE.to_owned()));
    setup.variables.push(("keys_origin_1", issuer.url().to_owned()));
    let clock = setup.clock.clone();
    let broker = setup.start().await;

    let old = token(&issuer).await;
    assert_eq!(served(&broker, &old).await, CROWD);
    // Each step comes eleven minutes after the one before.
    for (minutes, step) in [(11, "announce"), (22, "switch"), (33, "withdraw")] {
        issuer.say(step);
        let is_done = || issuer.requests().iter().any(|line| line["step"] == step);
        eventually("the issuer has taken the step", is_done).await;
        clock.set_ahead(Duration::from_secs(minutes * 60));
        let present = token(&issuer).await;
        // The keys are renewed after the first answer; nothing is refused meanwhile.
        assert_eq!(served(&broker, &present).await, CROWD, "{step}: {}", broker.server.output());
        if step != "withdraw" {
            assert_eq!(served(&broker, &old).await, CROWD, "{step}: {}", broker.server.output());
        }
        broker.at_rest().await;
    }
    // The withdrawn key is no longer in the set that was fetched last.
    assert_eq!(served(&broker, &old).await, 0);
    assert_eq!(last_line(&broker)["reason"], "unknown_key");
    assert_eq!(served(&broker, &token(&issuer).await).await, CROWD);
    let fetched = issuer.requests().iter().filter(|line| line["jwks"] != Value::Null).count();
    assert_eq!(fetched, 4, "at first and at each step: {:?}", issuer.requests());
}
