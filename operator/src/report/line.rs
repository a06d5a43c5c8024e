//! One line of the log: that of a request, that of a call, or a foreign one.

use std::borrow::Cow;

use serde::Deserialize;

/// What a report takes from an audit line. It borrows from the log, because a copy of each field
/// would cost more time than to parse it.
pub(super) enum Line<'a> {
    /// What a request got.
    Request(Request<'a>),
    /// How a call to OfficeRnD ended.
    Call(Call<'a>),
}

pub(super) struct Request<'a> {
    pub(super) time_ms: u64,
    pub(super) id: u128,
    pub(super) version: Option<Cow<'a, str>>,
    pub(super) route: Cow<'a, str>,
    pub(super) caller: Cow<'a, str>,
    pub(super) outcome: Outcome,
    pub(super) reason: Option<Cow<'a, str>>,
    pub(super) scopes: Option<Cow<'a, str>>,
    pub(super) cache: Option<Cow<'a, str>>,
    pub(super) token: Option<u64>,
}

pub(super) struct Call<'a> {
    pub(super) time_ms: u64,
    pub(super) id: u128,
    pub(super) version: Option<Cow<'a, str>>,
    pub(super) application: Cow<'a, str>,
    pub(super) credential: Cow<'a, str>,
    pub(super) outcome: Outcome,
    pub(super) reason: Option<Cow<'a, str>>,
    pub(super) upstream_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    Ok,
    Denied,
    Failed,
}

/// The fields of both kinds. A minor version may add fields, so others are skipped.
#[derive(Deserialize)]
struct Fields<'a> {
    time_ms: u64,
    #[serde(borrow)]
    request_id: &'a str,
    #[serde(borrow)]
    version: Option<Cow<'a, str>>,
    #[serde(borrow)]
    route: Option<Cow<'a, str>>,
    #[serde(borrow)]
    caller: Option<Cow<'a, str>>,
    #[serde(borrow)]
    application: Option<Cow<'a, str>>,
    #[serde(borrow)]
    credential: Option<Cow<'a, str>>,
    outcome: Outcome,
    status: Option<u16>,
    #[serde(borrow)]
    reason: Option<Cow<'a, str>>,
    #[serde(borrow)]
    scopes: Option<Cow<'a, str>>,
    #[serde(borrow)]
    cache: Option<Cow<'a, str>>,
    #[serde(borrow)]
    token: Option<&'a str>,
    upstream_ms: Option<u64>,
}

/// Longest name or word of an audit line. A longer one is not from the broker, and must not fill the
/// memory.
const MAX_WORD_BYTES: usize = 128;

/// The year 10000, whose times RFC 3339 cannot write.
const END_OF_TIME_MS: u64 = 253_402_300_800_000;

impl<'a> Line<'a> {
    /// Reads a line; `None` if the broker did not write it, or not wholly.
    pub(super) fn parse(line: &'a [u8]) -> Option<Self> {
        // Most foreign lines are no JSON. This test is much cheaper than the parser's error.
        if line.first() != Some(&b'{') {
            return None;
        }
        let fields: Fields<'a> = serde_json::from_slice(line).ok()?;
        let words =
            [&fields.version, &fields.route, &fields.caller, &fields.application, &fields.reason, &fields.cache];
        let is_word = |word: &Option<Cow<'_, str>>| word.as_ref().is_none_or(|word| word.len() <= MAX_WORD_BYTES);
        if !words.into_iter().all(is_word) || !is_word(&fields.credential) || fields.time_ms >= END_OF_TIME_MS {
            return None;
        }
        match fields.credential {
            Some(credential) => Some(Self::Call(Call {
                time_ms: fields.time_ms,
                id: digits(fields.request_id, 32)?,
                version: fields.version,
                application: fields.application?,
                credential,
                outcome: fields.outcome,
                reason: fields.reason,
                upstream_ms: fields.upstream_ms?,
            })),
            None => Some(Self::Request(Request {
                time_ms: fields.time_ms,
                id: digits(fields.request_id, 32)?,
                version: fields.version,
                route: fields.route?,
                caller: fields.caller?,
                outcome: fields.status.map(|_| fields.outcome)?,
                reason: fields.reason,
                scopes: fields.scopes,
                cache: fields.cache,
                token: fields.token.map_or(Some(None), |token| digits(token, 16).map(|n| Some(n as u64)))?,
            })),
        }
    }

    pub(super) fn time_ms(&self) -> u64 {
        match self {
            Self::Request(request) => request.time_ms,
            Self::Call(call) => call.time_ms,
        }
    }
}

/// The number of exactly `length` hexadecimal digits.
fn digits(text: &str, length: usize) -> Option<u128> {
    if text.len() != length || text.starts_with('+') {
        return None;
    }
    u128::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &str = r#"{"time_ms":5,"request_id":"000102030405060708090a0b0c0d0e0f","route":"/oauth/token","caller":"a\"b","application":"default","scopes":"x y","outcome":"ok","status":200,"cache":"hit","token":"00000000000000ff","later":[1]}"#;
    const CALL: &str = r#"{"time_ms":5,"request_id":"000102030405060708090a0b0c0d0e0f","application":"default","credential":"current","outcome":"failed","reason":"upstream_timed_out","upstream_ms":7}"#;

    #[test]
    fn lines_of_both_kinds_are_recognised() {
        let Some(Line::Request(request)) = Line::parse(REQUEST.as_bytes()) else { panic!("no request") };
        assert_eq!((request.time_ms, &*request.caller, request.token), (5, "a\"b", Some(255)));
        let Some(Line::Call(call)) = Line::parse(CALL.as_bytes()) else { panic!("no call") };
        assert_eq!((call.upstream_ms, call.outcome, call.id as u8), (7, Outcome::Failed, 15));
    }

    #[test]
    fn line_that_the_broker_did_not_write_is_foreign() {
        let long = REQUEST.replace("a\\\"b", &"n".repeat(129));
        let late = REQUEST.replace("\"time_ms\":5", "\"time_ms\":253402300800000");
        let foreign = [
            "",
            "Serving http://127.0.0.1:3000",
            "{}",
            "{\"level\":\"info\"}",
            &REQUEST[..REQUEST.len() - 1],
            &REQUEST.replace("\"status\":200,", ""),
            &REQUEST.replace("\"ok\"", "\"fine\""),
            &REQUEST.replace("000102", "+00102"),
            &CALL.replace(",\"upstream_ms\":7", ""),
            &long,
            &late,
        ];
        for line in foreign {
            assert!(Line::parse(line.as_bytes()).is_none(), "{line}");
        }
        let mut bytes = REQUEST.as_bytes().to_vec();
        bytes[60] = 0xff;
        assert!(Line::parse(&bytes).is_none());
    }
}
