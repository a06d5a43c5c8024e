//! Who may call, and what each may have.

use std::rc::Rc;

use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::config::{Mistakes, Object};
use crate::error::Unauthenticated;
use crate::scope::Scopes;
use crate::secret::PresentedSecret;

/// The SHA-256 of a caller's secret. The secret has 256 random bits, so the digest is no secret and needs no salt.
type SecretDigest = [u8; 32];

/// A caller of the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its client id towards the broker.
    pub name: String,
    /// Everything it may have.
    pub scopes: Scopes,
    /// Any of these opens: several while a secret rotates.
    digests: Vec<SecretDigest>,
}

/// The policy: every caller, sorted by name.
#[derive(Clone, Debug)]
pub struct Callers(Vec<Rc<Caller>>);

/// Longest name of a caller, in bytes.
const NAME_LIMIT: usize = 128;

impl Callers {
    /// Reads the variable `callers`, and notes every mistake in it. What comes back is only good without one.
    ///
    /// `{"nightly-sync": {"secret_sha256": ["<64 hex>"], "scopes": ["flex.community.members.read"]}}`
    pub fn parse(text: &str, mistakes: &mut Mistakes) -> Self {
        let mut callers = Vec::new();
        let Ok(entries) = serde_json::from_slice::<Object>(text.as_bytes()) else {
            mistakes.add("", "must be a JSON object of callers by name, {\"nightly-sync\": {…}}");
            return Self(callers);
        };
        if entries.0.is_empty() {
            mistakes.add("", "must have at least one caller");
        }
        for (name, entry) in &entries.0 {
            // RFC 6749 appendix A.1: a client id is printable ASCII.
            if name.is_empty() || name.len() > NAME_LIMIT || !name.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
                mistakes.add(name, "a name is 1 to 128 characters of printable ASCII");
                continue;
            }
            callers.extend(parse_caller(name, entry, mistakes).map(Rc::new));
        }
        callers.sort_unstable_by(|left, right| left.name.cmp(&right.name));
        for pair in callers.windows(2).filter(|pair| pair[0].name == pair[1].name) {
            mistakes.add(&pair[0].name, "is there twice");
        }
        Self(callers)
    }

    /// Establishes who calls.
    ///
    /// # Errors
    /// When there is no such caller, or the secret is none of its own; which of the two is for the log alone.
    pub fn authenticate(&self, name: &str, secret: &PresentedSecret) -> Result<Rc<Caller>, Unauthenticated> {
        let presented: SecretDigest = Sha256::digest(secret.expose().as_bytes()).into();
        let Some(caller) = self.find(name) else {
            // The same comparison as for a known caller, so that time tells no names.
            let _ = matches_one_of(&presented, &[[0; 32]]);
            return Err(Unauthenticated::UnknownCaller);
        };
        if bool::from(matches_one_of(&presented, &caller.digests)) {
            Ok(caller.clone())
        } else {
            Err(Unauthenticated::WrongSecret)
        }
    }
}

impl Callers {
    fn find(&self, name: &str) -> Option<&Rc<Caller>> {
        let place = self.0.binary_search_by(|caller| caller.name.as_str().cmp(name)).ok()?;
        self.0.get(place)
    }
}

impl Caller {
    /// What a request is to get: what it asks for when the caller may have all of it, everything the caller may have
    /// when it names nothing, and nothing (`None`) otherwise.
    pub fn authorize(&self, requested: Option<Scopes>) -> Option<Scopes> {
        match requested {
            None => Some(self.scopes.clone()),
            Some(requested) => requested.is_subset_of(&self.scopes).then_some(requested),
        }
    }
}

/// Looks at every digest, whichever matches.
fn matches_one_of(presented: &SecretDigest, digests: &[SecretDigest]) -> Choice {
    digests.iter().fold(Choice::from(0), |found, digest| found | digest.ct_eq(presented))
}

fn parse_caller(name: &str, entry: &RawValue, mistakes: &mut Mistakes) -> Option<Caller> {
    let Ok(fields) = serde_json::from_slice::<Object>(entry.get().as_bytes()) else {
        mistakes.add(name, "must be an object with secret_sha256 and scopes");
        return None;
    };
    let mut digests = None;
    let mut scopes = None;
    for (field, value) in &fields.0 {
        let place = format!("{name}.{field}");
        let repeated = match field.as_str() {
            "secret_sha256" => digests.replace(parse_digests(&place, value, mistakes)).is_some(),
            "scopes" => scopes.replace(parse_scopes(&place, value, mistakes)).is_some(),
            _ => {
                mistakes.add(&place, "is not a field of a caller, which has secret_sha256 and scopes");
                false
            }
        };
        if repeated {
            mistakes.add(&place, "is there twice");
        }
    }
    for (field, missing) in [("secret_sha256", digests.is_none()), ("scopes", scopes.is_none())] {
        if missing {
            mistakes.add(&format!("{name}.{field}"), "is missing");
        }
    }
    Some(Caller { name: name.to_owned(), digests: digests??, scopes: scopes?? })
}

fn parse_digests(place: &str, value: &RawValue, mistakes: &mut Mistakes) -> Option<Vec<SecretDigest>> {
    let problem = "must be a list of one or more SHA-256 digests, each as 64 hexadecimal digits";
    let digests = serde_json::from_slice::<Vec<String>>(value.get().as_bytes())
        .ok()
        .and_then(|texts| texts.iter().map(|text| parse_digest(text)).collect::<Option<Vec<_>>>())
        .filter(|digests| !digests.is_empty());
    if digests.is_none() {
        mistakes.add(place, problem);
    }
    digests
}

fn parse_digest(text: &str) -> Option<SecretDigest> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
    }
    Some(digest)
}

fn parse_scopes(place: &str, value: &RawValue, mistakes: &mut Mistakes) -> Option<Scopes> {
    let scopes = serde_json::from_slice::<Vec<String>>(value.get().as_bytes())
        .ok()
        .and_then(|tokens| Scopes::from_tokens(tokens.iter().map(String::as_str)).ok());
    if scopes.is_none() {
        mistakes.add(place, "must be a list of one or more scopes, each a token of RFC 6749 section 3.3");
    }
    scopes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-256 of `opensesame`.
    const DIGEST: &str = "c88378ce3fde4cd0e0c05089f93d6b7f7b2ac7a7c23aa3c2be1d4ba5f5bb7a5a";

    fn digest_of(secret: &str) -> String {
        Sha256::digest(secret.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn parse(text: &str) -> (Callers, Vec<String>) {
        let mut mistakes = Mistakes::of("callers");
        let callers = Callers::parse(text, &mut mistakes);
        (callers, mistakes.into_iter().map(|mistake| mistake.to_string()).collect())
    }

    fn two_callers() -> Callers {
        let (callers, mistakes) = parse(&format!(
            r#"{{"a": {{"secret_sha256": ["{}", "{}"], "scopes": ["x", "y"]}},
                 "b": {{"secret_sha256": ["{}"], "scopes": ["z"]}}}}"#,
            digest_of("old"),
            digest_of("new"),
            digest_of("other").to_uppercase(),
        ));
        assert!(mistakes.is_empty(), "{mistakes:?}");
        callers
    }

    #[test]
    fn a_caller_is_who_knows_one_of_its_secrets() {
        let callers = two_callers();
        let check = |name: &str, secret: &str, expected: Result<&str, Unauthenticated>| {
            let found = callers.authenticate(name, &PresentedSecret::new(secret));
            assert_eq!(
                found.as_ref().map(|caller| caller.name.as_str()).map_err(|because| *because),
                expected,
                "{name} {secret}"
            );
        };
        check("a", "old", Ok("a"));
        check("a", "new", Ok("a"));
        check("b", "other", Ok("b"));
        check("a", "other", Err(Unauthenticated::WrongSecret));
        check("a", "", Err(Unauthenticated::WrongSecret));
        check("A", "old", Err(Unauthenticated::UnknownCaller));
        check("", "old", Err(Unauthenticated::UnknownCaller));
    }

    #[test]
    fn nothing_outside_the_policy_is_authorized() {
        let callers = two_callers();
        let check = |requested: Option<&str>, expected: Option<&str>| {
            let caller = callers.find("a").unwrap();
            let granted = caller.authorize(requested.map(|text| Scopes::parse(text).unwrap()));
            assert_eq!(granted.as_ref().map(Scopes::as_str), expected, "{requested:?}");
        };
        check(None, Some("x y"));
        check(Some("y x x"), Some("x y"));
        check(Some("y"), Some("y"));
        check(Some("z"), None);
        check(Some("x y z"), None);
        check(Some("X"), None);
    }

    #[test]
    fn every_mistake_of_a_policy_names_the_caller_and_the_field() {
        let check = |text: &str, expected: &[&str]| {
            let (_, mistakes) = parse(text);
            let starts: Vec<_> =
                mistakes.iter().map(|mistake| mistake.split(": ").take(2).collect::<Vec<_>>().join(": ")).collect();
            assert_eq!(mistakes.len(), expected.len(), "{text} {mistakes:?}");
            for (mistake, expected) in mistakes.iter().zip(expected) {
                assert!(mistake.starts_with(expected), "{text}: {starts:?} should start with {expected:?}");
            }
        };
        check("", &["callers: must be a JSON object"]);
        check("[]", &["callers: must be a JSON object"]);
        check("{}", &["callers: must have at least one caller"]);
        check(r#"{"a": 1}"#, &["callers: a: must be an object"]);
        check(r#"{"": {}}"#, &["callers: a name is"]);
        check(r#"{"a": {}}"#, &["callers: a.secret_sha256: is missing", "callers: a.scopes: is missing"]);
        let good = format!(r#"{{"secret_sha256": ["{DIGEST}"], "scopes": ["x"]}}"#);
        check(&format!(r#"{{"a": {good}}}"#), &[]);
        check(&format!(r#"{{"a": {good}, "a": {good}}}"#), &["callers: a: is there twice"]);
        check(
            &format!(r#"{{"a": {{"secret_sha256": ["{DIGEST}"], "scopes": ["x"], "scope": 1, "scopes": ["y"]}}}}"#),
            &["callers: a.scope: is not a field", "callers: a.scopes: is there twice"],
        );
        for digests in [
            "[]",
            "\"x\"",
            "[1]",
            "[\"abc\"]",
            "null",
            &format!("[\"{DIGEST}0\"]"),
            &format!("[\"+{}\"]", &DIGEST[1..]),
        ] {
            check(
                &format!(r#"{{"a": {{"secret_sha256": {digests}, "scopes": ["x"]}}}}"#),
                &["callers: a.secret_sha256: must be a list"],
            );
        }
        for scopes in ["[]", "\"x\"", "[1]", "[\"\"]", "[\"a b\"]", "[\"caf\u{e9}\"]", "null"] {
            check(
                &format!(r#"{{"a": {{"secret_sha256": ["{DIGEST}"], "scopes": {scopes}}}}}"#),
                &["callers: a.scopes: must be a list"],
            );
        }
    }

    #[test]
    fn a_mistake_never_repeats_a_value_of_the_policy() {
        let (_, mistakes) = parse(r#"{"a": {"secret_sha256": "hunter2", "scopes": {"hunter2": "hunter2"}}}"#);
        assert!(!mistakes.join("\n").contains("hunter2"), "{mistakes:?}");
    }
}
