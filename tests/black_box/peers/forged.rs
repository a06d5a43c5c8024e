//! Assertions that JOSE libraries of other projects sign and forge: jose (npm) and joserfc (PyPI).

use std::io::Seek as _;

use serde_json::{Value, json};
use tests::{MEMBERS, assertion_request, keep_secret, seconds_since_epoch, set, token_request};

use super::signed::{AUDIENCE, World};
use crate::assertions::{last_line, without_id};

/// What is signed, the library that refuses to make it, the draft for `tests/peers/forge.mjs`, and
/// the reason in the log. Without a reason the caller gets a token.
type Row = (&'static str, &'static str, Value, Option<&'static str>);

/// Drafts of assertions of one caller: a good one, and others that differ from it.
struct Drafts {
    name: String,
    now: u64,
}

impl Drafts {
    fn good(&self, algorithm: &str) -> Value {
        let (name, now) = (&self.name, self.now);
        json!({
            "make": "sign",
            "key": algorithm,
            "header": { "alg": algorithm, "kid": algorithm },
            "payload": { "iss": name, "sub": name, "aud": AUDIENCE, "iat": now, "exp": now + 60, "jti": tests::random("jti") },
        })
    }

    fn header(&self, members: Value) -> Value {
        let mut draft = self.good("ES256");
        set(&mut draft["header"], members);
        draft
    }

    fn claims(&self, members: Value) -> Value {
        let mut draft = self.good("ES256");
        set(&mut draft["payload"], members);
        draft
    }

    /// The claims as text, after a change of the text.
    fn text(&self, change: impl Fn(String) -> String) -> Value {
        let mut draft = self.good("ES256");
        draft["payload"] = change(draft["payload"].to_string()).into();
        draft
    }

    /// Another way to make it, with another key and header.
    fn made(&self, make: &str, key: Value, header: Value) -> Value {
        let mut draft = self.good("ES256");
        set(&mut draft, json!({ "make": make, "header": header }));
        draft["key"] = key;
        draft
    }
}

/// Rows for each rule of an assertion.
fn rows(drafts: &Drafts) -> Vec<Row> {
    let all = [accepted(drafts), forged_headers(drafts), forged_keys(drafts), forged_claims(drafts)];
    all.into_iter().flatten().collect()
}

fn accepted(drafts: &Drafts) -> Vec<Row> {
    let mut without_kid = ["ES256", "RS256", "PS256"].map(|algorithm| drafts.good(algorithm));
    without_kid.iter_mut().for_each(|draft| set(&mut draft["header"], json!({ "kid": null })));
    let [es256, rs256, ps256] = without_kid;
    vec![
        ("ES256", "", drafts.good("ES256"), None),
        ("RS256", "", drafts.good("RS256"), None),
        ("PS256", "", drafts.good("PS256"), None),
        ("ES256 without kid", "", es256, None),
        ("RS256 without kid", "", rs256, None),
        ("PS256 without kid", "", ps256, None),
        ("typ JWT", "", drafts.header(json!({ "typ": "JWT" })), None),
        ("typ of RFC 7523bis", "", drafts.header(json!({ "typ": "client-authentication+jwt" })), None),
        ("its whole media type", "", drafts.header(json!({ "typ": "application/client-authentication+jwt" })), None),
        ("an audience in a list", "", drafts.claims(json!({ "aud": [AUDIENCE] })), None),
        ("a time with a fraction", "", drafts.claims(json!({ "exp": drafts.now as f64 + 59.5 })), None),
        ("more claims", "", drafts.claims(json!({ "nonce": { "a": [1, null] } })), None),
        ("white space", "", drafts.text(|text| text.replace(',', " ,\r\n\t")), None),
    ]
}

fn forged_headers(drafts: &Drafts) -> Vec<Row> {
    let unreadable = Some("assertion_unreadable");
    let jwe = json!({ "alg": "RSA-OAEP-256", "enc": "A256GCM" });
    vec![
        ("unsecured", "", drafts.made("none", Value::Null, json!({ "alg": "none" })), unreadable),
        ("encrypted", "", drafts.made("encrypt", json!("RS256"), jwe), Some("assertion_algorithm")),
        ("JSON serialization", "", drafts.made("json", json!("ES256"), json!({ "alg": "ES256" })), unreadable),
        ("crit", "", drafts.header(json!({ "crit": ["kid"] })), unreadable),
        ("b64 false", "jose", drafts.header(json!({ "b64": false, "crit": ["b64"] })), unreadable),
        ("kid that is no text", "joserfc", drafts.header(json!({ "kid": 1 })), unreadable),
        ("kid of 256 bytes", "", drafts.header(json!({ "kid": "k".repeat(256) })), unreadable),
        ("kid that is a path", "", drafts.header(json!({ "kid": "../../dev/null" })), Some("unknown_key")),
        ("kid that is SQL", "", drafts.header(json!({ "kid": "' OR '1'='1" })), Some("unknown_key")),
        ("nested", "", drafts.header(json!({ "cty": "JWT" })), Some("assertion_type")),
        ("typ of an access token", "", drafts.header(json!({ "typ": "at+jwt" })), Some("assertion_type")),
        ("typ of a DPoP proof", "", drafts.header(json!({ "typ": "dpop+jwt" })), Some("assertion_type")),
    ]
}

fn forged_keys(drafts: &Drafts) -> Vec<Row> {
    let stranger = |header: Value| drafts.made("sign", Value::Null, header);
    let of_another = |algorithm: &str, key: &str, kid: &str| {
        drafts.made("sign", json!(key), json!({ "alg": algorithm, "kid": kid }))
    };
    let mac = |kid: &str| drafts.made("mac", json!(kid), json!({ "alg": "HS256", "kid": kid }));
    let (algorithm, unknown, wrong) = (Some("assertion_algorithm"), Some("unknown_key"), Some("wrong_signature"));
    let jwk = json!({ "kty": "oct", "k": "c2VjcmV0" });
    vec![
        ("a MAC with the RSA key", "joserfc", mac("RS256"), algorithm),
        ("a MAC with the EC key", "joserfc", mac("ES256"), algorithm),
        ("RS512", "", of_another("RS512", "RS256", "RS256"), algorithm),
        ("PS384", "", of_another("PS384", "PS256", "PS256"), algorithm),
        ("ES384", "", stranger(json!({ "alg": "ES384", "kid": "ES256" })), algorithm),
        ("Ed25519", "", stranger(json!({ "alg": "Ed25519", "kid": "ES256" })), algorithm),
        ("PS256 with the key of RS256", "", of_another("PS256", "RS256", "RS256"), unknown),
        ("RS256 with the key of PS256", "", of_another("RS256", "PS256", "PS256"), unknown),
        ("RS256 with the id of ES256", "", of_another("RS256", "RS256", "ES256"), unknown),
        ("ES256 of a stranger", "", stranger(json!({ "alg": "ES256", "kid": "ES256" })), wrong),
        ("RS256 of a stranger", "", stranger(json!({ "alg": "RS256", "kid": "RS256" })), wrong),
        ("PS256 of a stranger without kid", "", stranger(json!({ "alg": "PS256" })), wrong),
        ("a key in the header", "", stranger(json!({ "alg": "ES256", "kid": "ES256", "jwk": jwk })), wrong),
        (
            "addresses of keys",
            "",
            stranger(json!({ "alg": "ES256", "jku": "http://127.0.0.1:9/", "x5u": "http://127.0.0.1:9/" })),
            wrong,
        ),
    ]
}

fn forged_claims(drafts: &Drafts) -> Vec<Row> {
    let now = drafts.now;
    let row = |what, claims, reason| (what, "", drafts.claims(claims), Some(reason));
    let unreadable = "assertion_unreadable";
    vec![
        row("no iss", json!({ "iss": null }), unreadable),
        row("no sub", json!({ "sub": null }), unreadable),
        row("no aud", json!({ "aud": null }), unreadable),
        row("no exp", json!({ "exp": null }), unreadable),
        row("exp that is text", json!({ "exp": (now + 60).to_string() }), unreadable),
        row("nbf that is text", json!({ "nbf": "0" }), unreadable),
        row("iat that is text", json!({ "iat": "0" }), unreadable),
        row("sub that is a list", json!({ "sub": [drafts.name] }), unreadable),
        ("a name twice", "", drafts.text(|text| text.replacen('{', r#"{"sub":"x","#, 1)), Some(unreadable)),
        ("claims that are a list", "", drafts.text(|text| format!("[{text}]")), Some(unreadable)),
        ("claims that are text", "", drafts.text(|_| "x".repeat(100)), Some(unreadable)),
        row("the endpoint as audience", json!({ "aud": format!("{AUDIENCE}/oauth/token") }), "wrong_audience"),
        row("a slash more", json!({ "aud": format!("{AUDIENCE}/") }), "wrong_audience"),
        row("two audiences", json!({ "aud": [AUDIENCE, "https://other.example.com"] }), "wrong_audience"),
        row("no audience in the list", json!({ "aud": [] }), "wrong_audience"),
        row("expired", json!({ "exp": now - 31 }), "assertion_expired"),
        row("a day long", json!({ "exp": now + 86_400 }), "assertion_long"),
        row("not yet valid", json!({ "nbf": now + 90 }), "assertion_early"),
        row("issued later", json!({ "iat": now + 90 }), "assertion_early"),
        row("another issuer", json!({ "iss": "https://issuer.example.com" }), "unknown_issuer"),
        row("a caller that is not there", json!({ "iss": "x", "sub": "x" }), "unknown_caller"),
    ]
}

/// Lets a library make each row, and checks what the broker answers and logs.
async fn check(library: &str, command: &'static [&'static str]) {
    let world = World::start().await;
    let broker = &world.broker;
    let rows = rows(&Drafts { name: broker.setup.nightly.name.clone(), now: seconds_since_epoch() });
    let drafts: Vec<_> = rows.iter().map(|(_, _, draft, _)| draft).collect();
    let mut stdin = tempfile::tempfile().unwrap();
    serde_json::to_writer(&stdin, &drafts).unwrap();
    stdin.rewind().unwrap();
    let printed = world.run(command, stdin.into()).await;
    let made: Vec<Value> =
        printed.lines().find_map(|line| serde_json::from_str(line).ok()).unwrap_or_else(|| panic!("{printed}"));
    assert_eq!(made.len(), rows.len());

    // The policy has no secret of this caller.
    let wrong_secret = broker.send(token_request(&broker.setup.nightly, Some(MEMBERS))).await;
    assert_eq!(wrong_secret.status, 401);
    for ((what, refused_by, _, reason), made) in rows.iter().zip(&made) {
        let what = format!("{library}: {what}");
        let assertion = made.as_str();
        assert_eq!(assertion.is_none(), *refused_by == library, "{what}: {made}");
        let Some(assertion) = assertion else { continue };
        keep_secret("assertion", assertion);
        let answer = broker.send(assertion_request(assertion, &[("scope", MEMBERS)])).await;
        assert_eq!(last_line(broker)["reason"].as_str(), *reason, "{what}: {assertion}");
        match reason {
            None => assert_eq!(answer.status, 200, "{what}"),
            Some(_) => assert_eq!(without_id(&answer), without_id(&wrong_secret), "{what}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forgeries_by_jose_get_the_answer_of_a_wrong_secret() {
    check("jose", &["node", "forge.mjs"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forgeries_by_joserfc_get_the_answer_of_a_wrong_secret() {
    check("joserfc", &[".venv/bin/python", "forge.py"]).await;
}
