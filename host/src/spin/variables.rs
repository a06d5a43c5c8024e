//! Variables as Spin has them: declared in `[variables]`, given by the environment, handed to a component by
//! templates. Nothing here names wasmtime, so that `tests/fuzz` can read this file and the manifest's.

use std::collections::{BTreeMap, HashMap};
use std::env::VarError;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Context, anyhow, bail, ensure};

/// Where the values of an application's variables come from. Clones share them, and a change is seen by the next
/// read.
#[derive(Clone, Default)]
pub struct Variables(Arc<Mutex<Provider>>);

#[derive(Default)]
struct Provider {
    values: BTreeMap<String, String>,
    /// The environment is asked too, after `values`, and this `.env` after the environment.
    dotenv: Option<HashMap<String, String>>,
    failing: bool,
}

impl Variables {
    /// Values from `SPIN_VARIABLE_<NAME>` in the environment, or else in the file `.env` of the working directory, as
    /// Spin reads them. [`set`](Self::set) goes before both.
    ///
    /// # Errors
    ///
    /// When `.env` is there and does not parse.
    pub fn from_environment() -> anyhow::Result<Self> {
        let dotenv = match dotenvy::from_path_iter(".env") {
            // The error of the crate has the line in it, which may be a secret.
            Ok(entries) => {
                let entries = entries.zip(1..).map(|(entry, number)| {
                    entry.map_err(|_| anyhow!("the file .env does not parse: see its entry number {number}"))
                });
                entries.collect::<Result<_, _>>()?
            }
            Err(error) if error.not_found() => HashMap::new(),
            Err(error) => return Err(error).context("cannot read the file .env"),
        };
        Ok(Self(Arc::new(Mutex::new(Provider { dotenv: Some(dotenv), ..Provider::default() }))))
    }

    /// Gives `name` a value.
    pub fn set(&self, name: impl Into<String>, value: impl Into<String>) {
        self.provider().values.insert(name.into(), value.into());
    }

    /// Takes back what [`set`](Self::set) gave.
    pub fn unset(&self, name: &str) {
        self.provider().values.remove(name);
    }

    /// From now on every read fails (`true`) as it does when Vault cannot be reached, or works again (`false`).
    pub fn fail(&self, failing: bool) {
        self.provider().failing = failing;
    }

    /// The value given for `name`, without regard to any default.
    ///
    /// # Errors
    ///
    /// When the value in the environment is not Unicode, or after [`fail`](Self::fail).
    pub fn lookup(&self, name: &str) -> anyhow::Result<Option<String>> {
        let provider = self.provider();
        ensure!(!provider.failing, "the variables provider is out of order");
        if let Some(value) = provider.values.get(name) {
            return Ok(Some(value.clone()));
        }
        let Some(dotenv) = &provider.dotenv else {
            return Ok(None);
        };
        let key = environment_name(name);
        match std::env::var(&key) {
            Ok(value) => Ok(Some(value)),
            Err(VarError::NotPresent) => Ok(dotenv.get(&key).cloned()),
            // Its text has the value in it.
            Err(VarError::NotUnicode(_)) => bail!("{key} is not Unicode"),
        }
    }

    fn provider(&self) -> MutexGuard<'_, Provider> {
        self.0.lock().expect("nothing panics while it holds the provider")
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Variables {
    /// Exactly these values; the environment is not asked.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(values: I) -> Self {
        let variables = Self::default();
        values.into_iter().for_each(|(name, value)| variables.set(name, value));
        variables
    }
}

/// The environment variable that gives `name` its value.
pub(crate) fn environment_name(name: &str) -> String {
    format!("SPIN_VARIABLE_{}", name.to_ascii_uppercase())
}

/// Why a variable has no value, in the words that a component gets.
#[derive(Debug)]
pub(crate) enum Error {
    InvalidName(String),
    Undefined(String),
    Provider(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::InvalidName(text) | Self::Undefined(text) | Self::Provider(text)) = self;
        f.write_str(text)
    }
}

impl std::error::Error for Error {}

/// Text with `{{ name }}` where a variable's value belongs.
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
                bail!("{text:?} opens {{{{ and does not close it with }}}}");
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

    /// Whether no variable occurs in it.
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

/// The variables an application declares, and those its component may read.
///
/// Every name is valid, and every variable in a template is declared: [`Declarations::new`] sees to both.
#[derive(Debug)]
pub(crate) struct Declarations {
    component: String,
    /// With the default; without one the variable is required.
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

    /// Fails when `template` names a variable that is not declared.
    pub(crate) fn check(&self, template: &Template) -> anyhow::Result<()> {
        match template.variables().find(|name| !self.application.contains_key(*name)) {
            Some(name) => bail!("\"{template}\" names {name:?}, which [variables] does not declare"),
            None => Ok(()),
        }
    }

    /// Fails when a required variable has no value, and names each of them.
    pub(crate) fn check_required(&self, variables: &Variables) -> anyhow::Result<()> {
        let mut missing = Vec::new();
        for (name, _) in self.application.iter().filter(|(_, default)| default.is_none()) {
            if variables.lookup(name)?.is_none() {
                missing.push(format!("{name} (set {})", environment_name(name)));
            }
        }
        ensure!(missing.is_empty(), "required and without a value: {}", missing.join(", "));
        Ok(())
    }

    /// The value of the component's variable `name`, read anew.
    pub(crate) fn get(&self, name: &str, variables: &Variables) -> Result<String, Error> {
        check_name(name).map_err(Error::InvalidName)?;
        let template = self
            .templates
            .get(name)
            .ok_or_else(|| Error::Undefined(format!("no variable for {:?}.{name:?}", self.component)))?;
        self.resolve(template, variables)
    }

    /// The text of `template`, which names declared variables only.
    pub(crate) fn resolve(&self, template: &Template, variables: &Variables) -> Result<String, Error> {
        let mut text = String::new();
        for part in &template.0 {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Variable(name) => text.push_str(&self.application_value(name, variables)?),
            }
        }
        Ok(text)
    }

    /// The value of the application's variable `name`.
    pub(crate) fn application_value(&self, name: &str, variables: &Variables) -> Result<String, Error> {
        let given = variables.lookup(name).map_err(|error| Error::Provider(error.to_string()))?;
        given
            .or_else(|| self.application.get(name).cloned().flatten())
            .ok_or_else(|| Error::Provider(format!("no provider resolved required variable {name:?}")))
    }
}

/// Spin's rule for names: lower-case letters, digits, and single underscores inside. The error begins with the name.
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
    fn a_template_is_text_and_variables() {
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
    fn a_value_given_goes_before_the_default_and_is_read_anew_each_time() {
        let declarations = declarations();
        let variables = Variables::from_iter([("key", "k1")]);
        let get = |name| declarations.get(name, &variables);

        assert_eq!(get("key").unwrap(), "k1");
        assert_eq!(get("endpoint").unwrap(), "https://a.example/oauth");
        variables.set("key", "k2");
        variables.set("url", "http://b.example");
        assert_eq!(get("key").unwrap(), "k2");
        assert_eq!(get("endpoint").unwrap(), "http://b.example/oauth");

        variables.unset("key");
        assert!(matches!(get("key"), Err(Error::Provider(message)) if message.contains("\"key\"")));
        variables.fail(true);
        assert!(matches!(get("endpoint"), Err(Error::Provider(_))));
        variables.fail(false);
        assert!(matches!(get("url"), Err(Error::Undefined(_))));
        assert!(matches!(get("Url"), Err(Error::InvalidName(_))));
    }

    #[test]
    fn a_missing_required_variable_is_named_with_its_environment_variable() {
        let error = declarations().check_required(&Variables::default()).unwrap_err().to_string();
        assert_eq!(error, "required and without a value: key (set SPIN_VARIABLE_KEY)");
        declarations().check_required(&Variables::from_iter([("key", "")])).unwrap();
    }

    #[test]
    fn an_undeclared_variable_in_a_template_is_an_error() {
        let templates = [("x".into(), Template::parse("{{ other }}").unwrap())].into();
        let error = Declarations::new("c".into(), BTreeMap::new(), templates).unwrap_err();
        assert!(format!("{error:#}").contains("\"other\""), "{error:#}");
    }

    #[test]
    fn names_follow_spins_rule() {
        for name in ["a", "abc", "a1", "a_1_b"] {
            check_name(name).unwrap();
        }
        for name in ["", "A", "1a", "_a", "a_", "a__b", "a-b", "a.b"] {
            check_name(name).unwrap_err();
        }
    }
}
