//! The gate over sockets: how often OfficeRnD is called by crowds, several hosts and failing
//! stores.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use broker_host::sandbox::{Answer as Upstream, Config};
use broker_host::{Fail, Faults, KeyValue, Reuse};
use http::StatusCode;
use officernd_token_broker::gate::{lease_key, ledger_key};
use serde_json::json;
use tests::{
    Answer, Broker, COMPANIES, MEMBERS, Redis, Setup, all_at_once, crowd, different_tokens, eventually,
    most_in_a_minute,
};
use tokio::time::sleep;

/// A sandbox that accepts every call, so that only the broker keeps the call quota.
fn generous() -> Config {
    Config { calls_per_minute: 1000, ..Config::default() }
}

#[track_caller]
fn check_told_to_retry(answer: &Answer) {
    assert_eq!((answer.status, answer.error().as_str()), (503, "temporarily_unavailable"));
    let told = answer.retry_after().unwrap_or_else(|| panic!("no Retry-After: {answer:?}"));
    assert!((1..=66).contains(&told), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_cold_requests_make_one_call() {
    let _alone = crowd().await;
    let broker = Setup { sandbox: generous(), ..Setup::default() }.start().await;
    let answers = all_at_once(&[&broker], 200, MEMBERS).await;
    assert_eq!((different_tokens(&answers), broker.calls().len()), (1, 1));
    let counts = broker.server.counts();
    assert!(counts.instances > 1, "the requests did not arrive at once: {counts:?}");
    assert_eq!(counts.traps, 0, "{}", broker.server.output());
}

/// Sends cold requests at once to a new broker, and prints what they cost the store.
async fn cold_crowd(what: &str, count: usize, setup: Setup) -> Broker {
    let broker = setup.start().await;
    let answers = all_at_once(&[&broker], count, MEMBERS).await;
    let counts = broker.server.counts();
    println!(
        "{count} cold requests, {what}: {} instances, {} get, {} set, {} timers, {} calls",
        counts.instances,
        counts.get,
        counts.set,
        counts.timers,
        broker.calls().len()
    );
    assert_eq!((different_tokens(&answers), broker.calls().len()), (1, 1));
    broker
}

/// An instance for each request, as on Akamai Functions today.
fn without_reuse() -> Reuse {
    Reuse { max_requests: 1, max_concurrent: 1, ..Reuse::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn hundred_cold_requests_in_an_instance_each_make_one_call() {
    let _alone = crowd().await;
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start().await.unwrap();
    for (what, key_value) in [
        ("an instance each, in memory", KeyValue::memory()),
        ("an instance each, SQLite", KeyValue::sqlite(folder.path()).unwrap()),
        ("an instance each, Redis", redis.key_value()),
    ] {
        cold_crowd(what, 100, Setup { key_value, reuse: without_reuse(), sandbox: generous(), ..Setup::default() })
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cold_crowd_in_one_instance_costs_the_store_one_fetch() {
    let _alone = crowd().await;
    let mut setup = Setup::in_one_instance();
    setup.reuse.max_concurrent = 100;
    let broker = cold_crowd("one instance", 100, setup).await;
    let counts = broker.server.counts();
    // Each of the requests reads the token once, and one of them fetches it.
    assert!(counts.store_calls() <= 100 + 20, "{counts:?}");
    // One timer for each request's deadline, and looks at the fetch that become rare.
    assert!(counts.timers <= 100 * 12, "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_cold_requests_cost_the_store_few_operations() {
    let _alone = crowd().await;
    for (count, most_operations, most_timers) in [(100, 1000, 2000), (500, 3000, 6000)] {
        let broker = cold_crowd("many instances", count, Setup { sandbox: generous(), ..Setup::default() }).await;
        let counts = broker.server.counts();
        assert!(counts.store_calls() <= most_operations && counts.timers <= most_timers, "{counts:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hosts_on_one_redis_make_one_call() {
    const ROUNDS: usize = 20;
    let _alone = crowd().await;
    let redis = Redis::start().await.unwrap();
    let setup = Setup { key_value: redis.key_value(), sandbox: generous(), ..Setup::default() };
    let first = setup.start().await;
    let mut calls = Vec::new();
    for _ in 0..ROUNDS {
        // New hosts with empty memory, and an empty store.
        let one = first.beside(redis.key_value()).await;
        let two = first.beside(redis.key_value()).await;
        one.empty_store().await;
        let before = first.calls().len();
        let answers = all_at_once(&[&one, &two], 100, MEMBERS).await;
        let made = first.calls().len() - before;
        assert!((1..=2).contains(&made), "{made} calls");
        assert!(different_tokens(&answers) <= made);
        assert!(
            one.server.counts().instances > 1 && two.server.counts().instances > 1,
            "the requests did not arrive at once"
        );
        calls.push(made);
    }
    let single = calls.iter().filter(|made| **made == 1).count();
    println!("two hosts on one Redis, 100 cold requests each: one call in {single} of {ROUNDS} rounds: {calls:?}");
    assert!(single >= ROUNDS - 1, "one call in {single} of {ROUNDS} rounds only: {calls:?}");
}

#[tokio::test]
async fn sixth_scope_set_in_a_minute_gets_503_with_retry_after() {
    let mut setup = Setup { sandbox: generous(), ..Setup::default() };
    let scopes = setup.with_scopes(7);
    setup.without_door();
    let broker = setup.start().await;
    for scope in &scopes[..5] {
        broker.nightly(scope).await.token();
    }
    let answers =
        [broker.nightly(&scopes[5]).await, broker.nightly(&scopes[6]).await, broker.nightly(&scopes[5]).await];
    answers.iter().for_each(check_told_to_retry);
    // The next call is allowed when the first of the five is a minute old by every clock.
    let told = answers[0].retry_after().unwrap();
    let oldest = broker.calls()[0].at.elapsed().as_secs();
    assert!((63..=66).contains(&(told + oldest)), "{told} s, and the first call was {oldest} s ago");
    // Scope sets with a token are still served. Another host on the same store has the same
    // quota.
    for scope in &scopes[..5] {
        broker.nightly(scope).await.token();
    }
    let other = broker.beside(broker.setup.key_value.clone()).await;
    check_told_to_retry(&other.nightly(&scopes[6]).await);
    other.nightly(&scopes[0]).await.token();
    assert_eq!(broker.calls().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn crowds_for_seven_scope_sets_make_five_calls_and_the_rest_get_503() {
    let _alone = crowd().await;
    let mut setup = Setup { sandbox: generous(), ..Setup::default() };
    let scopes = setup.with_scopes(7);
    setup.without_door();
    let broker = setup.start().await;
    broker.sandbox.answer_always(Upstream::Late(Duration::from_millis(300)));
    let answers =
        futures_util::future::join_all(scopes.iter().map(async |scope| all_at_once(&[&broker], 30, scope).await)).await;
    let mut served = 0;
    for (scope, answers) in scopes.iter().zip(&answers) {
        if answers[0].status == 200 {
            assert_eq!(different_tokens(answers), 1);
            assert!(answers.iter().all(|answer| answer.scope() == *scope));
            served += 1;
        } else {
            answers.iter().for_each(check_told_to_retry);
        }
    }
    assert_eq!((served, broker.calls().len()), (5, 5));
}

#[tokio::test]
async fn failed_calls_count_towards_upstream_calls_per_minute() {
    let mut setup = Setup { sandbox: generous(), ..Setup::default() };
    setup.variables.push(("upstream_calls_per_minute", "2".into()));
    let scopes = setup.with_scopes(3);
    setup.application.scopes.retain(|scope| *scope != scopes[0]);
    let broker = setup.start().await;
    assert_eq!(broker.nightly(&scopes[0]).await.error(), "invalid_scope");
    broker.nightly(&scopes[1]).await.token();
    check_told_to_retry(&broker.nightly(&scopes[2]).await);
    assert_eq!(broker.calls().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn crowd_after_an_outage_gets_tokens_or_retry_after() {
    let _alone = crowd().await;
    let broker = Setup { sandbox: generous(), ..Setup::default() }.start().await;
    broker.sandbox.answer_always(Upstream::json(StatusCode::INTERNAL_SERVER_ERROR, &json!({})));
    let first = broker.nightly(MEMBERS).await;
    check_told_to_retry(&first);

    // OfficeRnD works again, but the pause is still in force.
    broker.sandbox.answer_always(Upstream::Normal);
    let answers = all_at_once(&[&broker], 500, MEMBERS).await;
    let mut wait = first.retry_after().unwrap();
    let mut served = 0;
    for answer in &answers {
        if answer.status == 200 {
            served += 1;
        } else {
            check_told_to_retry(answer);
            wait = wait.max(answer.retry_after().unwrap());
        }
    }
    println!("500 callers while the gate was closed: {served} served, the others told to wait at most {wait} s");
    assert!(broker.calls().len() <= 5, "{} calls", broker.calls().len());

    // All callers wait for the longest Retry-After.
    sleep(Duration::from_secs(wait)).await;
    let answers = all_at_once(&[&broker], 500, MEMBERS).await;
    answers.iter().filter(|answer| answer.status != 200).for_each(check_told_to_retry);
    let served: Vec<_> = answers.iter().filter(|answer| answer.status == 200).cloned().collect();
    let calls = broker.calls();
    println!("500 callers when they had been told to come back: {} served, {} calls in all", served.len(), calls.len());
    assert_eq!(different_tokens(&served), 1);
    assert!(most_in_a_minute(&calls) <= 5, "{} calls", calls.len());
    broker.nightly(MEMBERS).await.token();
    assert_eq!(broker.server.traps(), 0, "{}", broker.server.output());
}

/// Sends ten requests while the store has these faults, and checks that each gets a token and
/// OfficeRnD gets at most `most_calls` calls.
async fn check_served(what: &str, faults: Faults, setup: Setup, most_calls: usize) {
    let broker = Setup { key_value: KeyValue::memory(), ..setup }.start().await;
    broker.set_store_faults(faults);
    for index in 0..10 {
        let answer = broker.nightly(MEMBERS).await;
        assert_eq!(answer.status, 200, "{what}, request {index}: {answer:?}\n{}", broker.server.output());
    }
    let calls = broker.calls().len();
    assert!(calls <= most_calls, "{what}: {calls} calls");
    assert_eq!(broker.server.traps(), 0, "{what}: {}", broker.server.output());
    // After the faults end, the broker uses the store again and writes the missing records.
    broker.set_store_faults(Faults::default());
    broker.nightly(MEMBERS).await.token();
    assert!(broker.calls().len() <= most_calls + 1, "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_or_slow_store_still_serves_tokens() {
    let fail = |fail| Faults { fail, ..Faults::default() };
    let slow = |ms| Faults { delay: Duration::from_millis(ms), ..Faults::default() };
    let one = Setup::in_one_instance;
    tokio::join!(
        check_served("always failing", fail(Fail::Always), one(), 1),
        check_served("failing every second time", fail(Fail::EverySecond), one(), 1),
        check_served("failing every second time, many instances", fail(Fail::EverySecond), Setup::default(), 5),
        check_served("two seconds slow", slow(2000), one(), 1),
        check_served("slow", slow(200), one(), 1),
        check_served("failing slowly", Faults { fail: Fail::Always, ..slow(500) }, one(), 1),
    );
}

#[tokio::test]
async fn instance_without_store_keeps_the_call_quota() {
    let mut setup = Setup { sandbox: generous(), ..Setup::in_one_instance() };
    let scopes = setup.with_scopes(8);
    setup.without_door();
    let broker = setup.start().await;
    broker.set_store_faults(Faults { fail: Fail::Always, ..Faults::default() });
    for (index, scope) in scopes.iter().enumerate() {
        let answer = broker.nightly(scope).await;
        if index < 5 {
            answer.token();
        } else {
            check_told_to_retry(&answer);
        }
    }
    assert_eq!(broker.calls().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn crowd_in_an_instance_without_store_makes_one_call() {
    let _alone = crowd().await;
    let mut setup = Setup { sandbox: generous(), ..Setup::in_one_instance() };
    setup.reuse.max_concurrent = 100;
    let broker = setup.start().await;
    broker.set_store_faults(Faults { fail: Fail::Always, ..Faults::default() });
    let answers = all_at_once(&[&broker], 100, MEMBERS).await;
    assert_eq!((different_tokens(&answers), broker.calls().len()), (1, 1));
}

#[tokio::test]
async fn call_made_without_the_store_counts_for_others_once_it_works() {
    let mut setup = Setup::in_one_instance();
    setup.variables.push(("upstream_calls_per_minute", "1".into()));
    let broker = setup.start().await;
    broker.set_store_faults(Faults { fail: Fail::Always, ..Faults::default() });
    let token = broker.nightly(MEMBERS).await.token();
    broker.set_store_faults(Faults::default());
    eventually("the token is written", || broker.stored().iter().any(|(key, _)| key.starts_with("token."))).await;
    broker.at_rest().await;

    let other = broker.beside(broker.setup.key_value.clone()).await;
    assert_eq!(other.nightly(MEMBERS).await.token(), token);
    check_told_to_retry(&other.nightly(COMPANIES).await);
    assert_eq!(broker.calls().len(), 1);
}

#[tokio::test]
async fn two_identity_hosts_on_one_store_do_not_pause_each_other() {
    let production = Setup::default().start().await;
    let staging = Setup { key_value: production.setup.key_value.clone(), ..Setup::default() }.start().await;
    staging.sandbox.close();
    check_told_to_retry(&staging.nightly(MEMBERS).await);
    production.nightly(MEMBERS).await.token();
}

#[tokio::test]
async fn job_waits_at_most_one_store_operation_while_the_store_never_answers() {
    let broker = Setup::in_one_instance().start().await;
    let token = broker.nightly(MEMBERS).await.token();
    broker.set_store_faults(Faults { delay: Duration::from_secs(600), ..Faults::default() });
    for _ in 0..5 {
        sleep(Duration::from_secs(2)).await;
        let begin = Instant::now();
        assert_eq!(broker.nightly(MEMBERS).await.token(), token);
        let took = begin.elapsed();
        println!("a store that never answers: a token after {took:?}");
        assert!(took < Duration::from_millis(1500), "{took:?}");
    }
    // Without a token, a request goes ahead once the store has done nothing but fail for 2 s.
    let begin = Instant::now();
    broker.nightly(COMPANIES).await.token();
    let took = begin.elapsed();
    println!("a store that never answers: a first token after {took:?}");
    assert!(took < Duration::from_secs(6), "{took:?}");
    assert_eq!(broker.calls().len(), 2);
}

/// Locks the SQLite file of a store as another process would, for this long.
fn lock_exclusively(folder: &Path, lasts: Duration) -> Child {
    const LOCK: &str = "import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute('BEGIN EXCLUSIVE')
print('locked', flush=True)
time.sleep(float(sys.argv[2]))";
    let mut python = Command::new("python3");
    python.args(["-c", LOCK]).arg(folder.join("sqlite_key_value.db")).arg(lasts.as_secs().to_string());
    let mut locker = python.stdout(Stdio::piped()).spawn().expect("python3 is installed");
    let mut line = String::new();
    BufReader::new(locker.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "locked\n");
    locker
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_ends_within_12_s_while_another_process_holds_the_sqlite_file() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup { key_value: KeyValue::sqlite(folder.path()).unwrap(), ..Setup::in_one_instance() };
    let broker = setup.start().await;
    let token = broker.nightly(MEMBERS).await.token();
    // Longer than the instance serves the token without asking the store.
    sleep(Duration::from_millis(2100)).await;
    let mut locker = lock_exclusively(folder.path(), Duration::from_secs(30));
    let begin = Instant::now();
    let ask = async |scope: &str| (broker.nightly(scope).await, begin.elapsed());
    let (known, unknown, again) = tokio::join!(ask(MEMBERS), ask(COMPANIES), ask(MEMBERS));
    println!("a locked SQLite file: {:?}, {:?} and {:?}", known.1, unknown.1, again.1);
    for (answer, took) in [&known, &unknown, &again] {
        assert!(*took < Duration::from_secs(12), "{took:?}: {answer:?}");
    }
    assert_eq!((known.0.token(), again.0.token()), (token.clone(), token));
    unknown.0.token();
    locker.kill().unwrap();
    locker.wait().unwrap();
}

#[tokio::test]
async fn garbage_in_the_store_is_treated_as_absent() {
    let ff = vec![0xff; 64];
    let long = vec![0; 100_000];
    for garbage in [&b""[..], b"\0", b"{\"access_token\":\"x\"}", &ff, &long] {
        let broker = Setup::in_one_instance().start().await;
        let identity = broker.config().identity;
        for key in [lease_key(&identity), ledger_key(&identity), broker.key(MEMBERS)] {
            broker.store(&key, garbage.to_vec()).await;
        }
        let what = format!("{} bytes of garbage", garbage.len());
        let token = broker.nightly(MEMBERS).await.token();
        assert_eq!(broker.calls().len(), 1, "{what}");
        let log = broker.server.output();
        assert!(log.contains("officernd-token-broker: the store contains a"), "{what}: the log has no warning: {log}");
        // The garbage has been overwritten.
        let broker = broker.restart().await;
        assert_eq!(broker.nightly(MEMBERS).await.token(), token, "{what}");
        assert_eq!(broker.calls().len(), 1, "{what}");
    }
}

#[tokio::test]
async fn record_with_broader_scope_than_requested_is_not_served() {
    let broker = Setup::default().start().await;
    let both = format!("{COMPANIES} {MEMBERS}");
    let broader = broker.store_token(&both, Duration::from_secs(3000)).await;
    assert_eq!(broker.nightly(&both).await.token(), broader, "the record is served under its own key");
    let (_, record) = broker.stored().into_iter().find(|(key, _)| *key == broker.key(&both)).unwrap();
    broker.store(&broker.key(MEMBERS), record).await;
    let answer = broker.nightly(MEMBERS).await;
    assert_ne!(answer.token(), broader);
    assert_eq!((answer.scope().as_str(), broker.calls().len()), (MEMBERS, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn lease_of_a_dead_holder_expires() {
    let broker: Broker = Setup::default().start().await;
    broker.sandbox.answer_next(Upstream::hang());
    let dying = broker.beside(broker.setup.key_value.clone()).await;
    let request = tokio::spawn(dying.nightly(MEMBERS));
    tests::eventually("the call of the holder", || broker.calls().len() == 1).await;
    request.abort();
    drop(dying);

    // A request waits at most 12 s for the lease. Then it gets 503 with Retry-After.
    let mut answer = broker.nightly(MEMBERS).await;
    if answer.status != 200 {
        check_told_to_retry(&answer);
        sleep(Duration::from_secs(answer.retry_after().unwrap())).await;
        answer = broker.nightly(MEMBERS).await;
    }
    answer.token();
    assert_eq!(broker.calls().len(), 2);
}
