//! Crowds: many requests at the same moment.

use broker_host::sandbox::Call;
use tokio::sync::{Mutex, MutexGuard};

use crate::answer::Answer;
use crate::broker::Broker;

/// Waits until no other test runs a crowd, and keeps others waiting until the guard is dropped.
/// Two crowds at once would compete for the processors, and each would see waits that are not
/// the broker's.
pub async fn crowd() -> MutexGuard<'static, ()> {
    static CROWD: Mutex<()> = Mutex::const_new(());
    let guard = CROWD.lock().await;
    allow_open_files();
    guard
}

/// Raises the limit of open files: 500 requests need two sockets each in this process, which is
/// more than many shells allow.
fn allow_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("a limit can be raised to its maximum");
}

/// Sends `count` requests at once to each of the brokers, for `scope` as the caller `nightly`.
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

/// Counts the different tokens of answers that each have one.
#[track_caller]
pub fn different_tokens(answers: &[Answer]) -> usize {
    let mut tokens: Vec<_> = answers.iter().map(Answer::token).collect();
    tokens.sort();
    tokens.dedup();
    tokens.len()
}

/// Returns the largest number of calls in any 60 s. `calls` must be in the order of their
/// times.
pub fn most_in_a_minute(calls: &[Call]) -> usize {
    let in_window = |(index, first): (usize, &Call)| {
        calls[index..].iter().filter(|call| call.at.duration_since(first.at).as_secs() < 60).count()
    };
    calls.iter().enumerate().map(in_window).max().unwrap_or(0)
}
