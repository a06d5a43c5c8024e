//! Variables that are slow, crowded, wrong or gone.

use std::time::Duration;

use broker_host::{Beyond, VariableFaults};
use serde_json::Value;
use tests::{Answer, Broker, Caller, MEMBERS, RESOURCES, Setup, all_at_once, crowd};
use tokio::time::sleep;

use super::{Row, check, check_sound, in_words, many_instances, one_instance, readiness, summary, timed};

/// Longer than an instance keeps its configuration.
const NOT_REMEMBERED: Duration = Duration::from_secs(11);

async fn each_variable_takes_210_ms() -> Row {
    let broker = many_instances().start().await;
    broker.variables.set_faults(VariableFaults { delay: Duration::from_millis(210), ..VariableFaults::default() });
    let (answer, slowest) = timed(broker.nightly(MEMBERS)).await;
    check_sound(&broker);
    Row {
        fault: "the provider takes 210 ms for each variable",
        saw: in_words(&answer),
        calls: broker.calls().len().into(),
        at_most: 1.0,
        slowest,
    }
}

/// Sends requests at once to a broker whose provider has these faults.
async fn crowd_of(count: usize, faults: VariableFaults) -> (Broker, Vec<Answer>, Duration) {
    let broker = many_instances().start().await;
    broker.variables.set_faults(faults);
    let (answers, slowest) = timed(all_at_once(&[&broker], count, MEMBERS)).await;
    let counts = broker.server.counts();
    println!("{count} requests: {} reads of variables by {} instances", counts.variables, counts.instances);
    check_sound(&broker);
    (broker, answers, slowest)
}

async fn crowd_and_200_reads_a_second() -> Row {
    let delay = Duration::from_millis(1);
    let faults = VariableFaults { delay, reads_per_second: Some(200), ..VariableFaults::default() };
    let (broker, answers, slowest) = crowd_of(300, faults).await;
    Row {
        fault: "300 requests at once, and the provider answers 200 reads a second",
        saw: summary(&answers),
        calls: broker.calls().len().into(),
        at_most: 12.0,
        slowest,
    }
}

async fn crowd_and_four_reads_at_once() -> Row {
    let delay = Duration::from_millis(10);
    let faults = VariableFaults { delay, reads_at_once: Some(4), ..VariableFaults::default() };
    let (broker, answers, slowest) = crowd_of(100, faults).await;
    Row {
        fault: "100 requests at once, and the provider takes 10 ms and answers four reads at a time",
        saw: summary(&answers),
        calls: broker.calls().len().into(),
        at_most: 12.0,
        slowest,
    }
}

/// The requests that are refused come back when they have been told.
async fn crowd_and_refused_reads() -> Row {
    let broker = many_instances().start().await;
    let faults = VariableFaults { reads_per_second: Some(200), beyond: Beyond::Fails, ..VariableFaults::default() };
    broker.variables.set_faults(faults);
    let (mut waiting, mut slowest, mut rounds) = (100, Duration::ZERO, 0);
    while waiting > 0 {
        let (answers, took) = timed(all_at_once(&[&broker], waiting, MEMBERS)).await;
        println!("100 requests and a provider that refuses reads: {}", summary(&answers));
        let refused: Vec<_> = answers.iter().filter(|answer| answer.status != 200).collect();
        for answer in &refused {
            assert_eq!((in_words(answer).as_str(), answer.retry_after()), ("503 `temporarily_unavailable`", Some(1)));
        }
        (waiting, slowest, rounds) = (refused.len(), slowest.max(took), rounds + 1);
        assert!(rounds < 10, "{waiting} requests are never served");
        sleep(Duration::from_secs(1)).await;
    }
    check_sound(&broker);
    Row {
        fault: "100 requests at once, and the provider refuses more than 200 reads a second",
        saw: "200, or 503 `temporarily_unavailable` and later 200".into(),
        calls: broker.calls().len().into(),
        at_most: 6.0,
        slowest,
    }
}

/// Three callers with a token each, and then live variables with this policy.
async fn policy_becomes(change: impl Fn(&Broker, &mut Value) -> String) -> (Broker, [(Answer, Duration); 3], String) {
    let mut setup = one_instance();
    let third = Caller { scopes: vec![RESOURCES.into()], ..Caller::new("third", &[]) };
    let mut policy = setup.policy();
    let with_third = Setup { door: third.clone(), ..setup.clone() }.policy();
    policy[&third.name] = with_third[&third.name].clone();
    setup.variables.push(("callers", policy.to_string()));
    let broker = setup.start().await;
    let callers = [broker.setup.nightly.clone(), third, broker.setup.door.clone()];
    for caller in &callers {
        broker.token(caller, None).await.token();
    }
    broker.variables.set("callers", change(&broker, &mut policy));
    broker.setup.clock.set_ahead(NOT_REMEMBERED);
    let [one, two, three] = callers.each_ref().map(|caller| timed(broker.token(caller, None)));
    let answers = [one.await, two.await, three.await];
    let ready = readiness(&broker).await;
    check_sound(&broker);
    (broker, answers, ready)
}

async fn mistake_in_one_of_three_callers() -> Row {
    let change = |broker: &Broker, policy: &mut Value| {
        let entry = policy[&broker.setup.door.name].as_object_mut().unwrap();
        let scopes = entry.remove("scopes").unwrap();
        entry.insert("scope".to_owned(), scopes);
        policy.to_string()
    };
    let (broker, answers, ready) = policy_becomes(change).await;
    let log = broker.server.output();
    assert!(log.contains(&format!("{}.scope: is unknown", broker.setup.door.name)), "{log}");
    let [(one, _), (two, _), (wrong, _)] = &answers;
    Row {
        fault: "live variables get `scope` for `scopes` in one of three callers",
        saw: format!("that caller {}, the others {}; `/readyz` {ready}", in_words(wrong), same_words([one, two])),
        calls: (broker.calls().len() - 2).into(),
        at_most: 1.0,
        slowest: answers.iter().map(|(_, took)| *took).max().unwrap(),
    }
}

fn same_words<const N: usize>(answers: [&Answer; N]) -> String {
    let words = answers.map(in_words);
    assert!(words.iter().all(|other| *other == words[0]), "{words:?}");
    words[0].clone()
}

async fn policy_is_no_json_any_more() -> Row {
    let (broker, answers, ready) = policy_becomes(|_, _| "{…},}".into()).await;
    let log = broker.server.output();
    assert!(log.contains("the last good configuration stays in use"), "{log}");
    let [one, two, three] = answers.each_ref().map(|(answer, _)| answer);
    Row {
        fault: "the policy in live variables is no JSON any more",
        saw: format!("{}; `/readyz` {ready}", same_words([one, two, three])),
        calls: (broker.calls().len() - 2).into(),
        at_most: 1.0,
        slowest: answers.iter().map(|(_, took)| *took).max().unwrap(),
    }
}

async fn provider_is_gone_for_an_hour() -> Row {
    let broker = one_instance().start().await;
    broker.nightly(MEMBERS).await.token();
    broker.variables.fail(true);
    let mut answers = Vec::new();
    for minutes in [6, 59, 61] {
        broker.setup.clock.set_ahead(Duration::from_secs(minutes * 60));
        // A renewal after an answer ends, and a failed read is forgotten.
        sleep(Duration::from_millis(1100)).await;
        answers.push(timed(broker.nightly(MEMBERS)).await);
    }
    check_sound(&broker);
    let [soon, late, later] = [0, 1, 2].map(|index| &answers[index].0);
    assert!(later.retry_after().is_some());
    Row {
        fault: "the provider is gone for an hour",
        saw: format!("{} in the first hour, then {}", same_words([soon, late]), in_words(later)),
        calls: (broker.calls().len() - 1).into(),
        at_most: 2.5,
        slowest: answers.iter().map(|(_, took)| *took).max().unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_that_are_slow_crowded_wrong_or_gone_get_the_answers_of_faults_md() {
    let mut rows = Vec::new();
    {
        let _alone = crowd().await;
        rows.push(each_variable_takes_210_ms().await);
        rows.push(crowd_and_200_reads_a_second().await);
        rows.push(crowd_and_four_reads_at_once().await);
        rows.push(crowd_and_refused_reads().await);
    }
    let others =
        tokio::join!(mistake_in_one_of_three_callers(), policy_is_no_json_any_more(), provider_is_gone_for_an_hour());
    rows.extend(<[Row; 3]>::from(others));
    check("Slow, crowded, wrong or missing variables", &rows, &[]);
}
