//! A caller that keeps asking for new scope sets, and another one beside it.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use tests::{Answer, Broker, Setup};

use super::{Row, check, check_sound, many_instances, one_instance, summary, timed};

type Timed = (Answer, Duration);

fn row(fault: &'static str, broker: &Broker, answers: &[Timed]) -> Row {
    check_sound(broker);
    let slowest = answers.iter().map(|(_, took)| *took).max().expect("answers");
    let saw = summary(answers.iter().map(|(answer, _)| answer));
    Row { fault, saw, calls: broker.calls().len().into(), at_most: 1.0, slowest }
}

/// A broker whose caller `nightly` may have more scopes than the quota has calls. The caller `door`
/// may have the last three of them as well.
async fn start(mut setup: Setup) -> (Broker, Vec<String>) {
    let scopes = setup.with_scopes(8);
    setup.door.scopes.extend(scopes[5..].iter().cloned());
    (setup.start().await, scopes)
}

async fn one_after_the_other() -> [Row; 2] {
    let (broker, scopes) = start(many_instances()).await;
    let mut greedy = Vec::new();
    for scope in &scopes[..5] {
        greedy.push(timed(broker.nightly(scope)).await);
    }
    let first = row("a job asks for five scope sets, and the policy has another caller", &broker, &greedy);
    let told = greedy[3].0.retry_after().expect("the share is used up");
    let oldest = broker.calls()[0].at.elapsed().as_secs();
    assert!((63..=66).contains(&(told + oldest)), "told {told} s, and the first call was {oldest} s ago");
    let log = broker.server.output();
    let is_refusal = |line: &Value| line["reason"] == "share_used_up" && line["caller"] == *broker.setup.nightly.name;
    let lines = log.lines().filter_map(|line| serde_json::from_str(line).ok());
    assert_eq!(lines.filter(is_refusal).count(), 2, "{log}");
    let mut others = Vec::new();
    for scope in &scopes[5..] {
        others.push(timed(broker.token(&broker.setup.door, Some(scope))).await);
    }
    (first, row("another job then asks for three", &broker, &others)).into()
}

/// Both jobs want the same token at once, and one of them has used up its share.
async fn together() -> Row {
    let (broker, scopes) = start(one_instance()).await;
    for scope in &scopes[..3] {
        broker.nightly(scope).await.token();
    }
    let scope = Some(scopes[5].as_str());
    let callers = [&broker.setup.nightly, &broker.setup.door];
    let answers = join_all(callers.map(|caller| timed(broker.token(caller, scope)))).await;
    answers[1].0.token();
    row("a job without a share, and another job, ask for the same token at once", &broker, &answers[1..])
}

#[tokio::test(flavor = "multi_thread")]
async fn one_job_leaves_two_calls_of_a_minute_to_others_as_faults_md_says() {
    let ([first, second], third) = tokio::join!(one_after_the_other(), together());
    check("A job that keeps asking for new scope sets", &[first, second, third], &[]);
}
