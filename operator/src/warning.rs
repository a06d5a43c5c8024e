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
        // In an assertion nothing is encoded.
        if !name.bytes().all(is_never_encoded) && entry.get("secret_sha256").is_some() {
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
        for (number, identity) in (1..).zip(entries_of("identities")) {
            let problem = breadth(&identity["claims"]);
            warnings.extend(problem.map(|problem| format!("callers: {place}.identities: identity {number} {problem}")));
        }
        let [digests, keys, identities] = ["secret_sha256", "keys", "identities"].map(entries_of);
        let has_any = !(digests.is_empty() && keys.is_empty());
        if has_any && identities.is_empty() && digests.iter().chain(keys).all(has_expired) {
            warnings.push(format!(
                "callers: {place}: every digest and every key has expired, so this caller gets nothing, expected one that has not"
            ));
        }
    }
    warnings
}

/// Why an identity with these claims is that of more jobs than an operator may expect.
fn breadth(claims: &Value) -> Option<&'static str> {
    let has = |names: &[&str]| names.iter().any(|name| claims.get(name).is_some());
    let values = claims["sub"].as_array().map_or(std::slice::from_ref(&claims["sub"]), Vec::as_slice);
    let mut subjects = values.iter().filter_map(Value::as_str);
    if subjects.any(|sub| sub.starts_with("system:serviceaccount:") && sub.ends_with(":default")) {
        return Some(
            "is that of each pod in the namespace without a service account, expected an account of the job's own",
        );
    }
    let is_of_repository = has(&["repository_id", "repository_owner_id"]);
    let is_of_workflow = has(&["ref", "environment", "job_workflow_ref", "workflow_ref", "sub"]);
    (is_of_repository && !is_of_workflow)
        .then_some("is that of each workflow on each branch, expected ref, environment or job_workflow_ref as well")
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
            check(json!({ name: { "secret_sha256": ["x"] } }), &[]);
        }
        for name in ["a+b", "50%", "a:b", "a b", "a/b", "a@b", "{{ name }}", "$NAME", "'a'"] {
            let warning = format!("callers: {name}: some clients").replace('\'', "\\'");
            check(json!({ name: { "secret_sha256": ["x"] } }), &[&warning]);
            check(json!({ name: { "keys": [{ "kty": "EC" }] } }), &[]);
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
        let identity = json!({ "issuer": "i", "claims": { "sub": "x" } });
        let with_identity = json!({ "a": { "secret_sha256": [digest("2020-01-31")], "identities": [identity] } });
        super::tests::check(with_identity, &[expired]);
    }

    #[test]
    fn identity_of_many_jobs_is_a_warning() {
        let check = |claims: Value, expected: &[&str]| {
            check(json!({ "a": { "identities": [{ "issuer": "i", "claims": claims }] } }), expected);
        };
        let pods = ["callers: a.identities: identity 1 is that of each pod"];
        check(json!({ "sub": "system:serviceaccount:jobs:nightly-sync" }), &[]);
        check(json!({ "sub": "system:serviceaccount:jobs:default" }), &pods);
        check(json!({ "sub": ["x", "system:serviceaccount:jobs:default"] }), &pods);
        let workflows = ["callers: a.identities: identity 1 is that of each workflow"];
        check(json!({ "repository_id": "1" }), &workflows);
        check(json!({ "repository_owner_id": "1", "event_name": "push" }), &workflows);
        for claim in ["ref", "environment", "job_workflow_ref", "sub"] {
            check(json!({ "repository_id": "1", claim: "x" }), &[]);
        }
        check(json!({ "project_id": "1" }), &[]);
    }

    #[test]
    fn value_over_128_kib_with_its_name_is_a_warning() {
        let fits = ENVIRONMENT_LIMIT - "SPIN_VARIABLE_CALLERS=".len() - 1;
        assert_eq!(of_length("callers", &"x".repeat(fits)), None);
        assert!(of_length("callers", &"x".repeat(fits + 1)).is_some_and(|text| text.starts_with("callers: is longer")));
    }
}
