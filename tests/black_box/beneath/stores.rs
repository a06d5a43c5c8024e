//! Stores that refuse, throttle, vanish or are locked by another process.

use std::time::{Duration, Instant};

use broker_host::{Faults, KeyValue};
use http::Method;
use tests::{COMPANIES, MEMBERS, Redis, Setup, SqliteLock, all_at_once, crowd, different_tokens, most_in_a_minute};
use tokio::time::sleep;

use super::{Calls, Row, check, check_sound, in_words, many_instances, one_instance, readiness, summary, timed};

/// Longer than an instance serves a token without asking the store.
const NOT_REMEMBERED: Duration = Duration::from_millis(2100);

/// A cold crowd, while the store has these faults.
async fn crowd_with(fault: &'static str, faults: Faults, at_most: f64) -> Row {
    let broker = Setup { key_value: KeyValue::memory(), ..many_instances() }.start().await;
    broker.set_store_faults(faults);
    let (answers, slowest) = timed(all_at_once(&[&broker], 100, MEMBERS)).await;
    let counts = broker.server.counts();
    println!("{fault}: {} instances, {} store operations", counts.instances, counts.store_calls());
    different_tokens(&answers);
    check_sound(&broker);
    Row { fault, saw: summary(&answers), calls: broker.calls().len().into(), at_most, slowest }
}

/// A Redis that answers reads and refuses writes, because of this command.
async fn redis_refuses_writes(fault: &'static str, command: &str) -> Row {
    let redis = Redis::start().await.unwrap();
    let broker = Setup { key_value: redis.key_value(), ..one_instance() }.start().await;
    redis.command(command);
    let (answer, slowest) = timed(broker.nightly(MEMBERS)).await;
    let (again, took) = timed(broker.nightly(MEMBERS)).await;
    assert_eq!(answer.token(), again.token());
    let ready = readiness(&broker).await;
    check_sound(&broker);
    Row {
        fault,
        saw: format!("{}; `/readyz` {ready}", in_words(&answer)),
        calls: broker.calls().len().into(),
        at_most: 6.0,
        slowest: slowest.max(took),
    }
}

/// How a Redis vanishes.
#[derive(Clone, Copy)]
enum Vanishes {
    /// Its connections break, and its port refuses new ones.
    Killed,
    /// Its connections stay open, and it never answers.
    Frozen,
}

/// A job that asks every 2 s, in turn for a token that it had before Redis vanished and for one
/// that it had not.
async fn redis_vanishes(fault: &'static str, how: Vanishes, setup: Setup) -> Row {
    let scopes = [MEMBERS, COMPANIES, MEMBERS, COMPANIES].map(str::to_owned);
    redis_vanishes_for(fault, how, setup, &scopes, Duration::from_secs(2)).await
}

/// A job that asks every second for another token that it does not have.
async fn redis_vanishes_for_new_scope_sets(fault: &'static str, how: Vanishes) -> Row {
    let mut setup = one_instance();
    let scopes = setup.with_scopes(4);
    // A policy of one caller leaves it the whole call quota.
    setup.without_door();
    redis_vanishes_for(fault, how, setup, &scopes, Duration::from_secs(1)).await
}

async fn redis_vanishes_for(
    fault: &'static str,
    how: Vanishes,
    setup: Setup,
    scopes: &[String],
    pause: Duration,
) -> Row {
    let mut redis = Redis::start().await.unwrap();
    let broker = Setup { key_value: redis.key_value(), ..setup }.start().await;
    broker.nightly(MEMBERS).await.token();
    broker.at_rest().await;
    if !broker.setup.reuse.single_instance {
        // Spin retires an instance that has been idle for a second.
        sleep(Duration::from_millis(1200)).await;
    }
    match how {
        Vanishes::Killed => redis.kill(),
        Vanishes::Frozen => redis.freeze(true),
    }
    let mut answers = Vec::new();
    for scope in scopes {
        sleep(pause).await;
        answers.push(timed(broker.nightly(scope)).await);
    }
    let took: Vec<_> = answers.iter().map(|(_, took)| took.as_millis()).collect();
    println!("{fault}: {took:?} ms; {} instances, {} calls", broker.server.counts().instances, broker.calls().len());
    let calls = broker.calls();
    assert!(most_in_a_minute(&calls) <= 5, "{} calls", calls.len());
    check_sound(&broker);
    // The store can be searched for secrets.
    match how {
        Vanishes::Killed => redis.start_again().await.unwrap(),
        Vanishes::Frozen => redis.freeze(false),
    }
    let slowest = answers[1..].iter().map(|(_, took)| *took).max().unwrap();
    let saw = summary(answers.iter().map(|(answer, _)| answer));
    Row { fault, saw, calls: (calls.len() - 1).into(), at_most: 1.5, slowest }
}

/// Requests for a token that lives and for one that the broker does not have, while another
/// process holds the SQLite file.
async fn sqlite_file_is_locked(fault: &'static str, lasts: Duration, setup: Setup) -> Row {
    let (folder, is_single) = (tempfile::tempdir().unwrap(), setup.reuse.single_instance);
    let broker = Setup { key_value: KeyValue::sqlite(folder.path()).unwrap(), ..setup }.start().await;
    let token = broker.nightly(MEMBERS).await.token();
    sleep(NOT_REMEMBERED).await;
    let lock = SqliteLock::hold(folder.path());
    let begin = Instant::now();
    let ask = async |scope, after: u64| {
        sleep(Duration::from_millis(after)).await;
        timed(broker.nightly(scope)).await
    };
    let requests =
        [(MEMBERS, 0), (COMPANIES, 100), (MEMBERS, 200), (MEMBERS, 1000), (MEMBERS, 6000), (COMPANIES, 6000)];
    let unlock = async {
        sleep(lasts.saturating_sub(begin.elapsed())).await;
        drop(lock);
    };
    // Shows that the dev host blocks the whole instance, as Spin does.
    let health = async {
        let asked = [500, 1000, 1500].map(async |after| {
            sleep(Duration::from_millis(after)).await;
            timed(broker.fetch(Method::GET, "/healthz")).await.1
        });
        futures_util::future::join_all(asked).await.into_iter().max().unwrap()
    };
    let (answers, (), health) =
        tokio::join!(futures_util::future::join_all(requests.map(|(scope, after)| ask(scope, after))), unlock, health);
    let took: Vec<_> = answers.iter().map(|(_, took)| took.as_millis()).collect();
    println!("{fault}: {took:?} ms, /healthz {health:?}, {} instances", broker.server.counts().instances);
    // An instance that has no token in memory must fetch one.
    if is_single {
        for ((answer, _), (scope, _)) in answers.iter().zip(requests) {
            assert!(scope != MEMBERS || answer.token() == token, "a token that lives is served: {answer:?}");
        }
        assert!(health > Duration::from_secs(3), "the store does not block the instance: {health:?}");
    }
    check_sound(&broker);
    let calls = broker.calls().len() - 1;
    assert!(calls <= 5, "{calls} calls");
    let calls = if is_single { calls.into() } else { Calls::AtMostFive };
    Row {
        fault,
        saw: summary(answers.iter().map(|(answer, _)| answer)),
        calls,
        at_most: 12.0,
        slowest: answers.iter().map(|(_, took)| *took).max().unwrap(),
    }
}

async fn store_refuses_the_keys_of_cosmos_db() -> Row {
    let broker = many_instances().start().await;
    broker.set_store_faults(Faults { refuses_keys_of_cosmos_db: true, ..Faults::default() });
    let (answer, slowest) = timed(broker.nightly(MEMBERS)).await;
    let ready = readiness(&broker).await;
    let beside = broker.beside(broker.setup.key_value.clone()).await;
    assert_eq!(beside.nightly(MEMBERS).await.token(), answer.token(), "the store has the token");
    let revoked = broker.send(tests::revocation_request(&broker.setup.nightly, &answer.token())).await;
    assert_eq!(revoked.status, 200, "{revoked:?}");
    let log = broker.server.output();
    assert!(!log.contains("Cosmos DB"), "{log}");
    Row {
        fault: "the store refuses keys with `/`, `\\`, `?` or `#`, as Cosmos DB does",
        saw: format!("{}; `/readyz` {ready}", in_words(&answer)),
        calls: broker.calls().len().into(),
        at_most: 1.0,
        slowest,
    }
}

async fn two_identity_hosts_share_one_store() -> Row {
    let production = many_instances().start().await;
    let staging = Setup { key_value: production.setup.key_value.clone(), ..many_instances() }.start().await;
    staging.sandbox.close();
    let failed = staging.nightly(MEMBERS).await;
    let (answer, slowest) = timed(production.nightly(MEMBERS)).await;
    Row {
        fault: "two brokers with different identity hosts share one store, and one of these hosts is gone",
        saw: format!("{} and {}", in_words(&failed), in_words(&answer)),
        calls: production.calls().len().into(),
        at_most: 1.0,
        slowest,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_that_refuse_throttle_vanish_or_are_locked_get_the_answers_of_faults_md() {
    let mut rows = Vec::new();
    {
        let _alone = crowd().await;
        // Fewer than a fetch makes, so that the last one, which releases the lease, is refused.
        let few = Faults { writes_per_second: Some(5), ..Faults::default() };
        rows.push(crowd_with("100 cold requests at once, and the store accepts 5 writes a second", few, 6.0).await);
        let writes = Faults { writes_per_second: Some(50), ..Faults::default() };
        rows.push(crowd_with("100 cold requests at once, and the store accepts 50 writes a second", writes, 6.0).await);
        let all = Faults { operations_per_second: Some(500), ..Faults::default() };
        rows.push(
            crowd_with("100 cold requests at once, and the store accepts 500 operations a second", all, 6.0).await,
        );
        let delay = Duration::from_millis(5);
        let at_once = Faults { operations_at_once: Some(10), delay, ..Faults::default() };
        rows.push(
            crowd_with("100 cold requests at once, and the store accepts ten operations at a time", at_once, 6.0).await,
        );
    }
    let ten = Duration::from_secs(10);
    let others = tokio::join!(
        redis_refuses_writes("Redis is full", "CONFIG SET maxmemory 1"),
        redis_refuses_writes("Redis is a replica that accepts no writes", "REPLICAOF 127.0.0.1 1"),
        redis_vanishes("Redis refuses connections, and a job asks every 2 s", Vanishes::Killed, one_instance()),
        redis_vanishes("Redis never answers, and a job asks every 2 s", Vanishes::Frozen, one_instance()),
        redis_vanishes(
            "Redis refuses connections, a job asks every 2 s, and Spin has retired its instance",
            Vanishes::Killed,
            many_instances()
        ),
        redis_vanishes_for_new_scope_sets(
            "Redis never answers, and a job asks every second for another scope set",
            Vanishes::Frozen
        ),
        sqlite_file_is_locked("another process holds the SQLite file for 10 s", ten, one_instance()),
        sqlite_file_is_locked(
            "another process holds the SQLite file for 10 s, with several instances",
            ten,
            many_instances()
        ),
        store_refuses_the_keys_of_cosmos_db(),
        two_identity_hosts_share_one_store(),
    );
    rows.extend(<[Row; 10]>::from(others));
    check("Stores that refuse, throttle, vanish or are locked", &rows, &["DynamoDB answers with old values"]);
}
