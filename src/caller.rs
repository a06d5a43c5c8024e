//! Who may call, and what each may have.

use std::borrow::Cow;
use std::iter;
use std::rc::Rc;

use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::application;
use crate::config::{Mistakes, is_name};
use crate::digest::{memory_hash_of, parse_digest};
use crate::error::{ScopeRefusal, Unauthenticated};
use crate::json::{Json, entries};
use crate::scope::{MalformedPolicy, ScopePolicy, Scopes};
use crate::secret::PresentedSecret;
use crate::time::Timestamp;

/// The SHA-256 of a caller's secret. The secret has 256 random bits, so the digest is no secret and needs no salt.
type Digest = [u8; 32];

/// A secret that opens, until it expires.
#[derive(Clone, Debug, PartialEq, Eq)]
struct KnownSecret {
    digest: Digest,
    expires_at: Option<Timestamp>,
}

/// A caller of the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its client id towards the broker.
    pub name: String,
    /// The name of the application that it gets tokens of.
    pub application: Cow<'static, str>,
    /// What it may have.
    pub scopes: ScopePolicy,
    /// Any of these opens: several while a secret rotates.
    secrets: Box<[KnownSecret]>,
}

/// What the log calls a caller that is not established. No caller has this name.
pub const UNKNOWN: &str = "unknown";

/// The policy.
///
/// Whoever presents whatever, as many hashes of names and as many digests of secrets are compared: time tells no names.
#[derive(Clone, Debug, Default)]
pub struct Callers {
    /// Sorted by the hash of the name, and then by the name.
    known: Vec<(u64, Rc<Caller>)>,
    most_secrets: usize,
}

/// What makes the number of secrets up. Nobody knows a text with this digest, and it would not open.
const NO_SECRET: KnownSecret = KnownSecret { digest: [0; 32], expires_at: Some(Timestamp::from_unix_ms(0)) };

impl Callers {
    /// Reads the variable `callers`, and notes every mistake in it. What comes back is only good without one.
    ///
    /// `{"nightly-sync": {"secret_sha256": ["<64 hex>"], "scopes": ["flex.community.members.read"]}}`; an `application` is
    /// the default one if absent, and must be one that `is_application` knows.
    pub fn parse(text: &str, is_application: impl Fn(&str) -> bool, mistakes: &mut Mistakes) -> Self {
        let mut known = Vec::new();
        let mut most_secrets = 0;
        let mut is_empty = true;
        let read = entries(
            text,
            |_| true,
            |name, entry| {
                is_empty = false;
                if !is_name(&name) {
                    mistakes.add(&name, "a name is 1 to 128 characters of printable ASCII");
                    return;
                }
                if name == UNKNOWN {
                    mistakes.add(&name, "is what the log calls a caller that is not established");
                }
                if let Some(caller) = parse_caller(&name, &entry, &is_application, mistakes) {
                    most_secrets = most_secrets.max(caller.secrets.len());
                    known.push((memory_hash_of(&*name), Rc::new(caller)));
                }
            },
        );
        match read {
            Err(place) => mistakes.replace(&place, "must be a JSON object of callers by name, {\"nightly-sync\": {…}}"),
            Ok(()) if is_empty => mistakes.add("", "must have at least one caller"),
            Ok(()) => {}
        }
        known.sort_unstable_by(|(left_hash, left), (right_hash, right)| {
            (left_hash, &left.name).cmp(&(right_hash, &right.name))
        });
        for pair in known.windows(2) {
            let [(left_hash, left), (right_hash, right)] = pair else { continue };
            if left_hash == right_hash && left.name == right.name {
                mistakes.add(&left.name, "is there twice");
            }
        }
        Self { known, most_secrets }
    }

    /// Establishes who calls.
    ///
    /// # Errors
    /// When there is no such caller, or the secret is none of its own or no longer; which it is is for the log alone.
    pub fn authenticate(
        &self,
        name: &str,
        secret: &PresentedSecret,
        now: Timestamp,
    ) -> Result<Rc<Caller>, Unauthenticated> {
        let presented: Digest = Sha256::digest(secret.expose().as_bytes()).into();
        let caller = self.find(name);
        let secrets = caller.map_or(&[][..], |caller| &caller.secrets);
        match (caller, self.matches_one_of(&presented, secrets, now)) {
            (None, _) => Err(Unauthenticated::UnknownCaller),
            (Some(caller), (_, true)) => Ok(caller.clone()),
            (Some(_), (true, false)) => Err(Unauthenticated::ExpiredSecret),
            (Some(_), (false, false)) => Err(Unauthenticated::WrongSecret),
        }
    }

    /// The caller of a name, whoever presents it.
    pub fn find(&self, name: &str) -> Option<&Rc<Caller>> {
        let hash = memory_hash_of(name);
        let place = self.known.partition_point(|(known, _)| *known < hash).min(self.known.len().checked_sub(1)?);
        let nearest = self.known.get(place..)?;
        // One name is compared, whether it is the one or not; all of them, should two ever have the same hash.
        let alike = nearest.iter().take_while(|(known, _)| *known == hash).count().max(1);
        nearest.iter().take(alike).map(|(_, caller)| caller).find(|caller| is_same(&caller.name, name))
    }

    /// Whether this is one of the secrets, and one that has not expired. Looks at every one, whichever matches.
    fn matches_one_of(&self, presented: &Digest, secrets: &[KnownSecret], now: Timestamp) -> (bool, bool) {
        let (mut is_known, mut opens) = (Choice::from(0), Choice::from(0));
        for place in 0..self.most_secrets {
            let secret = secrets.get(place).unwrap_or(&NO_SECRET);
            let matches = secret.digest.ct_eq(presented);
            let lives = secret.expires_at.is_none_or(|expires_at| now < expires_at);
            is_known |= matches;
            opens |= matches & Choice::from(u8::from(lives));
        }
        (is_known.into(), opens.into())
    }
}

/// Whether a name is the one presented, at the cost of the one presented.
fn is_same(known: &str, presented: &str) -> bool {
    let known_bytes = known.bytes().chain(iter::repeat(0));
    let difference =
        presented.bytes().zip(known_bytes).fold(0, |difference, (left, right)| difference | (left ^ right));
    difference == 0 && known.len() == presented.len()
}

impl Caller {
    /// What a request is to get: what it asks for, or everything the caller may have when it names nothing.
    ///
    /// # Errors
    /// When the caller may not have all of it, or has to name it.
    pub fn authorize(&self, requested: Option<Scopes>) -> Result<Scopes, ScopeRefusal> {
        match requested {
            None => self.scopes.everything().cloned().ok_or(ScopeRefusal::Unnamed),
            Some(requested) if self.scopes.permits(&requested) => Ok(requested),
            Some(_) => Err(ScopeRefusal::OutsidePolicy),
        }
    }
}

fn parse_caller(
    name: &str,
    entry: &Json<'_>,
    is_application: impl Fn(&str) -> bool,
    mistakes: &mut Mistakes,
) -> Option<Caller> {
    let Json::Object(fields) = entry else {
        mistakes.add(name, "must be an object with secret_sha256 and scopes");
        return None;
    };
    let mut secrets = None;
    let mut scopes = None;
    let mut application = None;
    for (field, value) in fields {
        let place = || format!("{name}.{field}");
        let repeated = match &**field {
            "secret_sha256" => secrets.replace(parse_secrets(place, value, mistakes)).is_some(),
            "scopes" => scopes.replace(parse_scopes(place, value, mistakes)).is_some(),
            "application" => {
                let known = value.text().filter(|name| is_application(name)).map(|name| Cow::Owned(name.to_owned()));
                if known.is_none() {
                    mistakes.add(&place(), "must be default, or the name of one in the variable applications");
                }
                application.replace(known).is_some()
            }
            _ => {
                mistakes.add(&place(), "is not a field of a caller, which has secret_sha256, scopes and application");
                false
            }
        };
        if repeated {
            mistakes.add(&place(), "is there twice");
        }
    }
    for (field, missing) in [("secret_sha256", secrets.is_none()), ("scopes", scopes.is_none())] {
        if missing {
            mistakes.add(&format!("{name}.{field}"), "is missing");
        }
    }
    let application = application.unwrap_or(Some(Cow::Borrowed(application::DEFAULT)))?;
    Some(Caller { name: name.to_owned(), application, secrets: secrets??, scopes: scopes?? })
}

fn parse_secrets(place: impl Fn() -> String, value: &Json<'_>, mistakes: &mut Mistakes) -> Option<Box<[KnownSecret]>> {
    let all = |entries: &[Json<'_>]| {
        // Collected, a single one would take the room of four for a moment, in a policy of thousands.
        let mut secrets = Vec::with_capacity(entries.len());
        for entry in entries {
            secrets.push(parse_secret(entry)?);
        }
        Some(secrets.into_boxed_slice())
    };
    let secrets = match value {
        Json::List(entries) => all(entries),
        _ => None,
    };
    let secrets = secrets.filter(|secrets| !secrets.is_empty());
    if secrets.is_none() {
        mistakes.add(
            &place(),
            "must be a list of one or more SHA-256 digests, each 64 hexadecimal digits, or \
             {\"sha256\": digits, \"expires\": date or time of RFC 3339}",
        );
    }
    secrets
}

/// A digest, or one with a date.
fn parse_secret(entry: &Json<'_>) -> Option<KnownSecret> {
    let fields = match entry {
        Json::Text(digits) => return Some(KnownSecret { digest: parse_digest(digits)?, expires_at: None }),
        Json::Object(fields) => fields,
        _ => return None,
    };
    let (mut digest, mut expires_at) = (None, None);
    for (field, value) in fields {
        let text = value.text()?;
        let repeated = match &**field {
            "sha256" => digest.replace(parse_digest(text)?).is_some(),
            "expires" => expires_at.replace(Timestamp::parse_rfc3339(text)?).is_some(),
            _ => return None,
        };
        if repeated {
            return None;
        }
    }
    Some(KnownSecret { digest: digest?, expires_at })
}

fn parse_scopes(place: impl Fn() -> String, value: &Json<'_>, mistakes: &mut Mistakes) -> Option<ScopePolicy> {
    let entries = match value {
        Json::List(entries) => &entries[..],
        _ => &[],
    };
    // What is no text stands for the empty one, which is no scope either.
    match ScopePolicy::from_entries(entries.iter().map(|entry| entry.text().unwrap_or_default())) {
        Ok(scopes) => return Some(scopes),
        Err(MalformedPolicy::Scope) => {
            mistakes.add(&place(), "must be a list of 1 to 512 scopes, each a token of RFC 6749 section 3.3");
        }
        Err(MalformedPolicy::Pattern) => {
            mistakes
                .add(&place(), "a * must be a whole part between dots, and ** the last part after at least one other");
        }
    }
    None
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
        let callers = Callers::parse(text, |name| ["default", "berlin"].contains(&name), &mut mistakes);
        (callers, mistakes.into_iter().map(|mistake| mistake.to_string()).collect())
    }

    fn two_callers() -> Callers {
        let (callers, mistakes) = parse(&format!(
            r#"{{"a": {{"secret_sha256": ["{}", "{}"], "scopes": ["x", "y"]}},
                 "b": {{"secret_sha256": ["{}"], "scopes": ["z", "z.*.read"], "application": "berlin"}}}}"#,
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
            let found = callers.authenticate(name, &PresentedSecret::new(secret), Timestamp::from_unix_ms(0));
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
        let check = |name: &str, requested: Option<&str>, expected: Result<&str, ScopeRefusal>| {
            let caller = callers.find(name).unwrap();
            let granted = caller.authorize(requested.map(|text| Scopes::parse(text).unwrap()));
            let granted = granted.as_ref().map(Scopes::as_str).map_err(|because| *because);
            assert_eq!(granted, expected, "{name} {requested:?}");
        };
        check("a", None, Ok("x y"));
        check("a", Some("y x x"), Ok("x y"));
        check("a", Some("y"), Ok("y"));
        check("a", Some("z"), Err(ScopeRefusal::OutsidePolicy));
        check("a", Some("x y z"), Err(ScopeRefusal::OutsidePolicy));
        check("a", Some("X"), Err(ScopeRefusal::OutsidePolicy));
        check("b", Some("z.members.read"), Ok("z.members.read"));
        check("b", Some("z.members.write"), Err(ScopeRefusal::OutsidePolicy));
        check("b", None, Err(ScopeRefusal::Unnamed));
    }

    #[test]
    fn a_secret_opens_until_it_expires() {
        let (callers, mistakes) = parse(&format!(
            r#"{{"a": {{"scopes": ["x"], "secret_sha256": [
                "{}",
                {{"sha256": "{}", "expires": "2027-01-31"}},
                {{"expires": "2027-01-31T12:00:00Z", "sha256": "{}"}}]}}}}"#,
            digest_of("always"),
            digest_of("day"),
            digest_of("noon"),
        ));
        assert!(mistakes.is_empty(), "{mistakes:?}");
        let check = |secret: &str, now: &str, expected: Result<(), Unauthenticated>| {
            let now = Timestamp::parse_rfc3339(now).unwrap();
            let found = callers.authenticate("a", &PresentedSecret::new(secret), now).map(drop);
            assert_eq!(found, expected, "{secret} at {now:?}");
        };
        check("always", "2999-01-01", Ok(()));
        check("day", "2027-01-30T23:59:59.999Z", Ok(()));
        check("day", "2027-01-31", Err(Unauthenticated::ExpiredSecret));
        check("noon", "2027-01-31T11:59:59Z", Ok(()));
        check("noon", "2027-01-31T12:00:00Z", Err(Unauthenticated::ExpiredSecret));
        check("other", "2027-01-31T12:00:00Z", Err(Unauthenticated::WrongSecret));
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
        check(r#"{"a": 1} x"#, &["callers: line 1 column 10: must be a JSON object"]);
        check("{\"a\": 1,\n", &["callers: line 2 column 0: must be a JSON object"]);
        check(r#"{"a": {"scopes": ["\ud800"]}}"#, &["callers: line 1 column 26: must be a JSON object"]);
        check("{}", &["callers: must have at least one caller"]);
        check(r#"{"a": 1}"#, &["callers: a: must be an object"]);
        check(r#"{"": {}}"#, &["callers: a name is"]);
        check(r#"{"a": {}}"#, &["callers: a.secret_sha256: is missing", "callers: a.scopes: is missing"]);
        let good = format!(r#"{{"secret_sha256": ["{DIGEST}"], "scopes": ["x"]}}"#);
        check(&format!(r#"{{"a": {good}}}"#), &[]);
        check(&format!(r#"{{"a": {good}, "a": {good}}}"#), &["callers: a: is there twice"]);
        check(&format!(r#"{{"unknown": {good}}}"#), &["callers: unknown: is what the log calls"]);
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
        let with_expiry = |entry: &str| format!(r#"{{"a": {{"secret_sha256": [{entry}], "scopes": ["x"]}}}}"#);
        check(&with_expiry(&format!(r#"{{"sha256": "{DIGEST}", "expires": "2027-01-31"}}"#)), &[]);
        for entry in [
            "{}".to_owned(),
            r#"{"expires": "2027-01-31"}"#.to_owned(),
            format!(r#"{{"sha256": "{DIGEST}", "expires": "soon"}}"#),
            format!(r#"{{"sha256": "{DIGEST}", "expires": 1}}"#),
            format!(r#"{{"sha256": "{DIGEST}", "expires": null}}"#),
            format!(r#"{{"sha256": "{DIGEST}", "expiry": "2027-01-31"}}"#),
            format!(r#"{{"sha256": "{DIGEST}", "sha256": "{DIGEST}"}}"#),
        ] {
            check(&with_expiry(&entry), &["callers: a.secret_sha256: must be a list"]);
        }
        for scopes in ["[]", "\"x\"", "[1]", "[\"\"]", "[\"a b\"]", "[\"caf\u{e9}\"]", "null"] {
            check(
                &format!(r#"{{"a": {{"secret_sha256": ["{DIGEST}"], "scopes": {scopes}}}}}"#),
                &["callers: a.scopes: must be a list"],
            );
        }
        check(
            &format!(r#"{{"a": {{"secret_sha256": ["{DIGEST}"], "scopes": ["flex.m*.read"]}}}}"#),
            &["callers: a.scopes: a * must be a whole part"],
        );
        for application in ["\"rome\"", "1", "null", "\"\""] {
            check(
                &format!(
                    r#"{{"a": {{"secret_sha256": ["{DIGEST}"], "scopes": ["x"], "application": {application}}}}}"#
                ),
                &["callers: a.application: must be default"],
            );
        }
    }

    #[test]
    fn a_mistake_never_repeats_a_value_of_the_policy() {
        let (_, mistakes) = parse(r#"{"a": {"secret_sha256": "hunter2", "scopes": {"hunter2": "hunter2"}}}"#);
        assert!(!mistakes.join("\n").contains("hunter2"), "{mistakes:?}");
    }
}
