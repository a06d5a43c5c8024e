//! Requests and calls over time, in a bounded number of equal buckets.

use std::collections::VecDeque;

/// Most buckets: more are not seen in a chart.
const MAX_BUCKETS: usize = 240;

/// What happened in one bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bucket {
    pub(super) ok: u64,
    pub(super) denied: u64,
    pub(super) failed: u64,
    pub(super) calls: u64,
    /// The most calls in 60 s that end in this bucket.
    pub(super) peak: u64,
}

impl Bucket {
    fn with(self, other: Self) -> Self {
        Self {
            ok: self.ok + other.ok,
            denied: self.denied + other.denied,
            failed: self.failed + other.failed,
            calls: self.calls + other.calls,
            peak: self.peak.max(other.peak),
        }
    }
}

/// Buckets from the first to the last line. When the log outgrows them, each pair becomes one bucket
/// of double width.
pub(super) struct Timeline {
    pub(super) width_ms: u64,
    /// Number of the first bucket, counted from 1970.
    first: u64,
    buckets: VecDeque<Bucket>,
}

impl Timeline {
    pub(super) fn new() -> Self {
        Self { width_ms: 60_000, first: 0, buckets: VecDeque::new() }
    }

    /// The bucket of a time.
    pub(super) fn at(&mut self, time_ms: u64) -> &mut Bucket {
        let mut place = time_ms / self.width_ms;
        if self.buckets.is_empty() {
            self.first = place;
        }
        while place.max(self.last()) - place.min(self.first) >= MAX_BUCKETS as u64 {
            self.double();
            place = time_ms / self.width_ms;
        }
        while place < self.first {
            self.buckets.push_front(Bucket::default());
            self.first -= 1;
        }
        while self.buckets.is_empty() || place > self.last() {
            self.buckets.push_back(Bucket::default());
        }
        &mut self.buckets[(place - self.first) as usize]
    }

    pub(super) fn raise_peak(&mut self, time_ms: u64, calls: u64) {
        let bucket = self.at(time_ms);
        bucket.peak = bucket.peak.max(calls);
    }

    /// When each bucket begins, and what is in it.
    pub(super) fn buckets(&self) -> impl Iterator<Item = (u64, &Bucket)> {
        self.buckets.iter().zip(self.first..).map(|(bucket, place)| (place * self.width_ms, bucket))
    }

    fn last(&self) -> u64 {
        self.first + self.buckets.len().saturating_sub(1) as u64
    }

    fn double(&mut self) {
        let mut wide: VecDeque<Bucket> = VecDeque::new();
        for (bucket, place) in self.buckets.iter().zip(self.first..) {
            let at = (place / 2 - self.first / 2) as usize;
            match wide.get_mut(at) {
                Some(pair) => *pair = pair.with(*bucket),
                None => wide.push_back(*bucket),
            }
        }
        (self.width_ms, self.first, self.buckets) = (self.width_ms * 2, self.first / 2, wide);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_double_their_width_and_lose_nothing() {
        let mut timeline = Timeline::new();
        let minutes: Vec<u64> = (0..2000).chain([100_000, 3]).map(|minute| (minute + 777) * 60_000).collect();
        for time in &minutes {
            let bucket = timeline.at(*time);
            bucket.ok += 1;
            bucket.peak = bucket.peak.max(*time);
        }
        assert!(timeline.buckets.len() <= MAX_BUCKETS);
        assert_eq!(timeline.buckets().map(|(_, bucket)| bucket.ok).sum::<u64>(), minutes.len() as u64);
        for (begin, bucket) in timeline.buckets() {
            let within = minutes.iter().filter(|time| (begin..begin + timeline.width_ms).contains(time));
            assert_eq!(
                (within.clone().count() as u64, within.max()),
                (bucket.ok, (bucket.ok > 0).then_some(&bucket.peak))
            );
        }
    }

    #[test]
    fn earlier_time_and_a_wrong_clock_fit_too() {
        let mut timeline = Timeline::new();
        for time in [600_000, 120_000, 0] {
            timeline.at(time).calls += 1;
        }
        assert_eq!((timeline.buckets().count(), timeline.width_ms), (11, 60_000));
        timeline.at(253_402_300_799_999).calls += 1;
        assert_eq!(timeline.buckets().map(|(_, bucket)| bucket.calls).sum::<u64>(), 4);
        assert!(timeline.buckets().count() <= MAX_BUCKETS);
    }
}
