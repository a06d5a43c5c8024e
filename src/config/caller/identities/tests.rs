//! Mistakes in identities, and which caller a token authenticates.

use super::*;
use crate::assertion::Assertion;
use crate::secret::PresentedSecret;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

const GITHUB: &str = "https://token.actions.githubusercontent.com";
const CLUSTER: &str = "https://kubernetes.default.svc.cluster.local";

fn issuers() -> Issuers {
    let keys = json!({ "keys": [{
        "kty": "EC",
        "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    }] });
    let variable = json!({
        "github": { "issuer": GITHUB, "jwks": keys },
        "cluster": { "issuer": CLUSTER, "jwks": keys, "audience": "api://broker" },
        "broken": { "issuer": "https://broken.example", "jwks": {} },
    });
    Issuers::parse(&variable.to_string(), &mut Mistakes::of("issuers"))
}

fn parse(callers: &Value, issuers: &Issuers) -> (Callers, Vec<String>) {
    let mut mistakes = Mistakes::of("callers");
    let callers = Callers::parse(&callers.to_string(), |_| true, issuers, &mut mistakes);
    (callers, mistakes.into_iter().map(|mistake| mistake.to_string()).collect())
}

/// A caller with these identities.
fn caller(identities: Value) -> Value {
    json!({ "identities": identities, "scopes": ["x"] })
}

/// Checks how the mistakes begin that a caller with these identities has.
#[track_caller]
fn check(identities: Value, expected: &[&str]) {
    let (_, mistakes) = parse(&json!({ "a": caller(identities) }), &issuers());
    assert_eq!(mistakes.len(), expected.len(), "{mistakes:?}");
    for (mistake, expected) in mistakes.iter().zip(expected) {
        assert!(mistake.starts_with(&format!("callers: a.{expected}")), "{mistake} should start with {expected}");
    }
}

#[test]
fn mistake_in_an_identity_names_its_number_and_field() {
    let claims = json!({ "sub": "a" });
    let one = |issuer: Value, claims: Value| json!([{ "issuer": issuer, "claims": claims }]);
    check(one(json!("cluster"), claims.clone()), &[]);
    for identities in [json!([]), json!({}), json!("x"), Value::Array(vec![json!({}); 33])] {
        check(identities, &["identities: is not valid, expected a list of 1 to 32"]);
    }
    let both =
        ["identities: identity 1, issuer: is missing or unknown", "identities: identity 1, claims: is not valid"];
    check(json!([{}]), &both);
    check(json!([1]), &both);
    for issuer in [json!("CLUSTER"), json!(""), json!(CLUSTER), json!(1)] {
        check(one(issuer, claims.clone()), &both[..1]);
    }
    let many: serde_json::Map<_, _> = (0..17).map(|number| (format!("c{number}"), json!("x"))).collect();
    for claims in [
        json!({}),
        json!([]),
        json!({ "sub": 1 }),
        json!({ "sub": [] }),
        json!({ "sub": ["a", 1] }),
        json!({ "sub": vec!["a"; 17] }),
        json!({ "sub": "a", "aud": "b" }),
        json!({ "sub": "a", "": "b" }),
        json!(many),
    ] {
        check(one(json!("cluster"), claims), &both[1..]);
    }
    check(
        json!([{ "issuer": "cluster", "claims": claims, "subject": "a" }]),
        &["identities: identity 1, subject: is unknown, expected issuer and claims"],
    );
    let unpinned = "identities: identity 2, claims: has no id that is given only once";
    check(
        json!([
            { "issuer": "cluster", "claims": claims },
            { "issuer": "github", "claims": { "repository": "o/r", "ref": "refs/heads/main", "sub": "x" } },
        ]),
        &[unpinned],
    );
    let (_, mistakes) = parse(&json!({ CLUSTER: caller(one(json!("cluster"), claims.clone())) }), &issuers());
    assert!(mistakes[0].contains("is the identifier of an issuer"), "{mistakes:?}");
    // The variable `issuers` reports the mistake in this issuer.
    check(one(json!("broken"), claims), &[]);
}

/// The text claims of a token.
fn claims_of(claims: Value) -> TextClaims {
    let mut all = json!({ "iss": "x", "sub": "y", "aud": "z", "exp": 1 });
    all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
    let parts = [r#"{"alg":"ES256"}"#, &all.to_string(), "signature"].map(|part| URL_SAFE_NO_PAD.encode(part));
    Assertion::parse(&PresentedSecret::new(parts.join("."))).unwrap().text_claims(|_| true)
}

/// Name of the caller that a token of an issuer authenticates; otherwise the reason, the caller
/// that the log names, and the claim.
fn identify(issuer: &str, claims: Value, client_id: Option<&str>) -> Result<String, (&'static str, String, String)> {
    let issuers = issuers();
    let main = json!({ "repository_id": "1", "ref": ["refs/heads/main", "refs/heads/release"] });
    let (callers, mistakes) = parse(
        &json!({
            "nightly": caller(json!([
                { "issuer": "github", "claims": main },
                { "issuer": "cluster", "claims": { "sub": "system:serviceaccount:jobs:nightly" } },
            ])),
            "review": caller(json!([
                { "issuer": "github", "claims": { "repository_id": "1", "event_name": "pull_request_target" } },
            ])),
            "door": caller(json!([{ "issuer": "cluster", "claims": { "sub": ["one", "both"] } }])),
            "gate": caller(json!([{ "issuer": "cluster", "claims": { "sub": ["both"] } }])),
            "broken": caller(json!([{ "issuer": "broken", "claims": { "sub": "x" } }])),
            "disabled": caller(json!([])),
        }),
        &issuers,
    );
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    let issuer = issuers.of_identifier(issuer).unwrap();
    let found = callers.identify(issuer, &claims_of(claims), client_id);
    found.map(|caller| caller.name.clone()).map_err(|refused| {
        let named = refused.named.map(|caller| caller.name.clone()).unwrap_or_default();
        (refused.because.reason(), named, refused.claim.as_deref().unwrap_or_default().to_owned())
    })
}

#[test]
fn token_authenticates_the_caller_whose_claims_it_has() {
    let check = |claims: Value, client_id: Option<&str>, expected: Result<&str, (&'static str, &str, &str)>| {
        let found = identify(GITHUB, claims.clone(), client_id);
        let expected = expected.map(str::to_owned).map_err(|(reason, a, b)| (reason, a.to_owned(), b.to_owned()));
        assert_eq!(found, expected, "{claims} {client_id:?}");
    };
    let on = |name: &str| json!({ "repository_id": "1", "ref": name, "event_name": "push", "actor": "x" });
    for client_id in [None, Some("nightly")] {
        check(on("refs/heads/main"), client_id, Ok("nightly"));
        check(on("refs/heads/release"), client_id, Ok("nightly"));
    }
    let wrong = |named, claim| Err(("wrong_identity", named, claim));
    check(on("refs/heads/main2"), Some("nightly"), wrong("nightly", "ref"));
    check(on("refs/heads/Main"), Some("nightly"), wrong("nightly", "ref"));
    check(on("refs/heads/main"), Some("review"), wrong("review", "event_name"));
    // Without a name, the closest identity of any caller tells which claim it is.
    check(json!({ "repository_id": "2", "ref": "refs/heads/main" }), None, wrong("", "repository_id"));
    for id in [json!(1), json!(["1"]), json!(null), json!({ "1": "1" }), json!("01"), json!("")] {
        check(
            json!({ "repository_id": id, "ref": "refs/heads/main" }),
            Some("nightly"),
            wrong("nightly", "repository_id"),
        );
    }
    check(on("refs/heads/main"), Some("door"), wrong("door", ""));
    check(on("refs/heads/main"), Some("broken"), wrong("broken", ""));
    check(on("refs/heads/main"), Some("Nightly"), Err(("unknown_caller", "", "")));
    check(on("refs/heads/main"), Some("disabled"), Err(("caller_disabled", "disabled", "")));
}

#[test]
fn token_of_one_issuer_has_no_identity_of_another() {
    let claims = json!({ "sub": "system:serviceaccount:jobs:nightly" });
    assert_eq!(identify(CLUSTER, claims.clone(), None), Ok("nightly".to_owned()));
    assert_eq!(identify(GITHUB, claims, Some("nightly")).unwrap_err().0, "wrong_identity");
}

#[test]
fn token_with_an_identity_of_several_callers_needs_a_client_id() {
    assert_eq!(identify(CLUSTER, json!({ "sub": "one" }), None), Ok("door".to_owned()));
    let several = identify(CLUSTER, json!({ "sub": "both" }), None);
    assert_eq!(several, Err(("ambiguous_identity", String::new(), String::new())));
    for name in ["door", "gate"] {
        assert_eq!(identify(CLUSTER, json!({ "sub": "both" }), Some(name)), Ok(name.to_owned()));
    }
}

#[test]
fn event_that_strangers_cause_is_refused_unless_it_is_pinned() {
    for event in EVENTS_FOR_STRANGERS {
        let claims = json!({ "repository_id": "1", "ref": "refs/heads/main", "event_name": event });
        let refused = identify(GITHUB, claims, Some("nightly")).unwrap_err();
        assert_eq!(refused, ("event_refused", "nightly".to_owned(), String::new()), "{event}");
    }
    let pinned = json!({ "repository_id": "1", "event_name": "pull_request_target" });
    assert_eq!(identify(GITHUB, pinned.clone(), Some("review")), Ok("review".to_owned()));
    assert_eq!(identify(GITHUB, pinned, None), Ok("review".to_owned()));
    let other = json!({ "repository_id": "1", "event_name": "workflow_run" });
    assert_eq!(identify(GITHUB, other, Some("review")).unwrap_err().0, "wrong_identity");
}

#[test]
fn public_url_is_needed_for_tokens_without_another_audience() {
    let need = |issuer: &str, claim: &str| {
        let identity = json!([{ "issuer": issuer, "claims": { claim: "1" } }]);
        let (callers, mistakes) = parse(&json!({ "a": caller(identity) }), &issuers());
        assert!(mistakes.is_empty(), "{mistakes:?}");
        callers.need_public_url()
    };
    assert!(need("github", "repository_id"));
    assert!(!need("cluster", "sub"));
}
