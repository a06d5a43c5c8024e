//! Points in time, as an argument: nothing in the core reads a clock.

use std::ops::Add;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A wall-clock time in milliseconds since the Unix epoch. It may step backwards between two readings, and two nodes may
/// disagree about it by some seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The time `ms` milliseconds after the Unix epoch.
    pub const fn from_unix_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn unix_ms(self) -> u64 {
        self.0
    }

    /// Reads a date of RFC 9110 section 5.6.7, in the form of today or in one of the two that are obsolete.
    ///
    /// The crate `httpdate`, which the tests compare this with, makes the component 7 KB larger.
    pub fn parse_http_date(text: &str) -> Option<Self> {
        let parts: Vec<_> = text.split([' ', ',', '-', ':']).filter(|part| !part.is_empty()).collect();
        let (&[_, day, month, year, hour, minute, second, "GMT"] | &[_, month, day, hour, minute, second, year]) =
            &parts[..]
        else {
            return None;
        };
        let number = |digits: &str, end: i64| digits.parse::<i64>().ok().filter(|number| (0..end).contains(number));
        let month = 1 + MONTHS.iter().position(|name| *name == month)? as i64;
        let year = match (year.len(), number(year, 10_000)?) {
            // RFC 9110: two digits never mean a year more than 50 years ahead.
            (2, year) if year < 70 => 2000 + year,
            (2, year) => 1900 + year,
            (_, year) => year,
        };
        let days = days_since_epoch(year, month, number(day, 32)?);
        let seconds = (number(hour, 24)? * 60 + number(minute, 60)?) * 60 + number(second, 61)?;
        u64::try_from((days * 24 * 3600 + seconds) * 1000).ok().map(Self)
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Days from 1970-01-01 to a date of the Gregorian calendar, whose years begin in March here, so that the day that comes
/// and goes is the last of a year.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - 719_468
}

/// Whole seconds, rounded up and at least one: what `Retry-After` may say without sending anybody too early.
pub fn retry_after_seconds(wait: Duration) -> u64 {
    wait.as_millis().div_ceil(1000).max(1).try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    #[test]
    fn a_date_is_read_as_httpdate_reads_it() {
        for day in 0..60_000 {
            let seconds = day * 86_400 + day * 7919 % 86_400;
            let text = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
            assert_eq!(Timestamp::parse_http_date(&text), Some(Timestamp(seconds * 1000)), "{text}");
        }
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Thursday, 01-Jan-70 00:00:00 GMT",
            "Tue, 29 Feb 2028 23:59:59 GMT",
        ] {
            let expected = httpdate::parse_http_date(text).unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap();
            assert_eq!(Timestamp::parse_http_date(text), Some(Timestamp(expected.as_millis() as u64)), "{text}");
        }
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            "soon",
            "1994",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Nov 1994 08:60:37 GMT",
            "Sun, 32 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 99999 08:49:37 GMT",
            "Sun, 06 nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1960 08:49:37 GMT",
            "Sun, +6 Nov 1994 08:49:37 GMT x",
        ] {
            assert_eq!(Timestamp::parse_http_date(text), None, "{text}");
        }
    }

    #[test]
    fn retry_after_never_sends_anybody_too_early() {
        let check =
            |ms: u64, expected: u64| assert_eq!(retry_after_seconds(Duration::from_millis(ms)), expected, "{ms}");
        check(0, 1);
        check(1, 1);
        check(1000, 1);
        check(1001, 2);
        check(59_999, 60);
    }
}
