//! Names each request for the log and for `X-Request-Id`: by its trace id, or by a new one.

use http::HeaderName;
use http::header::HeaderMap;

use crate::broker::RequestId;

/// The header `traceparent`, W3C Trace Context section 3.2.
pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The trace id in `traceparent`, or `new` if that is missing or malformed. Both are 32
/// lower-case hexadecimal digits.
pub(super) fn request_id(headers: &HeaderMap, new: impl FnOnce() -> u128) -> RequestId {
    trace_id(headers).and_then(RequestId::from_digits).unwrap_or_else(|| RequestId::new(new()))
}

/// Parses `version "-" trace-id "-" parent-id "-" trace-flags`, and ignores what a later
/// version may add (section 3.2.2).
fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let value = values.next().filter(|_| values.next().is_none())?.to_str().ok()?;
    let (version, rest) = value.split_once('-')?;
    let (trace_id, rest) = rest.split_once('-')?;
    let (parent_id, rest) = rest.split_once('-')?;
    let (flags, later) = rest.split_once('-').map_or((rest, None), |(flags, later)| (flags, Some(later)));
    let is_hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_some_id = |text: &str, length: usize| is_hex(text, length) && text.bytes().any(|byte| byte != b'0');
    let has_known_form = is_hex(version, 2) && version != "ff" && (version != "00" || later.is_none());
    (has_known_form && is_some_id(trace_id, 32) && is_some_id(parent_id, 16) && is_hex(flags, 2)).then_some(trace_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn request_id_is_the_trace_id_or_a_new_one() {
        const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
        let check = |value: &str, expected: &str| {
            let headers = HeaderMap::from_iter([(TRACEPARENT, HeaderValue::from_str(value).unwrap())]);
            assert_eq!(request_id(&headers, || 7).as_str(), expected, "{value}");
        };
        let new = "00000000000000000000000000000007";
        check(&format!("00-{TRACE}-00f067aa0ba902b7-01"), TRACE);
        check(&format!("cc-{TRACE}-00f067aa0ba902b7-01-what-comes-later"), TRACE);
        for value in [
            "",
            TRACE,
            &format!("00-{TRACE}-00f067aa0ba902b7"),
            &format!("00-{TRACE}-00f067aa0ba902b7-01-more"),
            &format!("ff-{TRACE}-00f067aa0ba902b7-01"),
            &format!("0-{TRACE}-00f067aa0ba902b7-01"),
            &format!("00-{TRACE}-0000000000000000-01"),
            &format!("00-{TRACE}-00f067aa0ba902b7-0x"),
            &format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()),
            &format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            &format!("00-{}\"-00f067aa0ba902b7-01", &TRACE[1..]),
        ] {
            check(value, new);
        }
        assert_eq!(request_id(&HeaderMap::new(), || 7), RequestId::new(7));
        let mut twice = HeaderMap::new();
        for id in ["1", "2"] {
            let value = format!("00-{}-00f067aa0ba902b7-01", id.repeat(32));
            twice.append(TRACEPARENT, HeaderValue::try_from(value).unwrap());
        }
        assert_eq!(request_id(&twice, || 7).as_str(), new, "two of them say nothing");
    }
}
