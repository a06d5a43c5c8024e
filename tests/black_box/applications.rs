//! Several OfficeRnD applications behind one broker: tokens and pauses stay apart.

use std::time::Duration;

use broker_host::sandbox;
use serde_json::json;
use tests::{Broker, COMPANIES, Caller, MEMBERS, digest_of, random, revocation_request, secret};
use tokio::time::sleep;

use super::rotation::unlimited;

/// Starts a broker with the applications `default` and `berlin`, and a caller of each that may
/// have [`MEMBERS`].
pub(super) async fn two_applications() -> (Broker, Caller, sandbox::Application) {
    let setup = unlimited();
    let berlin = sandbox::Application {
        id: random("berlin"),
        secret: secret("berlin-secret"),
        scopes: [MEMBERS].map(String::from).to_vec(),
    };
    let abroad = Caller::new("abroad", &[MEMBERS, COMPANIES]);
    let broker = setup.start().await;
    broker.sandbox.set_applications(vec![broker.setup.application.clone(), berlin.clone()]);
    let mut policy = broker.setup.policy();
    policy[&abroad.name] = json!({
        "secret_sha256": [digest_of(&abroad.secret)],
        "scopes": abroad.scopes,
        "application": "berlin",
    });
    policy["late"] = json!({
        "secret_sha256": [{ "sha256": digest_of("late"), "expires": "2020-01-01" }],
        "scopes": [MEMBERS],
    });
    broker.variables.set("callers", policy.to_string());
    let applications = json!({ "berlin": { "client_id": berlin.id, "client_secret": berlin.secret } });
    broker.variables.set("applications", applications.to_string());
    (broker, abroad, berlin)
}

#[tokio::test]
async fn tokens_and_pauses_of_two_applications_never_mix() {
    let (broker, abroad, berlin) = two_applications().await;
    let home = broker.nightly(MEMBERS).await.token();
    let away = broker.token(&abroad, Some(MEMBERS)).await.token();
    assert_eq!(broker.sandbox.owner(&home), Some(broker.setup.application.id.clone()));
    assert_eq!(broker.sandbox.owner(&away), Some(berlin.id.clone()));
    assert_eq!(broker.nightly(MEMBERS).await.token(), home);
    assert_eq!(broker.token(&abroad, Some(MEMBERS)).await.token(), away);
    assert_eq!(broker.calls().len(), 2);

    // A caller cannot revoke a token of the other application.
    assert_eq!(broker.send(revocation_request(&abroad, &home)).await.status, 200);
    sleep(Duration::from_millis(2100)).await;
    assert_eq!(broker.nightly(MEMBERS).await.token(), home);

    // `berlin` is not granted a scope that `default` has.
    assert_eq!(broker.token(&abroad, Some(COMPANIES)).await.error(), "invalid_scope");
    broker.nightly(COMPANIES).await.token();

    // OfficeRnD refuses one credential, and the broker pauses only that one.
    broker.sandbox.set_applications(vec![broker.setup.application.clone()]);
    let wanted = format!("{COMPANIES} {MEMBERS}");
    assert_eq!(broker.token(&abroad, Some(&wanted)).await.status, 502);
    broker.nightly(&wanted).await.token();
    assert_eq!(broker.token(&abroad, Some(&wanted)).await.status, 502);
    assert_eq!(broker.calls().iter().filter(|call| call.status == Some(401)).count(), 1);
}
