//! Spin's variables: declared in `[variables]`, set in the environment, passed to a component
//! by templates.
//!
//! This file and the manifest's name no other module of the crate, so that `tests/fuzz` can
//! include them.

use std::collections::{BTreeMap, HashMap};
use std::env::VarError;
use std::fmt;

use anyhow::{Context, anyhow, bail, ensure};

/// Values that are set for variables. A manifest knows the defaults of the others.
pub trait Values {
    /// Returns the value that is set for `name`, without defaults.
    ///
    /// # Errors
    ///
    /// If the value cannot be read.
    fn lookup(&self, name: &str) -> anyhow::Result<Option<String>>;
}

impl Values for BTreeMap<&str, &str> {
    fn lookup(&self, name: &str) -> anyhow::Result<Option<String>> {
        Ok(self.get(name).map(|value| (*value).to_owned()))
    }
}

/// Values as Spin reads them: from `SPIN_VARIABLE_<NAME>` in the environment, otherwise from the
/// file `.env` of the working directory.
#[derive(Default)]
pub struct Environment {
    dotenv: HashMap<String, String>,
}

impl Environment {
    /// Reads `.env`. The environment is read by each [`lookup`](Values::lookup).
    ///
    /// # Errors
    ///
    /// If `.env` exists and does not parse.
    pub fn read() -> anyhow::Result<Self> {
        let dotenv = match dotenvy::from_path_iter(".env") {
            // The crate's own error contains the line, which may have a secret.
            Ok(entries) => {
                let entries = entries.zip(1..).map(|(entry, number)| {
                    entry.map_err(|_| anyhow!("the file .env does not parse: its entry {number} is wrong"))
                });
                entries.collect::<Result<_, _>>()?
            }
            Err(error) if error.not_found() => HashMap::new(),
            Err(error) => return Err(error).context("cannot read the file .env"),
        };
        Ok(Self { dotenv })
    }
}

impl Values for Environment {
    fn lookup(&self, name: &str) -> anyhow::Result<Option<String>> {
        let key = environment_name(name);
        match std::env::var(&key) {
            Ok(value) => Ok(Some(value)),
            Err(VarError::NotPresent) => Ok(self.dotenv.get(&key).cloned()),
            // The error's own text contains the value.
            Err(VarError::NotUnicode(_)) => bail!("{key} is not Unicode"),
        }
    }
}

/// Name of the environment variable for `name`.
pub(crate) fn environment_name(name: &str) -> String {
    format!("SPIN_VARIABLE_{}", name.to_ascii_uppercase())
}

/// Reason why a variable has no value, with the text that the component receives.
#[derive(Debug)]
pub enum Error {
    /// The name breaks Spin's rule for names.
    InvalidName(String),
    /// The manifest passes no such variable to the component.
    Undefined(String),
    /// The value cannot be read, or a required variable has none.
    Provider(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::InvalidName(text) | Self::Undefined(text) | Self::Provider(text)) = self;
        f.write_str(text)
    }
}

impl std::error::Error for Error {}

/// Text with `{{ name }}` in the places of variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(String),
}

impl Template {
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let Some((name, after)) = after.split_once("}}") else {
                bail!("{text:?} has {{{{ without }}}}");
            };
            if !before.is_empty() {
                parts.push(Part::Text(before.into()));
            }
            parts.push(Part::Variable(name.trim().into()));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.into()));
        }
        Ok(Self(parts))
    }

    /// Whether the template contains no variable.
    pub(crate) fn is_literal(&self) -> bool {
        self.variables().next().is_none()
    }

    fn variables(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Variable(name) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::Variable(name) => write!(f, "{{{{ {name} }}}}"),
        })
    }
}

/// Variables that an application declares, and those that its component may read.
///
/// [`Declarations::new`] ensures that every name is valid and every variable in a template is
/// declared.
#[derive(Debug)]
pub(crate) struct Declarations {
    component: String,
    /// Default of each variable; a variable without one is required.
    application: BTreeMap<String, Option<String>>,
    templates: BTreeMap<String, Template>,
}

impl Declarations {
    pub(crate) fn new(
        component: String,
        application: BTreeMap<String, Option<String>>,
        templates: BTreeMap<String, Template>,
    ) -> anyhow::Result<Self> {
        for name in application.keys().chain(templates.keys()) {
            check_name(name).map_err(|reason| anyhow!("the variable name {reason}"))?;
        }
        let declarations = Self { component, application, templates };
        for (name, template) in &declarations.templates {
            declarations.check(template).with_context(|| format!("variable {name:?} of the component"))?;
        }
        Ok(declarations)
    }

    /// Fails if `template` names a variable that is not declared.
    pub(crate) fn check(&self, template: &Template) -> anyhow::Result<()> {
        match template.variables().find(|name| !self.application.contains_key(*name)) {
            Some(name) => bail!("\"{template}\" names {name:?}, which [variables] does not declare"),
            None => Ok(()),
        }
    }

    /// Fails if required variables have no value, and names all of them.
    pub(crate) fn check_required(&self, variables: &dyn Values) -> anyhow::Result<()> {
        let mut missing = Vec::new();
        for (name, _) in self.application.iter().filter(|(_, default)| default.is_none()) {
            if variables.lookup(name)?.is_none() {
                missing.push(format!("{name} (set {})", environment_name(name)));
            }
        }
        ensure!(missing.is_empty(), "required variables without a value: {}", missing.join(", "));
        Ok(())
    }

    /// Returns the present value of the component's variable `name`.
    pub(crate) fn get(&self, name: &str, variables: &dyn Values) -> Result<String, Error> {
        check_name(name).map_err(Error::InvalidName)?;
        let template = self
            .templates
            .get(name)
            .ok_or_else(|| Error::Undefined(format!("no variable for {:?}.{name:?}", self.component)))?;
        self.resolve(template, variables)
    }

    /// Whether the component may read the variable `name`.
    pub(crate) fn passes(&self, name: &str) -> bool {
        self.templates.contains_key(name)
    }

    /// Returns the text of `template` with the present values of its variables.
    pub(crate) fn resolve(&self, template: &Template, variables: &dyn Values) -> Result<String, Error> {
        let mut text = String::new();
        for part in &template.0 {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Variable(name) => text.push_str(&self.application_value(name, variables)?),
            }
        }
        Ok(text)
    }

    /// Returns the present value of the application's variable `name`.
    pub(crate) fn application_value(&self, name: &str, variables: &dyn Values) -> Result<String, Error> {
        let given = variables.lookup(name).map_err(|error| Error::Provider(error.to_string()))?;
        given
            .or_else(|| self.application.get(name).cloned().flatten())
            .ok_or_else(|| Error::Provider(format!("no provider resolved required variable {name:?}")))
    }
}

/// Checks Spin's rule for names: lower-case letters, digits, and single underscores within. The
/// error begins with the name.
fn check_name(name: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let reason = if name.is_empty() {
        "must not be empty"
    } else if !name.chars().all(allowed) {
        "may contain only lower-case letters, digits and underscores"
    } else if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        "must start with a letter"
    } else if name.ends_with('_') {
        "must end with a letter or a digit"
    } else if name.contains("__") {
        "must not contain two underscores in a row"
    } else {
        return Ok(());
    };
    Err(format!("{name:?}: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Part {
        Part::Text(text.into())
    }

    fn variable(name: &str) -> Part {
        Part::Variable(name.into())
    }

    #[test]
    fn template_parses_into_text_and_variables() {
        let cases: [(&str, Vec<Part>); 6] = [
            ("", vec![]),
            ("plain", vec![text("plain")]),
            ("{{ url }}", vec![variable("url")]),
            ("{{url}}", vec![variable("url")]),
            ("https://{{ host }}/x", vec![text("https://"), variable("host"), text("/x")]),
            ("{{ a }}{{ b }} }}", vec![variable("a"), variable("b"), text(" }}")]),
        ];
        for (input, expected) in cases {
            assert_eq!(Template::parse(input).unwrap(), Template(expected), "{input}");
        }
        assert!(Template::parse("{{ a }} {{ b").is_err());
    }

    fn declarations() -> Declarations {
        Declarations::new(
            "broker".into(),
            [("key".into(), None), ("url".into(), Some("https://a.example".into()))].into(),
            [
                ("key".into(), Template::parse("{{ key }}").unwrap()),
                ("endpoint".into(), Template::parse("{{ url }}/oauth").unwrap()),
            ]
            .into(),
        )
        .unwrap()
    }

    #[test]
    fn set_value_replaces_the_default() {
        struct Failing;
        impl Values for Failing {
            fn lookup(&self, _: &str) -> anyhow::Result<Option<String>> {
                bail!("Vault is unreachable")
            }
        }

        let declarations = declarations();
        let get = |name, values: &[(&'static str, &'static str)]| {
            declarations.get(name, &values.iter().copied().collect::<BTreeMap<_, _>>())
        };
        assert_eq!(get("key", &[("key", "k1")]).unwrap(), "k1");
        assert_eq!(get("endpoint", &[]).unwrap(), "https://a.example/oauth");
        assert_eq!(get("endpoint", &[("url", "http://b.example")]).unwrap(), "http://b.example/oauth");
        assert!(matches!(get("key", &[]), Err(Error::Provider(message)) if message.contains("\"key\"")));
        assert!(matches!(declarations.get("endpoint", &Failing), Err(Error::Provider(_))));
        assert!(matches!(get("url", &[]), Err(Error::Undefined(_))));
        assert!(matches!(get("Url", &[]), Err(Error::InvalidName(_))));
    }

    #[test]
    fn missing_required_variable_is_reported_with_its_environment_variable() {
        let error = declarations().check_required(&BTreeMap::new()).unwrap_err().to_string();
        assert_eq!(error, "required variables without a value: key (set SPIN_VARIABLE_KEY)");
        declarations().check_required(&BTreeMap::from([("key", "")])).unwrap();
    }

    #[test]
    fn undeclared_variable_in_a_template_is_an_error() {
        let templates = [("x".into(), Template::parse("{{ other }}").unwrap())].into();
        let error = Declarations::new("c".into(), BTreeMap::new(), templates).unwrap_err();
        assert!(format!("{error:#}").contains("\"other\""), "{error:#}");
    }

    #[test]
    fn variable_names_follow_the_rule_of_spin() {
        for name in ["a", "abc", "a1", "a_1_b"] {
            check_name(name).unwrap();
        }
        for name in ["", "A", "1a", "_a", "a_", "a__b", "a-b", "a.b"] {
            check_name(name).unwrap_err();
        }
    }
}
