//! Figures of many requests: rate, percentiles, and summaries over rounds.

use std::time::Duration;

/// Result of one round of requests.
#[derive(Clone, Debug)]
pub struct Round {
    /// Latencies, sorted. At least one.
    latencies: Vec<Duration>,
    elapsed: Duration,
}

impl Round {
    pub(crate) fn new(mut latencies: Vec<Duration>, elapsed: Duration) -> Self {
        latencies.sort_unstable();
        Self { latencies, elapsed }
    }

    /// Puts the requests of several rounds into one, for percentiles that need many.
    pub fn pooled(rounds: &[Self]) -> Self {
        let latencies = rounds.iter().flat_map(|round| round.latencies.iter().copied()).collect();
        Self::new(latencies, rounds.iter().map(|round| round.elapsed).sum())
    }

    /// Returns the requests per second.
    pub fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// Returns the latency that `share` of the requests did not exceed.
    pub fn percentile(&self, share: f64) -> Duration {
        let last = self.latencies.len() - 1;
        self.latencies[((last as f64 * share).ceil() as usize).min(last)]
    }
}

/// Median and range of several rounds.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    /// Median.
    pub median: f64,
    /// Smallest value.
    pub least: f64,
    /// Largest value.
    pub most: f64,
}

impl FromIterator<f64> for Summary {
    /// Summarizes the values of at least one round.
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        Self { median: values[values.len() / 2], least: values[0], most: values[values.len() - 1] }
    }
}

impl Summary {
    /// Summarizes a figure of each round.
    pub fn of(rounds: &[Round], figure: impl Fn(&Round) -> f64) -> Self {
        rounds.iter().map(figure).collect()
    }

    /// Summarizes the ratio of a figure between these rounds and those that alternated with
    /// them.
    pub fn of_ratio(rounds: &[Round], beside: &[Round], figure: impl Fn(&Round) -> f64) -> Self {
        rounds.iter().zip(beside).map(|(round, beside)| figure(round) / figure(beside)).collect()
    }

    /// Summarizes a [percentile](Round::percentile) in milliseconds.
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
