//! Assertions that break one rule each, and the reason of each refusal.

use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};

use super::*;
use crate::signature::{PublicKey, verify};

const HEADER: &str = r#"{"alg":"ES256","kid":"2026-11"}"#;
const CLAIMS: &str = r#"{"iss":"door","sub":"door","aud":"https://broker.example.com","exp":1000}"#;

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn parse(text: &str) -> Result<Assertion, Reason> {
    Assertion::parse(&PresentedSecret::new(text))
}

fn parse_parts(header: &str, claims: &str) -> Result<Assertion, Reason> {
    parse(&format!("{}.{}.c2ln", encode(header), encode(claims)))
}

#[track_caller]
fn check_text(text: &str, expected: Result<(), Reason>) {
    assert_eq!(parse(text).map(drop), expected, "{text}");
}

#[track_caller]
fn check_header(header: &str, expected: Result<(), Reason>) {
    assert_eq!(parse_parts(header, CLAIMS).map(drop), expected, "{header}");
}

#[track_caller]
fn check_claims(claims: &str, expected: Result<(), Reason>) {
    assert_eq!(parse_parts(HEADER, claims).map(drop), expected, "{claims}");
}

/// The claims with one of them replaced, or added.
fn with(name: &str, value: &str) -> String {
    let mut claims: serde_json::Map<String, serde_json::Value> = serde_json::from_str(CLAIMS).unwrap();
    claims.insert(name.to_owned(), serde_json::from_str(value).unwrap());
    serde_json::to_string(&claims).unwrap()
}

/// A text with a byte that is not UTF-8 instead of each `letter`.
fn not_utf8(text: &str, letter: u8) -> Vec<u8> {
    text.bytes().map(|byte| if byte == letter { 0xff } else { byte }).collect()
}

#[test]
fn well_formed_assertion_is_parsed() {
    let claims = with("repository_id", "\"456789\"");
    let assertion = parse_parts(HEADER, &claims).unwrap();
    assert_eq!(assertion.algorithm(), Algorithm::Es256);
    assert_eq!(assertion.kid(), Some("2026-11"));
    assert_eq!((assertion.issuer(), assertion.subject()), ("door", "door"));
    assert_eq!(assertion.signed(), format!("{}.{}", encode(HEADER), encode(&claims)).as_bytes());
    assert_eq!(assertion.signature(), b"sig");
    assert_eq!(assertion.text_claims(|_| true).get("repository_id"), Some("456789"));
    assert_eq!(assertion.text_claims(|_| true).get("ref"), None);
    assert_eq!(assertion.text_claims(|_| true).get("exp"), None, "a number is no text");
    assert_eq!(format!("{assertion:?}"), "[redacted]");
}

#[test]
fn change_of_any_letter_is_refused() {
    let signer = SigningKey::from_slice(&[7; 32]).unwrap();
    let point = signer.verifying_key().to_sec1_point(false);
    let (x, y) = point.as_bytes()[1..].split_at(32);
    let jwk = format!(r#"{{"kty":"EC","crv":"P-256","x":"{}","y":"{}"}}"#, encode(x), encode(y));
    let key = PublicKey::parse(&jwk).unwrap();
    let signed = format!("{}.{}", encode(HEADER), encode(CLAIMS));
    let signature: Signature = signer.sign(signed.as_bytes());
    let text = format!("{signed}.{}", encode(signature.to_bytes()));
    let is_good = |text: &str| {
        parse(text).is_ok_and(|found| verify(Some(&key), found.algorithm(), found.signed(), found.signature()))
    };
    assert!(is_good(&text));
    for place in 0..text.len() {
        let other = if text.as_bytes()[place] == b'A' { "B" } else { "A" };
        let changed = [&text[..place], other, &text[place + 1..]].concat();
        assert!(!is_good(&changed), "letter {place} changed: {changed}");
    }
}

#[test]
fn text_that_is_not_three_parts_of_base64url_is_unreadable() {
    let (header, claims) = (encode(HEADER), encode(CLAIMS));
    check_text(&format!("{header}.{claims}.c2ln"), Ok(()));
    for text in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "a".repeat(100),
        header.clone(),
        format!("{header}.{claims}"),
        format!("{header}.{claims}."),
        format!(".{claims}.c2ln"),
        format!("{header}..c2ln"),
        format!("{header}.{claims}.c2ln."),
        format!("{header}.{claims}.c2ln.c2ln"),
        format!("{header}.{claims}.c2ln.c2ln.c2ln"),
        format!("{header}.{claims}.c2ln==="),
        format!("{header}.{claims}.c2k="),
        format!("{header}.{claims}.c2+n"),
        format!("{header}.{claims}.c2/n"),
        format!("{header}.{claims}.c2 n"),
        format!("{header}.{claims}.c2ln\n"),
        format!(" {header}.{claims}.c2ln"),
        format!("{header}.{claims}.c2\u{e9}n"),
        // Last bits that are not zero: `c2k` is `si`, and `c2l` would be too.
        format!("{header}.{claims}.c2l"),
        format!("{header}.{claims}.c2lnc"),
        format!("{header}.{}.c2ln", encode(not_utf8(CLAIMS, b'r'))),
        format!("{}.{claims}.c2ln", encode(not_utf8(HEADER, b'0'))),
    ] {
        check_text(&text, Err(Reason::Unreadable));
    }
}

#[test]
fn assertion_has_at_most_12_288_bytes() {
    let signed = format!("{}.{}.", encode(HEADER), encode(CLAIMS));
    let of_length = |length: usize| format!("{signed}{}", "A".repeat(length - signed.len()));
    check_text(&of_length(ASSERTION_BYTES), Ok(()));
    check_text(&of_length(ASSERTION_BYTES + 1), Err(Reason::Unreadable));
}

#[test]
fn header_and_claims_are_objects_without_repeated_names() {
    for text in ["", "1", "null", "[]", "\"x\"", "{", "{} {}", "{}x", "{'a': 1}", "\u{feff}{}"] {
        check_header(text, Err(Reason::Unreadable));
        check_claims(text, Err(Reason::Unreadable));
    }
    // By default, serde reads a struct from a list too.
    check_header(r#"["ES256","2026-11","JWT"]"#, Err(Reason::Unreadable));
    check_claims(r#"["door","door","https://broker.example.com",1000]"#, Err(Reason::Unreadable));
    check_header(r#"{"alg":"ES256","x":1,"y":1}"#, Ok(()));
    check_header(r#"{"alg":"ES256","x":1,"x":1}"#, Err(Reason::Unreadable));
    check_header(r#"{"alg":"ES256","alg":"ES256"}"#, Err(Reason::Unreadable));
    check_claims(&CLAIMS.replace('{', r#"{"x":{"y":1,"y":1},"#), Ok(()));
    check_claims(&CLAIMS.replace('{', r#"{"x":1,"x":1,"#), Err(Reason::Unreadable));
    check_claims(&CLAIMS.replace('{', r#"{"sub":"door","#), Err(Reason::Unreadable));
    check_claims(&CLAIMS.replace('{', r#"{"\u0073ub":"door","#), Err(Reason::Unreadable));
}

#[test]
fn header_and_number_of_claims_are_limited() {
    let header = |filler: usize| format!(r#"{{"alg":"ES256","x":"{}"}}"#, "x".repeat(filler));
    let most = HEADER_BYTES - header(0).len();
    check_header(&header(most), Ok(()));
    check_header(&header(most + 1), Err(Reason::Unreadable));
    let claims = |more: usize| {
        let more: String = (0..more).map(|number| format!(r#""{number}":0,"#)).collect();
        CLAIMS.replace('{', &format!("{{{more}"))
    };
    check_claims(&claims(MOST_NAMES - 4), Ok(()));
    check_claims(&claims(MOST_NAMES - 3), Err(Reason::Unreadable));
}

#[test]
fn algorithm_is_one_of_three_byte_for_byte() {
    for algorithm in Algorithm::ALL {
        let header = format!(r#"{{"alg":"{}"}}"#, algorithm.name());
        assert_eq!(parse_parts(&header, CLAIMS).unwrap().algorithm(), algorithm);
    }
    for name in ["none", "None", "nOnE", "", "HS256", "es256", "ES256 ", "ES384", "ES256K", "RS512", "EdDSA"] {
        check_header(&format!(r#"{{"alg":"{name}"}}"#), Err(Reason::Algorithm));
    }
    for header in ["{}", r#"{"alg":null}"#, r#"{"alg":256}"#, r#"{"alg":["ES256"]}"#, r#"{"Alg":"ES256"}"#] {
        check_header(header, Err(Reason::Unreadable));
    }
}

#[test]
fn extension_that_must_be_understood_is_refused() {
    for crit in [r#"["b64"]"#, "[]", "null", "\"exp\""] {
        check_header(&format!(r#"{{"alg":"ES256","b64":false,"crit":{crit}}}"#), Err(Reason::Unreadable));
    }
}

#[test]
fn keys_and_addresses_in_the_header_are_not_read() {
    for member in ["jwk", "jku", "x5u", "x5c", "x5t", "x5t#S256", "b64"] {
        for value in ["\"https://example.com\"", "{}", "[[]]", "1", "null"] {
            check_header(&format!(r#"{{"alg":"ES256","{member}":{value}}}"#), Ok(()));
        }
    }
}

#[test]
fn type_other_than_of_a_client_assertion_is_refused() {
    let check = |typ: &str, expected: Result<(), Reason>| {
        let assertion = parse_parts(&format!(r#"{{"alg":"ES256","typ":"{typ}"}}"#), CLAIMS);
        assert_eq!(assertion.and_then(|assertion| assertion.check_own_key_type()), expected, "{typ}");
    };
    for typ in ["JWT", "jwt", "application/JWT", "client-authentication+jwt", "Application/Client-Authentication+JWT"] {
        check(typ, Ok(()));
    }
    for typ in ["JOSE", "application/jose", "at+jwt", "", "JWS", "dpop+jwt", "text/jwt", "jwt ", "application/"] {
        check(typ, Err(Reason::Type));
    }
    for typ in ["JOSE", "at+jwt", "application/at+JWT"] {
        check_header(&format!(r#"{{"alg":"ES256","typ":"{typ}"}}"#), Ok(()));
    }
    assert_eq!(parse_parts(HEADER, CLAIMS).unwrap().check_own_key_type(), Ok(()), "no type");
    check_header(r#"{"alg":"ES256","typ":null}"#, Err(Reason::Unreadable));
    for cty in ["\"JWT\"", "\"\"", "null"] {
        check_header(&format!(r#"{{"alg":"ES256","cty":{cty}}}"#), Err(Reason::Type));
    }
}

#[test]
fn key_id_is_text_of_at_most_255_bytes() {
    check_header(&format!(r#"{{"alg":"ES256","kid":"{}"}}"#, "x".repeat(255)), Ok(()));
    check_header(&format!(r#"{{"alg":"ES256","kid":"{}"}}"#, "x".repeat(256)), Err(Reason::Unreadable));
    for kid in ["null", "1", "[\"a\"]"] {
        check_header(&format!(r#"{{"alg":"ES256","kid":{kid}}}"#), Err(Reason::Unreadable));
    }
    let odd = parse_parts(r#"{"alg":"ES256","kid":"../../\u0000' OR 1=1"}"#, CLAIMS).unwrap();
    assert_eq!(odd.kid(), Some("../../\0' OR 1=1"));
}

#[test]
fn claim_that_is_missing_or_of_another_type_is_unreadable() {
    for name in ["iss", "sub", "aud", "exp"] {
        check_claims(&CLAIMS.replace(&format!("\"{name}\""), "\"other\""), Err(Reason::Unreadable));
    }
    for (name, values) in [
        ("iss", &["1", "null", "[\"door\"]", "{}"][..]),
        ("sub", &["1", "null", "[\"door\"]", "true"]),
        ("aud", &["1", "null", "{}", "[1]", "[\"a\", 1]", "[null]", "[[\"a\"]]"]),
        ("exp", &["\"1000\"", "null", "true", "[1000]", "-1", "1e11", "1e300", "18446744073709551616"]),
        ("nbf", &["\"1000\"", "null", "false", "{}", "-0.5", "1e11"]),
        ("iat", &["\"1000\"", "null", "false", "[]", "-1000", "99999999999999"]),
    ] {
        for value in values {
            check_claims(&with(name, value), Err(Reason::Unreadable));
        }
    }
    check_claims(&CLAIMS.replace("1000", "1e999"), Err(Reason::Unreadable));
    check_claims(&with("exp", "99999999999.5"), Ok(()));
}

#[test]
fn audience_is_ours_alone() {
    let check = |aud: &str, expected: Result<(), Reason>| {
        let assertion = parse_parts(HEADER, &with("aud", aud)).unwrap();
        assert_eq!(assertion.check_audience("https://broker.example.com"), expected, "{aud}");
    };
    check("\"https://broker.example.com\"", Ok(()));
    check("[\"https://broker.example.com\"]", Ok(()));
    for aud in [
        "[]",
        "\"\"",
        "\"https://broker.example.com/\"",
        "\"https://broker.example.com/oauth/token\"",
        "\"https://broker.example.co\"",
        "\"HTTPS://broker.example.com\"",
        "[\"https://other.example.com\"]",
        "[\"https://broker.example.com\", \"https://other.example.com\"]",
        "[\"https://other.example.com\", \"https://broker.example.com\"]",
        "[\"https://broker.example.com\", \"https://broker.example.com\"]",
    ] {
        check(aud, Err(Reason::WrongAudience));
    }
}

#[test]
fn times_hold_with_30_s_for_clocks_that_differ() {
    let check = |name: &str, seconds: &str, expected: Result<(), Reason>| {
        let assertion = parse_parts(HEADER, &with(name, seconds)).unwrap();
        let now = Timestamp::from_unix_ms(900_000);
        assert_eq!(assertion.check_times(now, Duration::from_secs(300)), expected, "{name} {seconds}");
    };
    check("exp", "0", Err(Reason::Expired));
    check("exp", "870", Err(Reason::Expired));
    check("exp", "870.001", Ok(()));
    check("exp", "1230", Ok(()));
    check("exp", "1230.001", Err(Reason::Long));
    check("exp", "99999999999", Err(Reason::Long));
    for name in ["nbf", "iat"] {
        check(name, "0", Ok(()));
        check(name, "930", Ok(()));
        check(name, "9.3e2", Ok(()));
        check(name, "930.001", Err(Reason::Early));
        check(name, "99999999999", Err(Reason::Early));
    }
}

#[test]
fn claim_of_another_type_is_no_text() {
    for value in ["1", "true", "null", "[\"a\"]", "{\"a\": \"a\"}"] {
        assert_eq!(parse_parts(HEADER, &with("ref", value)).unwrap().text_claims(|_| true).get("ref"), None, "{value}");
    }
    let nested = parse_parts(HEADER, &with("kubernetes.io", "{\"ref\": \"a\"}")).unwrap();
    assert_eq!(nested.text_claims(|_| true).get("ref"), None);
    assert_eq!(parse_parts(HEADER, &with("r\\u0065f", "\"a\"")).unwrap().text_claims(|_| true).get("ref"), None);
    assert_eq!(parse_parts(HEADER, &with("ref", "\"\\u0061\"")).unwrap().text_claims(|_| true).get("ref"), Some("a"));
}
