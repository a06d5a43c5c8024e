//! The busiest minute: the most calls to OfficeRnD in any 60 seconds.

use std::collections::{BTreeMap, VecDeque};

const MINUTE_MS: u64 = 60_000;

/// How far lines may be out of order. A call's line comes when the call ends, and the lines of several
/// instances mix.
pub(super) const ORDER_MS: u64 = 10 * MINUTE_MS;

/// Most different times that wait to be put in order.
const MAX_WAITING: usize = 50_000;

/// The calls of the last minutes, first put in order by their time, then counted.
#[derive(Default)]
pub(super) struct BusiestMinute {
    waiting: BTreeMap<u64, u64>,
    /// Times of the last 60 s and the calls at each, in order.
    window: VecDeque<(u64, u64)>,
    in_window: u64,
    /// The most calls, and when their 60 s began.
    most: Option<(u64, u64)>,
    /// Calls that came after later ones were counted.
    pub(super) out_of_order: u64,
}

impl BusiestMinute {
    /// Adds a call. Tells `peak` of each time that is now counted: the time, and the calls in the 60 s
    /// that end with it.
    pub(super) fn add(&mut self, time_ms: u64, peak: impl FnMut(u64, u64)) {
        if self.window.back().is_some_and(|(counted, _)| time_ms < *counted) {
            self.out_of_order += 1;
            return;
        }
        *self.waiting.entry(time_ms).or_default() += 1;
        let newest = self.waiting.last_key_value().map_or(0, |(time, _)| *time);
        self.count(newest.saturating_sub(ORDER_MS), peak);
    }

    /// Counts the calls that are left, and returns the most calls and when their 60 s began.
    pub(super) fn finish(&mut self, peak: impl FnMut(u64, u64)) -> Option<(u64, u64)> {
        self.count(u64::MAX, peak);
        self.most
    }

    /// Counts the calls before `until`.
    fn count(&mut self, until: u64, mut peak: impl FnMut(u64, u64)) {
        while let Some((time, calls)) = self.waiting.first_key_value().map(|(time, calls)| (*time, *calls)) {
            if time >= until && self.waiting.len() <= MAX_WAITING {
                return;
            }
            self.waiting.remove(&time);
            self.window.push_back((time, calls));
            self.in_window += calls;
            while let Some((_, gone)) = self.window.pop_front_if(|(first, _)| *first + MINUTE_MS <= time) {
                self.in_window -= gone;
            }
            if self.most.is_none_or(|(most, _)| self.in_window > most) {
                self.most = self.window.front().map(|(first, _)| (self.in_window, *first));
            }
            peak(time, self.in_window);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the most calls, when their minute began, and how many are out of order.
    fn check(times: &[u64], expected: Option<(u64, u64)>, out_of_order: u64) {
        let mut minute = BusiestMinute::default();
        times.iter().for_each(|time| minute.add(*time, |_, _| {}));
        assert_eq!((minute.finish(|_, _| {}), minute.out_of_order), (expected, out_of_order), "{times:?}");
    }

    #[test]
    fn most_calls_in_any_60_seconds_are_found() {
        check(&[], None, 0);
        check(&[7], Some((1, 7)), 0);
        check(&[0, 30_000, 59_999], Some((3, 0)), 0);
        check(&[0, 30_000, 60_000], Some((2, 0)), 0);
        // The minutes of the clock have two calls each.
        check(&[1_000, 58_000, 61_000, 62_000, 300_000], Some((3, 58_000)), 0);
        check(&[5, 5, 5, 70_000], Some((3, 5)), 0);
    }

    #[test]
    fn calls_may_be_ten_minutes_out_of_order() {
        check(&[600_000, 30_000, 0, 620_000, 59_999], Some((3, 0)), 0);
        check(&[0, 10_000, 2_000_000, 1_000, 2_000_001], Some((2, 0)), 1);
    }

    #[test]
    fn memory_is_bounded_when_times_are_dense() {
        let mut minute = BusiestMinute::default();
        for time in 0..4 * MAX_WAITING as u64 {
            minute.add(time * 3, |_, _| {});
        }
        assert!(minute.waiting.len() <= MAX_WAITING);
        assert_eq!(minute.finish(|_, _| {}), Some((20_000, 0)));
    }
}
