//! Revocation (RFC 7009): a job reports that its token does not work.

use std::time::Duration;

use broker_host::sandbox::Answer as Upstream;
use broker_host::{Fail, Faults};
use http::StatusCode;
use tests::{Answer, Broker, COMPANIES, Caller, MEMBERS, Setup, revocation_request};
use tokio::time::sleep;

async fn revoke(broker: &Broker, caller: &Caller, token: &str) -> Answer {
    broker.send(revocation_request(caller, token)).await
}

#[tokio::test]
async fn revoked_token_is_dropped_by_all_hosts_at_most_once_a_minute() {
    let broker = Setup::default().start().await;
    let beside = broker.beside(broker.setup.key_value.clone()).await;
    let first = broker.nightly(MEMBERS).await.token();
    let others = broker.nightly(COMPANIES).await.token();
    assert_eq!(beside.nightly(MEMBERS).await.token(), first);

    assert_eq!(revoke(&broker, &broker.setup.nightly, &first).await.status, 200);
    // Instances of both hosts check the store again after 2 s.
    sleep(Duration::from_millis(2100)).await;
    let second = beside.nightly(MEMBERS).await.token();
    assert_ne!(second, first);
    assert_eq!(broker.nightly(MEMBERS).await.token(), second);
    assert_eq!(broker.nightly(COMPANIES).await.token(), others, "the token of another scope set is kept");

    let again = revoke(&beside, &broker.setup.nightly, &second).await;
    assert_eq!((again.status, again.error().as_str()), (503, "temporarily_unavailable"));
    assert!(again.retry_after().is_some_and(|seconds| (1..=60).contains(&seconds)), "{again:?}");
    // A token that is already dropped may be revoked again at any time.
    assert_eq!(revoke(&broker, &broker.setup.nightly, &first).await.status, 200);
    assert_eq!(broker.nightly(MEMBERS).await.token(), second);
    assert_eq!(broker.calls().len(), 3);
}

#[tokio::test]
async fn revocation_that_no_call_could_follow_gets_503_and_erases_nothing() {
    let broker = Setup::default().start().await;
    let token = broker.nightly(MEMBERS).await.token();
    // OfficeRnD is down, which a call for another scope set finds out.
    broker.sandbox.answer_always(Upstream::json(StatusCode::INTERNAL_SERVER_ERROR, &serde_json::json!({})));
    let told = broker.nightly(COMPANIES).await.retry_after().unwrap();
    let refused = revoke(&broker, &broker.setup.nightly, &token).await;
    assert_eq!((refused.status, refused.error().as_str()), (503, "temporarily_unavailable"));
    assert!(refused.retry_after().is_some_and(|seconds| (1..=told).contains(&seconds)), "{refused:?}");
    assert!(broker.server.output().contains("\"revocation_postponed\""), "{}", broker.server.output());
    sleep(Duration::from_millis(2100)).await;
    assert_eq!(broker.nightly(MEMBERS).await.token(), token);
    // After that time the revocation is accepted, and a call follows it.
    broker.sandbox.answer_always(Upstream::Normal);
    sleep(Duration::from_secs(told)).await;
    assert_eq!(revoke(&broker, &broker.setup.nightly, &token).await.status, 200);
    sleep(Duration::from_millis(2100)).await;
    assert_ne!(broker.nightly(MEMBERS).await.token(), token);
}

#[tokio::test]
async fn token_that_the_index_lacks_is_revoked() {
    let broker = Setup::default().start().await;
    let token = broker.token(&broker.setup.nightly, None).await.token();
    broker.at_rest().await;
    let index = broker.stored().into_iter().find(|(key, _)| key.starts_with("token-index.")).unwrap().0;
    broker.delete_stored(&index).await;
    // Its memory would know the token as well.
    let broker = broker.restart().await;
    assert_eq!(revoke(&broker, &broker.setup.nightly, &token).await.status, 200);
    assert_ne!(broker.token(&broker.setup.nightly, None).await.token(), token);
}

#[tokio::test]
async fn token_that_only_memory_has_is_revoked_while_the_store_fails() {
    let broker = Setup::in_one_instance().start().await;
    broker.set_store_faults(Faults { fail: Fail::Always, ..Faults::default() });
    let token = broker.nightly(MEMBERS).await.token();
    assert_eq!(broker.nightly(MEMBERS).await.token(), token);
    assert_eq!(revoke(&broker, &broker.setup.nightly, &token).await.status, 200);
    assert_ne!(broker.nightly(MEMBERS).await.token(), token);
}

#[tokio::test]
async fn revocation_of_another_callers_token_changes_nothing() {
    let broker = Setup::default().start().await;
    let token = broker.nightly(MEMBERS).await.token();
    for (caller, text) in
        [(&broker.setup.door, token.as_str()), (&broker.setup.nightly, "unknown"), (&broker.setup.nightly, &token[1..])]
    {
        let answer = revoke(&broker, caller, text).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "{}"));
    }
    sleep(Duration::from_millis(2100)).await;
    assert_eq!(broker.nightly(MEMBERS).await.token(), token);
    assert_eq!(broker.calls().len(), 1);
}
