//! Warnings about variables that the component accepts, but that do not do what an operator expects.

use officernd_token_broker::config::escape;
use officernd_token_broker::time::Timestamp;
use serde_json::{Map, Value};

use crate::spin::environment_name;

/// Longest string in the environment of a program on Linux, in bytes: the name, `=`, the value and
/// a zero byte.
const ENVIRONMENT_LIMIT: usize = 128 << 10;

/// Warnings about a policy, the value of the variable `callers`, each without any digest. What the
/// component calls a mistake is none of them.
pub(crate) fn of_policy(policy: &Map<String, Value>, now: Timestamp) -> Vec<String> {
    let mut warnings = Vec::new();
    for (name, entry) in policy {
        let place = escape(name);
        if !name.bytes().all(is_never_encoded) {
            warnings.push(format!(
                "callers: {place}: some clients form-encode this name for HTTP Basic and others do not, expected only \
                 letters, digits, and - . _ ~"
            ));
        }
        let has_expired = |entry: &Value| {
            let expires = entry["expires"].as_str().and_then(Timestamp::parse_rfc3339);
            expires.is_some_and(|expires| expires <= now)
        };
        let entries_of = |field: &str| entry[field].as_array().map(Vec::as_slice).unwrap_or_default();
        for (field, noun) in [("secret_sha256", "digest"), ("keys", "key")] {
            let entries = entries_of(field);
            for (number, _) in (1..).zip(entries).filter(|(_, entry)| has_expired(entry)) {
                let count = entries.len();
                warnings.push(format!(
                    "callers: {place}.{field}: {noun} {number} of {count} has expired, expected its removal"
                ));
            }
        }
        let [digests, keys] = ["secret_sha256", "keys"].map(entries_of);
        if !(digests.is_empty() && keys.is_empty()) && digests.iter().chain(keys).all(has_expired) {
            warnings.push(format!(
                "callers: {place}: every digest and every key has expired, so this caller gets nothing, expected one that has not"
            ));
        }
    }
    warnings
}

/// Warns of a value that no environment variable can hold.
pub(crate) fn of_length(variable: &str, value: &str) -> Option<String> {
    let length = environment_name(variable).len() + "=".len() + value.len() + "\0".len();
    (length > ENVIRONMENT_LIMIT).then(|| {
        format!(
            "{variable}: is longer than 128 KiB with its name, which no environment variable can hold, expected a file or \
             another way without this limit (docs/deploy.md)"
        )
    })
}

/// Whether form-encoding (RFC 6749 appendix B) leaves the byte as it is, in every library.
fn is_never_encoded(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(policy: Value, expected: &[&str]) {
        let now = Timestamp::parse_rfc3339("2026-11-29T12:00:00Z").unwrap();
        let Value::Object(policy) = policy else { panic!("an object") };
        let warnings = of_policy(&policy, now);
        assert_eq!(warnings.len(), expected.len(), "{warnings:?}");
        for (warning, expected) in warnings.iter().zip(expected) {
            assert!(warning.starts_with(expected), "{warning} should start with {expected}");
        }
    }

    #[test]
    fn name_that_a_client_may_encode_is_a_warning() {
        for name in ["nightly-sync", "a.b_c~d", "A1"] {
            check(json!({ name: {} }), &[]);
        }
        for name in ["a+b", "50%", "a:b", "a b", "a/b", "a@b", "{{ name }}", "$NAME", "'a'"] {
            check(json!({ name: {} }), &[&format!("callers: {name}: some clients").replace('\'', "\\'")]);
        }
    }

    #[test]
    fn digest_that_has_expired_is_a_warning() {
        let digest = |expires: &str| json!({ "sha256": "0".repeat(64), "expires": expires });
        let check = |digests: Value, expected: &[&str]| check(json!({ "a": { "secret_sha256": digests } }), expected);
        check(json!(["x", digest("2026-11-30"), digest("2026-11-29T12:00:01Z")]), &[]);
        check(
            json!(["x", digest("2026-11-29"), "y", digest("2026-11-29T12:00:00Z")]),
            &[
                "callers: a.secret_sha256: digest 2 of 4 has expired",
                "callers: a.secret_sha256: digest 4 of 4 has expired",
            ],
        );
        check(
            json!([digest("2020-01-31")]),
            &[
                "callers: a.secret_sha256: digest 1 of 1 has expired",
                "callers: a: every digest and every key has expired",
            ],
        );
        let key = |expires: &str| json!({ "jwk": {}, "expires": expires });
        let with_keys = |keys: Value| json!({ "a": { "secret_sha256": [digest("2020-01-31")], "keys": keys } });
        let expired = "callers: a.secret_sha256: digest 1 of 1 has expired";
        super::tests::check(with_keys(json!([{ "kty": "EC" }])), &[expired]);
        super::tests::check(
            with_keys(json!([key("2020-01-31")])),
            &[expired, "callers: a.keys: key 1 of 1 has expired", "callers: a: every digest and every key has expired"],
        );
    }

    #[test]
    fn value_over_128_kib_with_its_name_is_a_warning() {
        let fits = ENVIRONMENT_LIMIT - "SPIN_VARIABLE_CALLERS=".len() - 1;
        assert_eq!(of_length("callers", &"x".repeat(fits)), None);
        assert!(of_length("callers", &"x".repeat(fits + 1)).is_some_and(|text| text.starts_with("callers: is longer")));
    }
}
