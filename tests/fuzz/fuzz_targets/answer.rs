//! Fuzzes the answer of OfficeRnD: lines with the status, `Retry-After` and the requested
//! scopes, then the body. A grant has the values of its JSON, is within the requested scopes,
//! and stays the same when printed and read again.

#![no_main]

use std::time::Duration;

use fuzz::NOW;
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue, StatusCode};
use libfuzzer_sys::{Corpus, fuzz_target};
use officernd_token_broker::scope::Scopes;
use officernd_token_broker::upstream::{Failure, Grant, read_answer};
use serde_json::{Value, json};

fuzz_target!(|input: &[u8]| -> Corpus { check(input).map_or(Corpus::Reject, |()| Corpus::Keep) });

fn check(input: &[u8]) -> Option<()> {
    let mut parts = input.splitn(4, |byte| *byte == b'\n');
    let status = StatusCode::from_bytes(parts.next()?).ok()?;
    let mut headers = HeaderMap::new();
    headers.insert(RETRY_AFTER, HeaderValue::from_bytes(parts.next()?).ok()?);
    let requested = Scopes::parse(std::str::from_utf8(parts.next()?).ok()?).ok()?;
    let body = parts.next()?;

    match read_answer(status, &headers, body, &requested, NOW) {
        Ok(grant) => {
            assert!(matches!(status, StatusCode::OK | StatusCode::CREATED));
            let answer: Value = match serde_json::from_slice(body) {
                Ok(answer) => answer,
                // The core accepts half a surrogate pair in a field that it ignores (RFC 8259
                // section 8.2); serde_json's `Value` does not.
                Err(_) if body.windows(2).any(|pair| pair == b"\\u") => return None,
                // The same holds for a number that is too large, and for very deep lists.
                Err(error)
                    if ["number out", "recursion limit"].iter().any(|what| error.to_string().starts_with(what)) =>
                {
                    return None;
                }
                Err(error) => panic!("a grant is not JSON: {error}"),
            };
            assert_eq!(answer["access_token"], grant.access_token.expose());
            assert!(HeaderValue::from_str(&format!("Bearer {}", grant.access_token.expose())).is_ok());
            assert!(grant.scopes.is_subset_of(&requested));
            let life = grant.expires_in.as_secs();
            let seconds = match &answer["expires_in"] {
                Value::String(digits) => digits.parse().expect("digits"),
                number => number.as_f64()?,
            };
            assert!((1..=86_400).contains(&life) && seconds >= life as f64, "{answer}");

            let printed = json!({
                "access_token": grant.access_token.expose(), "token_type": "bearer",
                "expires_in": life, "scope": grant.scopes.as_str(),
            });
            let again = read_answer(status, &headers, printed.to_string().as_bytes(), &requested, NOW);
            let parts = |grant: Grant| (grant.access_token.expose().to_owned(), grant.scopes, grant.expires_in);
            assert_eq!(again.map(parts).ok(), Some(parts(grant)), "{printed}");
        }
        Err(Failure::Unavailable(_, Some(wait))) => {
            assert!(status.is_client_error() || status.is_server_error());
            let text = headers[RETRY_AFTER].to_str().expect("it was read").trim();
            // Seconds must be equal, up to a number longer than any pause. The target `time`
            // compares dates.
            match text.parse::<u64>() {
                Ok(seconds) => assert_eq!(wait, Duration::from_secs(seconds)),
                Err(_) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                    assert!(wait > Duration::from_secs(1 << 50))
                }
                Err(_) => assert!(wait < Duration::from_secs(10_000 * 366 * 86_400), "{text}"),
            }
        }
        Err(_) => {}
    }
    Some(())
}
