//! What a request gets, by the remaining lifetime of the cached token: fresh, aging, late or
//! unusable. The stages are in the diagram "A token's life" of ARCHITECTURE.md.

use std::time::Duration;

use broker_host::sandbox::{Answer as Upstream, Config};
use http::StatusCode;
use serde_json::json;
use tests::{Broker, MEMBERS, Setup, all_at_once, eventually};
use tokio::time::sleep;

/// Remaining lifetimes for `min_remaining_seconds` = 300, with which an aging token begins to
/// be renewed between 600 s and 525 s before it expires.
const FRESH: Duration = Duration::from_secs(620);
const AGING: Duration = Duration::from_secs(400);
const LATE: Duration = Duration::from_secs(100);
const UNUSABLE: Duration = Duration::from_secs(50);

/// How long a test waits to see that no call is made.
const A_WHILE: Duration = Duration::from_millis(1000);

/// Starts a broker whose store has a token with this remaining lifetime, and returns both.
async fn start(remaining: Duration) -> (Broker, String) {
    let broker = Setup::in_one_instance().start().await;
    let token = broker.store_token(MEMBERS, remaining).await;
    (broker, token)
}

fn outage() -> Upstream {
    Upstream::json(StatusCode::INTERNAL_SERVER_ERROR, &json!({}))
}

#[tokio::test]
async fn fresh_token_is_served_without_a_call() {
    let (broker, token) = start(FRESH).await;
    for _ in 0..5 {
        let answer = broker.nightly(MEMBERS).await;
        assert_eq!(answer.token(), token);
        assert!((610..=620).contains(&answer.expires_in()), "{answer:?}");
    }
    sleep(A_WHILE).await;
    assert_eq!(broker.calls().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn aging_token_is_served_while_one_request_renews_it() {
    let (broker, token) = start(AGING).await;
    broker.sandbox.answer_always(Upstream::Late(Duration::from_secs(2)));
    for _ in 0..10 {
        // No request waits for the new token, which arrives after 2 s at the earliest.
        assert_eq!(broker.nightly(MEMBERS).await.token(), token);
    }
    eventually("the renewal call", || broker.calls().len() == 1).await;
    assert_eq!(broker.nightly(MEMBERS).await.token(), token, "while the call is made");
    let mut answer = broker.nightly(MEMBERS).await;
    for _ in 0..50 {
        if answer.token() != token {
            break;
        }
        sleep(Duration::from_millis(200)).await;
        answer = broker.nightly(MEMBERS).await;
    }
    assert_ne!(answer.token(), token, "the new token is served once it has arrived");
    assert!(answer.expires_in() > 3500);
    sleep(A_WHILE).await;
    assert_eq!(broker.calls().len(), 1, "one renewal is enough");
}

#[tokio::test(flavor = "multi_thread")]
async fn aging_token_renewal_is_awaited_by_one_request_of_a_crowd() {
    let (broker, token) = start(AGING).await;
    broker.sandbox.answer_always(Upstream::Late(Duration::from_secs(2)));
    for answer in all_at_once(&[&broker], 100, MEMBERS).await {
        assert_eq!(answer.token(), token);
    }
    eventually("the renewal call", || broker.calls().len() == 1).await;
    sleep(A_WHILE).await;
    // A fetch sets a few timers. A request that waited for it would set a hundred a second.
    let timers = broker.server.counts().timers;
    assert!(timers < 20, "{timers} timers");
}

#[tokio::test]
async fn aging_token_in_an_outage_is_served_after_one_failed_call() {
    let (broker, token) = start(AGING).await;
    broker.sandbox.answer_always(outage());
    for _ in 0..5 {
        assert_eq!(broker.nightly(MEMBERS).await.token(), token);
    }
    eventually("the renewal call", || broker.calls().len() == 1).await;
    sleep(A_WHILE).await;
    for _ in 0..5 {
        assert_eq!(broker.nightly(MEMBERS).await.token(), token);
    }
    sleep(A_WHILE).await;
    assert_eq!(broker.calls().len(), 1);
}

#[tokio::test]
async fn renewal_of_usable_token_leaves_two_calls_of_the_quota() {
    for remaining in [AGING, LATE] {
        let mut setup = Setup::in_one_instance();
        let scopes = setup.with_scopes(6);
        setup.without_door();
        let broker = setup.start().await;
        let token = broker.store_token(MEMBERS, remaining).await;
        for scope in &scopes[..3] {
            broker.nightly(scope).await.token();
        }
        for _ in 0..3 {
            assert_eq!(broker.nightly(MEMBERS).await.token(), token, "{remaining:?}");
        }
        sleep(A_WHILE).await;
        assert_eq!(broker.calls().len(), 3, "{remaining:?}");
        // The last two calls are for scope sets without a usable token.
        broker.nightly(&scopes[3]).await.token();
        broker.nightly(&scopes[4]).await.token();
        assert_eq!(broker.nightly(&scopes[5]).await.status, 503);
        assert_eq!(broker.nightly(MEMBERS).await.token(), token, "{remaining:?}");
        assert_eq!(broker.calls().len(), 5);
    }
}

#[tokio::test]
async fn late_token_is_renewed_before_the_answer() {
    let (broker, token) = start(LATE).await;
    let answer = broker.nightly(MEMBERS).await;
    assert_ne!(answer.token(), token);
    assert!(answer.expires_in() > 3500, "{answer:?}");
    let expected = format!("officernd-token-broker; fwd=stale; stored; ttl={}", answer.expires_in());
    assert_eq!(answer.header("cache-status"), Some(expected.as_str()));
    assert_eq!(broker.nightly(MEMBERS).await.token(), answer.token());
    assert_eq!(broker.calls().len(), 1);
}

#[tokio::test]
async fn late_token_is_served_when_its_renewal_fails() {
    // Every way in which OfficeRnD can fail, including no answer.
    let failures = [
        outage(),
        Upstream::text(StatusCode::TOO_MANY_REQUESTS, "Too many requests, please try again later"),
        Upstream::json(StatusCode::UNAUTHORIZED, &json!({ "error": "invalid_client" })),
        Upstream::json(StatusCode::BAD_REQUEST, &json!({ "error": "invalid_scope" })),
        Upstream::text(StatusCode::OK, "<html>"),
        Upstream::close(),
        Upstream::hang(),
    ];
    let checks = failures.map(|failure| async move {
        let (broker, token) = start(LATE).await;
        let what = format!("{failure:?}");
        broker.sandbox.answer_always(failure);
        for _ in 0..3 {
            let answer = broker.nightly(MEMBERS).await;
            assert_eq!(answer.token(), token, "{what}");
            assert!((80..=100).contains(&answer.expires_in()), "{what}: {answer:?}");
        }
        assert_eq!(broker.calls().len(), 1, "{what}");
    });
    futures_util::future::join_all(checks).await;
}

#[tokio::test]
async fn token_with_less_than_60_s_left_is_not_served() {
    let (broker, token) = start(UNUSABLE).await;
    broker.sandbox.answer_next(outage());
    for _ in 0..2 {
        let answer = broker.nightly(MEMBERS).await;
        assert_eq!((answer.status, answer.error().as_str()), (503, "temporarily_unavailable"));
        assert!(answer.retry_after().is_some_and(|told| (1..=6).contains(&told)), "{answer:?}");
    }
    let (broker, _) = start(UNUSABLE).await;
    let answer = broker.nightly(MEMBERS).await;
    assert_ne!(answer.token(), token);
    assert!(answer.expires_in() > 3500);
    assert_eq!(broker.calls().len(), 1);
}

#[tokio::test]
async fn reissued_token_is_not_fetched_repeatedly() {
    // OfficeRnD issues a token of 200 s, and then the same one again with the rest of its
    // lifetime.
    let sandbox = Config { token_life: Duration::from_secs(200), reissue: true, ..Config::default() };
    let broker = Setup { sandbox, ..Setup::in_one_instance() }.start().await;
    let token = broker.nightly(MEMBERS).await.token();
    for _ in 0..5 {
        assert_eq!(broker.nightly(MEMBERS).await.token(), token);
    }
    assert_eq!(broker.calls().len(), 1);

    // The store has the token from 10 min ago. One request learns that OfficeRnD has no newer
    // one; the others do not call again.
    let (broker, token) = start(LATE).await;
    let again = json!({ "access_token": token, "token_type": "Bearer", "expires_in": 90, "scope": MEMBERS });
    broker.sandbox.answer_always(Upstream::json(StatusCode::OK, &again));
    for _ in 0..5 {
        let answer = broker.nightly(MEMBERS).await;
        assert_eq!(answer.token(), token);
        assert!(answer.expires_in() <= 100, "{answer:?}");
    }
    sleep(A_WHILE).await;
    assert_eq!(broker.calls().len(), 1);
}

#[tokio::test]
async fn caller_with_min_remaining_seconds_gets_a_longer_token_than_others() {
    let mut setup = Setup::in_one_instance();
    let mut policy = setup.policy();
    policy[&setup.nightly.name]["min_remaining_seconds"] = 1800.into();
    policy[&setup.door.name]["scopes"] = policy[&setup.nightly.name]["scopes"].clone();
    setup.variables.push(("callers", policy.to_string()));
    let broker = setup.start().await;
    let token = broker.store_token(MEMBERS, Duration::from_secs(1700)).await;
    assert_eq!(broker.token(&broker.setup.door, Some(MEMBERS)).await.token(), token);
    assert_eq!(broker.calls().len(), 0);
    let answer = broker.nightly(MEMBERS).await;
    assert_ne!(answer.token(), token);
    assert!(answer.expires_in() > 3500, "{answer:?}");
    assert_eq!(broker.calls().len(), 1);
}

#[tokio::test]
async fn min_remaining_seconds_sets_when_token_is_late() {
    let setup = || Setup { variables: vec![("min_remaining_seconds", "60".into())], ..Setup::in_one_instance() };
    let broker = setup().start().await;
    let token = broker.store_token(MEMBERS, Duration::from_secs(130)).await;
    assert_eq!(broker.nightly(MEMBERS).await.token(), token);
    sleep(A_WHILE).await;
    assert_eq!(broker.calls().len(), 0, "with 60 s, a token with 130 s left is still fresh");
    let broker = setup().start().await;
    let token = broker.store_token(MEMBERS, Duration::from_secs(100)).await;
    assert_eq!(broker.nightly(MEMBERS).await.token(), token);
    eventually("the renewal call", || broker.calls().len() == 1).await;
    let setup = Setup { variables: vec![("min_remaining_seconds", "3300".into())], ..Setup::in_one_instance() };
    let broker = setup.start().await;
    let token = broker.store_token(MEMBERS, Duration::from_secs(3200)).await;
    assert_ne!(broker.nightly(MEMBERS).await.token(), token);
}

#[tokio::test]
async fn token_stored_or_deleted_by_another_host_takes_effect() {
    let (broker, token) = start(FRESH).await;
    assert_eq!(broker.nightly(MEMBERS).await.token(), token);
    let newer = broker.store_token(MEMBERS, Duration::from_secs(3000)).await;
    let until = async |expected: &str| {
        for _ in 0..50 {
            if broker.nightly(MEMBERS).await.token() == expected {
                return;
            }
            sleep(Duration::from_millis(200)).await;
        }
        panic!("the newer token of the store is not served");
    };
    until(&newer).await;
    broker.empty_store().await;
    let mut token = newer.clone();
    for _ in 0..50 {
        token = broker.nightly(MEMBERS).await.token();
        if token != newer {
            break;
        }
        sleep(Duration::from_millis(200)).await;
    }
    assert_ne!(token, newer, "a token that was deleted from the store is still served");
    assert_eq!(broker.calls().len(), 1);
}
