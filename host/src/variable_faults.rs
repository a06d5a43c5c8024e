//! Faults of the variable provider on request: reads that take time, or have to queue.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Faults of the variable provider: each read that a component makes suffers from them, and no
/// other read does.
#[derive(Clone, Copy, Debug, Default)]
pub struct VariableFaults {
    /// Time that each read takes. Reads side by side do not wait for each other, as with Vault.
    pub delay: Duration,
    /// Most reads that begin in any second. `None` is no limit.
    pub reads_per_second: Option<usize>,
    /// Most reads at the same time. `None` is no limit.
    pub reads_at_once: Option<usize>,
    /// What happens to a read beyond one of these limits.
    pub beyond: Beyond,
}

/// What happens to a read beyond the limits of the provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Beyond {
    /// It waits for its turn.
    #[default]
    Waits,
    /// It fails immediately, as with a rate limit quota of Vault.
    Fails,
}

/// Reads that the provider has to answer.
#[derive(Default)]
pub(crate) struct Queue {
    /// When each of the last [`VariableFaults::reads_per_second`] reads begins, oldest first.
    begins: VecDeque<Instant>,
    /// When each read that runs, or waits for its turn, ends.
    ends: Vec<Instant>,
}

/// The provider has refused a read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused;

impl Queue {
    /// Enters a read that arrives now, and returns how long it takes.
    pub(crate) fn enter(&mut self, faults: VariableFaults, now: Instant) -> Result<Duration, Refused> {
        // Without a limit, no read waits for another.
        if faults.reads_per_second.is_none() && faults.reads_at_once.is_none() {
            return Ok(faults.delay);
        }
        let mut begin = now;
        if let Some(most) = faults.reads_per_second
            && let Some(earlier) = self.begins.len().checked_sub(most).and_then(|index| self.begins.get(index))
        {
            begin = begin.max(*earlier + Duration::from_secs(1));
        }
        self.ends.sort();
        self.ends.retain(|end| *end > now);
        if let Some(most) = faults.reads_at_once {
            // So many of them must end before this one can begin.
            let must_end = (self.ends.len() + 1).saturating_sub(most);
            if let Some(last) = must_end.checked_sub(1) {
                begin = begin.max(self.ends[last]);
            }
        }
        if begin > now && faults.beyond == Beyond::Fails {
            return Err(Refused);
        }
        self.begins.push_back(begin);
        if self.begins.len() > faults.reads_per_second.unwrap_or(0) {
            self.begins.pop_front();
        }
        self.ends.push(begin + faults.delay);
        Ok(begin + faults.delay - now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_beyond_a_limit_waits_or_is_refused() {
        let ms = Duration::from_millis;
        let now = Instant::now();
        // How long each read takes, in milliseconds, by its arrival; `None` if it is refused.
        let check = |faults: VariableFaults, reads: &[(u64, Option<u64>)]| {
            let mut queue = Queue::default();
            for (number, (at, expected)) in reads.iter().enumerate() {
                let took = queue.enter(faults, now + ms(*at));
                assert_eq!(took.ok(), expected.map(ms), "read {number} with {faults:?}");
            }
        };
        let faults = VariableFaults { delay: ms(50), ..VariableFaults::default() };
        let limited = VariableFaults { reads_per_second: Some(2), ..faults };
        check(limited, &[(0, Some(50)), (100, Some(50)), (200, Some(850)), (200, Some(950)), (900, Some(1150))]);
        check(
            VariableFaults { beyond: Beyond::Fails, ..limited },
            &[(0, Some(50)), (100, Some(50)), (999, None), (1000, Some(50)), (1099, None), (1100, Some(50))],
        );
        let crowded = VariableFaults { reads_at_once: Some(2), ..faults };
        check(
            crowded,
            &[(0, Some(50)), (10, Some(50)), (20, Some(80)), (20, Some(90)), (20, Some(130)), (150, Some(50))],
        );
        check(
            VariableFaults { beyond: Beyond::Fails, ..crowded },
            &[(0, Some(50)), (0, Some(50)), (49, None), (50, Some(50))],
        );
    }
}
