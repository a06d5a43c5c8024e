//! Parses the policy, the variable `callers`.

use std::borrow::Cow;
use std::rc::Rc;
use std::time::Duration;

use super::identities::parse_identities;
use super::keys::{MostKeys, parse_keys};
use super::{Caller, Callers, KnownSecret, Secrets, UNKNOWN};
use crate::config::application;
use crate::config::grammar::{MIN_REMAINING_SECONDS, is_name};
use crate::config::issuer::Issuers;
use crate::config::mistake::Mistakes;
use crate::digest::{in_memory_hash, parse_digest};
use crate::json::{Json, for_each_entry};
use crate::scope::policy::{MalformedPolicy, ScopePolicy};
use crate::time::Timestamp;

impl Callers {
    /// Parses the variable `callers`, and adds every mistake in it to `mistakes`. A caller whose
    /// entry has a mistake, or whose name appears twice, is disabled. The result may be used
    /// unless the mistakes spoil the whole variable.
    ///
    /// `{"nightly-sync": {"secret_sha256": ["<64 hex>"], "scopes":
    /// ["flex.community.members.read"]}}`. The optional field `application` must be a name for
    /// which `is_application` returns true.
    pub fn parse(
        text: &str,
        is_application: impl Fn(&str) -> bool,
        issuers: &Issuers,
        mistakes: &mut Mistakes,
    ) -> Self {
        let mut known = Vec::new();
        let (mut most_secrets, mut most_keys, mut longest_names) = (0, MostKeys::default(), 0);
        let (mut is_empty, mut need_public_url, mut pinned_claims) = (true, false, Vec::new());
        let mut without_scopes = 0;
        let mut previous_scopes = ScopeList::default();
        let read = for_each_entry(text, &mut |_| true, &mut |name, entry| {
            is_empty = false;
            if !is_name(name) {
                mistakes.add(name, "is not a name, expected 1 to 128 characters of printable ASCII");
                return;
            }
            let mistakes_before = mistakes.len();
            if name == UNKNOWN {
                mistakes.add(name, "is reserved for unauthenticated callers in the log, expected another name");
            }
            if issuers.of_identifier(name).is_some() {
                mistakes.add(name, "is the identifier of an issuer, expected another name");
            }
            let caller = parse_caller(name, entry, &is_application, issuers, &mut previous_scopes, mistakes)
                .filter(|_| mistakes.len() == mistakes_before)
                .unwrap_or_else(|| Rc::new(Caller::disabled(name)));
            most_secrets = most_secrets.max(caller.secrets.count());
            most_keys.note(&caller.keys);
            without_scopes += usize::from(caller.reads_metrics && caller.scopes.is_nothing());
            need_public_url |= caller.has_identity_for_public_url();
            caller.note_pinned_claims(&mut pinned_claims);
            longest_names = longest_names.max(caller.names_length());
            known.push((in_memory_hash(name), caller));
        });
        match read {
            Err(place) => mistakes
                .replace(&place, "is not valid, expected a JSON object of callers by name, {\"nightly-sync\": {…}}"),
            Ok(()) if is_empty => mistakes.replace("", "is empty, expected at least one caller"),
            Ok(()) => {}
        }
        // Compares only hashes: a policy may have thousands of callers, and names are longer.
        known.sort_unstable_by_key(|(hash, _)| *hash);
        let mut callers =
            Self { known, without_scopes, most_secrets, most_keys, need_public_url, pinned_claims, longest_names };
        callers.disable_repeated(mistakes);
        callers
    }
}

/// The scopes of the caller before, and the texts that they were parsed from. In a policy of
/// thousands of callers, neighbours often have the same list, which is then parsed and kept once.
#[derive(Default)]
struct ScopeList<'a>(Option<(Vec<Cow<'a, str>>, Rc<ScopePolicy>)>);

fn parse_caller<'a>(
    name: &str,
    entry: Json<'_, 'a>,
    is_application: impl Fn(&str) -> bool,
    issuers: &Issuers,
    previous_scopes: &mut ScopeList<'a>,
    mistakes: &mut Mistakes,
) -> Option<Rc<Caller>> {
    let Some(fields) = entry.fields() else {
        mistakes.add(name, "is not an object, expected one with scopes and with secret_sha256, keys or identities");
        return None;
    };
    let mut secrets = None;
    let mut keys = None;
    let mut identities = None;
    let mut scopes = None;
    let (mut application, mut min_remaining, mut reads_metrics) = (None, None, None);
    for (field, value) in fields {
        let place = || format!("{name}.{field}");
        let repeated = match field {
            "secret_sha256" => secrets.replace(parse_secrets(place, value, mistakes)).is_some(),
            "keys" => keys.replace(parse_keys(place, value, mistakes)).is_some(),
            "identities" => identities.replace(parse_identities(place, value, issuers, mistakes)).is_some(),
            "scopes" => scopes.replace(parse_scopes(place, value, previous_scopes, mistakes)).is_some(),
            "application" => application.replace(parse_application(place, value, &is_application, mistakes)).is_some(),
            "min_remaining_seconds" => min_remaining.replace(parse_min_remaining(place, value, mistakes)).is_some(),
            "metrics" => reads_metrics.replace(parse_metrics(place, value, mistakes)).is_some(),
            _ => {
                mistakes.add(
                    &place(),
                    "is unknown, expected secret_sha256, keys, identities, scopes, application, \
                     min_remaining_seconds or metrics",
                );
                false
            }
        };
        if repeated {
            mistakes.add(&place(), "appears twice, expected each field once");
        }
    }
    if secrets.is_none() && keys.is_none() && identities.is_none() {
        mistakes.add(&format!("{name}.secret_sha256"), "is missing, expected it, keys or identities");
    }
    let reads_metrics = reads_metrics.unwrap_or_default();
    if scopes.is_none() && !reads_metrics {
        mistakes.add(&format!("{name}.scopes"), "is missing");
    }
    let application = application.unwrap_or(Some(Cow::Borrowed(application::DEFAULT)))?;
    Some(Rc::new(Caller {
        name: name.to_owned(),
        application,
        min_remaining: min_remaining.flatten(),
        secrets: secrets.unwrap_or_else(|| Some(Secrets::none()))?,
        keys: keys.unwrap_or_else(|| Some(Box::default()))?,
        identities: identities.unwrap_or_else(|| Some(Box::default()))?,
        scopes: scopes.unwrap_or_else(|| Some(Rc::new(ScopePolicy::nothing())))?,
        reads_metrics,
        is_disabled: false,
    }))
}

fn parse_metrics(place: impl Fn() -> String, value: Json<'_, '_>, mistakes: &mut Mistakes) -> bool {
    let boolean = value.boolean();
    if boolean.is_none() {
        mistakes.add(&place(), "is not valid, expected true or false");
    }
    boolean.unwrap_or_default()
}

fn parse_min_remaining(place: impl Fn() -> String, value: Json<'_, '_>, mistakes: &mut Mistakes) -> Option<Duration> {
    let (low, high) = MIN_REMAINING_SECONDS;
    let seconds = value.number().filter(|seconds| (f64::from(low)..=f64::from(high)).contains(seconds));
    if seconds.is_none() {
        mistakes.add(&place(), "is not valid, expected a number of seconds from 60 to 3300");
    }
    seconds.map(|seconds| Duration::from_secs(seconds as u64))
}

fn parse_application(
    place: impl Fn() -> String,
    value: Json<'_, '_>,
    is_application: impl Fn(&str) -> bool,
    mistakes: &mut Mistakes,
) -> Option<Cow<'static, str>> {
    let known = value.text().filter(|name| is_application(name)).map(|name| Cow::Owned(name.to_string()));
    if known.is_none() {
        mistakes.add(&place(), "is unknown, expected default or a name in the variable applications");
    }
    known
}

fn parse_secrets(place: impl Fn() -> String, value: Json<'_, '_>, mistakes: &mut Mistakes) -> Option<Secrets> {
    let all = || {
        let mut entries = value.values()?;
        let first = parse_secret(entries.next()?)?;
        let others = entries.map(parse_secret).collect::<Option<_>>()?;
        Some(Secrets { first, others })
    };
    let secrets = all();
    if secrets.is_none() {
        mistakes.add(
            &place(),
            "is not valid, expected a list of one or more SHA-256 digests, each 64 hexadecimal digits, or \
             {\"sha256\": digits, \"expires\": date or time of RFC 3339}",
        );
    }
    secrets
}

/// Parses a digest, or an object of a digest and its expiry.
fn parse_secret(entry: Json<'_, '_>) -> Option<KnownSecret> {
    if let Some(digits) = entry.text() {
        return Some(KnownSecret { digest: parse_digest(digits)?, expires_at: None });
    }
    let (mut digest, mut expires_at) = (None, None);
    for (field, value) in entry.fields()? {
        let text = value.text()?;
        let repeated = match field {
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

fn parse_scopes<'a>(
    place: impl Fn() -> String,
    value: Json<'_, 'a>,
    previous: &mut ScopeList<'a>,
    mistakes: &mut Mistakes,
) -> Option<Rc<ScopePolicy>> {
    let entries = value.values().into_iter().flatten();
    if let ScopeList(Some((texts, scopes))) = previous
        && texts.iter().map(Some).eq(entries.clone().map(Json::text))
    {
        return Some(scopes.clone());
    }
    // An entry that is not a string becomes the empty string, which is not a valid scope.
    match ScopePolicy::from_entries(entries.clone().map(|entry| entry.text().map_or("", |text| text))) {
        Ok(scopes) => {
            let (texts, scopes) = (entries.filter_map(Json::text).cloned().collect(), Rc::new(scopes));
            previous.0 = Some((texts, Rc::clone(&scopes)));
            return Some(scopes);
        }
        Err(MalformedPolicy::Scope) => {
            mistakes.add(
                &place(),
                "is not valid, expected a list of 1 to 512 scopes, each a token of RFC 6749 section 3.3",
            );
        }
        Err(MalformedPolicy::Pattern) => {
            mistakes.add(
                &place(),
                "has a misplaced *, expected * as a whole part between dots, or ** as the last part after another",
            );
        }
    }
    None
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// SHA-256 of `opensesame`.
    const DIGEST: &str = "c88378ce3fde4cd0e0c05089f93d6b7f7b2ac7a7c23aa3c2be1d4ba5f5bb7a5a";

    fn parse(text: &str) -> (Callers, Vec<String>) {
        let mut mistakes = Mistakes::of("callers");
        let is_application = |name: &str| ["default", "berlin"].contains(&name);
        let callers = Callers::parse(text, is_application, &Issuers::default(), &mut mistakes);
        (callers, mistakes.into_iter().map(|mistake| mistake.to_string()).collect())
    }

    /// Checks how each mistake of a policy begins: with the variable, the caller and the field.
    #[track_caller]
    pub(in super::super) fn check(text: &str, expected: &[&str]) {
        let (_, mistakes) = parse(text);
        let starts: Vec<_> =
            mistakes.iter().map(|mistake| mistake.split(": ").take(2).collect::<Vec<_>>().join(": ")).collect();
        assert_eq!(mistakes.len(), expected.len(), "{text} {mistakes:?}");
        for (mistake, expected) in mistakes.iter().zip(expected) {
            assert!(mistake.starts_with(expected), "{text}: {starts:?} should start with {expected:?}");
        }
    }

    #[test]
    fn mistake_in_the_policy_names_caller_and_field() {
        check("", &["callers: is not valid, expected a JSON object"]);
        check("[]", &["callers: is not valid, expected a JSON object"]);
        check(r#"{"a": 1} x"#, &["callers: line 1 column 10: is not valid, expected a JSON object"]);
        check("{\"a\": 1,\n", &["callers: line 2 column 0: is not valid, expected a JSON object"]);
        check(r#"{"a": {"scopes": ["\ud800"]}}"#, &["callers: line 1 column 26: is not valid, expected a JSON object"]);
        check("{}", &["callers: is empty, expected at least one caller"]);
        check(r#"{"a": 1}"#, &["callers: a: is not an object, expected"]);
        check(r#"{"": {}}"#, &["callers: is not a name, expected"]);
        check(r#"{"a": {}}"#, &["callers: a.secret_sha256: is missing", "callers: a.scopes: is missing"]);
        let good = format!(r#"{{"secret_sha256": ["{DIGEST}"], "scopes": ["x"]}}"#);
        check(&format!(r#"{{"a": {good}}}"#), &[]);
        check(&format!(r#"{{"a": {good}, "a": {good}}}"#), &["callers: a: appears twice, expected each caller once"]);
        check(&format!(r#"{{"unknown": {good}}}"#), &["callers: unknown: is reserved"]);
        check(
            &format!(r#"{{"a": {{"secret_sha256": ["{DIGEST}"], "scopes": ["x"], "scope": 1, "scopes": ["y"]}}}}"#),
            &["callers: a.scope: is unknown, expected", "callers: a.scopes: appears twice, expected each field once"],
        );
    }

    #[test]
    fn mistake_in_a_digest_names_secret_sha256() {
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
                &["callers: a.secret_sha256: is not valid, expected a list"],
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
            check(&with_expiry(&entry), &["callers: a.secret_sha256: is not valid, expected a list"]);
        }
    }

    #[test]
    fn mistake_in_scopes_or_application_names_the_field() {
        for scopes in ["[]", "\"x\"", "[1]", "[\"\"]", "[\"a b\"]", "[\"caf\u{e9}\"]", "null"] {
            check(
                &format!(r#"{{"a": {{"secret_sha256": ["{DIGEST}"], "scopes": {scopes}}}}}"#),
                &["callers: a.scopes: is not valid, expected a list"],
            );
        }
        check(
            &format!(r#"{{"a": {{"secret_sha256": ["{DIGEST}"], "scopes": ["flex.m*.read"]}}}}"#),
            &["callers: a.scopes: has a misplaced *, expected * as a whole part"],
        );
        for seconds in ["59", "3301", "\"300\"", "null", "-300"] {
            check(
                &format!(
                    r#"{{"a": {{"secret_sha256": ["{DIGEST}"], "scopes": ["x"], "min_remaining_seconds": {seconds}}}}}"#
                ),
                &["callers: a.min_remaining_seconds: is not valid, expected"],
            );
        }
        for application in ["\"rome\"", "1", "null", "\"\""] {
            check(
                &format!(
                    r#"{{"a": {{"secret_sha256": ["{DIGEST}"], "scopes": ["x"], "application": {application}}}}}"#
                ),
                &["callers: a.application: is unknown, expected default"],
            );
        }
    }

    #[test]
    fn mistake_in_the_policy_never_contains_a_value() {
        let (_, mistakes) = parse(r#"{"a": {"secret_sha256": "hunter2", "scopes": {"hunter2": "hunter2"}}}"#);
        assert!(!mistakes.join("\n").contains("hunter2"), "{mistakes:?}");
    }
}
