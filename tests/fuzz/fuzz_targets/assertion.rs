//! Fuzzes an assertion as three lines: header, claims, and a place with the letters that replace
//! those there. The target signs header and claims. If the broker returns a token for them, a second
//! reading of the rules agrees, and no change of the text gets a token. Nothing unsigned does.

#![no_main]

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use fuzz::{NOW, PUBLIC_URL, World, assertion_request, private_key, signed};
use http::StatusCode;
use libfuzzer_sys::fuzz_target;
use p256::ecdsa::SigningKey;
use serde::Deserializer as _;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value, json};

const CALLER: &str = "door";
const KEY_ID: &str = "2027";
/// An outside issuer with the same key, and the claims of the caller's identity there.
const ISSUER: &str = "https://issuer.example";
const PINNED: [(&str, &[&str]); 2] = [("sub", &["job"]), ("ref", &["main", "release"])];

fuzz_target!(|input: &str| {
    let mut lines = input.splitn(3, '\n');
    let [header, claims, change] = [(); 3].map(|()| lines.next().unwrap_or_default());
    let key = private_key();
    let assertion = signed(&key, header, claims);

    let status = ask(&key, &assertion);
    let is_right = is_right(header, claims).is_some();
    assert_eq!(status == StatusCode::OK, is_right, "{status} {header} {claims}");
    let (unsigned, _) = assertion.rsplit_once('.').expect("three parts");
    for other in [input.to_owned(), unsigned.to_owned(), changed(&assertion, change)] {
        if other != assertion {
            assert_eq!(ask(&key, &other), StatusCode::UNAUTHORIZED, "{other}");
        }
    }
});

/// The assertion with other letters from a place on.
fn changed(assertion: &str, change: &str) -> String {
    let (place, letters) = change.split_once(' ').unwrap_or((change, "A"));
    let place = place.parse().unwrap_or(0) % assertion.len();
    let mut bytes = assertion.as_bytes().to_vec();
    let end = bytes.len().min(place + letters.len());
    bytes.splice(place..end, letters.bytes());
    // Bytes that are not text cannot be sent in this form; the request target has those.
    String::from_utf8(bytes).unwrap_or_default()
}

/// The rules of an assertion, read a second time.
fn is_right(header: &str, claims: &str) -> Option<()> {
    let holds = |condition: bool| condition.then_some(());
    // The parts, the 86 letters of the signature and two dots.
    holds(header.len() <= 1024 && encoded(header) + encoded(claims) + 86 + 2 <= 12_288)?;
    let payload = claims;
    let [header, claims] = [object(header, &KNOWN)?, object(payload, &KNOWN)?];
    holds(header.get("alg")? == "ES256" && !header.contains_key("crit") && !header.contains_key("cty"))?;
    holds(header.get("kid").is_none_or(|kid| kid == KEY_ID))?;
    let typ = header.get("typ").map_or(Some("JWT"), Value::as_str)?.to_ascii_lowercase();
    let typ = typ.strip_prefix("application/").unwrap_or(&typ);
    if claims.get("iss")? == ISSUER {
        holds(["jwt", "client-authentication+jwt", "jose", "at+jwt"].contains(&typ))?;
        let claims = object(payload, &[&KNOWN[..], &OF_IDENTITIES].concat())?;
        let is_pinned = |(name, values): &(&str, &[&str])| {
            claims.get(*name).and_then(Value::as_str).is_some_and(|value| values.contains(&value))
        };
        holds(PINNED.iter().all(is_pinned))?;
        let event = claims.get("event_name").and_then(Value::as_str);
        holds(!event.is_some_and(|event| ["pull_request_target", "workflow_run"].contains(&event)))?;
    } else {
        holds(["jwt", "client-authentication+jwt"].contains(&typ))?;
        holds(claims.get("iss")? == CALLER && claims.get("sub")? == CALLER)?;
    }
    claims.get("sub")?.as_str()?;
    let aud = claims.get("aud")?;
    holds(*aud == PUBLIC_URL || *aud == json!([PUBLIC_URL]))?;
    let now = NOW.unix_ms() as f64;
    let date = |name: &str| claims.get(name).map_or(Some(None), |value| value.as_f64().map(Some));
    let ms = |seconds: f64| (seconds * 1000.0).floor();
    let exp = date("exp")??;
    holds((0.0..1e11).contains(&exp) && now < ms(exp) + 30e3 && ms(exp) <= now + 3_630e3)?;
    for name in ["nbf", "iat"] {
        holds(date(name)?.is_none_or(|from| (0.0..1e11).contains(&from) && ms(from) <= now + 30e3))?;
    }
    Some(())
}

fn encoded(text: &str) -> usize {
    BASE64_URL_SAFE_NO_PAD.encode(text).len()
}

/// The members of a JSON object that have a meaning. At its top are at most 100 names, no two alike.
/// Values of others may be anything: too large, too deep, or half a surrogate pair.
fn object(text: &str, known: &[&str]) -> Option<Map<String, Value>> {
    struct Known<'k>(&'k [&'k str]);
    impl<'de> Visitor<'de> for Known<'_> {
        type Value = (Map<String, Value>, BTreeSet<String>, usize);

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let (mut members, mut names, mut count) = (Map::new(), BTreeSet::new(), 0);
            while let Some(name) = map.next_key::<String>()? {
                count += 1;
                if self.0.contains(&&*name) {
                    members.insert(name.clone(), map.next_value()?);
                } else {
                    map.next_value::<IgnoredAny>()?;
                }
                names.insert(name);
            }
            Ok((members, names, count))
        }
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let (members, names, count) = deserializer.deserialize_map(Known(known)).ok()?;
    deserializer.end().ok()?;
    (names.len() == count && count <= 100).then_some(members)
}

/// Members of a header, and claims, that have a meaning.
const KNOWN: [&str; 11] = ["alg", "kid", "typ", "crit", "cty", "iss", "sub", "aud", "exp", "nbf", "iat"];

/// Claims that have a meaning only in a token of the issuer.
const OF_IDENTITIES: [&str; 2] = ["ref", "event_name"];

fn ask(key: &SigningKey, assertion: &str) -> StatusCode {
    let point = key.verifying_key().to_sec1_point(false);
    let [x, y] = [point.x(), point.y()].map(|number| BASE64_URL_SAFE_NO_PAD.encode(number.expect("a point")));
    let jwk = json!({ "kty": "EC", "crv": "P-256", "kid": KEY_ID, "x": x, "y": y });
    let claims = json!({ "sub": PINNED[0].1, "ref": PINNED[1].1 });
    let identities = json!([{ "issuer": "issuer", "claims": claims }]);
    let callers = json!({ CALLER: { "keys": [jwk], "identities": identities, "scopes": ["a"] } }).to_string();
    let issuers = json!({ "issuer": { "issuer": ISSUER, "jwks": { "keys": [jwk] } } }).to_string();
    let (response, log) = World::with_issuers(&callers, &issuers).ask(assertion_request(assertion));
    if assertion.len() > 40 {
        assert!(!response.body().contains(assertion) && !log.concat().contains(assertion), "{assertion} is told");
    }
    // A text without any assertion is a request that lacks a parameter.
    if assertion.is_empty() { StatusCode::UNAUTHORIZED } else { response.status() }
}
