//! Tests of the reasons that `check --assertion` gives.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::*;

const PUBLIC_URL: &str = "https://broker.example.com";
const NOW: u64 = 1_800_000_000;

/// Variables with an issuer whose keys are fetched, so that a test needs no private key.
fn variables(callers: Value) -> GivenVariables {
    let issuers = json!({ "github": {
        "issuer": "https://token.actions.githubusercontent.com",
        "jwks_uri": "https://token.actions.githubusercontent.com/.well-known/jwks",
    }});
    let given = [
        ("officernd_client_id", "id".to_owned()),
        ("officernd_client_secret", "hunter2".to_owned()),
        ("callers", callers.to_string()),
        ("issuers", issuers.to_string()),
        ("public_url", PUBLIC_URL.to_owned()),
    ];
    GivenVariables(given.into_iter().map(|(name, value)| (name.to_owned(), Ok(value))).collect())
}

fn policy() -> Value {
    let identity = |claims| json!({ "issuer": "github", "claims": claims });
    json!({
        "sync": { "scopes": ["x"], "identities": [
            identity(json!({ "repository_id": "1", "ref": ["refs/heads/main", "refs/heads/next"], "environment": "live" })),
            identity(json!({ "repository_id": "2", "ref": "refs/heads/main" })),
        ]},
        "door": { "scopes": ["x"], "identities": [identity(json!({ "repository_id": "3", "sub": "s" }))] },
        "twin": { "scopes": ["x"], "identities": [identity(json!({ "repository_id": "3", "sub": "s" }))] },
    })
}

/// A token with these changes of its header and its claims; `null` removes one.
fn token(header: Value, claims: Value) -> String {
    let mut all = [
        json!({ "alg": "RS256", "kid": "1" }),
        json!({
            "iss": "https://token.actions.githubusercontent.com", "sub": "s", "aud": PUBLIC_URL, "exp": NOW + 300,
            "repository_id": "1", "ref": "refs/heads/main", "environment": "live",
        }),
    ];
    for (part, changes) in all.iter_mut().zip([header, claims]) {
        let part = part.as_object_mut().unwrap();
        for (name, value) in changes.as_object().unwrap() {
            part.insert(name.clone(), value.clone());
        }
        part.retain(|_, value| !value.is_null());
    }
    let [header, payload] = all.map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    format!("{header}.{payload}.c2lnbmF0dXJl")
}

fn verdict(text: &str, client_id: Option<&str>) -> Result<String, String> {
    let now = Timestamp::from_unix_ms(NOW * 1000);
    let verdict = variables(policy()).check_assertion(text, client_id, now, None).unwrap();
    for part in text.split('.').filter(|part| part.len() > 8) {
        assert!(!format!("{verdict:?}").contains(part), "{verdict:?}");
    }
    verdict.outcome
}

#[track_caller]
fn check_refused(text: &str, client_id: Option<&str>, expected: &str) {
    assert_eq!(verdict(text, client_id).unwrap_err(), format!("assertion: {expected}"));
}

#[track_caller]
fn check_claims(claims: Value, expected: &str) {
    check_refused(&token(json!({}), claims), None, expected);
}

#[test]
fn token_without_fetched_keys_names_its_caller_and_the_missing_check() {
    let text = token(json!({}), json!({}));
    let now = Timestamp::from_unix_ms(NOW * 1000);
    let found = variables(policy()).check_assertion(&format!("{text}\n"), None, now, None).unwrap();
    let caller = "the assertion would authenticate the caller \"sync\" as an identity at the issuer \"github\"";
    assert_eq!(found.outcome.unwrap(), caller);
    assert!(found.unchecked.unwrap().starts_with("the signature was not checked"));
    let uri = "https://token.actions.githubusercontent.com/.well-known/jwks".to_owned();
    let fetched = |keys| {
        let keys = FetchedKeys::from([(uri.clone(), keys)]);
        variables(policy()).check_assertion(&text, None, now, Some(&keys)).unwrap().outcome.unwrap_err()
    };
    assert!(fetched(Ok(KeySet::default())).starts_with("assertion: unknown_key: kid is \"1\" and alg is RS256"));
    assert!(fetched(Err("down".into())).starts_with("assertion: keys_unavailable: "));
    check_refused(
        &token(json!({ "kid": null }), json!({})),
        None,
        "unknown_key: the header has no kid, expected one, because the keys of \"github\" are fetched",
    );
}

#[test]
fn claim_that_differs_is_named_with_both_values() {
    check_claims(
        json!({ "ref": "refs/heads/other" }),
        "wrong_identity: ref is \"refs/heads/other\", expected \"refs/heads/main\" or \"refs/heads/next\" \
         (callers: sync.identities: identity 1 is the closest)",
    );
    check_claims(
        json!({ "environment": null, "ref": "x" }),
        "wrong_identity: ref is \"x\", expected \"refs/heads/main\" or \"refs/heads/next\"; environment is missing, \
         expected \"live\" (callers: sync.identities: identity 1 is the closest)",
    );
    check_refused(
        &token(json!({}), json!({ "repository_id": 1, "sub": "s" })),
        Some("door"),
        "wrong_identity: repository_id is the number 1, expected \"3\" (callers: door.identities: identity 1 is the \
         closest)",
    );
    check_claims(
        json!({ "event_name": "workflow_run" }),
        "event_refused: event_name is \"workflow_run\", an event that strangers can cause, expected another, or \
         event_name among the claims of the identity",
    );
    check_claims(
        json!({ "repository_id": "3" }),
        "ambiguous_identity: several callers have this identity at the issuer \"github\", expected one, or a client_id: \
         --caller names it",
    );
    check_refused(&token(json!({}), json!({})), Some("x"), "unknown_caller: the caller \"x\" is not in the policy");
}

#[test]
fn near_miss_of_issuer_and_audience_is_told() {
    let iss = "https://token.actions.githubusercontent.com";
    check_claims(
        json!({ "iss": format!("{iss}/") }),
        &format!(
            "unknown_issuer: iss is \"{iss}/\", which differs only by a slash at the end from \"{iss}\", the issuer \
             \"github\": expected the same text"
        ),
    );
    check_claims(
        json!({ "iss": "https://other.example", "sub": "sync" }),
        "unknown_issuer: iss is \"https://other.example\" and sub is \"sync\", expected both to be the caller's name for \
         a key of its own",
    );
    check_claims(
        json!({ "iss": "https://other.example" }),
        &format!(
            "unknown_issuer: iss is \"https://other.example\", which is no issuer of the variable issuers: it has \"{iss}\""
        ),
    );
    let expected = format!("expected \"{PUBLIC_URL}\"");
    for (aud, told) in [
        (json!(format!("{PUBLIC_URL}/oauth/token")), ", which is the address of an endpoint"),
        (json!(format!("{PUBLIC_URL}/")), ", which has a slash at the end"),
        (json!([PUBLIC_URL, "x"]), ", and it must be the only one"),
        (json!("https://github.com/example"), ""),
    ] {
        let shown = claims::shown(&aud);
        check_claims(json!({ "aud": aud }), &format!("wrong_audience: aud is {shown}{told}, {expected}"));
    }
}

#[test]
fn time_that_is_wrong_is_told_in_seconds() {
    check_claims(
        json!({ "exp": NOW - 45 }),
        "assertion_expired: exp was 45 s ago, expected at most 30 s of difference",
    );
    check_claims(
        json!({ "nbf": NOW - 60, "iat": NOW + 40 }),
        "assertion_early: iat is in 40 s, expected at most 30 s of difference: compare the clocks of both machines",
    );
    check_claims(
        json!({ "exp": NOW + 7200 }),
        "assertion_long: exp is in 7200 s, expected at most 3600 s, which max_lifetime_seconds of an issuer changes",
    );
}

#[test]
fn text_that_is_no_assertion_is_told_by_its_first_broken_rule() {
    let good = token(json!({}), json!({}));
    for (text, expected) in [
        (String::new(), "the file is empty"),
        (format!("Bearer {good}"), "it has a character that no JWT has"),
        (format!("{good}.x.y"), "it has five parts"),
        ("abc".into(), "it has 1 parts"),
        ("YQ.YQ.YQ".into(), "its header is not a JSON object"),
        ("x".repeat(12_289), "it has 12289 bytes"),
        (token(json!({ "crit": ["b64"] }), json!({})), "the header has crit"),
        (token(json!({}), json!({ "sub": null })), "sub is missing, expected text"),
        (token(json!({}), json!({ "exp": "1" })), "exp is \"1\", expected seconds"),
        (token(json!({ "kid": "x".repeat(256) }), json!({})), "it has no alg, a kid of over 255 bytes"),
    ] {
        let refused = verdict(&text, None).unwrap_err();
        assert!(refused.starts_with(&format!("assertion: assertion_unreadable: {expected}")), "{text}: {refused}");
    }
    check_refused(
        &token(json!({ "alg": "HS256" }), json!({})),
        None,
        "assertion_algorithm: alg is \"HS256\", expected RS256, PS256 or ES256",
    );
    check_refused(
        &token(json!({ "typ": "logout+jwt" }), json!({})),
        None,
        "assertion_type: typ is \"logout+jwt\", expected none, JWT or client-authentication+jwt",
    );
}
