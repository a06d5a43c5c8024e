//! What many requests came to.

use std::time::Duration;

/// What came of asking for a while.
#[derive(Clone, Debug)]
pub struct Round {
    /// How long each request took, the shortest first. There is at least one.
    latencies: Vec<Duration>,
    elapsed: Duration,
}

impl Round {
    pub(crate) fn new(mut latencies: Vec<Duration>, elapsed: Duration) -> Self {
        latencies.sort_unstable();
        Self { latencies, elapsed }
    }

    /// Requests a second.
    pub fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// How long the request took than which `share` of them were no slower.
    pub fn percentile(&self, share: f64) -> Duration {
        let last = self.latencies.len() - 1;
        self.latencies[((last as f64 * share).ceil() as usize).min(last)]
    }
}

/// The median of several rounds, and how far they were apart.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    /// The one in the middle.
    pub median: f64,
    /// The smallest.
    pub least: f64,
    /// The largest.
    pub most: f64,
}

impl FromIterator<f64> for Summary {
    /// Of one round at least.
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        Self { median: values[values.len() / 2], least: values[0], most: values[values.len() - 1] }
    }
}

impl Summary {
    /// Of something that each round has.
    pub fn of(rounds: &[Round], figure: impl Fn(&Round) -> f64) -> Self {
        rounds.iter().map(figure).collect()
    }

    /// Of how many times as much these rounds have as those they alternated with.
    pub fn of_ratio(rounds: &[Round], beside: &[Round], figure: impl Fn(&Round) -> f64) -> Self {
        rounds.iter().zip(beside).map(|(round, beside)| figure(round) / figure(beside)).collect()
    }

    /// Of a [percentile](Round::percentile), in milliseconds.
    pub fn of_percentile_ms(rounds: &[Round], share: f64) -> Self {
        Self::of(rounds, |round| round.percentile(share).as_secs_f64() * 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentile_is_the_latency_that_so_many_requests_did_not_exceed() {
        let round =
            |count: u64| Round::new((1..=count).rev().map(Duration::from_millis).collect(), Duration::from_secs(2));
        let check = |count: u64, share: f64, expected_ms: u64| {
            assert_eq!(round(count).percentile(share), Duration::from_millis(expected_ms), "{share} of {count}");
        };
        check(1, 0.5, 1);
        check(1, 0.99, 1);
        check(3, 0.5, 2);
        check(101, 0.5, 51);
        check(101, 0.99, 100);
        check(101, 1.0, 101);
        assert_eq!(round(100).rate(), 50.0);
    }

    #[test]
    fn summary_has_the_middle_and_both_ends() {
        let summary = Summary::from_iter([3.0, 1.0, 2.0, 9.0, 2.5]);
        assert_eq!((summary.median, summary.least, summary.most), (2.5, 1.0, 9.0));
    }
}
