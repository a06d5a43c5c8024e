//! Times of the log, as people read them.

/// Writes a time as RFC 3339 in UTC, to the millisecond.
pub(super) fn rfc3339(ms: u64) -> String {
    let (days, in_day) = (ms / 86_400_000, ms % 86_400_000);
    // Days since 0000-03-01, so that a leap day ends its year (H. Hinnant, chrono-compatible low-level
    // date algorithms).
    let since = days + 719_468;
    let (era, day_of_era) = (since / 146_097, since % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (in_day / 3_600_000, in_day / 60_000 % 60, in_day / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1000)
}

/// Shortens a time of [`rfc3339`] to its minute.
pub(super) fn to_minute(time: &str) -> String {
    time.get(..16).unwrap_or(time).replace('T', " ")
}

#[cfg(test)]
mod tests {
    use officernd_token_broker::time::Timestamp;

    use super::*;

    #[test]
    fn times_are_those_that_the_component_reads() {
        let leap_days =
            [0, 951_782_399_999, 951_782_400_000, 1_709_164_800_000, 4_107_542_400_000, 253_402_300_799_999];
        for ms in leap_days.into_iter().chain((0..5000).map(|number| number * 86_399_123 * 3)) {
            let text = rfc3339(ms);
            // The parser drops the milliseconds.
            assert_eq!(Timestamp::parse_rfc3339(&text).map(Timestamp::unix_ms), Some(ms / 1000 * 1000), "{text}");
            assert!(text.ends_with(&format!(".{:03}Z", ms % 1000)), "{text}");
        }
        assert_eq!(rfc3339(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(to_minute(&rfc3339(951_782_400_000)), "2000-02-29 00:00");
    }
}
