//! The axes of charts: round times in UTC, and whole numbers from zero.

use std::ops::Range;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};

use super::super::time::{rfc3339, to_minute};

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 86_400_000;

/// Distances between labels, each a divisor of a day or a number of days.
const STEPS_MS: [u64; 16] = [
    MINUTE_MS,
    2 * MINUTE_MS,
    5 * MINUTE_MS,
    10 * MINUTE_MS,
    15 * MINUTE_MS,
    30 * MINUTE_MS,
    60 * MINUTE_MS,
    120 * MINUTE_MS,
    180 * MINUTE_MS,
    360 * MINUTE_MS,
    720 * MINUTE_MS,
    DAY_MS,
    2 * DAY_MS,
    7 * DAY_MS,
    30 * DAY_MS,
    365 * DAY_MS,
];

/// Times in milliseconds since 1970.
#[derive(Clone)]
pub(super) struct Time {
    range: Range<u64>,
    step: u64,
}

impl Time {
    /// An axis with at most `labels` labels.
    pub(super) fn new(range: Range<u64>, labels: u64) -> Self {
        let longest = (range.end - range.start) / labels.max(1);
        let step = STEPS_MS.into_iter().find(|step| *step >= longest);
        // A wrong clock makes a log of centuries.
        let step = step.unwrap_or_else(|| longest.next_multiple_of(365 * DAY_MS));
        Self { range, step }
    }

    /// Writes a label: the time within a day, or the date.
    pub(super) fn label(&self, ms: u64) -> String {
        let text = to_minute(&rfc3339(ms));
        let (date, time) = text.split_once(' ').unwrap_or((&text, ""));
        let label = match self.step {
            step if step < DAY_MS => time,
            // Weeks are far shorter than a year, so its number would only take room.
            step if step <= 7 * DAY_MS => date.split_once('-').map_or(date, |(_, day)| day),
            _ => date,
        };
        label.to_owned()
    }
}

impl Ranged for Time {
    type FormatOption = DefaultFormatting;
    type ValueType = u64;

    fn map(&self, value: &u64, pixels: (i32, i32)) -> i32 {
        let share = (value.saturating_sub(self.range.start)) as f64 / (self.range.end - self.range.start).max(1) as f64;
        pixels.0 + (f64::from(pixels.1 - pixels.0) * share).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<u64> {
        let first = self.range.start.next_multiple_of(self.step);
        (first..=self.range.end).step_by(self.step as usize).collect()
    }

    fn range(&self) -> Range<u64> {
        self.range.clone()
    }
}

/// Whole numbers from zero, with at most five labels above it.
#[derive(Clone)]
pub(super) struct Whole {
    pub(super) end: u64,
    step: u64,
}

impl Whole {
    pub(super) fn new(most: u64) -> Self {
        let mut step = 1_u64;
        for factor in [2, 5, 10].iter().cycle() {
            if most.div_ceil(step) <= 5 {
                break;
            }
            step = 10_u64.pow(step.ilog10()).saturating_mul(*factor);
        }
        Self { end: most.div_ceil(step).max(1).saturating_mul(step), step }
    }
}

impl Ranged for Whole {
    type FormatOption = DefaultFormatting;
    type ValueType = u64;

    fn map(&self, value: &u64, pixels: (i32, i32)) -> i32 {
        pixels.0 + (f64::from(pixels.1 - pixels.0) * *value as f64 / self.end as f64).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<u64> {
        (0..=self.end).step_by(self.step as usize).collect()
    }

    fn range(&self) -> Range<u64> {
        0..self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_round_times_and_few() {
        let check = |minutes: u64, expected: &[&str]| {
            let time = Time::new(120_001..120_001 + minutes * MINUTE_MS, 6);
            let labels: Vec<_> = time.key_points(5).into_iter().map(|ms| time.label(ms)).collect();
            assert_eq!(labels, expected);
        };
        check(10, &["00:04", "00:06", "00:08", "00:10", "00:12"]);
        check(600, &["02:00", "04:00", "06:00", "08:00", "10:00"]);
        check(4 * 1440, &["01-02", "01-03", "01-04", "01-05"]);
        check(120 * 1440, &["1970-01-31", "1970-03-02", "1970-04-01", "1970-05-01"]);
        let wrong_clock = Time::new(0..253_402_300_799_999, 6);
        assert!(wrong_clock.key_points(6).len() <= 7);
    }

    #[test]
    fn numbers_are_whole_and_round() {
        let check = |most: u64, expected: &[u64]| {
            let whole = Whole::new(most);
            assert_eq!((&*whole.key_points(5), whole.end), (expected, *expected.last().unwrap()));
        };
        check(0, &[0, 1]);
        check(1, &[0, 1]);
        check(5, &[0, 1, 2, 3, 4, 5]);
        check(6, &[0, 2, 4, 6]);
        check(11, &[0, 5, 10, 15]);
        check(26, &[0, 10, 20, 30]);
        check(99, &[0, 20, 40, 60, 80, 100]);
        check(4_321, &[0, 1_000, 2_000, 3_000, 4_000, 5_000]);
        assert!(Whole::new(u64::MAX).key_points(5).len() <= 6);
    }
}
