//! Client assertions of a caller's own keys, and forged ones.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use getrandom::SysRng;
use http::Request;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey as P256Key};
use rsa::Generate as _;
use rsa::traits::PublicKeyParts as _;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::answer::form;
use crate::leak::keep_secret;

/// `client_assertion_type` of every assertion (RFC 7523 section 2.2).
pub const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A private key, which a caller keeps to itself.
#[derive(Clone)]
pub enum PrivateKey {
    /// Signs ES256.
    P256(P256Key),
    /// Signs RS256 and PS256.
    Rsa(rsa::PrivateKey),
}

/// Making an RSA key takes seconds, so all tests share two.
static RSA_KEYS: LazyLock<[rsa::PrivateKey; 2]> = LazyLock::new(|| {
    [2048, 2048].map(|bits| rsa::PrivateKey::new(&mut SysRng, bits).expect("the system has random bytes"))
});

impl PrivateKey {
    /// A new key on P-256.
    pub fn p256() -> Self {
        Self::P256(P256Key::try_generate_from_rng(&mut SysRng).expect("the system has random bytes"))
    }

    /// One of two RSA keys of 2048 bits.
    pub fn rsa(number: usize) -> Self {
        Self::Rsa(RSA_KEYS[number].clone())
    }

    /// The algorithm of its signatures, without another wish.
    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::P256(_) => "ES256",
            Self::Rsa(_) => "RS256",
        }
    }

    /// The public key as a JWK, with more members or other values.
    pub fn jwk(&self, members: Value) -> Value {
        let mut jwk = match self {
            Self::P256(key) => {
                let point = key.verifying_key().to_sec1_point(false);
                let [x, y] = [point.x(), point.y()].map(|number| number.expect("the point is no identity"));
                json!({ "kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y) })
            }
            Self::Rsa(key) => {
                json!({ "kty": "RSA", "n": encode(key.n().to_be_bytes()), "e": "AQAB" })
            }
        };
        set(&mut jwk, members);
        jwk
    }

    fn sign(&self, algorithm: &str, signed: &[u8]) -> Vec<u8> {
        match (self, algorithm) {
            (Self::P256(key), _) => {
                let signature: Signature = key.sign(signed);
                signature.to_bytes().to_vec()
            }
            (Self::Rsa(key), "PS256") => {
                key.pss_sign_with_rng::<Sha256, _>(&mut SysRng, signed).expect("the key is large enough")
            }
            (Self::Rsa(key), _) => key.pkcs1v15_sign::<Sha256>(signed).expect("the key is large enough"),
        }
    }
}

/// Base64url without padding.
pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Sets members of an object; `null` removes one.
pub fn set(object: &mut Value, members: Value) {
    let object = object.as_object_mut().expect("an object");
    for (name, value) in members.as_object().expect("an object") {
        match value {
            Value::Null => drop(object.remove(name)),
            value => drop(object.insert(name.clone(), value.clone())),
        }
    }
}

/// Header and claims of an assertion. Every log, answer and store of this process is searched for
/// the signed text.
#[derive(Clone)]
pub struct Draft {
    /// The header.
    pub header: Value,
    /// The claims.
    pub claims: Value,
}

impl Draft {
    /// What a job signs that is the caller `name`, for the broker at `audience`, for a minute.
    pub fn of(name: &str, audience: &str, algorithm: &str) -> Self {
        let now = seconds_since_epoch();
        Self {
            header: json!({ "alg": algorithm }),
            claims: json!({ "iss": name, "sub": name, "aud": audience, "iat": now, "exp": now + 60, "jti": crate::random("jti") }),
        }
    }

    /// With other members of the header.
    pub fn header(mut self, members: Value) -> Self {
        set(&mut self.header, members);
        self
    }

    /// With other claims.
    pub fn claims(mut self, members: Value) -> Self {
        set(&mut self.claims, members);
        self
    }

    /// The assertion, signed by `key` with the algorithm of the header, or with the key's.
    pub fn sign(&self, key: &PrivateKey) -> String {
        sign_text(&self.header.to_string(), &self.claims.to_string(), key)
    }
}

/// Signs any header and payload.
pub fn sign_text(header: &str, payload: &str, key: &PrivateKey) -> String {
    let algorithm = if header.contains("PS256") { "PS256" } else { key.algorithm() };
    let signed = format!("{}.{}", encode(header), encode(payload));
    let assertion = format!("{signed}.{}", encode(key.sign(algorithm, signed.as_bytes())));
    keep_secret("assertion", &assertion);
    assertion
}

/// The present time as a `NumericDate` (RFC 7519 section 2).
pub fn seconds_since_epoch() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// A token request that authenticates by an assertion, with more parameters.
pub fn assertion_request(assertion: &str, more: &[(&str, &str)]) -> Request<String> {
    let mut fields = vec![
        ("grant_type", "client_credentials"),
        ("client_assertion_type", JWT_BEARER),
        ("client_assertion", assertion),
    ];
    fields.extend_from_slice(more);
    Request::post("/oauth/token")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form(&fields))
        .expect("the request is valid")
}
