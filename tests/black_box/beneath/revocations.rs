//! Revocations while no call can follow, and of tokens that no lease or index recorded.

use std::time::{Duration, SystemTime};

use broker_host::sandbox::Answer as Upstream;
use broker_host::{Fail, Faults};
use http::StatusCode;
use officernd_token_broker::scope::Scopes;
use officernd_token_broker::time::Timestamp;
use officernd_token_broker::token::{Index, Key};
use serde_json::json;
use tests::{Answer, Broker, COMPANIES, MEMBERS, revocation_request};
use tokio::time::sleep;

use super::{Row, check, check_sound, in_words, many_instances, one_instance, timed};

/// Longer than an instance serves a token without asking the store.
const NOT_REMEMBERED: Duration = Duration::from_millis(2100);

async fn revoke(broker: &Broker, token: &str) -> (Answer, Duration) {
    timed(broker.send(revocation_request(&broker.setup.nightly, token))).await
}

/// Revokes a token while no call may be made. The broker must go on serving it.
async fn revocation_in_vain(fault: &'static str, broker: Broker, token: String) -> Row {
    let calls = broker.calls().len();
    let (revoked, took_one) = revoke(&broker, &token).await;
    assert!(revoked.retry_after().is_some(), "{revoked:?}");
    sleep(NOT_REMEMBERED).await;
    let (answer, took_two) = timed(broker.nightly(MEMBERS)).await;
    assert_eq!(answer.token(), token, "the token is not erased");
    check_sound(&broker);
    Row {
        fault,
        saw: format!("revocation {}, then the same token {}", in_words(&revoked), in_words(&answer)),
        calls: (broker.calls().len() - calls).into(),
        at_most: 1.0,
        slowest: took_one.max(took_two),
    }
}

async fn officernd_is_down() -> Row {
    let broker = many_instances().start().await;
    let token = broker.nightly(MEMBERS).await.token();
    broker.sandbox.answer_always(Upstream::json(StatusCode::INTERNAL_SERVER_ERROR, &json!({})));
    assert_eq!(broker.nightly(COMPANIES).await.status, 503);
    revocation_in_vain("OfficeRnD is down, and a job revokes its token", broker, token).await
}

async fn quota_is_used_up() -> Row {
    let mut setup = many_instances();
    let scopes = setup.with_scopes(4);
    setup.without_door();
    let broker = setup.start().await;
    let token = broker.nightly(MEMBERS).await.token();
    for scope in &scopes {
        broker.nightly(scope).await.token();
    }
    revocation_in_vain("the call quota is used up, and a job revokes its token", broker, token).await
}

/// Revokes a token, and asks for the next one.
async fn revocation(fault: &'static str, broker: &Broker, token: &str) -> Row {
    let calls = broker.calls().len();
    let (revoked, took_one) = revoke(broker, token).await;
    sleep(NOT_REMEMBERED).await;
    let (answer, took_two) = timed(broker.nightly(MEMBERS)).await;
    let token = if answer.token() == token { "the same" } else { "another" };
    check_sound(broker);
    Row {
        fault,
        saw: format!("revocation {}, then {token} token {}", in_words(&revoked), in_words(&answer)),
        calls: (broker.calls().len() - calls).into(),
        at_most: 4.0,
        slowest: took_one.max(took_two),
    }
}

/// The store fails, so the broker fetches without a lease. The instance revokes the token.
async fn fetched_without_a_lease() -> Row {
    let broker = one_instance().start().await;
    broker.set_store_faults(Faults { fail: Fail::Always, ..Faults::default() });
    let token = broker.nightly(MEMBERS).await.token();
    revocation("a job revokes a token that was fetched without a lease, while the store fails", &broker, &token).await
}

/// The same, and the store works again. Another host revokes the token.
async fn fetched_without_a_lease_and_saved_later() -> Row {
    let broker = one_instance().start().await;
    broker.set_store_faults(Faults { fail: Fail::Always, ..Faults::default() });
    let token = broker.nightly(MEMBERS).await.token();
    broker.set_store_faults(Faults::default());
    tests::eventually("the token in the store", || broker.stored().iter().any(|(key, _)| *key == broker.key(MEMBERS)))
        .await;
    let beside = broker.beside(broker.setup.key_value.clone()).await;
    revocation("the same, by another host after the store works again", &beside, &token).await
}

/// The index has 501 later tokens, which is fewer than an hour of ten calls a minute.
async fn one_of_more_than_400() -> Row {
    let mut setup = many_instances();
    setup.variables.push(("upstream_calls_per_minute", "10".into()));
    let broker = setup.start().await;
    let token = broker.nightly(MEMBERS).await.token();
    let config = broker.config();
    let application = &config.applications[0];
    let index_key = Index::key(&config.identity);
    let stored = |key: &str| broker.stored().into_iter().find(|(other, _)| other == key).map(|(_, value)| value);
    let mut index = Index::decode(stored(&index_key).expect("the index has the token"));
    let now = Timestamp::from_unix_ms(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64);
    for number in 0..500 {
        let key = Key::of(application, &application.current, &Scopes::parse(&format!("s{number}")).unwrap());
        index.insert(&format!("token-{number}"), key, now + Duration::from_secs(3600), now, 600);
    }
    broker.at_rest().await;
    broker.store(&index_key, index.as_bytes().to_vec()).await;
    // The broker adds the next one itself.
    broker.nightly(COMPANIES).await.token();
    broker.at_rest().await;
    // Another host, so that memory does not know the token.
    let beside = broker.beside(broker.setup.key_value.clone()).await;
    revocation("a job revokes the oldest of 502 tokens", &beside, &token).await
}

#[tokio::test(flavor = "multi_thread")]
async fn revocations_in_bad_times_get_the_answers_of_faults_md() {
    let rows = tokio::join!(
        officernd_is_down(),
        quota_is_used_up(),
        fetched_without_a_lease(),
        fetched_without_a_lease_and_saved_later(),
        one_of_more_than_400(),
    );
    check("Revocations in bad times", &<[Row; 5]>::from(rows), &[]);
}
