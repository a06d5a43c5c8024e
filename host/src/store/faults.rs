//! Faults of a store on request, for the calls that components make.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};

/// Faults of the calls that a component makes to the store.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Which calls fail, with the error `other`.
    pub fail: Fail,
    /// Delay added to each call.
    pub delay: Duration,
    /// Number of calls that succeed without delay before the faults begin.
    pub spared: u64,
    /// Most operations in any second; each further one fails immediately. Opening the store is
    /// no operation. `None` is no limit.
    pub operations_per_second: Option<usize>,
    /// Most writes in any second, as on Akamai Functions; each further one fails immediately.
    pub writes_per_second: Option<usize>,
    /// Most operations at the same time; each further one fails immediately, as in Spin with a
    /// limit in its runtime configuration and no time to wait for it.
    pub operations_at_once: Option<usize>,
    /// Whether keys are refused that Spin refuses for Cosmos DB.
    pub refuses_keys_of_cosmos_db: bool,
}

/// Which calls fail.
#[derive(Clone, Copy, Debug, Default)]
pub enum Fail {
    /// No call fails.
    #[default]
    Never,
    /// Every call fails.
    Always,
    /// Every second call fails, beginning with the second one.
    EverySecond,
    /// Every operation that only reads fails.
    Reads,
    /// Every operation that writes fails, as with a full Redis or a replica.
    Writes,
}

/// A call of a component to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call<'a> {
    /// Opening the store.
    Open,
    /// An operation that only reads.
    Read {
        /// Key, unless the operation lists all.
        key: Option<&'a str>,
    },
    /// An operation that writes.
    Write {
        /// Key that is written or deleted.
        key: &'a str,
    },
}

/// Present faults of a store, and the calls since they were set. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Present(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    faults: Faults,
    calls: u64,
    /// Begin of each operation and of each write that counts towards a limit, oldest first.
    operations: VecDeque<Instant>,
    writes: VecDeque<Instant>,
    /// Operations that have begun and not ended, and the setting of faults that they belong to.
    running: Arc<()>,
}

/// A call that has begun. It counts as running until this is dropped.
#[must_use]
pub(crate) struct Running {
    _count: Option<Arc<()>>,
}

impl Present {
    pub(super) fn set(&self, faults: Faults) {
        *self.state() = State { faults, ..State::default() };
    }

    /// Applies the faults to a call that begins.
    pub(super) async fn apply(&self, call: Call<'_>) -> anyhow::Result<Running> {
        let (running, delay, outcome) = self.state().begin(call, Instant::now());
        // A timer has a granularity of 1 ms, so even a delay of zero would cost that much.
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        outcome.map(|()| running)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while it holds the faults")
    }
}

impl State {
    /// Counts a call. Returns how long it is delayed, and whether it then fails.
    fn begin(&mut self, call: Call<'_>, now: Instant) -> (Running, Duration, anyhow::Result<()>) {
        let running = Running { _count: (call != Call::Open).then(|| self.running.clone()) };
        self.calls += 1;
        if self.calls <= self.faults.spared {
            return (running, Duration::ZERO, Ok(()));
        }
        match self.check_limits(call, now) {
            // A store refuses what is too much without further work.
            Err(error) => (running, Duration::ZERO, Err(error)),
            Ok(()) => (running, self.faults.delay, self.check_call(call)),
        }
    }

    fn check_limits(&mut self, call: Call<'_>, now: Instant) -> anyhow::Result<()> {
        let (is_operation, is_write) = (call != Call::Open, matches!(call, Call::Write { .. }));
        let faults = self.faults;
        // This call is counted, and so is the state itself.
        let is_crowded = faults.operations_at_once.is_some_and(|most| Arc::strong_count(&self.running) > most + 1);
        let is_refused = is_operation
            && (is_crowded || !admits(&mut self.operations, faults.operations_per_second, now))
            || is_write && !admits(&mut self.writes, faults.writes_per_second, now);
        ensure!(!is_refused, "too many requests");
        Ok(())
    }

    fn check_call(&self, call: Call<'_>) -> anyhow::Result<()> {
        let fails = match self.faults.fail {
            Fail::Never => false,
            Fail::Always => true,
            Fail::EverySecond => self.calls.is_multiple_of(2),
            Fail::Reads => matches!(call, Call::Read { .. }),
            Fail::Writes => matches!(call, Call::Write { .. }),
        };
        ensure!(!fails, "the key-value store is unavailable");
        let (Call::Read { key: Some(key) } | Call::Write { key }) = call else { return Ok(()) };
        if self.faults.refuses_keys_of_cosmos_db && key.contains(['/', '\\', '?', '#']) {
            bail!("the key {key:?} contains a character that Cosmos DB refuses");
        }
        Ok(())
    }
}

/// Whether a second that ends now has room for one more; if so, counts it.
fn admits(begun: &mut VecDeque<Instant>, most: Option<usize>, now: Instant) -> bool {
    let Some(most) = most else { return true };
    while begun.front().is_some_and(|first| now.duration_since(*first) >= Duration::from_secs(1)) {
        begun.pop_front();
    }
    let has_room = begun.len() < most;
    if has_room {
        begun.push_back(now);
    }
    has_room
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Call<'_> = Call::Read { key: Some("token.2.a") };
    const WRITE: Call<'_> = Call::Write { key: "token.2.a" };

    fn state(faults: Faults) -> State {
        State { faults, ..State::default() }
    }

    /// Whether each of the calls succeeds, all at once or each after the end of the previous one.
    fn outcomes(faults: Faults, calls: &[Call<'_>], at_once: bool) -> Vec<bool> {
        let (mut state, now) = (state(faults), Instant::now());
        let mut running = Vec::new();
        let begin = |call: &Call<'_>| {
            let (call, _, outcome) = state.begin(*call, now);
            if at_once && outcome.is_ok() {
                running.push(call);
            }
            outcome.is_ok()
        };
        calls.iter().map(begin).collect()
    }

    #[test]
    fn chosen_calls_fail_after_the_spared_ones() {
        let calls = [READ, WRITE, READ, WRITE, Call::Open];
        for (fail, expected) in [
            (Fail::Never, [true; 5]),
            (Fail::Always, [false; 5]),
            (Fail::EverySecond, [true, false, true, false, true]),
            (Fail::Reads, [false, true, false, true, true]),
            (Fail::Writes, [true, false, true, false, true]),
        ] {
            assert_eq!(outcomes(Faults { fail, ..Faults::default() }, &calls, true), expected, "{fail:?}");
        }
        let faults = Faults { fail: Fail::Always, spared: 2, ..Faults::default() };
        assert_eq!(outcomes(faults, &calls, true), [true, true, false, false, false]);
    }

    #[test]
    fn calls_beyond_a_limit_fail_immediately() {
        let faults = Faults { delay: Duration::from_secs(1), ..Faults::default() };
        let calls = [READ, WRITE, Call::Open, WRITE, WRITE, READ];
        let check = |faults, at_once, expected: [bool; 6]| {
            assert_eq!(outcomes(faults, &calls, at_once), expected, "{faults:?}");
        };
        check(Faults { operations_per_second: Some(3), ..faults }, false, [true, true, true, true, false, false]);
        check(Faults { writes_per_second: Some(2), ..faults }, false, [true, true, true, true, false, true]);
        check(Faults { operations_at_once: Some(2), ..faults }, true, [true, true, true, false, false, false]);
        check(Faults { operations_at_once: Some(2), ..faults }, false, [true; 6]);

        let (mut state, now) = (state(Faults { writes_per_second: Some(1), ..faults }), Instant::now());
        let mut begin = |ms| state.begin(WRITE, now + Duration::from_millis(ms));
        assert!(begin(0).2.is_ok());
        let (_, delay, outcome) = begin(999);
        assert_eq!((delay, outcome.unwrap_err().to_string().as_str()), (Duration::ZERO, "too many requests"));
        assert!(begin(1000).2.is_ok());
    }

    #[test]
    fn keys_of_cosmos_db_have_no_slash() {
        let faults = Faults { refuses_keys_of_cosmos_db: true, ..Faults::default() };
        for (key, expected) in
            [("token.2.0a", true), ("token/2/0a", false), ("a?", false), ("a#b", false), ("a\\b", false)]
        {
            assert_eq!(outcomes(faults, &[Call::Write { key }], false), [expected], "{key}");
        }
    }
}
