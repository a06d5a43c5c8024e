//! What the store keeps over a restart, and what it must not contain.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use broker_host::KeyValue;
use tests::{Broker, COMPANIES, MEMBERS, Program, Redis, Secret, Setup, find_leaks, secret};
use tokio::time::sleep;

use super::rotation::unlimited;

/// Texts that must not be in a store: a reader of it may learn only tokens that expire within
/// the hour.
fn never_stored(broker: &Broker) -> Vec<Secret> {
    let mut secrets = broker.secrets();
    secrets.push(Secret::new("the application's id", &broker.setup.application.id));
    for caller in [&broker.setup.nightly, &broker.setup.door] {
        secrets.push(Secret::new("a caller's name", &caller.name));
    }
    secrets
}

/// Fills a store: two tokens, a refused scope set, a lease and a ledger.
async fn fill(broker: &Broker) -> String {
    let token = broker.nightly(MEMBERS).await.token();
    broker.token(&broker.setup.door, None).await.token();
    assert_eq!(broker.nightly(COMPANIES).await.error(), "invalid_scope");
    broker.at_rest().await;
    token
}

fn setup(key_value: KeyValue) -> Setup {
    let mut setup = Setup { key_value, ..Setup::default() };
    setup.application.scopes.retain(|scope| scope != COMPANIES);
    setup
}

#[tokio::test]
async fn store_contains_no_secret_and_no_name() {
    let broker = setup(KeyValue::memory()).start().await;
    fill(&broker).await;
    let entries = broker.stored();
    let kinds: Vec<_> = entries.iter().map(|(key, _)| key.split('.').next().unwrap()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "token").count(), 2, "{kinds:?}");
    assert!(kinds.contains(&"lease") && kinds.contains(&"ledger"), "{kinds:?}");
    for (key, value) in &entries {
        let both = [key.as_bytes(), b" ", value].concat();
        assert_eq!(find_leaks(&both, &never_stored(&broker)), [""; 0], "{key}");
        assert!(key.len() <= 255, "Spin's own store takes keys of at most 255 bytes: {key}");
        // Cosmos DB refuses keys with a slash.
        assert!(key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte)), "{key}");
    }
}

#[tokio::test]
async fn token_in_a_lasting_store_survives_a_host_restart() {
    let folder = tempfile::tempdir().unwrap();
    for key_value in [KeyValue::memory(), KeyValue::sqlite(folder.path()).unwrap()] {
        let broker = setup(key_value).start().await;
        let token = fill(&broker).await;
        let calls = broker.calls().len();
        let broker = broker.restart().await;
        assert_eq!(broker.nightly(MEMBERS).await.token(), token);
        // The refused scope set survives the restart too.
        assert_eq!(broker.nightly(COMPANIES).await.error(), "invalid_scope");
        assert_eq!(broker.calls().len(), calls);

        // With another client secret the broker cannot use the tokens in the store.
        broker.variables.set("officernd_client_secret", secret("another-secret"));
        let broker = broker.restart().await;
        assert_eq!(broker.nightly(MEMBERS).await.status, 502);
        assert_eq!(broker.calls().len(), calls + 1);
    }
}

#[tokio::test]
async fn sqlite_file_keeps_tokens_for_another_process_and_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let mut broker = setup(KeyValue::sqlite(folder.path()).unwrap()).start().await;
    let token = fill(&broker).await;
    let calls = broker.calls().len();
    // Another process would open the file again.
    broker.setup.key_value = KeyValue::sqlite(folder.path()).unwrap();
    let broker = broker.restart().await;
    assert_eq!(broker.nightly(MEMBERS).await.token(), token);
    assert_eq!(broker.calls().len(), calls);

    let mut files = 0;
    for entry in fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(find_leaks(&fs::read(&path).unwrap(), &never_stored(&broker)), [""; 0], "{}", path.display());
        files += 1;
    }
    assert!(files > 0);
}

#[tokio::test]
async fn restart_without_a_lasting_store_fetches_again() {
    let mut broker = Setup::default().start().await;
    let token = broker.nightly(MEMBERS).await.token();
    broker.setup.key_value = KeyValue::memory();
    let broker = broker.restart().await;
    assert_ne!(broker.nightly(MEMBERS).await.token(), token);
    assert_eq!(broker.calls().len(), 2);
}

/// Drops a broker or program whose store has a planted secret, and expects the search to find
/// it.
fn check_found(what: &str, dropped: impl Sized) {
    let found = catch_unwind(AssertUnwindSafe(|| drop(dropped))).expect_err(what);
    let text = found.downcast_ref::<String>().unwrap();
    assert!(text.contains("planted"), "{what}: {text}");
}

#[tokio::test]
async fn secret_leaked_into_any_kind_of_store_is_found_on_drop() {
    let (folder, redis) = (tempfile::tempdir().unwrap(), Redis::start().await.unwrap());
    let file = KeyValue::sqlite(folder.path()).unwrap();
    let planted = secret("planted");
    for (kind, key_value) in [("memory", KeyValue::memory()), ("SQLite", file.clone()), ("Redis", redis.key_value())] {
        let broker = setup(key_value).start().await;
        fill(&broker).await;
        // Before the secret is planted, the search finds nothing.
        let broker = broker.restart().await;
        for (key, value) in [("a key", planted.as_str()), (&planted, "a value")] {
            broker.store(key, value.into()).await;
            check_found(kind, broker.beside(broker.setup.key_value.clone()).await);
            broker.empty_store().await;
        }
    }

    file.set("default", "a key", planted.into()).await.unwrap();
    let folder = folder.path().to_str().unwrap();
    check_found("the program", Program::start(&["--listen", "127.0.0.1:0", "--state-dir", folder], &[]));
}

#[tokio::test]
async fn tampered_or_moved_record_counts_as_absent() {
    let broker = unlimited().start().await;
    let members = broker.nightly(MEMBERS).await.token();
    let companies = broker.nightly(COMPANIES).await.token();
    let stored: BTreeMap<_, _> = broker.stored().into_iter().collect();
    let key = broker.key(MEMBERS);
    let record = &stored[&key];
    let mut tampered = record.clone();
    *tampered.last_mut().unwrap() ^= 1;
    let moved = stored[&broker.key(COMPANIES)].clone();
    for (what, value) in [("tampered with", tampered), ("moved", moved), ("nothing", Vec::new())] {
        let calls = broker.calls().len();
        broker.store(&key, value).await;
        sleep(Duration::from_millis(2100)).await;
        let token = broker.nightly(MEMBERS).await.token();
        assert!(![&members, &companies].contains(&&token), "{what}");
        assert_eq!(broker.calls().len(), calls + 1, "{what}");
    }
    assert!(broker.server.output().contains("does not open"), "{}", broker.server.output());
    // The original record is valid again: a writer of the store can do no more than restore it.
    broker.store(&key, record.clone()).await;
    sleep(Duration::from_millis(2100)).await;
    assert_eq!(broker.nightly(MEMBERS).await.token(), members);
}
