//! Edits the policy: adds a caller, gives it another secret, or removes it.

use std::fmt;

use anyhow::{Context as _, bail, ensure};
use officernd_token_broker::config::Mistakes;
use officernd_token_broker::config::caller::Callers;
use officernd_token_broker::config::issuer::Issuers;
use officernd_token_broker::time::Timestamp;
use serde_json::{Map, Value, json};

use crate::secret::RandomSecret;
use crate::warning;

/// A policy that the component accepts. An edit leaves everything else unchanged and in its
/// place.
#[derive(Debug)]
pub(crate) struct Policy(Map<String, Value>);

impl Policy {
    /// Reads a value of the variable `callers`.
    ///
    /// # Errors
    ///
    /// All mistakes that the component would find, one line each. A policy with mistakes cannot
    /// be edited safely: for example, only the last of several equal keys would be left.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let mut mistakes = Mistakes::of("callers");
        // Applications and issuers are in other variables, so any name is accepted here.
        Callers::parse(text, |_| true, &Issuers::unread(), &mut mistakes);
        let mistakes: Vec<_> = mistakes.into_iter().map(|mistake| mistake.to_string()).collect();
        ensure!(mistakes.is_empty(), "{}", mistakes.join("\n"));
        Ok(Self(serde_json::from_str(text)?))
    }

    /// Makes a policy with one caller.
    ///
    /// # Errors
    ///
    /// If the component would refuse the name or the scopes.
    pub(crate) fn of(name: &str, scopes: &[String], application: Option<&str>) -> anyhow::Result<(Self, RandomSecret)> {
        Self(Map::new()).add(name, scopes, application)
    }

    /// Adds a caller at the end.
    ///
    /// # Errors
    ///
    /// If a caller of that name exists, or if the component would refuse the name or the
    /// scopes.
    pub(crate) fn add(
        mut self,
        name: &str,
        scopes: &[String],
        application: Option<&str>,
    ) -> anyhow::Result<(Self, RandomSecret)> {
        ensure!(
            !self.0.contains_key(name),
            "the caller {name:?} already exists: `caller rotate` gives it another secret, and `caller remove` removes it"
        );
        let secret = RandomSecret::generate();
        let mut entry = json!({ "secret_sha256": [secret.sha256()], "scopes": scopes });
        if let Some(application) = application {
            entry["application"] = application.into();
        }
        self.0.insert(name.into(), entry);
        Ok((self.checked()?, secret))
    }

    /// Gives a caller another secret in addition to its present ones and to its keys. Present secrets without
    /// an expiry get `expires`: a date or a time of RFC 3339, from which on they are refused.
    ///
    /// # Errors
    ///
    /// If the caller does not exist, or if `expires` is neither a date nor a time after `now`.
    pub(crate) fn rotate(
        mut self,
        name: &str,
        expires: Option<&str>,
        now: Timestamp,
    ) -> anyhow::Result<(Self, RandomSecret)> {
        if let Some(text) = expires {
            let expires = Timestamp::parse_rfc3339(text).context(
                "--expires is wrong, expected a date or a time of RFC 3339: 2027-01-31 or 2027-01-31T12:00:00Z",
            )?;
            ensure!(
                expires > now,
                "--expires is in the past, so the present secrets would end at once, expected a later time"
            );
        }
        let caller = self.0.get_mut(name).with_context(|| absent(name))?;
        // A caller with only keys gets its first secret.
        let caller = caller.as_object_mut().expect("the component accepts only an object");
        let digests = caller.entry("secret_sha256").or_insert_with(|| json!([]));
        let digests = digests.as_array_mut().expect("the component accepts only an array");
        for digest in digests.iter_mut() {
            let (sha256, has_expiry) = match &*digest {
                Value::Object(fields) => (&fields["sha256"], fields.contains_key("expires")),
                text => (text, false),
            };
            if let Some(expires) = expires.filter(|_| !has_expiry) {
                *digest = json!({ "sha256": sha256, "expires": expires });
            }
        }
        let secret = RandomSecret::generate();
        digests.push(secret.sha256().into());
        Ok((self.checked()?, secret))
    }

    /// Removes a caller.
    ///
    /// # Errors
    ///
    /// If the caller does not exist, or if it is the only one.
    pub(crate) fn remove(mut self, name: &str) -> anyhow::Result<Self> {
        // Not `remove`, which would move the last caller into the gap.
        self.0.shift_remove(name).with_context(|| absent(name))?;
        if self.0.is_empty() {
            bail!("{name:?} is the only caller, and the broker needs at least one: add another one first");
        }
        self.checked()
    }

    /// Returns warnings about the policy, each as one line: what the component accepts, but what
    /// does not work for every client, or not any more at the time `now`.
    pub(crate) fn warnings(&self, now: Timestamp) -> Vec<String> {
        let length = warning::of_length("callers", &self.to_string());
        length.into_iter().chain(warning::of_policy(&self.0, now)).collect()
    }

    /// Returns the policy if the component accepts it.
    fn checked(self) -> anyhow::Result<Self> {
        Self::parse(&self.to_string())
    }
}

fn absent(name: &str) -> String {
    format!("the caller {name:?} does not exist: `caller new` adds it")
}

impl fmt::Display for Policy {
    /// Writes the value of the variable on several lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string_pretty(&self.0).map_err(|_| fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Digest without a known secret.
    const OLD: &str = "c88378ce3fde4cd0e0c05089f93d6b7f7b2ac7a7c23aa3c2be1d4ba5f5bb7a5a";

    /// Callers and fields in an order that no program would choose.
    fn old() -> String {
        let upper = OLD.to_uppercase();
        format!(
            r#"{{"zoo": {{"scopes": ["b", "a"], "secret_sha256": ["{OLD}"]}},
                 "a \"bear\"": {{"secret_sha256": ["{OLD}"], "scopes": ["a"]}},
                 "ape": {{"secret_sha256": ["{upper}"], "scopes": ["a", "a"]}}}}"#
        )
    }

    fn now() -> Timestamp {
        Timestamp::parse_rfc3339("2026-11-29T12:00:00Z").unwrap()
    }

    fn parsed() -> Policy {
        Policy::parse(&old()).unwrap()
    }

    fn json_of(policy: &Policy) -> Value {
        serde_json::from_str(&policy.to_string()).unwrap()
    }

    fn names(policy: &Policy) -> Vec<&str> {
        policy.0.keys().map(String::as_str).collect()
    }

    fn problem<T>(result: anyhow::Result<T>) -> String {
        format!("{:#}", result.err().expect("it is refused"))
    }

    #[test]
    fn added_caller_is_last_and_the_others_are_unchanged() {
        let (policy, secret) = parsed().add("new", &["x".into(), "y".into()], Some("berlin")).unwrap();
        let mut expected: Value = serde_json::from_str(&old()).unwrap();
        expected["new"] = json!({ "secret_sha256": [secret.sha256()], "scopes": ["x", "y"], "application": "berlin" });
        // Compared as text, because objects are equal in any order.
        assert_eq!(json_of(&policy).to_string(), expected.to_string());
        assert_eq!(names(&policy), ["zoo", "a \"bear\"", "ape", "new"]);
    }

    #[test]
    fn first_caller_makes_a_policy() {
        let (policy, secret) = Policy::of("new", &["x".into()], None).unwrap();
        assert_eq!(json_of(&policy), json!({ "new": { "secret_sha256": [secret.sha256()], "scopes": ["x"] } }));
    }

    #[test]
    fn rotated_caller_has_one_more_digest() {
        let (policy, secret) = parsed().rotate("zoo", None, now()).unwrap();
        let mut expected: Value = serde_json::from_str(&old()).unwrap();
        expected["zoo"]["secret_sha256"] = json!([OLD, secret.sha256()]);
        assert_eq!(json_of(&policy).to_string(), expected.to_string());
    }

    #[test]
    fn rotated_caller_with_only_keys_gets_its_first_secret() {
        let keys = r#"[{"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]"#;
        let policy = Policy::parse(&format!(r#"{{"door": {{"keys": {keys}, "scopes": ["a"]}}}}"#)).unwrap();
        let (policy, secret) = policy.rotate("door", Some("2027-01-31"), now()).unwrap();
        let keys: Value = serde_json::from_str(keys).unwrap();
        let expected = json!({ "door": { "keys": keys, "scopes": ["a"], "secret_sha256": [secret.sha256()] } });
        assert_eq!(json_of(&policy), expected);
    }

    #[test]
    fn rotation_sets_the_expiry_of_secrets_without_one() {
        let (policy, first) = parsed().rotate("zoo", Some("2027-01-31"), now()).unwrap();
        let (policy, second) = policy.rotate("zoo", None, now()).unwrap();
        let (policy, third) = policy.rotate("zoo", Some("2028-01-31T12:00:00+01:00"), now()).unwrap();
        let expected = json!([
            { "sha256": OLD, "expires": "2027-01-31" },
            { "sha256": first.sha256(), "expires": "2028-01-31T12:00:00+01:00" },
            { "sha256": second.sha256(), "expires": "2028-01-31T12:00:00+01:00" },
            third.sha256(),
        ]);
        assert_eq!(json_of(&policy)["zoo"]["secret_sha256"], expected);
        for text in
            ["", "soon", "2027-02-29", "2027-01-31T12:00:00", "2026-11-29", "2026-11-29T12:00:00Z", "1999-12-31"]
        {
            assert!(problem(parsed().rotate("zoo", Some(text), now())).starts_with("--expires"), "{text}");
        }
    }

    #[test]
    fn rotation_sets_the_expiry_of_a_digest_in_an_object() {
        let policy =
            Policy::parse(&old().replacen(&format!("\"{OLD}\""), &format!(r#"{{"sha256": "{OLD}"}}"#), 1)).unwrap();
        let (policy, _) = policy.rotate("zoo", Some("2027-01-31"), now()).unwrap();
        assert_eq!(json_of(&policy)["zoo"]["secret_sha256"][0], json!({ "sha256": OLD, "expires": "2027-01-31" }));
    }

    #[test]
    fn removing_a_caller_keeps_the_order_of_the_others() {
        let policy = parsed().remove("zoo").unwrap();
        assert_eq!(names(&policy), ["a \"bear\"", "ape"]);
        let last = policy.remove("ape").unwrap();
        assert!(problem(last.remove("a \"bear\"")).contains("only caller"));
    }

    #[test]
    fn taken_or_unknown_name_is_refused_with_advice() {
        assert!(problem(parsed().add("zoo", &["x".into()], None)).contains("`caller rotate`"));
        assert!(problem(parsed().rotate("bear", None, now())).contains("`caller new`"));
        assert!(problem(parsed().remove("bear")).contains("`caller new`"));
    }

    #[test]
    fn caller_that_the_component_would_refuse_is_refused() {
        let check = |name: &str, scopes: &[&str], expected: &str| {
            let scopes: Vec<_> = scopes.iter().map(|scope| (*scope).to_owned()).collect();
            let problem = problem(parsed().add(name, &scopes, None));
            assert!(problem.starts_with(expected), "{problem}");
        };
        check("", &["x"], "callers: is not a name, expected");
        check("caf\u{e9}", &["x"], "callers: café: is not a name, expected");
        check("new", &[], "callers: new.scopes: is not valid, expected a list");
        check("new", &["a\"b"], "callers: new.scopes: is not valid, expected a list");
    }

    #[test]
    fn policy_with_mistakes_is_not_edited() {
        let check = |text: &str, expected: &[&str]| {
            let problem = problem(Policy::parse(text));
            let lines: Vec<_> = problem.lines().collect();
            assert_eq!(lines.len(), expected.len(), "{lines:?}");
            for (line, expected) in lines.iter().zip(expected) {
                assert!(line.starts_with(expected), "{line}");
            }
        };
        let entry = format!(r#"{{"secret_sha256": ["{OLD}"], "scopes": ["a"]}}"#);
        check("", &["callers: is not valid, expected a JSON object"]);
        check("{}", &["callers: is empty, expected at least one caller"]);
        check(
            &format!(r#"{{"a": {entry}, "b": {entry}, "a": {entry}}}"#),
            &["callers: a: appears twice, expected each caller once"],
        );
        let repeated = entry.replacen('{', r#"{"scopes": ["b"], "#, 1);
        check(&format!(r#"{{"a": {repeated}}}"#), &["callers: a.scopes: appears twice, expected each field once"]);
        let unknown = entry.replacen('{', r#"{"limit": 12345678901234567890123, "#, 1);
        check(
            &format!(r#"{{"a": {unknown}, "b": 1}}"#),
            &["callers: a.limit: is unknown, expected", "callers: b: is not an object, expected"],
        );
    }
}
