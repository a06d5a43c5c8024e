//! Faults beneath the broker: variables, store, clocks and instances are slow, crowded, wrong or
//! gone, as they are in Spin. docs/faults.md has what callers must see, and how soon.

mod applications;
mod clocks;
mod instances;
mod revocations;
mod share;
mod stores;
mod variables;

use std::fmt;
use std::time::{Duration, Instant};

use broker_host::sandbox::Config;
use http::Method;
use tests::{Answer, Broker, Setup, read};

/// A fault, and what was measured: one row of the page.
struct Row {
    fault: &'static str,
    /// The answers, in words.
    saw: String,
    /// How many calls left for OfficeRnD while the fault lasted.
    calls: Calls,
    /// Longest time that an answer may take, in seconds.
    at_most: f64,
    slowest: Duration,
}

/// A number of calls.
#[derive(Clone, Copy)]
enum Calls {
    Exactly(usize),
    /// At most five, which depends on the number of instances.
    AtMostFive,
    /// At most five in any minute, over more than an hour.
    AtMostFiveAMinute,
}

impl From<usize> for Calls {
    fn from(calls: usize) -> Self {
        Self::Exactly(calls)
    }
}

impl fmt::Display for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(calls) => write!(f, "{calls}"),
            Self::AtMostFive => f.write_str("at most 5"),
            Self::AtMostFiveAMinute => f.write_str("at most 5 a minute"),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fault, saw, calls, at_most, slowest } = self;
        write!(f, "| {fault} | {saw} | {calls} | {at_most} s | {:.1} s |", slowest.as_secs_f64())
    }
}

/// Compares the rows of a section with the page, except the last column. `unmeasured` are the
/// faults in it that no test can show.
fn check(section: &str, rows: &[Row], unmeasured: &[&str]) {
    println!("### {section}");
    rows.iter().for_each(|row| println!("{row}"));
    let page = read("docs/faults.md");
    let section = page.split(&format!("\n### {section}\n")).nth(1).expect("the page has the section");
    let section = section.split("\n#").next().expect("a split has a first part");
    let written = section.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| fault "));
    let written: Vec<Vec<&str>> =
        written.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect();
    let faults: Vec<_> = written.iter().map(|cells| cells[0]).filter(|fault| !unmeasured.contains(fault)).collect();
    assert_eq!(faults, rows.iter().map(|row| row.fault).collect::<Vec<_>>(), "docs/faults.md has other rows");
    for row in rows {
        let cells = written.iter().find(|cells| cells[0] == row.fault).expect("compared above");
        let measured = [row.saw.clone(), row.calls.to_string(), format!("{} s", row.at_most)];
        assert_eq!(measured, cells[1..4], "docs/faults.md has {cells:?}, and this is {row}");
        assert!(row.slowest.as_secs_f64() < row.at_most, "too slow: {row}");
    }
}

fn in_words(answer: &Answer) -> String {
    match answer.status {
        200 => "200".into(),
        status if answer.body.is_empty() => format!("{status}, empty"),
        status => format!("{status} `{}`", answer.error()),
    }
}

/// The answers in words; equal ones are counted.
fn summary<'a>(answers: impl IntoIterator<Item = &'a Answer>) -> String {
    let mut counts: Vec<(String, usize)> = Vec::new();
    for answer in answers {
        let words = in_words(answer);
        match counts.iter_mut().find(|(known, _)| *known == words) {
            Some((_, count)) => *count += 1,
            None => counts.push((words, 1)),
        }
    }
    let in_words = |(words, count): &(String, usize)| match count {
        1 => words.clone(),
        count => format!("{count} × {words}"),
    };
    counts.iter().map(in_words).collect::<Vec<_>>().join(", ")
}

/// What `/readyz` says, in words.
async fn readiness(broker: &Broker) -> String {
    let answer = broker.fetch(Method::GET, "/readyz").await;
    match answer.json()["problem"].as_str() {
        None => answer.status.to_string(),
        Some(problem) => format!("{} `{problem}`", answer.status),
    }
}

/// Waits for an answer, and says how long it took.
async fn timed<T>(answer: impl Future<Output = T>) -> (T, Duration) {
    let begin = Instant::now();
    (answer.await, begin.elapsed())
}

/// One instance, which is kept while no request arrives, and a sandbox that accepts every call, so
/// that only the broker keeps the call quota.
fn one_instance() -> Setup {
    Setup { sandbox: generous(), ..Setup::in_one_instance() }
}

/// As many instances as Spin starts, and such a sandbox.
fn many_instances() -> Setup {
    Setup { sandbox: generous(), ..Setup::default() }
}

fn generous() -> Config {
    Config { calls_per_minute: 1000, ..Config::default() }
}

#[track_caller]
fn check_sound(broker: &Broker) {
    assert_eq!(broker.server.traps(), 0, "{}", broker.server.output());
}
