//! Clocks of two hosts that differ.

use std::time::{Duration, Instant, SystemTime};

use broker_host::Clock;
use broker_host::sandbox::Answer as Upstream;
use officernd_token_broker::gate::{CallerTag, Ledger, ledger_key};
use officernd_token_broker::time::Timestamp;
use tests::{Answer, Broker, Setup, most_in_a_minute};
use tokio::time::sleep;

use super::{Row, check, check_sound, in_words, many_instances, summary, timed};

/// Two hosts on one store, the second with a clock that is this far ahead, and scopes for them.
async fn two_hosts(ahead: Duration) -> (Broker, Broker, Vec<String>) {
    let mut setup = many_instances();
    let scopes = setup.with_scopes(7);
    setup.without_door();
    let right = setup.start().await;
    let fast = right.beside_as(Setup { clock: Clock::ahead(ahead), ..right.setup.clone() }).await;
    (right, fast, scopes)
}

/// Requests seven scope sets of two hosts in turn, and then checks that the time they are told
/// lasts until the first call is a minute old.
async fn clocks_differ_by_4_s() -> Row {
    let (right, fast, scopes) = two_hosts(Duration::from_secs(4)).await;
    let mut answers: Vec<(Answer, Duration)> = Vec::new();
    for (index, scope) in scopes.iter().enumerate() {
        let host = if index % 2 == 0 { &right } else { &fast };
        answers.push(timed(host.nightly(scope)).await);
    }
    let calls = right.calls();
    for host in [&right, &fast] {
        let told = host.nightly(&scopes[6]).await.retry_after().expect("the call quota is used up");
        let oldest = calls[0].at.elapsed().as_secs();
        assert!((60..=80).contains(&(told + oldest)), "told to wait {told} s, and the first call was {oldest} s ago");
    }
    for host in [&right, &fast] {
        check_sound(host);
        let log = host.server.output();
        assert!(!log.contains("clock"), "{log}");
    }
    Row {
        fault: "the clocks of two hosts differ by 4 s, and seven scope sets are requested",
        saw: summary(answers.iter().map(|(answer, _)| answer)),
        calls: calls.len().into(),
        at_most: 1.0,
        slowest: answers.iter().map(|(_, took)| *took).max().unwrap(),
    }
}

/// One host has made five calls, and the other one, whose clock is ahead, makes the sixth as soon
/// as it may.
async fn sixth_call_by_a_fast_clock() -> Row {
    const AGE: Duration = Duration::from_secs(55);
    let (right, fast, scopes) = two_hosts(Duration::from_secs(4)).await;
    let config = right.config();
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
    let called_at = Timestamp::from_unix_ms(now - AGE.as_millis() as u64);
    let begin = Instant::now();
    let mut ledger = Ledger::default();
    for random in 0..5 {
        let reservation = ledger.reserve(called_at, CallerTag(1), "default", random);
        ledger.settle_success(reservation, called_at, &config.applications[0].current.fingerprint);
    }
    right.store(&ledger_key(&config.identity), ledger.encode()).await;
    let mut answers = vec![timed(fast.nightly(&scopes[0])).await];
    while let Some(told) = answers.last().and_then(|(answer, _)| answer.retry_after()) {
        sleep(Duration::from_secs(told)).await;
        answers.push(timed(fast.nightly(&scopes[0])).await);
    }
    let [call] = &right.calls()[..] else { panic!("one call") };
    let age = AGE + call.at.duration_since(begin);
    println!("a sixth call {age:?} after the fifth by a clock that is 4 s ahead");
    assert!((Duration::from_secs(60)..Duration::from_secs(64)).contains(&age), "{age:?}");
    let [(told, _), .., (served, _)] = &answers[..] else { panic!("{answers:?}") };
    Row {
        fault: "five calls were made 55 s ago, and a host whose clock is 4 s ahead asks again as told",
        saw: format!("{}, then {}", in_words(told), in_words(served)),
        calls: 1.into(),
        at_most: 1.0,
        slowest: answers.iter().map(|(_, took)| *took).max().unwrap(),
    }
}

/// A call that lasts almost as long as it may, while the other host, whose clock is ahead, wants
/// the lease.
async fn lease_holds_between_clocks() -> Row {
    const CALL: Duration = Duration::from_millis(7500);
    let (right, fast, scopes) = two_hosts(Duration::from_secs(4)).await;
    right.sandbox.answer_next(Upstream::Late(CALL));
    let second = async {
        tests::eventually("the first call", || right.calls().len() == 1).await;
        timed(fast.nightly(&scopes[1])).await
    };
    let (first, second) = tokio::join!(timed(right.nightly(&scopes[0])), second);
    let [one, two] = &right.calls()[..] else { panic!("two calls") };
    let apart = two.at.duration_since(one.at);
    assert!(apart >= CALL, "a call {apart:?} after the begin of another that takes {CALL:?}");
    Row {
        fault: "a call takes 7.5 s while a host whose clock is 4 s ahead wants to call",
        saw: summary([&first.0, &second.0]),
        calls: 2.into(),
        at_most: 12.0,
        slowest: first.1.max(second.1),
    }
}

async fn clocks_differ_by_20_s() -> Row {
    let (right, fast, scopes) = two_hosts(Duration::from_secs(20)).await;
    let (one, took_one) = timed(fast.nightly(&scopes[0])).await;
    fast.at_rest().await;
    let (two, took_two) = timed(right.nightly(&scopes[1])).await;
    let log = right.server.output();
    let warnings = log.lines().filter(|line| line.contains("clock that is more than 5 s ahead")).count();
    assert!(most_in_a_minute(&right.calls()) <= 5);
    Row {
        fault: "the clocks of two hosts differ by 20 s",
        saw: format!("{}, and {warnings} warning on stderr", summary([&one, &two])),
        calls: right.calls().len().into(),
        at_most: 1.0,
        slowest: took_one.max(took_two),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_whose_clocks_differ_get_the_answers_of_faults_md() {
    let rows = tokio::join!(
        clocks_differ_by_4_s(),
        sixth_call_by_a_fast_clock(),
        lease_holds_between_clocks(),
        clocks_differ_by_20_s(),
    );
    check("Clocks that differ", &<[Row; 4]>::from(rows), &[]);
}
