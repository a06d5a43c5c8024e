//! Mistakes in the variable `issuers`, and what an issuer's fields mean.

use super::*;

/// A key of RFC 7515 appendix A.3.
const KEYS: &str = r#"{"keys": [{"kty": "EC", "crv": "P-256", "kid": "1", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

fn parse(text: &str) -> (Issuers, Vec<String>) {
    let mut mistakes = Mistakes::of("issuers");
    let issuers = Issuers::parse(text, &mut mistakes);
    (issuers, mistakes.into_iter().map(|mistake| mistake.to_string()).collect())
}

/// An issuer with more fields, or with other values of its two.
fn issuer(identifier: &str, more: &str) -> String {
    format!(r#"{{"issuer": "{identifier}", "jwks": {KEYS}{more}}}"#)
}

/// Checks how each mistake begins.
#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let (_, mistakes) = parse(text);
    assert_eq!(mistakes.len(), expected.len(), "{text} {mistakes:?}");
    for (mistake, expected) in mistakes.iter().zip(expected) {
        assert!(mistake.starts_with(expected), "{text}: {mistake} should start with {expected}");
    }
}

#[test]
fn mistake_in_an_issuer_names_it_and_the_field() {
    check("", &[]);
    check("{}", &[]);
    check("[]", &["issuers: is not valid, expected nothing or a JSON object"]);
    check("{", &["issuers: line 1 column 1: is not valid"]);
    check(r#"{"": {}}"#, &["issuers: is not a name, expected"]);
    check(r#"{"a": 1}"#, &["issuers: a: is not an object, expected"]);
    check(r#"{"a": {}}"#, &["issuers: a.issuer: is missing", "issuers: a.jwks_uri: is missing or beside jwks"]);
    let good = issuer("https://a.example", "");
    check(&format!(r#"{{"a": {good}}}"#), &[]);
    check(&format!(r#"{{"a": {good}, "a": {good}}}"#), &["issuers: a: appears twice, expected each issuer once"]);
    check(&format!(r#"{{"a": {good}, "b": {good}}}"#), &["issuers: b.issuer: is that of another issuer too"]);
    let long = "x".repeat(513);
    for identifier in ["", "caf\u{e9}", &long] {
        let text = format!(r#"{{"a": {}}}"#, issuer(identifier, ""));
        check(&text, &["issuers: a.issuer: is not valid, expected 1 to 512"]);
    }
    for (field, expected) in [
        (r#""audience": """#, "a.audience: is not valid, expected 1 to 512"),
        (r#""audience": ["x"]"#, "a.audience: is not valid"),
        (r#""max_lifetime_seconds": 59"#, "a.max_lifetime_seconds: is not valid, expected a number of seconds"),
        (r#""max_lifetime_seconds": 86401"#, "a.max_lifetime_seconds: is not valid"),
        (r#""max_lifetime_seconds": "300""#, "a.max_lifetime_seconds: is not valid"),
        (r#""algorithms": []"#, "a.algorithms: is not valid, expected a list of RS256"),
        (r#""algorithms": ["HS256"]"#, "a.algorithms: is not valid"),
        (r#""algorithms": "RS256""#, "a.algorithms: is not valid"),
        (r#""pin": []"#, "a.pin: is not valid, expected a list of 1 to 16 claims"),
        (r#""pin": ["exp"]"#, "a.pin: is not valid"),
        (r#""pin": [""]"#, "a.pin: is not valid"),
        (r#""pin": "sub""#, "a.pin: is not valid"),
        (r#""jwks_uri": "https://a.example/keys""#, "a.jwks_uri: is missing or beside jwks, expected exactly one"),
        (r#""jwks_url": "x""#, "a.jwks_url: is unknown, expected issuer, jwks"),
        (r#""issuer": "https://b.example""#, "a.issuer: appears twice, expected each field once"),
    ] {
        let text = format!(r#"{{"a": {}}}"#, issuer("https://a.example", &format!(", {field}")));
        check(&text, &[&format!("issuers: {expected}")]);
    }
}

#[test]
fn address_of_keys_is_a_url_without_user_and_fragment() {
    let with_uri = |uri: &str| format!(r#"{{"a": {{"issuer": "https://a.example", "jwks_uri": {uri}}}}}"#);
    let (issuers, mistakes) = parse(&with_uri(r#""https://keys.example/jwks?v=1""#));
    assert!(mistakes.is_empty(), "{mistakes:?}");
    let issuer = issuers.of_identifier("https://a.example").unwrap();
    assert_eq!(issuer.jwks_uri().map(|uri| uri.to_string()).as_deref(), Some("https://keys.example/jwks?v=1"));
    for uri in ["1", r#""""#, r#""http://keys.example/jwks""#, r#""https://user@keys.example/jwks""#] {
        check(&with_uri(uri), &["issuers: a.jwks_uri: is not valid, expected https://HOST/PATH"]);
    }
}

#[test]
fn mistake_in_a_key_names_its_number_and_private_keys_are_mistakes() {
    let with_keys = |keys: &str| format!(r#"{{"a": {{"issuer": "x", "jwks": {keys}}}}}"#);
    for keys in ["[]", "{}", "null", r#"{"keys": {}}"#] {
        check(&with_keys(keys), &["issuers: a.jwks: is not valid, expected a JWK Set"]);
    }
    for keys in [r#"{"keys": []}"#, r#"{"keys": [{"kty": "OKP"}, {"kty": "RSA", "use": "enc"}]}"#] {
        check(&with_keys(keys), &["issuers: a.jwks: has no usable key or too many"]);
    }
    let private = KEYS.replace(r#""kid""#, r#""d": "hunter2", "kid""#);
    check(&with_keys(&private), &["issuers: a.jwks: key 1, d: is part of a private key"]);
    let (_, mistakes) = parse(&with_keys(&private));
    assert!(!mistakes.join("\n").contains("hunter2"), "{mistakes:?}");
    let key = KEYS.trim_start_matches(r#"{"keys": ["#).trim_end_matches("]}");
    let many: Vec<_> = (0..17).map(|number| key.replace(r#""1""#, &format!(r#""{number}""#))).collect();
    check(&with_keys(&format!(r#"{{"keys": [{}]}}"#, many.join(","))), &["issuers: a.jwks: has no usable key or too"]);
    check(&with_keys(&format!(r#"{{"keys": [{key}, {key}]}}"#)), &["issuers: a.jwks: key 2, kid: is that of another"]);
}

#[test]
fn issuer_with_a_mistake_is_known_by_name_and_takes_no_token() {
    let good = issuer("https://good.example", "");
    let bad = issuer("https://bad.example", r#", "pin": []"#);
    let same = issuer("https://same.example", "");
    let (issuers, mistakes) = parse(&format!(r#"{{"good": {good}, "bad": {bad}, "c": {same}, "d": {same}}}"#));
    assert_eq!(mistakes.len(), 2, "{mistakes:?}");
    assert!(issuers.of_name("good").flatten().is_some());
    for name in ["bad", "c", "d"] {
        assert!(issuers.of_name(name).is_some_and(|issuer| issuer.is_none()), "{name}");
    }
    assert!(issuers.of_name("e").is_none());
    assert!(issuers.of_identifier("https://good.example").is_some());
    for other in [
        "https://bad.example",
        "https://same.example",
        "https://good.example/",
        "https://good.exampl",
        "https://good.example.evil",
        "https://Good.example",
        "",
    ] {
        assert!(issuers.of_identifier(other).is_none(), "{other}");
    }
}

#[test]
fn shared_issuer_pins_ids_that_are_given_once_and_another_pins_sub() {
    let check = |identifier: &str, more: &str, pinned: &str, unpinned: &str| {
        let (issuers, mistakes) = parse(&format!(r#"{{"a": {}}}"#, issuer(identifier, more)));
        assert!(mistakes.is_empty(), "{mistakes:?}");
        let issuer = issuers.of_identifier(identifier).unwrap();
        assert!(issuer.is_pinned_by(["ref", pinned].into_iter()), "{identifier} {pinned}");
        assert!(!issuer.is_pinned_by(["ref", unpinned].into_iter()), "{identifier} {unpinned}");
    };
    check("https://token.actions.githubusercontent.com", "", "repository_id", "sub");
    check("https://token.actions.githubusercontent.com/company", "", "repository_owner_id", "repository");
    check("https://gitlab.com", "", "project_id", "project_path");
    check("https://agent.buildkite.com", "", "pipeline_id", "sub");
    check("https://app.terraform.io", "", "terraform_workspace_id", "terraform_workspace_name");
    check("https://kubernetes.default.svc", "", "sub", "project_id");
    check("https://token.actions.githubusercontent.com.evil", "", "sub", "repository_id");
    check("https://gitlab.com", r#", "pin": ["oidc/project"]"#, "oidc/project", "project_id");
}
