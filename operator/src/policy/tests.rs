//! Tests of the edits of a policy.

use serde_json::json;

use super::*;
use crate::credential::Identity;
use crate::secret::RandomSecret;

/// Digest without a known secret.
const OLD: &str = "c88378ce3fde4cd0e0c05089f93d6b7f7b2ac7a7c23aa3c2be1d4ba5f5bb7a5a";

/// Callers and fields in an order that no program would choose.
fn old() -> String {
    let upper = OLD.to_uppercase();
    format!(
        r#"{{"zoo": {{"scopes": ["b", "a"], "secret_sha256": ["{OLD}"]}},
             "a \"bear\"": {{"secret_sha256": ["{OLD}"], "scopes": ["a"]}},
             "ape": {{"secret_sha256": ["{upper}"], "scopes": ["a", "a"]}}}}"#
    )
}

fn now() -> Timestamp {
    Timestamp::parse_rfc3339("2026-11-29T12:00:00Z").unwrap()
}

fn parsed() -> Policy {
    Policy::parse(&old()).unwrap()
}

fn json_of(policy: &Policy) -> Value {
    serde_json::from_str(&policy.to_string()).unwrap()
}

fn names(policy: &Policy) -> Vec<&str> {
    policy.0.keys().map(String::as_str).collect()
}

fn problem<T>(result: anyhow::Result<T>) -> String {
    format!("{:#}", result.err().expect("it is refused"))
}

/// A new secret, and its digest.
fn secret() -> (Credential, String) {
    let secret = RandomSecret::generate();
    let digest = secret.sha256();
    (Credential::Secret(secret), digest)
}

/// The key of RFC 7515 appendix A.3 with this id.
fn key(kid: &str) -> Value {
    json!({ "kty": "EC", "crv": "P-256", "kid": kid, "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0" })
}

fn identity(claims: &[&str]) -> Credential {
    let claims: Vec<_> = claims.iter().map(|claim| (*claim).to_owned()).collect();
    Credential::Identity(Identity::new("github", &claims).unwrap())
}

#[test]
fn added_caller_is_last_and_the_others_are_unchanged() {
    let (secret, digest) = secret();
    let policy = parsed().add("new", &["x".into(), "y".into()], Some("berlin"), false, &secret).unwrap();
    let mut expected: Value = serde_json::from_str(&old()).unwrap();
    expected["new"] = json!({ "secret_sha256": [digest], "scopes": ["x", "y"], "application": "berlin" });
    // Compared as text, because objects are equal in any order.
    assert_eq!(json_of(&policy).to_string(), expected.to_string());
    assert_eq!(names(&policy), ["zoo", "a \"bear\"", "ape", "new"]);
}

#[test]
fn first_caller_makes_a_policy() {
    let (secret, digest) = secret();
    let policy = Policy::empty().add("new", &["x".into()], None, false, &secret).unwrap();
    assert_eq!(json_of(&policy), json!({ "new": { "secret_sha256": [digest], "scopes": ["x"] } }));
}

#[test]
fn caller_with_a_key_or_an_identity_has_no_secret() {
    let check = |credential: &Credential, expected: Value| {
        let policy = Policy::empty().add("new", &["x".into()], None, false, credential).unwrap();
        assert_eq!(json_of(&policy), json!({ "new": expected }));
    };
    check(&Credential::Key(key("1")), json!({ "keys": [key("1")], "scopes": ["x"] }));
    let claims = ["repository_id=1", "ref=refs/heads/main", "ref=refs/tags/a=b", "ref=x"];
    let expected = json!({ "repository_id": "1", "ref": ["refs/heads/main", "refs/tags/a=b", "x"] });
    check(&identity(&claims), json!({ "identities": [{ "issuer": "github", "claims": expected }], "scopes": ["x"] }));

    let refused = |credential: &Credential| problem(Policy::empty().add("new", &["x".into()], None, false, credential));
    assert!(refused(&identity(&["aud=x"])).starts_with("callers: new.identities: identity 1, claims: is not valid"));
    assert!(Identity::new("github", &["ref".into()]).is_err());
}

#[test]
fn rotated_caller_has_one_more_digest() {
    let (secret, digest) = secret();
    let policy = parsed().rotate("zoo", &secret, None, now()).unwrap();
    let mut expected: Value = serde_json::from_str(&old()).unwrap();
    expected["zoo"]["secret_sha256"] = json!([OLD, digest]);
    assert_eq!(json_of(&policy).to_string(), expected.to_string());
}

#[test]
fn secret_is_not_added_to_a_caller_that_has_none() {
    for credential in [Credential::Key(key("1")), identity(&["repository_id=1"])] {
        let policy = Policy::empty().add("door", &["x".into()], None, false, &credential).unwrap();
        let problem = problem(policy.rotate("door", &secret().0, None, now()));
        assert!(problem.starts_with("the caller \"door\" has no secret"), "{problem}");
    }
}

#[test]
fn rotation_sets_the_expiry_of_secrets_without_one() {
    let [(first, a), (second, b), (third, c)] = [secret(), secret(), secret()];
    let policy = parsed().rotate("zoo", &first, Some("2027-01-31"), now()).unwrap();
    let policy = policy.rotate("zoo", &second, None, now()).unwrap();
    let policy = policy.rotate("zoo", &third, Some("2028-01-31T12:00:00+01:00"), now()).unwrap();
    let expected = json!([
        { "sha256": OLD, "expires": "2027-01-31" },
        { "sha256": a, "expires": "2028-01-31T12:00:00+01:00" },
        { "sha256": b, "expires": "2028-01-31T12:00:00+01:00" },
        c,
    ]);
    assert_eq!(json_of(&policy)["zoo"]["secret_sha256"], expected);
    for text in ["", "soon", "2027-02-29", "2027-01-31T12:00:00", "2026-11-29", "2026-11-29T12:00:00Z", "1999-12-31"] {
        let problem = problem(parsed().rotate("zoo", &first, Some(text), now()));
        assert!(problem.starts_with("--expires"), "{text}");
    }
}

#[test]
fn rotation_sets_the_expiry_of_a_digest_or_key_in_an_object() {
    let policy =
        Policy::parse(&old().replacen(&format!("\"{OLD}\""), &format!(r#"{{"sha256": "{OLD}"}}"#), 1)).unwrap();
    let policy = policy.rotate("zoo", &secret().0, Some("2027-01-31"), now()).unwrap();
    assert_eq!(json_of(&policy)["zoo"]["secret_sha256"][0], json!({ "sha256": OLD, "expires": "2027-01-31" }));
    let door = json!({ "door": { "keys": [{ "jwk": key("1") }], "scopes": ["x"] } });
    let policy = Policy::parse(&door.to_string()).unwrap();
    let policy = policy.rotate("door", &Credential::Key(key("2")), Some("2027-01-31"), now()).unwrap();
    assert_eq!(json_of(&policy)["door"]["keys"], json!([{ "jwk": key("1"), "expires": "2027-01-31" }, key("2")]));
}

#[test]
fn key_or_identity_replaces_secrets_and_keys_and_a_secret_only_secrets() {
    let (first, a) = secret();
    let (second, b) = secret();
    let until = |member: &str, value: Value| json!([{ member: value, "expires": "2027-01-31" }]);
    let policy = Policy::empty().add("door", &["x".into()], None, false, &first).unwrap();
    let with_key = policy.rotate("door", &Credential::Key(key("1")), Some("2027-01-31"), now()).unwrap();
    let expected = json!({ "secret_sha256": until("sha256", a.clone().into()), "scopes": ["x"], "keys": [key("1")] });
    assert_eq!(json_of(&with_key)["door"], expected);

    let with_secret = with_key.rotate("door", &second, Some("2028-01-31"), now()).unwrap();
    assert_eq!(json_of(&with_secret)["door"]["keys"], json!([key("1")]));

    let with_identity = with_secret.rotate("door", &identity(&["repository_id=1"]), Some("2027-01-31"), now()).unwrap();
    let expected = json!({
        "secret_sha256": [{ "sha256": a, "expires": "2027-01-31" }, { "sha256": b, "expires": "2027-01-31" }],
        "scopes": ["x"],
        "keys": until("jwk", key("1")),
        "identities": [{ "issuer": "github", "claims": { "repository_id": "1" } }],
    });
    assert_eq!(json_of(&with_identity)["door"], expected);
    let fifth = ["2", "3", "4"]
        .into_iter()
        .try_fold(with_identity, |policy, kid| policy.rotate("door", &Credential::Key(key(kid)), None, now()));
    assert!(
        problem(fifth.unwrap().rotate("door", &Credential::Key(key("5")), None, now()))
            .starts_with("callers: door.keys")
    );
}

#[test]
fn removing_a_caller_keeps_the_order_of_the_others() {
    let policy = parsed().remove("zoo").unwrap();
    assert_eq!(names(&policy), ["a \"bear\"", "ape"]);
    let last = policy.remove("ape").unwrap();
    assert!(problem(last.remove("a \"bear\"")).contains("only caller"));
}

#[test]
fn taken_or_unknown_name_is_refused_with_advice() {
    assert!(problem(parsed().add("zoo", &["x".into()], None, false, &secret().0)).contains("`caller rotate`"));
    assert!(problem(parsed().rotate("bear", &secret().0, None, now())).contains("`caller new`"));
    assert!(problem(parsed().remove("bear")).contains("`caller new`"));
}

#[test]
fn caller_that_reads_metrics_needs_no_scopes() {
    let (secret, digest) = secret();
    let policy = Policy::empty().add("prometheus", &[], None, true, &secret).unwrap();
    assert_eq!(json_of(&policy), json!({ "prometheus": { "secret_sha256": [digest], "metrics": true } }));
}

#[test]
fn caller_that_the_component_would_refuse_is_refused() {
    let check = |name: &str, scopes: &[&str], expected: &str| {
        let scopes: Vec<_> = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        let problem = problem(parsed().add(name, &scopes, None, false, &secret().0));
        assert!(problem.starts_with(expected), "{problem}");
    };
    check("", &["x"], "callers: is not a name, expected");
    check("caf\u{e9}", &["x"], "callers: café: is not a name, expected");
    check("new", &[], "callers: new.scopes: is missing");
    check("new", &["a\"b"], "callers: new.scopes: is not valid, expected a list");
}

#[test]
fn policy_with_mistakes_is_not_edited() {
    let check = |text: &str, expected: &[&str]| {
        let problem = problem(Policy::parse(text));
        let lines: Vec<_> = problem.lines().collect();
        assert_eq!(lines.len(), expected.len(), "{lines:?}");
        for (line, expected) in lines.iter().zip(expected) {
            assert!(line.starts_with(expected), "{line}");
        }
    };
    let entry = format!(r#"{{"secret_sha256": ["{OLD}"], "scopes": ["a"]}}"#);
    check("", &["callers: is not valid, expected a JSON object"]);
    check("{}", &["callers: is empty, expected at least one caller"]);
    check(
        &format!(r#"{{"a": {entry}, "b": {entry}, "a": {entry}}}"#),
        &["callers: a: appears twice, expected each caller once"],
    );
    let repeated = entry.replacen('{', r#"{"scopes": ["b"], "#, 1);
    check(&format!(r#"{{"a": {repeated}}}"#), &["callers: a.scopes: appears twice, expected each field once"]);
    let unknown = entry.replacen('{', r#"{"limit": 12345678901234567890123, "#, 1);
    check(
        &format!(r#"{{"a": {unknown}, "b": 1}}"#),
        &["callers: a.limit: is unknown, expected", "callers: b: is not an object, expected"],
    );
}
