//! Points in time, which the core gets as arguments because it reads no clock.

use std::ops::Add;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Wall-clock time in milliseconds since the Unix epoch. It may step back between two readings,
/// and the clocks of two nodes may differ by several seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

/// Largest difference between the clocks of two nodes at which the gate keeps its promises.
pub const CLOCK_SKEW: Duration = Duration::from_secs(5);

/// The broker treats records from further in the future as absent: the clock that wrote them was
/// wrong, and must not block anything for as long as it was ahead.
pub const FUTURE_LIMIT: Duration = Duration::from_secs(30);

impl Timestamp {
    /// The time `ms` milliseconds after the Unix epoch.
    pub const fn from_unix_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn unix_ms(self) -> u64 {
        self.0
    }

    /// Parses an HTTP date (RFC 9110 section 5.6.7), in the current format or one of the two
    /// obsolete ones.
    ///
    /// The crate `httpdate`, with which the tests compare this function, would add 7 KB to the
    /// component.
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
            // A fixed limit, as in httpdate. RFC 9110 section 5.6.7 has one that moves with the present
            // year.
            (2, year) if year < 70 => 2000 + year,
            (2, year) => 1900 + year,
            (_, year) => year,
        };
        let days = days_since_epoch(year, month, number(day, 32)?);
        let seconds = (number(hour, 24)? * 60 + number(minute, 60)?) * 60 + number(second, 61)?;
        u64::try_from((days * 24 * 3600 + seconds) * 1000).ok().map(Self)
    }

    /// Parses a date or a time of RFC 3339 (section 5.6, `full-date` or `date-time`). A date
    /// means its first moment in UTC; a time before 1970 gives `None`.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let (date, time) = match text.split_once(['T', 't']) {
            Some((date, time)) => (date, Some(time)),
            None => (text, None),
        };
        let &[year, month, day] = &date.split('-').collect::<Vec<_>>()[..] else { return None };
        let (year, month, day) = (digits(year, 4, 0, 9999)?, digits(month, 2, 1, 12)?, digits(day, 2, 1, 31)?);
        let days = days_since_epoch(year, month, day);
        let (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
        let is_of_month = days < days_since_epoch(year, month, 1);
        let seconds = days * 24 * 3600 + time.map_or(Some(0), second_of_day)?;
        u64::try_from(seconds * 1000).ok().filter(|_| is_of_month).map(Self)
    }

    /// Time passed since `earlier`; zero if `earlier` lies in the future.
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

/// Parses `full-time` of RFC 3339 into seconds after midnight in UTC, and drops fractions of a
/// second.
fn second_of_day(text: &str) -> Option<i64> {
    let (time, zone) = text.split_at_checked(text.find(['Z', 'z', '+', '-'])?)?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let &[hour, minute, second] = &time.split(':').collect::<Vec<_>>()[..] else { return None };
    let ahead = match zone.split_at_checked(1)? {
        ("Z" | "z", "") => 0,
        (sign @ ("+" | "-"), offset) => {
            let (hour, minute) = offset.split_once(':')?;
            minute_of_day(hour, minute)? * if sign == "-" { -1 } else { 1 }
        }
        _ => return None,
    };
    let is_fraction = !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit());
    // 60 is a leap second.
    is_fraction.then_some((minute_of_day(hour, minute)? - ahead) * 60 + digits(second, 2, 0, 60)?)
}

fn minute_of_day(hour: &str, minute: &str) -> Option<i64> {
    Some(digits(hour, 2, 0, 23)? * 60 + digits(minute, 2, 0, 59)?)
}

/// Parses exactly `length` decimal digits between two bounds.
fn digits(text: &str, length: usize, low: i64, high: i64) -> Option<i64> {
    let is_plain = text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| is_plain && (low..=high).contains(number))
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Days from 1970-01-01 to a date of the Gregorian calendar. Years begin in March here, so that
/// the leap day is the last day of a year.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - 719_468
}

/// Whether a record that ends at `until` is in force. One that ends later than `longest` and
/// [`FUTURE_LIMIT`] from now was written by a wrong clock, and is not.
pub(crate) fn is_pending(until: Timestamp, now: Timestamp, longest: Duration) -> bool {
    let remaining = until.since(now);
    !remaining.is_zero() && remaining <= longest + FUTURE_LIMIT
}

/// Whether `then` is less than `age` ago. If the clock has stepped back behind `then`, the
/// answer is no, so nothing stays recent forever.
pub(crate) fn is_recent(then: Timestamp, now: Timestamp, age: Duration) -> bool {
    then <= now && now.since(then) < age
}

/// Whole seconds, rounded up and at least one: a `Retry-After` that never asks for a retry too
/// early.
pub fn retry_after_seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    #[test]
    fn http_date_is_parsed_as_by_httpdate() {
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
    fn malformed_http_date_is_refused() {
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
    fn rfc_3339_time_is_parsed_as_by_jiff() {
        for day in 0..60_000_u64 {
            let ms = day * 86_400_000 + day * 7_919_123 % 86_400_000;
            let text = jiff::Timestamp::from_millisecond(ms as i64).unwrap().to_string();
            assert_eq!(Timestamp::parse_rfc3339(&text), Some(Timestamp(ms / 1000 * 1000)), "{text}");
            let date = &text[..10];
            assert_eq!(Timestamp::parse_rfc3339(date), Some(Timestamp(day * 86_400_000)), "{date}");
        }
        for text in [
            "2027-01-31T12:00:00+01:30",
            "2027-01-01T00:30:00+01:00",
            "2026-12-31T23:30:00-23:59",
            "2027-01-31t12:00:00z",
            "2028-02-29T23:59:59.5Z",
            "2027-01-31T12:00:00.123456789Z",
        ] {
            let expected = text.parse::<jiff::Timestamp>().unwrap().as_second() as u64;
            assert_eq!(Timestamp::parse_rfc3339(text), Some(Timestamp(expected * 1000)), "{text}");
        }
    }

    #[test]
    fn malformed_rfc_3339_time_is_refused() {
        for text in [
            "",
            "soon",
            "2027",
            "2027-01",
            "2027-1-31",
            "2027-13-01",
            "2027-00-01",
            "2027-02-29",
            "2027-04-31",
            "2027-12-32",
            "2027-01-00",
            "+027-01-31",
            "20270131",
            "2027-01-31 12:00:00Z",
            "2027-01-31T",
            "2027-01-31T12:00:00",
            "2027-01-31T12:00Z",
            "2027-01-31T24:00:00Z",
            "2027-01-31T12:60:00Z",
            "2027-01-31T12:00:61Z",
            "2027-01-31T12:00:00.Z",
            "2027-01-31T12:00:00.+5Z",
            "2027-01-31T12:00:00ZZ",
            "2027-01-31T12:00:00Z01:00",
            "2027-01-31T12:00:00+0100",
            "2027-01-31T12:00:00+24:00",
            "2027-01-31T12:00:00\u{661}",
            "1969-12-31",
        ] {
            assert_eq!(Timestamp::parse_rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn retry_after_is_rounded_up_to_whole_seconds() {
        let check =
            |ms: u64, expected: u64| assert_eq!(retry_after_seconds(Duration::from_millis(ms)), expected, "{ms}");
        check(0, 1);
        check(1, 1);
        check(1000, 1);
        check(1001, 2);
        check(59_999, 60);
    }
}
