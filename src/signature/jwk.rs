//! Reads a public key from a JWK (RFC 7517, RFC 7518 section 6).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Algorithm, JwkMistake, KID_BYTES, PublicKey, RSA_BITS, p256_key};
use crate::json::{Json, read_value};

/// Members that only a private key has (RFC 7518 sections 6.2.2 and 6.3.2).
const PRIVATE: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "oth"];

/// 65537 in base64url, the only public exponent that is accepted.
const EXPONENT: &str = "AQAB";

const NO_OBJECT: JwkMistake = mistake("", "is not a JSON object, expected a JWK");

impl PublicKey {
    /// Reads a JWK from text.
    ///
    /// # Errors
    /// As [`PublicKey::from_json`].
    pub fn parse(jwk: &str) -> Result<Self, JwkMistake> {
        read_value(jwk, Self::from_json).unwrap_or(Err(NO_OBJECT))
    }

    /// Reads a JWK. It ignores members that it does not know (RFC
    /// 7517 section 4).
    ///
    /// # Errors
    /// The first member that is missing, is repeated, or has another value than a public key for
    /// RS256, PS256 or ES256; or that the value is no object.
    pub(crate) fn from_json(jwk: Json<'_, '_>) -> Result<Self, JwkMistake> {
        let members = jwk.fields().ok_or(NO_OBJECT)?;
        if let Some(member) = PRIVATE.into_iter().find(|name| members.clone().any(|(known, _)| known == *name)) {
            return Err(mistake(member, "is part of a private key, expected only the public key"));
        }
        check_purpose(jwk)?;
        let kid = text(jwk, "kid")?;
        if kid.is_some_and(|kid| kid.len() > KID_BYTES) {
            return Err(mistake("kid", "is too long, expected at most 255 bytes"));
        }
        let alg = text(jwk, "alg")?;
        let (algorithm, numbers) = match text(jwk, "kty")? {
            Some("RSA") => match alg {
                None | Some("RS256") => (Algorithm::Rs256, modulus(jwk)?),
                Some("PS256") => (Algorithm::Ps256, modulus(jwk)?),
                Some(_) => return Err(mistake("alg", "does not fit an RSA key, expected RS256, PS256 or nothing")),
            },
            Some("EC") => match alg {
                None | Some("ES256") => (Algorithm::Es256, point(jwk)?),
                Some(_) => return Err(mistake("alg", "does not fit a key of P-256, expected ES256 or nothing")),
            },
            _ => return Err(mistake("kty", "is not valid, expected RSA or EC")),
        };
        Ok(Self { algorithm, kid: kid.map(Into::into), numbers: numbers.into() })
    }
}

/// Checks that the key is meant for verifying (RFC 7517 sections 4.2 and 4.3). SPIFFE's bundles say
/// `jwt-svid` instead of `sig`.
fn check_purpose(jwk: Json<'_, '_>) -> Result<(), JwkMistake> {
    if !matches!(text(jwk, "use")?, None | Some("sig" | "jwt-svid")) {
        return Err(mistake("use", "is for another purpose, expected sig or nothing"));
    }
    let may_verify = match member(jwk, "key_ops")? {
        None => true,
        Some(operations) => {
            let mut operations = operations.values().into_iter().flatten();
            operations.any(|operation| operation.text().is_some_and(|text| text == "verify"))
        }
    };
    if may_verify { Ok(()) } else { Err(mistake("key_ops", "is not valid, expected a list with verify, or nothing")) }
}

/// The modulus: odd, and of an allowed size. Whether it is a product of two primes, the broker
/// cannot check.
fn modulus(jwk: Json<'_, '_>) -> Result<Vec<u8>, JwkMistake> {
    if text(jwk, "e")? != Some(EXPONENT) {
        return Err(mistake("e", "is not valid, expected AQAB, which is 65537"));
    }
    let modulus = bytes(jwk, "n")?;
    let is_odd = modulus.last().is_some_and(|byte| byte % 2 == 1);
    // RFC 7518 section 2: a number has no leading zero bytes.
    let bits = modulus.first().map_or(0, |byte| modulus.len() * 8 - byte.leading_zeros() as usize);
    if modulus.first() == Some(&0) || !RSA_BITS.contains(&bits) || !is_odd {
        return Err(mistake("n", "is not valid, expected an odd number of 2048 to 4096 bits in base64url"));
    }
    Ok(modulus)
}

/// The coordinates of a point on P-256, 32 bytes each (RFC 7518 section 6.2.1).
fn point(jwk: Json<'_, '_>) -> Result<Vec<u8>, JwkMistake> {
    if text(jwk, "crv")? != Some("P-256") {
        return Err(mistake("crv", "is not valid, expected P-256"));
    }
    let mut point = Vec::with_capacity(64);
    for name in ["x", "y"] {
        let coordinate = bytes(jwk, name)?;
        if coordinate.len() != 32 {
            return Err(mistake(name, "is not valid, expected 32 bytes in base64url"));
        }
        point.extend(coordinate);
    }
    match p256_key(&point) {
        Some(_) => Ok(point),
        None => Err(mistake("x", "is not on P-256 together with y, expected the two of one key")),
    }
}

/// The bytes of a member in base64url without padding and with its last bits zero (RFC 7515
/// section 2); none if the member is missing.
fn bytes(jwk: Json<'_, '_>, name: &'static str) -> Result<Vec<u8>, JwkMistake> {
    let text = text(jwk, name)?.unwrap_or_default();
    URL_SAFE_NO_PAD.decode(text).map_err(|_| mistake(name, "is not base64url without padding"))
}

fn text<'p>(jwk: Json<'p, '_>, name: &'static str) -> Result<Option<&'p str>, JwkMistake> {
    let Some(value) = member(jwk, name)? else { return Ok(None) };
    value.text().map(|text| Some(&**text)).ok_or(mistake(name, "is not text"))
}

/// The value of a member. RFC 7517 section 4 requires that it appears once.
fn member<'p, 'a>(jwk: Json<'p, 'a>, name: &'static str) -> Result<Option<Json<'p, 'a>>, JwkMistake> {
    let fields = jwk.fields().into_iter().flatten();
    let mut values = fields.filter(|(known, _)| *known == name).map(|(_, value)| value);
    let value = values.next();
    if values.next().is_some() {
        return Err(mistake(name, "appears twice, expected each member once"));
    }
    Ok(value)
}

const fn mistake(member: &'static str, problem: &'static str) -> JwkMistake {
    JwkMistake { member, problem }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn encode(bytes: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn rsa() -> Value {
        json!({ "kty": "RSA", "n": encode(&[255; 256]), "e": "AQAB" })
    }

    /// The key of RFC 7515 appendix A.3.
    fn p256() -> Value {
        json!({
            "kty": "EC",
            "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        })
    }

    fn with(mut jwk: Value, name: &str, value: impl Into<Value>) -> Value {
        jwk[name] = value.into();
        jwk
    }

    fn without(mut jwk: Value, name: &str) -> Value {
        jwk.as_object_mut().unwrap().remove(name);
        jwk
    }

    #[track_caller]
    fn check(jwk: &Value, expected: Algorithm) {
        assert_eq!(PublicKey::parse(&jwk.to_string()).map(|key| key.algorithm()), Ok(expected), "{jwk}");
    }

    /// Checks which member a mistake is about, and how its text begins.
    #[track_caller]
    fn check_mistake(jwk: &str, member: &str, problem: &str) {
        let mistake = PublicKey::parse(jwk).unwrap_err();
        assert_eq!(mistake.member, member, "{jwk}");
        assert!(mistake.problem.starts_with(problem), "{jwk}: {mistake:?} should start with {problem:?}");
    }

    #[test]
    fn key_decides_its_algorithm() {
        check(&rsa(), Algorithm::Rs256);
        check(&with(rsa(), "alg", "RS256"), Algorithm::Rs256);
        check(&with(rsa(), "alg", "PS256"), Algorithm::Ps256);
        check(&p256(), Algorithm::Es256);
        check(&with(p256(), "alg", "ES256"), Algorithm::Es256);
        for alg in ["ES256", "RS512", "PS384", "HS256", "none", "rs256", "RSA-OAEP", ""] {
            check_mistake(&with(rsa(), "alg", alg).to_string(), "alg", "does not fit an RSA key");
        }
        for alg in ["RS256", "ES384", "ECDH-ES", "es256"] {
            check_mistake(&with(p256(), "alg", alg).to_string(), "alg", "does not fit a key of P-256");
        }
        for kty in ["oct", "OKP", "rsa", "ec", ""] {
            check_mistake(&with(rsa(), "kty", kty).to_string(), "kty", "is not valid, expected RSA or EC");
        }
        check_mistake(r#"{"kty":"oct","k":"AAAA"}"#, "kty", "is not valid, expected RSA or EC");
        check_mistake(&without(rsa(), "kty").to_string(), "kty", "is not valid, expected RSA or EC");
    }

    #[test]
    fn private_key_is_a_mistake() {
        for member in PRIVATE {
            for key in [rsa(), p256()] {
                check_mistake(&with(key, member, "AQAB").to_string(), member, "is part of a private key");
            }
        }
        check_mistake(&with(rsa(), "d", Value::Null).to_string(), "d", "is part of a private key");
    }

    #[test]
    fn key_for_another_purpose_is_a_mistake() {
        for purpose in ["sig", "jwt-svid"] {
            check(&with(rsa(), "use", purpose), Algorithm::Rs256);
        }
        for purpose in ["enc", "SIG", "x509-svid", ""] {
            check_mistake(&with(p256(), "use", purpose).to_string(), "use", "is for another purpose");
        }
        check(&with(p256(), "key_ops", json!(["verify"])), Algorithm::Es256);
        check(&with(p256(), "key_ops", json!(["sign", "verify"])), Algorithm::Es256);
        for operations in [json!([]), json!(["sign"]), json!("verify"), json!(null), json!([["verify"]])] {
            check_mistake(&with(p256(), "key_ops", operations).to_string(), "key_ops", "is not valid, expected a list");
        }
    }

    #[test]
    fn rsa_modulus_is_odd_and_of_2048_to_4096_bits() {
        let modulus = |length: usize, first: u8, last: u8| {
            let mut bytes = vec![0; length];
            bytes[length - 1] = last;
            bytes[0] = first;
            with(rsa(), "n", encode(&bytes))
        };
        for (length, first) in [(256, 0x80), (257, 1), (384, 0xff), (512, 0x80), (512, 0xff)] {
            check(&modulus(length, first, 1), Algorithm::Rs256);
            check_mistake(&modulus(length, first, 2).to_string(), "n", "is not valid, expected an odd number");
        }
        for (length, first) in [(1, 1), (128, 0xff), (256, 0x7f), (257, 0), (513, 1), (1024, 0xff)] {
            check_mistake(&modulus(length, first, 1).to_string(), "n", "is not valid, expected an odd number");
        }
        check_mistake(&without(rsa(), "n").to_string(), "n", "is not valid");
        for exponent in ["Aw", "AQ", "AAEAAQ", "AQAC", "", "AQABAQAB"] {
            check_mistake(&with(rsa(), "e", exponent).to_string(), "e", "is not valid, expected AQAB");
        }
        check_mistake(&without(rsa(), "e").to_string(), "e", "is not valid, expected AQAB");
    }

    #[test]
    fn p256_point_is_on_the_curve() {
        for curve in ["P-384", "P-521", "secp256k1", "Ed25519", "p-256"] {
            check_mistake(&with(p256(), "crv", curve).to_string(), "crv", "is not valid, expected P-256");
        }
        check_mistake(&without(p256(), "crv").to_string(), "crv", "is not valid");
        for name in ["x", "y"] {
            for length in [0, 31, 33, 64] {
                let jwk = with(p256(), name, encode(&vec![1; length]));
                check_mistake(&jwk.to_string(), name, "is not valid, expected 32 bytes");
            }
            check_mistake(&without(p256(), name).to_string(), name, "is not valid, expected 32 bytes");
            for coordinate in [[0; 32], [1; 32], [255; 32]] {
                let jwk = with(p256(), name, encode(&coordinate));
                check_mistake(&jwk.to_string(), "x", "is not on P-256 together with y");
            }
        }
        let zero = with(with(p256(), "x", encode(&[0; 32])), "y", encode(&[0; 32]));
        check_mistake(&zero.to_string(), "x", "is not on P-256 together with y");
    }

    #[test]
    fn member_is_base64url_and_appears_once() {
        for (key, name) in [(rsa(), "n"), (p256(), "x"), (p256(), "y")] {
            let text = key[name].as_str().unwrap().to_owned();
            for wrong in [format!("{text}="), format!("{text}+"), format!(" {text}"), text.replace(&text[5..6], "/")] {
                check_mistake(&with(key.clone(), name, wrong).to_string(), name, "is not base64url");
            }
        }
        // 255 bytes of 255 leave two bits in the last letter, which must be zero.
        check_mistake(&with(rsa(), "n", format!("{}x", encode(&[255; 255]))).to_string(), "n", "is not base64url");
        for (key, names) in [(rsa(), &["kty", "n", "e"][..]), (p256(), &["kty", "crv", "x", "y"])] {
            for name in names {
                check_mistake(&with(key.clone(), name, 1).to_string(), name, "is not text");
                let twice = key.to_string().replacen('{', &format!("{{\"{name}\":{},", key[name]), 1);
                check_mistake(&twice, name, "appears twice");
            }
        }
        for name in ["alg", "use", "kid"] {
            check_mistake(&with(rsa(), name, Value::Null).to_string(), name, "is not text");
        }
        for text in ["", "[]", "null", "{", "{} x"] {
            check_mistake(text, "", "is not a JSON object, expected a JWK");
        }
    }

    #[test]
    fn key_id_has_at_most_255_bytes_and_unknown_members_are_ignored() {
        let kid = |length: usize| with(p256(), "kid", "k".repeat(length)).to_string();
        assert_eq!(PublicKey::parse(&kid(255)).unwrap().kid(), Some(&*"k".repeat(255)));
        check_mistake(&kid(256), "kid", "is too long");
        let unknown = with(with(p256(), "x5c", json!(["AAAA"])), "oth2", json!({ "d": 1 }));
        assert_eq!(PublicKey::parse(&unknown.to_string()).unwrap().kid(), None);
    }
}
