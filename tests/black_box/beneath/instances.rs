//! Instances that live for one request, or for longer than Spin's second.

use std::time::Duration;

use broker_host::{Fail, Faults, KeyValue, Reuse};
use tests::{MEMBERS, Redis, Setup, all_at_once, crowd};
use tokio::time::sleep;

use super::{Row, check, check_sound, in_words, many_instances, summary, timed};

/// A crowd of cold requests, each in an instance of its own, as on Akamai Functions today.
async fn crowd_without_reuse(fault: &'static str, key_value: KeyValue, faults: Faults, at_most: f64) -> Row {
    let reuse = Reuse { max_requests: 1, max_concurrent: 1, ..Reuse::default() };
    let broker = Setup { key_value, reuse, ..many_instances() }.start().await;
    broker.set_store_faults(faults);
    let (answers, slowest) = timed(all_at_once(&[&broker], 100, MEMBERS)).await;
    let counts = broker.server.counts();
    println!("{fault}: {} instances, {} store operations", counts.instances, counts.store_calls());
    assert!(counts.instances >= 100);
    check_sound(&broker);
    Row { fault, saw: summary(&answers), calls: broker.calls().len().into(), at_most, slowest }
}

/// A job that asks again after 3 s. Returns the broker's row.
async fn job_asks_again_after_3_s(fault: &'static str, idle: Duration) -> Row {
    let setup = many_instances();
    let broker = Setup { reuse: Reuse { idle, ..setup.reuse }, ..setup }.start().await;
    let token = broker.nightly(MEMBERS).await.token();
    broker.at_rest().await;
    let before = broker.server.counts();
    sleep(Duration::from_secs(3)).await;
    let (answer, slowest) = timed(broker.nightly(MEMBERS)).await;
    assert_eq!(answer.token(), token);
    let after = broker.server.counts();
    let (variables, instances) = (after.variables - before.variables, after.instances - before.instances);
    let instance = if instances == 0 { "the same instance" } else { "a new instance" };
    check_sound(&broker);
    Row {
        fault,
        saw: format!("{} from {instance}, which reads {variables} variables", in_words(&answer)),
        calls: (broker.calls().len() - 1).into(),
        at_most: 1.0,
        slowest,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_that_live_briefly_or_long_get_the_answers_of_faults_md() {
    let (folder, redis) = (tempfile::tempdir().unwrap(), Redis::start().await.unwrap());
    let (sqlite, memory) = (KeyValue::sqlite(folder.path()).unwrap(), KeyValue::memory());
    let failing = Faults { fail: Fail::Always, ..Faults::default() };
    let mut rows = Vec::new();
    {
        let _alone = crowd().await;
        let none = Faults::default();
        let what = "100 cold requests at once, each in an instance of its own, with SQLite";
        rows.push(crowd_without_reuse(what, sqlite, none, 6.0).await);
        let what = "100 cold requests at once, each in an instance of its own, with Redis";
        rows.push(crowd_without_reuse(what, redis.key_value(), none, 6.0).await);
        let what = "100 cold requests at once, each in an instance of its own, and the store fails";
        rows.push(crowd_without_reuse(what, memory, failing, 6.0).await);
    }
    let idle = Duration::from_secs;
    let (short, long) = tokio::join!(
        job_asks_again_after_3_s("a job asks again after 3 s, and the host retires an instance after 1 s", idle(1)),
        job_asks_again_after_3_s("a job asks again after 3 s, and the host keeps an instance for longer", idle(60)),
    );
    rows.extend([short, long]);
    check("Instances that live briefly or long", &rows, &[]);
}
