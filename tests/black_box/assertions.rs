//! Assertions (RFC 7523): a caller authenticates with a key of its own, and every forgery gets the
//! answer of a wrong secret.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, HeaderValue};
use http::{Method, Request};
use serde_json::{Value, json};
use tests::{
    Answer, Broker, Draft, JWT_BEARER, MEMBERS, PrivateKey, Setup, assertion_request, basic, digest_of, form,
    seconds_since_epoch, set, sign_text,
};

const AUDIENCE: &str = "https://broker.example.com";
const METADATA: &str = "/.well-known/oauth-authorization-server";

/// A broker whose caller `nightly` has these keys, and a secret if `has_secret`.
async fn start(keys: Value, has_secret: bool) -> Broker {
    let mut setup = Setup::in_one_instance();
    let mut policy = setup.policy();
    let secrets = if has_secret { json!([digest_of(&setup.nightly.secret)]) } else { Value::Null };
    set(&mut policy[&setup.nightly.name], json!({ "secret_sha256": secrets, "keys": keys }));
    setup.variables.push(("callers", policy.to_string()));
    setup.variables.push(("public_url", AUDIENCE.to_owned()));
    setup.start().await
}

/// The last line of the log.
pub fn last_line(broker: &Broker) -> Value {
    let output = broker.server.output();
    let line = output.lines().rfind(|line| line.starts_with('{')).expect("a request has been answered");
    serde_json::from_str(line).expect("a line is JSON")
}

/// An answer without the id that differs for each request.
pub fn without_id(answer: &Answer) -> (u16, Vec<(String, String)>, String) {
    let headers = answer.headers.iter().filter(|(name, _)| name != "x-request-id");
    (answer.status, headers.cloned().collect(), answer.body.clone())
}

fn draft(broker: &Broker, algorithm: &str) -> Draft {
    Draft::of(&broker.setup.nightly.name, AUDIENCE, algorithm)
}

async fn send(broker: &Broker, assertion: &str) -> Answer {
    broker.send(assertion_request(assertion, &[("scope", MEMBERS)])).await
}

#[tokio::test]
async fn caller_gets_and_revokes_its_token_with_each_algorithm() {
    let (p256, rsa) = (PrivateKey::p256(), PrivateKey::rsa(0));
    for (algorithm, key, members) in [
        ("ES256", &p256, json!({})),
        ("RS256", &rsa, json!({})),
        ("PS256", &rsa, json!({ "alg": "PS256", "use": "sig", "key_ops": ["verify"], "x5t": "unread" })),
    ] {
        let broker = start(json!([key.jwk(members)]), false).await;
        let assertion = draft(&broker, algorithm).sign(key);
        let token = send(&broker, &assertion).await.token();
        let line = last_line(&broker);
        assert_eq!((&line["method"], &line["caller"]), (&json!("key"), &json!(broker.setup.nightly.name)), "{line}");
        // An assertion may be used again while it lives, and with the id of its subject.
        let id = ("client_id", broker.setup.nightly.name.as_str());
        let again = broker.send(assertion_request(&assertion, &[("scope", MEMBERS), id])).await;
        assert_eq!(again.token(), token, "{algorithm}");

        let mut revocation = assertion_request(&assertion, &[("token", &token)]);
        *revocation.uri_mut() = http::Uri::from_static("/oauth/revoke");
        assert_eq!(broker.send(revocation).await.status, 200, "{algorithm}");
        assert_ne!(send(&broker, &assertion).await.token(), token, "{algorithm}");
        // A scope outside the policy stays outside.
        let outside = broker.send(assertion_request(&assertion, &[("scope", tests::RESOURCES)])).await;
        assert_eq!((outside.status, outside.error().as_str()), (400, "invalid_scope"), "{algorithm}");
    }
}

#[tokio::test]
async fn caller_with_a_secret_and_a_key_authenticates_with_either() {
    let key = PrivateKey::p256();
    let broker = start(json!([key.jwk(json!({}))]), true).await;
    let token = send(&broker, &draft(&broker, "ES256").sign(&key)).await.token();
    assert_eq!(broker.nightly(MEMBERS).await.token(), token);
    assert_eq!(last_line(&broker)["method"], "secret");
    // A caller without keys has no other way than its secret.
    let door = Draft::of(&broker.setup.door.name, AUDIENCE, "ES256").sign(&key);
    assert_eq!(send(&broker, &door).await.status, 401);
    assert_eq!(last_line(&broker)["reason"], "unknown_key");
}

#[tokio::test]
async fn caller_with_a_key_cannot_be_another_one() {
    let [own, of_door] = [PrivateKey::p256(), PrivateKey::p256()];
    let mut setup = Setup::in_one_instance();
    let mut policy = setup.policy();
    policy[&setup.nightly.name]["keys"] = json!([own.jwk(json!({}))]);
    policy[&setup.door.name]["keys"] = json!([of_door.jwk(json!({}))]);
    setup.variables.push(("callers", policy.to_string()));
    setup.variables.push(("public_url", AUDIENCE.to_owned()));
    let broker = setup.start().await;
    let as_door = Draft::of(&broker.setup.door.name, AUDIENCE, "ES256");
    assert_eq!(send(&broker, &as_door.clone().sign(&own)).await.status, 401);
    assert_eq!(last_line(&broker)["reason"], "wrong_signature");
    for claim in ["iss", "sub"] {
        let mixed = as_door.clone().claims(json!({ claim: broker.setup.nightly.name }));
        assert_eq!(send(&broker, &mixed.sign(&own)).await.status, 401);
        assert_eq!(last_line(&broker)["reason"], "unknown_issuer");
    }
    broker.send(assertion_request(&as_door.sign(&of_door), &[])).await.token();
}

#[tokio::test]
async fn several_keys_are_told_apart_by_their_id_and_expire_on_their_own() {
    let [old, new, expired] = [PrivateKey::p256(), PrivateKey::p256(), PrivateKey::p256()];
    let keys = json!([
        { "jwk": old.jwk(json!({ "kid": "old" })), "expires": "2999-01-01" },
        new.jwk(json!({ "kid": "new" })),
        { "jwk": expired.jwk(json!({ "kid": "expired" })), "expires": "2026-01-01T00:00:00Z" },
    ]);
    let broker = start(keys, false).await;
    let check = async |what: &str, header: Value, key: &PrivateKey, expected: Option<&str>| {
        let answer = send(&broker, &draft(&broker, "ES256").header(header).sign(key)).await;
        assert_eq!(answer.status, if expected.is_some() { 401 } else { 200 }, "{what}");
        assert_eq!(last_line(&broker)["reason"].as_str(), expected, "{what}");
    };
    check("the old key", json!({ "kid": "old" }), &old, None).await;
    check("the new key", json!({ "kid": "new" }), &new, None).await;
    check("a key without its id", json!({}), &new, None).await;
    check("another key's id", json!({ "kid": "old" }), &new, Some("wrong_signature")).await;
    check("an unknown id", json!({ "kid": "NEW" }), &new, Some("unknown_key")).await;
    check("an expired key", json!({ "kid": "expired" }), &expired, Some("expired_key")).await;
    check("an expired key without its id", json!({}), &expired, Some("expired_key")).await;
}

/// Every rule of an assertion, broken alone: what, the forgery, and the reason in the log.
fn forgeries(broker: &Broker, p256: &PrivateKey, rsa: &PrivateKey) -> Vec<(&'static str, String, &'static str)> {
    let now = seconds_since_epoch();
    let draft = |algorithm| draft(broker, algorithm).header(json!({ "kid": algorithm }));
    let good = draft("ES256");
    let signed = good.sign(p256);
    let (parts, signature) = signed.rsplit_once('.').expect("three parts");
    let (header, payload) = parts.split_once('.').expect("three parts");
    let raw = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
    let with_signature = |bytes: &[u8]| format!("{parts}.{}", URL_SAFE_NO_PAD.encode(bytes));
    let with_header = |members: Value| good.clone().header(members).sign(p256);
    let with_claims = |members: Value| good.clone().claims(members).sign(p256);
    let claims = good.claims.to_string();
    let repeated = |text: &str| sign_text(&good.header.to_string(), &claims.replacen('{', text, 1), p256);
    let other = PrivateKey::p256();
    let mut flipped = raw.clone();
    flipped[40] ^= 1;
    let mut rows = vec![
        ("empty parts", "..".to_owned(), "assertion_unreadable"),
        ("no dots", "x".repeat(500), "assertion_unreadable"),
        ("four parts", format!("{signed}.x"), "assertion_unreadable"),
        ("five parts, as a JWE", format!("{signed}.x.x"), "assertion_unreadable"),
        ("no signature", format!("{parts}."), "assertion_unreadable"),
        ("no header", format!(".{payload}.{signature}"), "assertion_unreadable"),
        ("padding", format!("{signed}=="), "assertion_unreadable"),
        ("base64, not base64url", format!("{header}.{payload}+/.{signature}"), "assertion_unreadable"),
        ("12,289 bytes", format!("{parts}.{}", "A".repeat(12_288 - parts.len())), "assertion_unreadable"),
        ("a payload that is a list", sign_text(&good.header.to_string(), "[]", p256), "assertion_unreadable"),
        ("a repeated claim", repeated(r#"{"sub":"x","#), "assertion_unreadable"),
        ("alg none", with_header(json!({ "alg": "none" })), "assertion_algorithm"),
        ("alg nOnE", with_header(json!({ "alg": "nOnE" })), "assertion_algorithm"),
        ("alg HS256", with_header(json!({ "alg": "HS256" })), "assertion_algorithm"),
        ("alg es256", with_header(json!({ "alg": "es256" })), "assertion_algorithm"),
        ("no alg", with_header(json!({ "alg": null })), "assertion_unreadable"),
        ("alg of another key type", with_header(json!({ "alg": "RS256" })), "unknown_key"),
        ("crit", with_header(json!({ "crit": ["exp"] })), "assertion_unreadable"),
        ("b64 false", with_header(json!({ "crit": ["b64"], "b64": false })), "assertion_unreadable"),
        ("nested", with_header(json!({ "cty": "JWT" })), "assertion_type"),
        ("typ of an access token", with_header(json!({ "typ": "at+jwt" })), "assertion_type"),
        ("typ of a logout token", with_header(json!({ "typ": "logout+jwt" })), "assertion_type"),
        ("kid that is no text", with_header(json!({ "kid": 1 })), "assertion_unreadable"),
        ("kid of 256 bytes", with_header(json!({ "kid": "k".repeat(256) })), "assertion_unreadable"),
        ("kid that is a path", with_header(json!({ "kid": "../../dev/null" })), "unknown_key"),
        (
            "its own key in the header",
            good.clone().header(json!({ "jwk": other.jwk(json!({})) })).sign(&other),
            "wrong_signature",
        ),
        (
            "the address of its own key",
            good.clone()
                .header(json!({ "jku": "http://127.0.0.1:9/jwks", "x5u": "http://127.0.0.1:9/x5u" }))
                .sign(&other),
            "wrong_signature",
        ),
        ("signed by another key", good.sign(&other), "wrong_signature"),
        ("one bit flipped", with_signature(&flipped), "wrong_signature"),
        ("r and s zero", with_signature(&[0; 64]), "wrong_signature"),
        ("r and s above the order", with_signature(&[255; 64]), "wrong_signature"),
        ("63 bytes of signature", with_signature(&raw[..63]), "wrong_signature"),
        ("65 bytes of signature", with_signature(&[&raw[..], &[0]].concat()), "wrong_signature"),
        (
            "another payload",
            format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(claims.replace("iat", "tai"))),
            "wrong_signature",
        ),
        ("no iss", with_claims(json!({ "iss": null })), "assertion_unreadable"),
        ("no sub", with_claims(json!({ "sub": null })), "assertion_unreadable"),
        ("no aud", with_claims(json!({ "aud": null })), "assertion_unreadable"),
        ("no exp", with_claims(json!({ "exp": null })), "assertion_unreadable"),
        ("exp that is text", with_claims(json!({ "exp": (now + 60).to_string() })), "assertion_unreadable"),
        ("nbf that is text", with_claims(json!({ "nbf": "0" })), "assertion_unreadable"),
        ("iss that is a list", with_claims(json!({ "iss": [broker.setup.nightly.name] })), "assertion_unreadable"),
        ("another audience", with_claims(json!({ "aud": "https://other.example.com" })), "wrong_audience"),
        (
            "the endpoint as audience",
            with_claims(json!({ "aud": format!("{AUDIENCE}/oauth/token") })),
            "wrong_audience",
        ),
        ("a slash more", with_claims(json!({ "aud": format!("{AUDIENCE}/") })), "wrong_audience"),
        ("two audiences", with_claims(json!({ "aud": [AUDIENCE, "https://other.example.com"] })), "wrong_audience"),
        ("the audience twice", with_claims(json!({ "aud": [AUDIENCE, AUDIENCE] })), "wrong_audience"),
        ("no audience in the list", with_claims(json!({ "aud": [] })), "wrong_audience"),
        ("expired", with_claims(json!({ "exp": now - 31 })), "assertion_expired"),
        ("a day long", with_claims(json!({ "exp": now + 86_400 })), "assertion_long"),
        ("not yet valid", with_claims(json!({ "nbf": now + 60 })), "assertion_early"),
        ("issued in the future", with_claims(json!({ "iat": now + 60 })), "assertion_early"),
        ("another issuer", with_claims(json!({ "iss": "https://issuer.example.com" })), "unknown_issuer"),
        ("another subject", with_claims(json!({ "sub": broker.setup.door.name })), "unknown_issuer"),
        (
            "a caller without keys",
            with_claims(json!({ "iss": broker.setup.door.name, "sub": broker.setup.door.name })),
            "unknown_key",
        ),
        ("a caller that is not there", with_claims(json!({ "iss": "x", "sub": "x" })), "unknown_caller"),
        (
            "the caller in another case",
            with_claims(
                json!({ "iss": broker.setup.nightly.name.to_uppercase(), "sub": broker.setup.nightly.name.to_uppercase() }),
            ),
            "unknown_caller",
        ),
    ];
    for (what, algorithm) in [("RS256 of another key", "RS256"), ("PS256 with an RS256 key", "PS256")] {
        let key = if algorithm == "RS256" { PrivateKey::rsa(1) } else { rsa.clone() };
        let reason = if algorithm == "RS256" { "wrong_signature" } else { "unknown_key" };
        rows.push((what, draft(algorithm).sign(&key), reason));
    }
    // The public key as the secret of an HMAC is the classic confusion; here the key decides.
    rows.push((
        "a MAC with the public key",
        format!("{}.{payload}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#), URL_SAFE_NO_PAD.encode([7; 32])),
        "assertion_algorithm",
    ));
    rows
}

#[tokio::test]
async fn forgery_of_each_rule_gets_the_answer_of_a_wrong_secret() {
    let (p256, rsa) = (PrivateKey::p256(), PrivateKey::rsa(0));
    let broker = start(json!([p256.jwk(json!({ "kid": "ES256" })), rsa.jwk(json!({ "kid": "RS256" }))]), true).await;
    let good = draft(&broker, "ES256").header(json!({ "kid": "ES256" })).sign(&p256);
    send(&broker, &good).await.token();
    broker.at_rest().await;
    let mut wrong = tests::token_request(&broker.setup.nightly, Some(MEMBERS));
    wrong.headers_mut().insert(AUTHORIZATION, HeaderValue::from_str(&basic(&broker.setup.nightly.name, "x")).unwrap());
    let expected = broker.send(wrong).await;
    for (what, forgery, reason) in forgeries(&broker, &p256, &rsa) {
        let before = broker.touched();
        let answer = send(&broker, &forgery).await;
        assert_eq!(without_id(&answer), without_id(&expected), "{what}");
        assert_eq!(last_line(&broker)["reason"], reason, "{what}");
        assert_eq!(broker.touched(), before, "{what}");
        assert_eq!(broker.server.traps(), 0, "{what}");
    }
    let other_type =
        assertion_request(&good, &[("scope", MEMBERS)]).map(|body| body.replace("jwt-bearer", "saml2-bearer"));
    assert_eq!(without_id(&broker.send(other_type).await), without_id(&expected));
    assert_eq!(last_line(&broker)["reason"], "assertion_type");
    // Within the tolerance of 30 s, times may differ.
    let now = seconds_since_epoch();
    for claims in [
        json!({ "exp": now - 25 }),
        json!({ "nbf": now + 25 }),
        json!({ "exp": now + 3620 }),
        json!({ "aud": [AUDIENCE] }),
    ] {
        let late = draft(&broker, "ES256").claims(claims.clone()).sign(&p256);
        assert_eq!(send(&broker, &late).await.status, 200, "{claims}");
    }
    // A claim that is not read may be anything, however deep.
    let deep = format!("{}{}", "[".repeat(4000), "]".repeat(4000));
    let good = draft(&broker, "ES256");
    let claims = good.claims.to_string().replacen('{', &format!(r#"{{"x":{deep},"#), 1);
    assert_eq!(send(&broker, &sign_text(&good.header.to_string(), &claims, &p256)).await.status, 200);
}

#[tokio::test]
async fn request_that_authenticates_in_two_ways_or_in_half_a_way_is_invalid() {
    let key = PrivateKey::p256();
    let broker = start(json!([key.jwk(json!({}))]), true).await;
    let assertion = draft(&broker, "ES256").sign(&key);
    let check = async |what: &str, request: Request<String>| {
        let answer = broker.send(request).await;
        assert_eq!((answer.status, answer.error().as_str()), (400, "invalid_request"), "{what}");
    };
    let (id, secret) = (broker.setup.nightly.name.clone(), broker.setup.nightly.secret.clone());
    check("a secret beside it", assertion_request(&assertion, &[("client_secret", &secret)])).await;
    let mut both = assertion_request(&assertion, &[]);
    both.headers_mut().insert(AUTHORIZATION, HeaderValue::from_str(&basic(&id, &secret)).unwrap());
    check("Basic beside it", both).await;
    let mut bearer = assertion_request(&assertion, &[]);
    bearer.headers_mut().insert(AUTHORIZATION, HeaderValue::from_static("Bearer x"));
    check("another scheme beside it", bearer).await;
    check("the id of another", assertion_request(&assertion, &[("client_id", &broker.setup.door.name)])).await;
    check("the id of no caller", assertion_request(&assertion, &[("client_id", "x")])).await;
    let body = |fields: &[(&str, &str)]| {
        let mut request = assertion_request(&assertion, &[]);
        *request.body_mut() = form(fields);
        request
    };
    let grant = ("grant_type", "client_credentials");
    check("no type", body(&[grant, ("client_assertion", &assertion)])).await;
    check("a type without assertion", body(&[grant, ("client_assertion_type", JWT_BEARER)])).await;
    let twice =
        [grant, ("client_assertion_type", JWT_BEARER), ("client_assertion", &assertion), ("client_assertion", "x")];
    check("two assertions", body(&twice)).await;
    let mut in_query = assertion_request(&assertion, &[]);
    *in_query.uri_mut() = format!("/oauth/token?client_assertion={assertion}").parse().unwrap();
    check("in the query", in_query).await;
}

#[tokio::test]
async fn metadata_names_assertions_with_a_public_url() {
    let key = PrivateKey::p256();
    let broker = start(json!([key.jwk(json!({}))]), false).await;
    let metadata = broker.fetch(Method::GET, METADATA).await.json();
    assert_eq!(metadata["issuer"], AUDIENCE);
    for endpoint in ["token", "revocation"] {
        let methods = &metadata[format!("{endpoint}_endpoint_auth_methods_supported")];
        assert_eq!(*methods, json!(["client_secret_basic", "client_secret_post", "private_key_jwt"]));
        let algorithms = &metadata[format!("{endpoint}_endpoint_auth_signing_alg_values_supported")];
        assert_eq!(*algorithms, json!(["RS256", "PS256", "ES256"]));
    }
}

#[tokio::test]
async fn without_a_public_url_secrets_work_and_assertions_do_not() {
    let key = PrivateKey::p256();
    let mut setup = Setup::in_one_instance();
    let mut policy = setup.policy();
    policy[&setup.nightly.name]["keys"] = json!([key.jwk(json!({}))]);
    setup.variables.push(("callers", policy.to_string()));
    let broker = setup.start().await;
    let metadata = broker.fetch(Method::GET, METADATA).await.json();
    assert_eq!(metadata["token_endpoint_auth_methods_supported"], json!(["client_secret_basic", "client_secret_post"]));
    assert!(metadata.get("token_endpoint_auth_signing_alg_values_supported").is_none(), "{metadata}");
    // The lack of `public_url` is a mistake, and secrets work all the same.
    broker.nightly(MEMBERS).await.token();
    // Not the host of the request either, which the sender chooses.
    let own_origin = format!("http://{}", broker.server.addr());
    let assertion = Draft::of(&broker.setup.nightly.name, &own_origin, "ES256").sign(&key);
    assert_eq!(send(&broker, &assertion).await.status, 401);
    assert_eq!(last_line(&broker)["reason"], "wrong_audience");
    let readiness = broker.fetch(Method::GET, "/readyz").await;
    assert_eq!((readiness.status, readiness.json()["problem"].as_str()), (503, Some("configuration")));
    assert!(broker.server.output().contains("public_url: is empty, expected"), "{}", broker.server.output());
}
