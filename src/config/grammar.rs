//! Grammar of names and numbers in the variables.

/// Whether `text` may name a caller or an application. RFC 6749 appendix A.1: a client id is
/// printable ASCII.
pub(crate) fn is_name(text: &str) -> bool {
    is_printable(text, NAME_LIMIT)
}

/// Whether `text` is printable ASCII, and has 1 to `limit` bytes.
pub(super) fn is_printable(text: &str, limit: usize) -> bool {
    (1..=limit).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// Longest name of a caller or an application, in bytes.
pub(super) const NAME_LIMIT: usize = 128;

/// Parses a whole number in decimal digits between two bounds.
pub(super) fn parse_within(text: &str, low: u16, high: u16) -> Option<u16> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| is_plain && (low..=high).contains(number))
}

/// Smallest and largest `min_remaining_seconds`. No token with less than the first is returned, and
/// no token lives much longer than the second.
pub(crate) const MIN_REMAINING_SECONDS: (u16, u16) = (60, 3300);
