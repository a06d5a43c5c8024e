//! Every mistake in the variables at once, before anything starts.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use officernd_token_broker::config::{Config, VARIABLES};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::spin::variables::Variables;

/// The variables that somebody has set: each name with its value, or with the reason why it has none.
pub struct Given(Vec<(String, Result<String, String>)>);

/// Taken for a value that cannot be read. No list of applications and no origin, so that the component's parser concludes
/// nothing from it about other variables.
const UNREADABLE: &str = "?";

impl Given {
    /// What [`Variables::from_environment`] finds.
    ///
    /// # Errors
    ///
    /// When `.env` is there and does not parse.
    pub fn from_environment() -> anyhow::Result<Self> {
        let variables = Variables::from_environment()?;
        let given = VARIABLES.iter().filter_map(|variable| {
            let value = variables.lookup(variable.name).map_err(|error| error.to_string());
            value.transpose().map(|value| (variable.name.to_owned(), value))
        });
        Ok(Self(given.collect()))
    }

    /// What `spin up --variable @FILE` reads: a flat TOML table or JSON object, as the file's name ends.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, its name ends otherwise, or it is not of its format.
    pub fn from_file(path: &Path) -> anyhow::Result<Self> {
        let file = path.display();
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {file}"))?;
        match path.extension().and_then(OsStr::to_str) {
            Some("toml") => Self::parse_toml(&text),
            Some("json") => Self::parse_json(&text),
            _ => bail!("{file} must end in .toml or .json, by which Spin knows its format"),
        }
        // The parsers' own errors quote the file, which has secrets.
        .map_err(|line| anyhow!("{file} is no table of variables: see its line {line}"))
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

    /// Every mistake in them, a line each, without any value. Those within a value are found by the component's own parser,
    /// with the default of what is not set.
    pub fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        for (index, (name, value)) in self.0.iter().enumerate() {
            if !VARIABLES.iter().any(|variable| variable.name == name) {
                mistakes.push(format!("{name:?} is no variable of the broker"));
            } else if self.0[..index].iter().any(|(other, _)| other == name) {
                mistakes.push(format!("{name}: is there twice"));
            } else if let Err(problem) = value {
                mistakes.push(format!("{name}: {problem}"));
            }
        }
        let lookup = |name: &str| match self.0.iter().find(|(given, _)| given == name) {
            Some((_, value)) => value.as_deref().unwrap_or(UNREADABLE),
            None => default(name),
        };
        let is_of_unreadable = |mistake: &str| {
            let mut unreadable = self.0.iter().filter(|(_, value)| value.is_err());
            unreadable.any(|(name, _)| mistake.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with(": ")))
        };
        let within = Config::parse(lookup).err().unwrap_or_default();
        mistakes.extend(within.iter().map(ToString::to_string).filter(|mistake| !is_of_unreadable(mistake)));
        mistakes
    }
}

/// What the variable `name` is when nobody sets it; empty when somebody must.
fn default(name: &str) -> &'static str {
    VARIABLES.iter().find(|variable| variable.name == name).and_then(|variable| variable.default).unwrap_or_default()
}

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// A value of a file.
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Entry {
            Text(String),
            Other(IgnoredAny),
        }

        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Given;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Given, A::Error> {
                // No map, which would lose what is there twice.
                let mut given = Vec::new();
                while let Some((name, entry)) = map.next_entry()? {
                    let value = match entry {
                        Entry::Text(text) => Ok(text),
                        Entry::Other(_) => {
                            Err("must be a text, in which JSON goes as '…' in TOML and \"…\" in JSON".into())
                        }
                    };
                    given.push((name, value));
                }
                Ok(Given(given))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLERS: &str = r#"{"a": {"secret_sha256": ["c88378ce3fde4cd0e0c05089f93d6b7f7b2ac7a7c23aa3c2be1d4ba5f5bb7a5a"], "scopes": ["x"]}}"#;

    /// Checks that there are just these mistakes, as far as the beginnings tell.
    fn check(given: Result<Given, usize>, expected: &[&str]) {
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
    fn what_is_not_set_has_its_default_or_is_a_mistake() {
        check(Given::parse_toml(&sound()), &[]);
        check(
            Given::parse_json("{}"),
            &["officernd_client_id: is empty", "officernd_client_secret: is empty", "callers: must be a JSON object"],
        );
        let set = format!("{}min_remaining_seconds = ''", sound());
        check(Given::parse_toml(&set), &["min_remaining_seconds: must be"]);
    }

    #[test]
    fn both_formats_say_the_same() {
        let json = |callers: &str| {
            let callers = serde_json::to_string(callers).unwrap();
            format!(r#"{{"officernd_client_id": "id", "officernd_client_secret": "hunter2", "callers": {callers}}}"#)
        };
        check(Given::parse_json(&json(CALLERS)), &[]);
        let wrong = CALLERS.replace("scopes", "scope");
        let expected = ["callers: a.scope: is not a field", "callers: a.scopes: is missing"];
        check(Given::parse_json(&json(&wrong)), &expected);
        check(Given::parse_toml(&sound().replace("scopes", "scope")), &expected);
    }

    #[test]
    fn a_value_that_is_no_text_is_one_mistake() {
        let table = "[callers.a]\nscopes = ['x']\n".to_owned();
        check(Given::parse_toml(&(sound().replace("callers", "#") + &table)), &["callers: must be a text"]);
        for value in ["1", "true", "null", "[]", "{}"] {
            let text =
                format!(r#"{{"officernd_client_id": "id", "officernd_client_secret": {value}, "callers": {value}}}"#);
            check(Given::parse_json(&text), &["officernd_client_secret: must be a text", "callers: must be a text"]);
        }
    }

    #[test]
    fn applications_that_cannot_be_read_are_no_mistake_of_their_callers() {
        let callers = sound().replace(r#""scopes""#, r#""application": "berlin", "scopes""#);
        check(Given::parse_toml(&callers), &["callers: a.application: must be"]);
        let table = "[applications.berlin]\nclient_id = 'id'\nclient_secret = 'hunter2'";
        check(Given::parse_toml(&format!("{callers}{table}")), &["applications: must be a text"]);
        let text = r#"applications = '{"berlin": {"client_id": "id", "client_secret": "hunter2"}}'"#;
        check(Given::parse_toml(&format!("{callers}{text}")), &[]);
    }

    #[test]
    fn a_name_that_is_no_variable_or_is_there_twice_is_a_mistake() {
        let unknown = format!("{}oficernd_identity_url = 'https://hunter2'", sound());
        check(Given::parse_toml(&unknown), &["\"oficernd_identity_url\" is no variable"]);
        let twice = serde_json::to_string(CALLERS).unwrap();
        let twice = format!(
            r#"{{"officernd_client_id": "a", "officernd_client_id": "b", "officernd_client_secret": "s", "callers": {twice}}}"#
        );
        check(Given::parse_json(&twice), &["officernd_client_id: is there twice"]);
    }

    #[test]
    fn what_is_no_table_is_told_by_its_line_alone() {
        let line = |given: Result<Given, usize>| given.err().expect("it does not parse");
        assert_eq!(line(Given::parse_toml("a = 'x'\nb = hunter2\n")), 2);
        assert_eq!(line(Given::parse_toml("a = 'x'\n\na = 'hunter2'")), 3);
        assert_eq!(line(Given::parse_json("{\"a\":\n\"hunter2}")), 2);
        assert_eq!(line(Given::parse_json("\"hunter2\"")), 1);
    }
}
