//! Parses the policy, the variable `callers`.

use std::borrow::Cow;
use std::rc::Rc;

use super::{Caller, Callers, KnownSecret, UNKNOWN};
use crate::config::application;
use crate::config::grammar::is_name;
use crate::config::mistake::Mistakes;
use crate::digest::{in_memory_hash, parse_digest};
use crate::json::{Json, for_each_entry};
use crate::scope::policy::{MalformedPolicy, ScopePolicy};
use crate::time::Timestamp;

impl Callers {
    /// Parses the variable `callers`, and adds every mistake in it to `mistakes`. The result
    /// may only be used if there are none.
    ///
    /// `{"nightly-sync": {"secret_sha256": ["<64 hex>"], "scopes":
    /// ["flex.community.members.read"]}}`. The optional field `application` must be a name for
    /// which `is_application` returns true.
    pub fn parse(text: &str, is_application: impl Fn(&str) -> bool, mistakes: &mut Mistakes) -> Self {
        let mut known = Vec::new();
        let mut most_secrets = 0;
        let mut is_empty = true;
        let read = for_each_entry(
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
                    known.push((in_memory_hash(&*name), Rc::new(caller)));
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
        // Not collected: `collect` would allocate room for four where most callers have one
        // secret, and a policy may have thousands of callers.
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

/// Parses a digest, or an object of a digest and its expiry.
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
    // An entry that is not a string becomes the empty string, which is not a valid scope.
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

    fn parse(text: &str) -> (Callers, Vec<String>) {
        let mut mistakes = Mistakes::of("callers");
        let callers = Callers::parse(text, |name| ["default", "berlin"].contains(&name), &mut mistakes);
        (callers, mistakes.into_iter().map(|mistake| mistake.to_string()).collect())
    }

    /// Checks how each mistake of a policy begins: with the variable, the caller and the field.
    fn check(text: &str, expected: &[&str]) {
        let (_, mistakes) = parse(text);
        let starts: Vec<_> =
            mistakes.iter().map(|mistake| mistake.split(": ").take(2).collect::<Vec<_>>().join(": ")).collect();
        assert_eq!(mistakes.len(), expected.len(), "{text} {mistakes:?}");
        for (mistake, expected) in mistakes.iter().zip(expected) {
            assert!(mistake.starts_with(expected), "{text}: {starts:?} should start with {expected:?}");
        }
    }

    #[test]
    fn every_mistake_of_a_policy_names_the_caller_and_the_field() {
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
    }

    #[test]
    fn every_mistake_of_a_secret_is_one_of_the_list() {
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
    }

    #[test]
    fn every_mistake_of_scopes_or_application_names_the_field() {
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
