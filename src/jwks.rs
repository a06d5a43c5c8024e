//! The request for an issuer's keys, and the meaning of the answer (RFC 7517 section 5). Does no
//! I/O.

use http::header::{ACCEPT, ACCEPT_ENCODING, USER_AGENT};
use http::{HeaderValue, Request, StatusCode, Uri};

use crate::json::read_value;
use crate::key_set::KeySet;
use crate::upstream::PRODUCT;

/// Longest accepted answer, in bytes.
pub const ANSWER_LIMIT: usize = 64 * 1024;

/// Most keys of an issuer that are kept. The first ones of a longer list are.
const MOST_KEYS: usize = 32;

/// Builds the request for the keys at an address.
pub fn request(uri: &Uri) -> Request<String> {
    let mut request = Request::new(String::new());
    *request.uri_mut() = uri.clone();
    let headers = request.headers_mut();
    // Google's type is the first, that of RFC 7517 section 8.5.2 the second.
    headers.insert(ACCEPT, HeaderValue::from_static("application/json, application/jwk-set+json"));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(USER_AGENT, HeaderValue::from_static(PRODUCT));
    request
}

/// Reads the answer: the keys that an assertion can name by their id.
///
/// # Errors
/// What is wrong with an answer that has no such key. The keys from before then stay in use: a set
/// without keys would refuse every job.
pub fn read_answer(status: StatusCode, body: &[u8]) -> Result<KeySet, &'static str> {
    if status != StatusCode::OK {
        return Err("the status is not 200");
    }
    let text = std::str::from_utf8(body).map_err(|_| "the answer is not UTF-8")?;
    let (mut keys, _) = read_value(text, KeySet::from_json).flatten().ok_or("the answer is not a JWK Set")?;
    keys.keep_named(MOST_KEYS);
    if keys.count() == 0 { Err("the answer has no key for RS256, PS256 or ES256 with a kid") } else { Ok(keys) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POINT: &str = r#""kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0""#;

    #[test]
    fn request_is_a_get_without_a_body_that_names_the_broker() {
        let request = request(&Uri::from_static("https://issuer.example/keys?v=1"));
        assert_eq!((request.method(), request.body().as_str()), (&http::Method::GET, ""));
        assert_eq!(request.uri(), "https://issuer.example/keys?v=1");
        assert!(request.headers()[USER_AGENT].to_str().unwrap().starts_with("officernd-token-broker/"));
    }

    #[test]
    fn answer_without_a_usable_key_is_a_failure() {
        let check = |status: u16, body: &str, expected: Result<usize, &str>| {
            let keys = read_answer(StatusCode::from_u16(status).unwrap(), body.as_bytes());
            assert_eq!(keys.map(|keys| keys.count()), expected, "{status} {body}");
        };
        let key = |kid: usize| format!(r#"{{{POINT},"kid":"{kid}"}}"#);
        let set = |count: usize| format!(r#"{{"keys":[{}]}}"#, (0..count).map(key).collect::<Vec<_>>().join(","));
        check(200, &set(1), Ok(1));
        check(200, &set(32), Ok(32));
        check(200, &set(33), Ok(32));
        for status in [201, 204, 301, 304, 404, 500] {
            check(status, &set(1), Err("the status is not 200"));
        }
        for body in ["", "<html>", "[]", "{}", r#"{"keys":{}}"#, &set(1)[1..]] {
            check(200, body, Err("the answer is not a JWK Set"));
        }
        let none = "the answer has no key for RS256, PS256 or ES256 with a kid";
        for keys in [
            "",
            &format!("{{{POINT}}}"),
            r#"{"kty":"OKP","kid":"1"}"#,
            &format!(r#"{{{POINT},"kid":"1","use":"enc"}}"#),
        ] {
            check(200, &format!(r#"{{"keys":[{keys}]}}"#), Err(none));
        }
        assert_eq!(read_answer(StatusCode::OK, b"{\"keys\":\xff}"), Err("the answer is not UTF-8"));
    }
}
