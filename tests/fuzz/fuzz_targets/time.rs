//! Fuzzes dates of HTTP and RFC 3339. `httpdate` and `jiff` read the same times, and a time
//! stays the same when printed and read again.

#![no_main]

use std::time::{Duration, SystemTime};

use libfuzzer_sys::fuzz_target;
use officernd_token_broker::time::Timestamp;

fuzz_target!(|text: &str| {
    let ours =
        Timestamp::parse_http_date(text).map(|time| SystemTime::UNIX_EPOCH + Duration::from_millis(time.unix_ms()));
    let theirs = httpdate::parse_http_date(text).ok().filter(|time| *time >= SystemTime::UNIX_EPOCH);
    if let (Some(ours), Some(theirs)) = (ours, theirs) {
        assert_eq!(ours, theirs, "{text}");
    }
    // Each parser accepts some texts that the other refuses, such as one without a space before
    // the time. Both accept every printed date.
    for time in ours.into_iter().chain(theirs) {
        let printed = httpdate::fmt_http_date(time);
        let again = Timestamp::parse_http_date(&printed).map(|time| Duration::from_millis(time.unix_ms()));
        assert_eq!(again, time.duration_since(SystemTime::UNIX_EPOCH).ok(), "{text} as {printed}");
    }
    if let Some(time) = Timestamp::parse_rfc3339(text) {
        let printed =
            jiff::Timestamp::from_millisecond(time.unix_ms() as i64).expect("four digits of a year").to_string();
        assert_eq!(Timestamp::parse_rfc3339(&printed), Some(time), "{text}");
        // jiff reads at most nine digits of a fraction, and reads a leap second as the second
        // before.
        let theirs = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
        if text.split_once('.').is_none_or(|(_, rest)| rest.find(|c: char| !c.is_ascii_digit()) <= Some(9)) {
            let theirs = theirs.parse::<jiff::Timestamp>().expect("jiff reads what we read").as_second();
            let expected = theirs + i64::from(text.get(17..19) == Some("60"));
            assert_eq!(time.unix_ms() / 1000, expected as u64, "{text}");
        }
    }
});
