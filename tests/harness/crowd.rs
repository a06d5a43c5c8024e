//! Many requests at the same moment.

use broker_host::sandbox::Call;
use tokio::sync::{Mutex, MutexGuard};

use crate::answer::Answer;
use crate::broker::Broker;

/// One crowd at a time: how two of them share the processors is not what a test is about. Held for as long as a crowd is
/// tested.
pub async fn crowd() -> MutexGuard<'static, ()> {
    static CROWD: Mutex<()> = Mutex::const_new(());
    let guard = CROWD.lock().await;
    allow_open_files();
    guard
}

/// Two sockets a request are in this process: 500 requests are more than many shells allow.
fn allow_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("a limit can be raised to its maximum");
}

/// So many requests at once for `scope` by the caller `nightly`, to each of the brokers.
pub async fn all_at_once(brokers: &[&Broker], count: usize, scope: &str) -> Vec<Answer> {
    let mut requests = Vec::new();
    for _ in 0..count {
        requests.extend(brokers.iter().map(|broker| tokio::spawn(broker.nightly(scope))));
    }
    let mut answers = Vec::new();
    for request in requests {
        answers.push(request.await.expect("a request does not panic"));
    }
    answers
}

/// How many different tokens there are in answers that each have one.
#[track_caller]
pub fn different_tokens(answers: &[Answer]) -> usize {
    let mut tokens: Vec<_> = answers.iter().map(Answer::token).collect();
    tokens.sort();
    tokens.dedup();
    tokens.len()
}

/// The most calls in any 60 s, from `calls` in the order of their time.
pub fn most_in_a_minute(calls: &[Call]) -> usize {
    let in_window = |(index, first): (usize, &Call)| {
        calls[index..].iter().filter(|call| call.at.duration_since(first.at).as_secs() < 60).count()
    };
    calls.iter().enumerate().map(in_window).max().unwrap_or(0)
}
