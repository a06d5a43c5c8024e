//! Fuzzes an issuer's answer to the request for its keys, and the record of them: a line with the
//! status and a number of spaces after the body, then the body. A second reading finds the same
//! keys. The record keeps them. Only a key of the answer verifies, and only with its own key the
//! broker serves a token.

#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use fuzz::{CLIENT_SECRET, NOW, PUBLIC_URL, World, assertion_request, private_key, signed};
use http::{Response, StatusCode};
use libfuzzer_sys::fuzz_target;
use officernd_token_broker::jwks::{ANSWER_LIMIT, read_answer};
use officernd_token_broker::key_record::KeyRecord;
use officernd_token_broker::key_set::KeySet;
use officernd_token_broker::seal::{NONCE_LENGTH, Seal};
use officernd_token_broker::secret::ClientSecret;
use officernd_token_broker::signature::{Algorithm, verify};
use p256::ecdsa::VerifyingKey;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};

const ISSUER: &str = "https://issuer.example";
const KEY_ID: &str = "2027";
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A key of RFC 7515 appendix A.2: its modulus, what it has signed, and the signature.
const RSA: [&str; 3] = [
    "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
    "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ",
    "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
];

fuzz_target!(|bytes: &[u8]| {
    let line = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (line, body) = bytes.split_at(line);
    let mut numbers = std::str::from_utf8(line).unwrap_or_default().split(' ').map(|number| number.parse().ok());
    let status = numbers.next().flatten().and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or_default();
    let spaces = usize::from(numbers.next().flatten().unwrap_or(0u16)) * 2;
    let mut body = body.get(1..).unwrap_or_default().to_vec();
    record_of(&body);
    body.resize(body.len() + spaces, b' ');

    let expected = expected(status, &body);
    match read_answer(status, &body) {
        Ok(keys) => {
            assert_eq!(known(&keys), expected);
            // Printed again, they are the same.
            let again = read_answer(StatusCode::OK, printed(&expected).to_string().as_bytes());
            assert_eq!(again.as_ref(), Ok(&keys));
            check_record(&keys);
            check_signatures(&keys);
        }
        Err(problem) => assert!(expected.is_empty(), "{problem}: {expected:?}"),
    }
    serve(status, body, &expected);
});

/// A key: its id, the name of its algorithm, and the modulus or the two coordinates.
type Key = (String, &'static str, Vec<u8>);

/// The keys of a set. Their numbers can only be printed.
fn known(keys: &KeySet) -> Vec<Key> {
    let printed = serde_json::to_value(keys).expect("a set of keys prints");
    let numbers = printed.as_array().expect("a list").iter().map(|key| {
        let numbers = key["numbers"].as_array().expect("a list").iter();
        numbers.map(|number| number.as_u64().and_then(|number| number.try_into().ok()).expect("a byte")).collect()
    });
    let key = |(key, numbers): (&officernd_token_broker::signature::PublicKey, Vec<u8>)| {
        (key.kid().expect("it has an id").to_owned(), key.algorithm().name(), numbers)
    };
    keys.iter().zip(numbers).map(key).collect()
}

/// The keys as a JWK Set.
fn printed(keys: &[Key]) -> Value {
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let jwk = |(kid, algorithm, numbers): &Key| match *algorithm {
        "ES256" => {
            let (x, y) = numbers.split_at(32);
            json!({ "kty": "EC", "crv": "P-256", "kid": kid, "x": encode(x), "y": encode(y) })
        }
        alg => json!({ "kty": "RSA", "alg": alg, "kid": kid, "n": encode(numbers), "e": "AQAB" }),
    };
    json!({ "keys": keys.iter().map(jwk).collect::<Vec<_>>() })
}

/// The keys in an answer, read a second time; none if the answer changes nothing.
fn expected(status: StatusCode, body: &[u8]) -> Vec<Key> {
    let mut keys: Vec<Key> = Vec::new();
    let set = std::str::from_utf8(body).ok().and_then(|text| serde_json::from_str(text).ok());
    let Some(Tree::List(list)) = set.as_ref().and_then(|set: &Tree| set.only("keys").ok()?) else { return keys };
    for key in list.iter().filter(|_| status == StatusCode::OK).filter_map(key) {
        if !keys.iter().any(|(kid, algorithm, _)| (kid, algorithm) == (&key.0, &key.1)) {
            keys.push(key);
        }
    }
    keys.truncate(32);
    keys
}

/// A key that the broker uses: public, meant for signatures, for one of three algorithms, with an id.
fn key(jwk: &Tree) -> Option<Key> {
    let Tree::Object(members) = jwk else { return None };
    let is_private = |name: &str| ["d", "p", "q", "dp", "dq", "qi", "oth"].contains(&name);
    let text = |name: &str| match jwk.only(name) {
        Ok(None) => Ok(None),
        Ok(Some(Tree::Text(text))) => Ok(Some(text.as_str())),
        _ => Err(()),
    };
    let number = |name: &str| bytes_of(text(name).ok()??);
    let may_verify = match jwk.only("key_ops").ok()? {
        None => true,
        Some(Tree::List(list)) => list.iter().any(|item| matches!(item, Tree::Text(text) if text == "verify")),
        Some(_) => false,
    };
    let is_for_signatures = matches!(text("use").ok()?, None | Some("sig" | "jwt-svid")) && may_verify;
    if members.iter().any(|(name, _)| is_private(name)) || !is_for_signatures {
        return None;
    }
    let (algorithm, numbers) = match (text("kty").ok()??, text("alg").ok()?) {
        ("RSA", alg @ (None | Some("RS256" | "PS256"))) => {
            let modulus =
                number("n").filter(|n| (256..=512).contains(&n.len()) && n.last().is_some_and(|end| end % 2 == 1))?;
            let has_2048_bits = if modulus.len() == 256 { modulus[0] >= 0x80 } else { modulus[0] > 0 };
            let is_right = has_2048_bits && number("e")? == [1, 0, 1];
            (if alg == Some("PS256") { "PS256" } else { "RS256" }, is_right.then_some(modulus)?)
        }
        ("EC", None | Some("ES256")) if text("crv").ok()? == Some("P-256") => {
            let point = [number("x").filter(|x| x.len() == 32)?, number("y").filter(|y| y.len() == 32)?].concat();
            VerifyingKey::from_sec1_bytes(&[&[4], &point[..]].concat()).ok()?;
            ("ES256", point)
        }
        _ => return None,
    };
    let kid = text("kid").ok()??;
    (kid.len() <= 255).then(|| (kid.to_owned(), algorithm, numbers))
}

/// The bytes of a text in base64url, if it is the one that a writer of these bytes makes.
fn bytes_of(text: &str) -> Option<Vec<u8>> {
    let config = GeneralPurposeConfig::new();
    let config = config.with_decode_padding_mode(DecodePaddingMode::Indifferent).with_decode_allow_trailing_bits(true);
    let bytes = GeneralPurpose::new(&URL_SAFE, config).decode(text).ok()?;
    (BASE64_URL_SAFE_NO_PAD.encode(&bytes) == text).then_some(bytes)
}

/// A JSON value that keeps repeated members.
enum Tree {
    Text(String),
    List(Vec<Tree>),
    Object(Vec<(String, Tree)>),
    Other,
}

impl Tree {
    /// The value of a member; an error if it appears twice, or if the value is no object.
    fn only(&self, name: &str) -> Result<Option<&Tree>, ()> {
        let Self::Object(members) = self else { return Err(()) };
        let values: Vec<_> = members.iter().filter(|(known, _)| known == name).map(|(_, value)| value).collect();
        if values.len() > 1 { Err(()) } else { Ok(values.first().copied()) }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Tree;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("JSON")
            }

            fn visit_unit<E>(self) -> Result<Tree, E> {
                Ok(Tree::Other)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Tree, E> {
                Ok(Tree::Other)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Tree, E> {
                Ok(Tree::Other)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Tree, E> {
                Ok(Tree::Other)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Tree, E> {
                Ok(Tree::Other)
            }

            fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
                Ok(Tree::Text(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tree, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = list.next_element()? {
                    values.push(value);
                }
                Ok(Tree::List(values))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Tree::Object(members))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

fn place() -> (Seal, String) {
    let seal = Seal::of(&ClientSecret::new(CLIENT_SECRET));
    (seal, KeyRecord::place("https://issuer.example/keys", &[7; 32]))
}

/// Checks that the record of fetched keys has them until they are a day old.
fn check_record(keys: &KeySet) {
    let mut record = KeyRecord::default();
    record.begin(NOW);
    record.end(Some(keys.clone()));
    let (seal, place) = place();
    let sealed = record.seal(&seal, &place, [7; NONCE_LENGTH]);
    let opened = KeyRecord::open(&sealed, &seal, &place, NOW).expect("the seal is right");
    assert_eq!(opened, record);
    for key in keys.iter() {
        let kid = key.kid().expect("it has an id");
        assert_eq!(opened.find(kid, key.algorithm(), NOW), Some(key));
        assert_eq!(opened.find(kid, key.algorithm(), NOW + DAY), None);
        assert_eq!(opened.find(&format!("{kid}x"), key.algorithm(), NOW).filter(|other| *other == key), None);
    }
}

/// Checks that a record that can be read stays the same when it is written and read again.
fn record_of(bytes: &[u8]) {
    let (seal, place) = place();
    let open = |sealed: &[u8]| KeyRecord::open(sealed, &seal, &place, NOW);
    let Some(record) = open(&seal.seal(bytes, &place, [7; NONCE_LENGTH])) else { return };
    assert_eq!(open(&record.seal(&seal, &place, [8; NONCE_LENGTH])).as_ref(), Some(&record));
    for has_key in [false, true] {
        let _ = (record.step(has_key, NOW), record.is_in_trouble(NOW));
    }
}

/// What our private key has signed. Signing takes longer than all else.
struct Ours {
    /// The coordinates of the public key.
    point: Vec<u8>,
    /// A token of the issuer.
    token: String,
}

static OURS: LazyLock<Ours> = LazyLock::new(|| {
    let key = private_key();
    let header = json!({ "alg": "ES256", "kid": KEY_ID });
    let exp = NOW.unix_ms() / 1000 + 300;
    let claims = json!({ "iss": ISSUER, "sub": "job", "aud": PUBLIC_URL, "exp": exp });
    let point = key.verifying_key().to_sec1_point(false).as_bytes()[1..].to_vec();
    Ours { point, token: signed(&key, &header.to_string(), &claims.to_string()) }
});

/// Checks that a key verifies the signature of its own private key and no other.
fn check_signatures(keys: &KeySet) {
    let (message, by_us) = OURS.token.rsplit_once('.').expect("three parts");
    let by_us = bytes_of(by_us).expect("base64url");
    let [modulus, by_rsa] = [RSA[0], RSA[2]].map(|text| bytes_of(text).expect("base64url"));
    for (key, (_, algorithm, numbers)) in keys.iter().zip(known(keys)) {
        let is_ours = algorithm == "ES256" && numbers == OURS.point;
        let is_rsa = algorithm == "RS256" && numbers == modulus;
        for other in Algorithm::ALL {
            assert_eq!(verify(Some(key), other, message.as_bytes(), &by_us), is_ours && other == Algorithm::Es256);
            assert_eq!(verify(Some(key), other, RSA[1].as_bytes(), &by_rsa), is_rsa && other == Algorithm::Rs256);
        }
    }
}

/// Lets the broker fetch the keys for a token that ours signs.
fn serve(status: StatusCode, body: Vec<u8>, expected: &[Key]) {
    let identities = json!([{ "issuer": "issuer", "claims": { "sub": "job" } }]);
    let callers = json!({ "door": { "identities": identities, "scopes": ["a"] } }).to_string();
    let issuers = json!({ "issuer": { "issuer": ISSUER, "jwks_uri": "https://issuer.example/keys" } }).to_string();

    let is_too_long = body.len() > ANSWER_LIMIT;
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let (response, _) = World::with_fetched_keys(&callers, &issuers, answer).ask(assertion_request(&OURS.token));
    let named = expected.iter().find(|(kid, algorithm, _)| kid == KEY_ID && *algorithm == "ES256");
    let right = match named {
        _ if is_too_long || expected.is_empty() => StatusCode::SERVICE_UNAVAILABLE,
        Some((_, _, numbers)) if *numbers == OURS.point => StatusCode::OK,
        _ => StatusCode::UNAUTHORIZED,
    };
    assert_eq!(response.status(), right, "{expected:?}");
}
