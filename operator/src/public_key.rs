//! Public keys of callers: reads a file in PEM or with a JWK, and refuses private keys.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, anyhow, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use officernd_token_broker::signature::PublicKey;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use spki::der::asn1::UintRef;
use spki::der::pem::PemLabel as _;
use spki::der::{Decode as _, Document, Reader as _, SliceReader};
use spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};

/// `rsaEncryption` (RFC 8017 appendix C), `id-ecPublicKey` and `secp256r1` (RFC 5480 section 2.1.1).
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");

/// First byte of a point that has both coordinates (SEC 1 section 2.3.3).
const UNCOMPRESSED: u8 = 4;

/// Reads the public key in `file` as a JWK that the component accepts. A key without an id gets its
/// thumbprint as one, because several keys of a caller each need an id.
///
/// # Errors
///
/// If the file cannot be read, has a private key, or has no key for RS256, PS256 or ES256. No error
/// contains a part of the key.
pub(crate) fn read(file: &Path) -> anyhow::Result<Value> {
    let name = file.display();
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
    parse(text.trim()).with_context(|| format!("{name} is not a public key of a caller"))
}

fn parse(text: &str) -> anyhow::Result<Value> {
    ensure!(
        !text.contains("PRIVATE KEY-----"),
        "it is a private key, which only the job may have: `openssl pkey -in FILE -pubout` prints the public key"
    );
    let mut jwk = if text.starts_with('{') {
        serde_json::from_str(text).context("it is not valid JSON").and_then(checked)?
    } else {
        checked(jwk_of_pem(text)?)?
    };
    if jwk.get("kid").is_none() {
        jwk["kid"] = thumbprint(&jwk).into();
    }
    Ok(jwk)
}

/// Returns the JWK if the component accepts it.
fn checked(jwk: Value) -> anyhow::Result<Value> {
    match PublicKey::parse(&jwk.to_string()) {
        Ok(_) => Ok(jwk),
        Err(mistake) if mistake.member.is_empty() => Err(anyhow!("it {}", mistake.problem)),
        Err(mistake) => Err(anyhow!("its {} {}", mistake.member, mistake.problem)),
    }
}

/// Reads a `SubjectPublicKeyInfo` in PEM (RFC 7468 section 13), which `openssl pkey -pubout` prints.
fn jwk_of_pem(text: &str) -> anyhow::Result<Value> {
    let expected = "expected PEM that begins with -----BEGIN PUBLIC KEY-----, or a JWK";
    let after = text.split_once("-----BEGIN ").map(|(_, after)| after);
    match after.and_then(|after| after.split_once("-----")).map(|(label, _)| label) {
        Some(SubjectPublicKeyInfoRef::PEM_LABEL) => {}
        Some("RSA PUBLIC KEY") => bail!("`openssl rsa -RSAPublicKey_in -in FILE -pubout` changes it, {expected}"),
        Some("CERTIFICATE") => {
            bail!("`openssl x509 -in FILE -noout -pubkey` prints the key of a certificate, {expected}")
        }
        _ => bail!("it is neither PEM nor JSON, {expected}"),
    }
    let malformed = |_| anyhow!("its PEM has no public key of RFC 5280, {expected}");
    let (_, document) = Document::from_pem(text).map_err(malformed)?;
    let info = SubjectPublicKeyInfoRef::from_der(document.as_bytes()).map_err(malformed)?;
    let bits = info.subject_public_key.as_bytes().unwrap_or_default();
    match (info.algorithm.oid, info.algorithm.parameters_oid().ok()) {
        (RSA, _) => rsa_numbers(bits).map(|[n, e]| json!({ "kty": "RSA", "n": n, "e": e })).map_err(malformed),
        (EC, Some(P256)) => match bits {
            [UNCOMPRESSED, point @ ..] if point.len() == 64 => {
                let [x, y] = [&point[..32], &point[32..]].map(|number| URL_SAFE_NO_PAD.encode(number));
                Ok(json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y }))
            }
            _ => bail!(
                "its point is compressed: `openssl ec -pubin -in FILE -pubout -conv_form uncompressed` changes it"
            ),
        },
        _ => bail!("it is for another algorithm, expected an RSA key or one on P-256, which is prime256v1"),
    }
}

/// Modulus and exponent of an `RSAPublicKey` (RFC 8017 appendix A.1.1), in base64url.
fn rsa_numbers(bytes: &[u8]) -> spki::der::Result<[String; 2]> {
    let mut reader = SliceReader::new(bytes)?;
    let numbers = reader
        .sequence(|numbers| -> spki::der::Result<_> { Ok([UintRef::decode(numbers)?, UintRef::decode(numbers)?]) })?;
    reader.finish()?;
    Ok(numbers.map(|number| URL_SAFE_NO_PAD.encode(number.as_bytes())))
}

/// The thumbprint of a JWK (RFC 7638): the SHA-256 of its required members. Many libraries use it as
/// the id of a key that has none.
fn thumbprint(jwk: &Value) -> String {
    let members: &[&str] = if jwk["kty"] == "RSA" { &["e", "kty", "n"] } else { &["crv", "kty", "x", "y"] };
    // Section 3: in the order of their names, without white space.
    let members: Vec<_> = members.iter().map(|name| format!("\"{name}\":{}", jwk[*name])).collect();
    URL_SAFE_NO_PAD.encode(Sha256::digest(format!("{{{}}}", members.join(","))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by OpenSSL, with `openssl genpkey` and `openssl pkey -pubout`.
    const P256_PEM: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEVRhfEUvEv/okhByBS/+L6LUD/hf+
/l5w6Zn+Oz/BXhc9u0hbkn9IEyImFltdEt4byzHZQQQDhg3y/57rCuErkA==
-----END PUBLIC KEY-----
";
    const RSA_PEM: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAphBmgnNFfHsXRT9HC9on
ADl4cdRmxJnzwKl5UChFwRZcKkLE1Aj4P+z4jneEpJYEVlzFEVm2Q/LIyOV4RupV
2M1vtRnift2yz60SFQLyUcdBr6y/1xyamquOJ0ZayLjnpuhsOwDV1JfSLxkCwHnG
vuF1lbq1wUkpBF88oEZVBrEqEesjvngvtBT4ibrD1y6DmmibGNajtqY8p7PZ5BZX
jy7tfnK46T9w59xYtiGAg2lTFuQzUhYwputp+RJ407OOe0TTvWovPlEHAxBezMiT
TU40QaIQoD/1UbcqTHVB4GeG65Cer4AtG5QjSbMFyla0OW9X2sgtFuZ9Qg/jHxC/
QQIDAQAB
-----END PUBLIC KEY-----
";

    /// Numbers of these keys, as OpenSSL prints them.
    const X: &str = "VRhfEUvEv_okhByBS_-L6LUD_hf-_l5w6Zn-Oz_BXhc";
    const Y: &str = "PbtIW5J_SBMiJhZbXRLeG8sx2UEEA4YN8v-e6wrhK5A";
    const N: &str = "phBmgnNFfHsXRT9HC9onADl4cdRmxJnzwKl5UChFwRZcKkLE1Aj4P-z4jneEpJYEVlzFEVm2Q_LIyOV4RupV2M1vtRnift2yz60SFQLyUcdBr6y_1xyamquOJ0ZayLjnpuhsOwDV1JfSLxkCwHnGvuF1lbq1wUkpBF88oEZVBrEqEesjvngvtBT4ibrD1y6DmmibGNajtqY8p7PZ5BZXjy7tfnK46T9w59xYtiGAg2lTFuQzUhYwputp-RJ407OOe0TTvWovPlEHAxBezMiTTU40QaIQoD_1UbcqTHVB4GeG65Cer4AtG5QjSbMFyla0OW9X2sgtFuZ9Qg_jHxC_QQ";

    fn p256() -> Value {
        json!({ "kty": "EC", "crv": "P-256", "x": X, "y": Y })
    }

    fn with(mut jwk: Value, name: &str, value: Value) -> Value {
        jwk[name] = value;
        jwk
    }

    #[test]
    fn pem_of_openssl_becomes_a_jwk_with_its_thumbprint() {
        let check = |pem: &str, jwk: Value| {
            let kid = thumbprint(&jwk).into();
            assert_eq!(parse(pem.trim()).unwrap(), with(jwk, "kid", kid), "{pem}");
        };
        check(P256_PEM, p256());
        check(RSA_PEM, json!({ "kty": "RSA", "n": N, "e": "AQAB" }));
        // `openssl x509` and others print text before the key.
        check(&format!("Public-Key: (256 bit)\n{P256_PEM}"), p256());
    }

    #[test]
    fn jwk_is_kept_and_gets_an_id_only_if_it_has_none() {
        let mine = with(with(p256(), "kid", "2026-11".into()), "use", "sig".into());
        assert_eq!(parse(&mine.to_string()).unwrap(), mine);
        assert_eq!(parse(&p256().to_string()).unwrap()["kid"], thumbprint(&p256()));
    }

    #[test]
    fn private_key_is_refused() {
        for label in
            ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "OPENSSH PRIVATE KEY"]
        {
            let pem = format!("-----BEGIN {label}-----\nMFkw\n-----END {label}-----");
            assert!(problem(&pem).starts_with("it is a private key"), "{}", problem(&pem));
            // `openssl ecparam -genkey` writes the parameters first, and others write both keys.
            assert!(problem(&format!("{P256_PEM}{pem}")).starts_with("it is a private key"));
        }
        let private = with(p256(), "d", "hunter2".into()).to_string();
        assert_eq!(problem(&private), "its d is part of a private key, expected only the public key");
    }

    #[test]
    fn other_file_is_refused_with_the_command_that_changes_it() {
        let pem = |label: &str, body: &str| format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----");
        let p384 = "MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEmPoG47G/v7adDYAJVFe0gBEJBFpI7ktm
M3bx6ls8jZrTGzGxzNNqkj2ASBIkMfgmLDENQrTFt6bKo1QzhJSRPjNdFvppKyHu
z6Me7S+6X/kGmHIx6yf0gGQk2OPgPhlX";
        let ed25519 = "MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
        let compressed = "MDkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDIgACVRhfEUvEv/okhByBS/+L6LUD/hf+\n/l5w6Zn+Oz/BXhc=";
        for (text, expected) in [
            (String::new(), "it is neither PEM nor JSON, expected"),
            ("ssh-ed25519 AAAA".into(), "it is neither PEM nor JSON, expected"),
            ("{\"kty\": ".into(), "it is not valid JSON"),
            ("{\"keys\": []}".into(), "its kty is not valid"),
            (json!({ "kty": "oct", "k": "hunter2" }).to_string(), "its kty is not valid"),
            (with(p256(), "use", "enc".into()).to_string(), "its use is for another purpose"),
            (pem("CERTIFICATE", "MFkw"), "`openssl x509"),
            (pem("RSA PUBLIC KEY", "MFkw"), "`openssl rsa -RSAPublicKey_in"),
            (pem("PUBLIC KEY", "MFkw"), "its PEM has no public key"),
            (pem("PUBLIC KEY", p384), "it is for another algorithm"),
            (pem("PUBLIC KEY", ed25519), "it is for another algorithm"),
            (pem("PUBLIC KEY", compressed), "its point is compressed: `openssl ec"),
        ] {
            let problem = problem(&text);
            assert!(problem.starts_with(expected) && !problem.contains("hunter2"), "{text}: {problem}");
        }
    }

    #[test]
    fn thumbprint_is_that_of_rfc_7638() {
        let jwk = json!({
            "kty": "RSA",
            "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
            "e": "AQAB",
            "alg": "RS256",
            "kid": "2011-04-29",
        });
        assert_eq!(thumbprint(&jwk), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    fn problem(text: &str) -> String {
        format!("{:#}", parse(text.trim()).unwrap_err())
    }
}
