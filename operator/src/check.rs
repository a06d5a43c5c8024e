//! Checks the variables before anything starts, and finds all mistakes and warnings at once.

pub(crate) mod assertion;
mod manifest;
mod value;

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use officernd_token_broker::config::issuer::Issuers;
use officernd_token_broker::config::{Config, Mistakes, Origin, VARIABLES, Variable, escape};
use officernd_token_broker::signature::PublicKey;
use officernd_token_broker::time::Timestamp;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::fetch;
use crate::spin::{Environment, Values as _};
use crate::warning;

/// Variables that are set: each name with its value, or with the reason why the value cannot be
/// read.
pub(crate) struct GivenVariables(Vec<(String, Result<String, String>)>);

/// Everything that a check has found, each as one line without any value.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// What stops callers, all of them or some.
    pub(crate) mistakes: Vec<String>,
    /// What works today, or works for some clients only.
    pub(crate) warnings: Vec<String>,
}

/// Variables that only the manifest has: origins from which the keys of issuers are fetched.
const KEYS_ORIGINS: [&str; 4] = ["keys_origin_1", "keys_origin_2", "keys_origin_3", "keys_origin_4"];

/// Stands in for a value that cannot be read. It is neither a list of applications nor an
/// origin, so the component's parser draws no conclusion from it about other variables.
const UNREADABLE: &str = "?";

impl GivenVariables {
    /// Reads the variables as Spin does: from the environment, and from `.env`.
    ///
    /// # Errors
    ///
    /// If `.env` exists and does not parse.
    pub(crate) fn from_environment() -> anyhow::Result<Self> {
        let variables = Environment::read()?;
        let names = VARIABLES.iter().map(|variable| variable.name).chain(KEYS_ORIGINS);
        let given = names.filter_map(|name| {
            let value = variables.lookup(name).map_err(|error| error.to_string());
            value.transpose().map(|value| (name.to_owned(), value))
        });
        Ok(Self(given.collect()))
    }

    /// Reads a file as `spin up --variable @FILE` does: a flat TOML table or JSON object,
    /// according to the extension.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, has another extension, or does not have the format of its
    /// extension.
    pub(crate) fn from_file(path: &Path) -> anyhow::Result<Self> {
        let file = path.display();
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {file}"))?;
        match path.extension().and_then(OsStr::to_str) {
            Some("toml") => Self::parse_toml(&text),
            Some("json") => Self::parse_json(&text),
            _ => bail!("{file}: the extension is unknown, expected .toml or .json, from which Spin takes the format"),
        }
        // The parsers' own errors would quote the file, which contains secrets.
        .map_err(|line| anyhow!("{file}: line {line} is wrong, expected a table of variables"))
    }

    /// The error is the line of the mistake, the first being 1.
    fn parse_toml(text: &str) -> Result<Self, usize> {
        toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            1 + text.bytes().take(start).filter(|byte| *byte == b'\n').count()
        })
    }

    /// The error is the line of the mistake, the first being 1.
    fn parse_json(text: &str) -> Result<Self, usize> {
        serde_json::from_str(text).map_err(|error| error.line())
    }

    /// Returns everything that is wrong with the variables, at the time `now`.
    pub(crate) fn findings(&self, now: Timestamp) -> Findings {
        let mut warnings: Vec<_> =
            self.readable().iter().filter_map(|(name, value)| warning::of_length(name, value)).collect();
        warnings.extend(self.object("callers").iter().flat_map(|policy| warning::of_policy(policy, now)));
        let mut mistakes = self.mistakes();
        mistakes.extend(self.mistakes_in_credentials());
        Findings { mistakes, warnings }
    }

    /// Fetches the keys of each issuer that has an address for them, and adds a mistake for each
    /// failure to `findings`. Returns the keys, and a line for each issuer that names them.
    pub(crate) fn fetch_keys(&self, findings: &mut Findings) -> (assertion::FetchedKeys, Vec<String>) {
        let (mut fetched, mut lines) = (assertion::FetchedKeys::new(), Vec::new());
        let issuers = Issuers::parse(self.lookup("issuers").trim(), &mut Mistakes::of("issuers"));
        for (issuer, uri) in issuers.iter().filter_map(|issuer| Some((issuer, issuer.jwks_uri()?))) {
            let name = escape(&issuer.name);
            match fetched.entry(uri.to_string()).or_insert_with(|| fetch::keys(uri)) {
                Ok(keys) => {
                    let kid = |key: &PublicKey| escape(key.kid().unwrap_or_default());
                    let keys = keys.iter().map(|key| format!("\"{}\" for {}", kid(key), key.algorithm().name()));
                    lines.push(format!("issuers: {name}: keys from {uri}: {}", keys.collect::<Vec<_>>().join(", ")));
                }
                Err(problem) => {
                    findings.mistakes.push(format!("issuers: {name}.jwks_uri: no keys from {uri}: {problem}"));
                }
            }
        }
        (fetched, lines)
    }

    /// The variables whose value can be read.
    pub(super) fn readable(&self) -> Vec<(&str, &str)> {
        self.0.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_deref().ok()?))).collect()
    }

    /// The value that the component's parser gets.
    fn lookup(&self, name: &str) -> &str {
        match self.0.iter().find(|(given, _)| given == name) {
            Some((_, value)) => value.as_deref().unwrap_or(UNREADABLE),
            None => Variable::default_of(name),
        }
    }

    /// The value of a variable, if it is a JSON object.
    pub(crate) fn object(&self, name: &str) -> Option<Map<String, Value>> {
        let (_, value) = self.readable().into_iter().find(|(given, _)| *given == name)?;
        serde_json::from_str(value).ok()
    }

    /// Mistakes in client ids and secrets that only OfficeRnD would find.
    fn mistakes_in_credentials(&self) -> Vec<String> {
        let variables = self.readable();
        let of_default = variables.iter().filter(|(name, _)| name.starts_with("officernd_client_"));
        let of_default = of_default.map(|(name, text)| ((*name).to_owned(), value::problem(text)));
        let applications = self.object("applications").unwrap_or_default();
        let of_others = applications.iter().flat_map(|(name, entry)| {
            let name = escape(name);
            let fields = entry.as_object().into_iter().flatten();
            let fields = fields.filter(|(field, _)| field.starts_with("client_"));
            fields.map(move |(field, text)| {
                (format!("applications: {name}.{field}"), value::problem(text.as_str().unwrap_or_default()))
            })
        });
        let found = of_default.chain(of_others);
        found.filter_map(|(place, problem)| problem.map(|problem| format!("{place}: {problem}"))).collect()
    }

    /// Returns the mistakes that the component would find. Its own parser finds those within values,
    /// and takes the default of a variable that is not set.
    fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        for (index, (name, value)) in self.0.iter().enumerate() {
            if KEYS_ORIGINS.contains(&name.as_str()) {
                let is_right = |value: &String| value.trim().is_empty() || Origin::parse(value.trim()).is_some();
                if !value.as_ref().is_ok_and(is_right) {
                    mistakes.push(format!(
                        "{name}: is not an origin, expected nothing or https://HOST: with any other value, Spin refuses \
                         every call, also those to OfficeRnD"
                    ));
                }
            } else if !VARIABLES.iter().any(|variable| variable.name == name) {
                mistakes.push(format!("{name:?} is not a variable of the broker"));
            } else if self.0[..index].iter().any(|(other, _)| other == name) {
                mistakes.push(format!("{name}: appears twice, expected one value"));
            } else if let Err(problem) = value {
                mistakes.push(format!("{name}: {problem}"));
            }
        }
        let is_of_unreadable = |mistake: &str| {
            let mut unreadable = self.0.iter().filter(|(_, value)| value.is_err());
            unreadable.any(|(name, _)| mistake.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with(": ")))
        };
        let within = Config::mistakes(|name| self.lookup(name));
        mistakes.extend(within.iter().map(ToString::to_string).filter(|mistake| !is_of_unreadable(mistake)));
        mistakes
    }
}

impl<'de> Deserialize<'de> for GivenVariables {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// A value in the file.
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Entry {
            Text(String),
            Other(IgnoredAny),
        }

        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = GivenVariables;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<GivenVariables, A::Error> {
                // Not a map, which would lose a name that appears twice.
                let mut given = Vec::new();
                while let Some((name, entry)) = map.next_entry()? {
                    let value = match entry {
                        Entry::Text(text) => Ok(text),
                        Entry::Other(_) => {
                            Err("is not a string, expected JSON in quotes: '…' in TOML, \"…\" in JSON".into())
                        }
                    };
                    given.push((name, value));
                }
                Ok(GivenVariables(given))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLERS: &str = r#"{"a": {"secret_sha256": ["c88378ce3fde4cd0e0c05089f93d6b7f7b2ac7a7c23aa3c2be1d4ba5f5bb7a5a"], "scopes": ["x"]}}"#;

    /// Checks that these are all mistakes, by the beginning of each.
    fn check(given: Result<GivenVariables, usize>, expected: &[&str]) {
        let mistakes = given.unwrap_or_else(|line| panic!("line {line}")).mistakes();
        assert_eq!(mistakes.len(), expected.len(), "{mistakes:?}");
        for (mistake, expected) in mistakes.iter().zip(expected) {
            assert!(mistake.starts_with(expected), "{mistake} should start with {expected}");
        }
    }

    fn sound() -> String {
        format!("officernd_client_id = 'id'\nofficernd_client_secret = 'hunter2'\ncallers = '{CALLERS}'\n")
    }

    #[test]
    fn client_id_or_secret_that_officernd_cannot_have_shown_is_a_mistake() {
        let next = "officernd_client_secret_next = '$NEXT'\n";
        let berlin = r#"applications = '{"berlin": {"client_id": "\u200bid", "client_secret": "\"s\""}}'"#;
        let text = format!("{}{next}{berlin}", sound().replace("hunter2", "{{ hunter2 }}"));
        let findings = GivenVariables::parse_toml(&text).unwrap().findings(Timestamp::from_unix_ms(0));
        let expected = [
            "officernd_client_secret: looks like a placeholder",
            "officernd_client_secret_next: looks like a placeholder",
            "applications: berlin.client_id: has an invisible",
            "applications: berlin.client_secret: begins or ends with a quotation mark",
        ];
        assert_eq!(findings.mistakes.len(), expected.len(), "{findings:?}");
        for (mistake, expected) in findings.mistakes.iter().zip(expected) {
            assert!(mistake.starts_with(expected) && !mistake.contains("hunter2"), "{mistake}");
        }
        let sound = GivenVariables::parse_toml(&sound()).unwrap().findings(Timestamp::from_unix_ms(0));
        assert!(sound.mistakes.is_empty() && sound.warnings.is_empty(), "{sound:?}");
    }

    #[test]
    fn missing_variable_has_its_default_or_is_a_mistake() {
        check(GivenVariables::parse_toml(&sound()), &[]);
        check(
            GivenVariables::parse_json("{}"),
            &[
                "officernd_client_id: is empty",
                "officernd_client_secret: is empty",
                "callers: is not valid, expected a JSON object",
            ],
        );
        let set = format!("{}min_remaining_seconds = ''", sound());
        check(GivenVariables::parse_toml(&set), &["min_remaining_seconds: is not valid, expected a whole number"]);
    }

    #[test]
    fn toml_and_json_have_the_same_mistakes() {
        let json = |callers: &str| {
            let callers = serde_json::to_string(callers).unwrap();
            format!(r#"{{"officernd_client_id": "id", "officernd_client_secret": "hunter2", "callers": {callers}}}"#)
        };
        check(GivenVariables::parse_json(&json(CALLERS)), &[]);
        let wrong = CALLERS.replace("scopes", "scope");
        let expected = ["callers: a.scope: is unknown, expected", "callers: a.scopes: is missing"];
        check(GivenVariables::parse_json(&json(&wrong)), &expected);
        check(GivenVariables::parse_toml(&sound().replace("scopes", "scope")), &expected);
    }

    #[test]
    fn value_that_is_not_a_string_is_one_mistake() {
        let table = "[callers.a]\nscopes = ['x']\n".to_owned();
        check(GivenVariables::parse_toml(&(sound().replace("callers", "#") + &table)), &["callers: is not a string"]);
        for value in ["1", "true", "null", "[]", "{}"] {
            let text =
                format!(r#"{{"officernd_client_id": "id", "officernd_client_secret": {value}, "callers": {value}}}"#);
            check(
                GivenVariables::parse_json(&text),
                &["officernd_client_secret: is not a string", "callers: is not a string"],
            );
        }
    }

    #[test]
    fn unreadable_applications_cause_no_mistake_in_callers() {
        let callers = sound().replace(r#""scopes""#, r#""application": "berlin", "scopes""#);
        check(GivenVariables::parse_toml(&callers), &["callers: a.application: is unknown, expected default"]);
        let table = "[applications.berlin]\nclient_id = 'id'\nclient_secret = 'hunter2'";
        check(GivenVariables::parse_toml(&format!("{callers}{table}")), &["applications: is not a string"]);
        let text = r#"applications = '{"berlin": {"client_id": "id", "client_secret": "hunter2"}}'"#;
        check(GivenVariables::parse_toml(&format!("{callers}{text}")), &[]);
    }

    #[test]
    fn origin_of_keys_is_an_origin_or_empty() {
        for value in ["", "https://keys.example", "https://keys.example:8443/"] {
            check(GivenVariables::parse_toml(&format!("{}keys_origin_4 = '{value}'", sound())), &[]);
        }
        for value in ["keys.example", "https://keys.example/jwks", "*", "http://keys.example"] {
            let text = format!("{}keys_origin_4 = '{value}'", sound());
            check(
                GivenVariables::parse_toml(&text),
                &["keys_origin_4: is not an origin, expected nothing or https://"],
            );
        }
    }

    #[test]
    fn unknown_or_repeated_name_is_a_mistake() {
        let unknown = format!("{}oficernd_identity_url = 'https://hunter2'", sound());
        check(GivenVariables::parse_toml(&unknown), &["\"oficernd_identity_url\" is not a variable"]);
        let twice = serde_json::to_string(CALLERS).unwrap();
        let twice = format!(
            r#"{{"officernd_client_id": "a", "officernd_client_id": "b", "officernd_client_secret": "s", "callers": {twice}}}"#
        );
        check(GivenVariables::parse_json(&twice), &["officernd_client_id: appears twice"]);
    }

    #[test]
    fn unparsable_file_is_reported_only_by_its_line() {
        let line = |given: Result<GivenVariables, usize>| given.err().expect("it does not parse");
        assert_eq!(line(GivenVariables::parse_toml("a = 'x'\nb = hunter2\n")), 2);
        assert_eq!(line(GivenVariables::parse_toml("a = 'x'\n\na = 'hunter2'")), 3);
        assert_eq!(line(GivenVariables::parse_json("{\"a\":\n\"hunter2}")), 2);
        assert_eq!(line(GivenVariables::parse_json("\"hunter2\"")), 1);
    }
}
