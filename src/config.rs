//! Parses the variables into a [`Config`], or into the list of all mistakes in them.

pub mod application;
pub mod caller;
mod grammar;
pub mod issuer;
mod mistake;
mod origin;

use std::rc::Rc;
use std::time::Duration;

use application::{Application, Pair};
use caller::{Caller, Callers};
use grammar::{MIN_REMAINING_SECONDS, parse_within};
use issuer::Issuers;

use crate::mutation::{self, Rule};

pub use mistake::{Mistake, Mistakes, escape};
pub use origin::Origin;

/// A variable that the broker reads.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Name in lower case, as in `spin.toml`.
    pub name: &'static str,
    /// Value if it is not set; `None` if it is required.
    pub default: Option<&'static str>,
}

/// All variables.
pub const VARIABLES: [Variable; 12] = [
    Variable { name: "officernd_client_id", default: None },
    Variable { name: "officernd_client_id_next", default: Some("") },
    Variable { name: "officernd_client_secret_next", default: Some("") },
    Variable { name: "officernd_client_secret", default: None },
    Variable { name: "officernd_identity_url", default: Some("https://identity.officernd.com") },
    Variable { name: "applications", default: Some("") },
    Variable { name: "callers", default: None },
    Variable { name: "issuers", default: Some("") },
    Variable { name: "min_remaining_seconds", default: Some("300") },
    Variable { name: "upstream_calls_per_minute", default: Some("5") },
    Variable { name: "public_url", default: Some("") },
    Variable { name: "audit", default: Some("all") },
];

/// A usable configuration. Callers, applications and issuers with a mistake in their entry are
/// disabled.
#[derive(Debug)]
pub struct Config {
    /// Identity host: OfficeRnD's token server.
    pub identity: Origin,
    /// Applications, the default one first.
    pub applications: Vec<Rc<Application>>,
    /// The policy.
    pub callers: Callers,
    /// Outside issuers, whose tokens are identities of callers.
    pub issuers: Issuers,
    /// Remaining lifetime below which the broker tries to renew a token before it returns it:
    /// 60 s to 55 min. The entry of a caller may have another.
    pub min_remaining: Duration,
    /// Call quota: how many calls OfficeRnD accepts in 60 s, from 1 to 100.
    pub calls_per_minute: usize,
    /// Public origin of the broker, needed behind a proxy that terminates TLS. Otherwise the
    /// requests tell it.
    pub public_url: Option<Origin>,
    /// Which requests leave an audit line.
    pub audited: Audited,
    /// Mistakes, each of which disables one caller, one application or one issuer, or the next pair of
    /// the default application.
    pub mistakes: Vec<Mistake>,
}

/// Which requests leave an audit line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audited {
    /// Every request.
    All,
    /// Every request except those that the cache served without a call.
    Exceptions,
}

impl Variable {
    /// Default of the variable `name`; empty if it must be set.
    pub fn default_of(name: &str) -> &'static str {
        VARIABLES
            .iter()
            .find(|variable| variable.name == name)
            .and_then(|variable| variable.default)
            .unwrap_or_default()
    }
}

impl Config {
    /// Parses the variables. `lookup` returns the value of one of [`VARIABLES`], or the empty
    /// string.
    ///
    /// # Errors
    /// All mistakes at once, if one of them concerns more than one entry of a variable.
    pub fn parse<'a>(lookup: impl Fn(&str) -> &'a str) -> Result<Self, Vec<Mistake>> {
        let mut reader = Reader { lookup, found: Vec::new(), is_usable: true };
        let client_id =
            reader.required("officernd_client_id", "is empty, expected the client id of the OfficeRnD application");
        let client_secret = reader
            .required("officernd_client_secret", "is empty, expected the client secret of the OfficeRnD application");
        let next = reader.next_pair();
        let identity = reader.identity();
        let (mut applications, issuers, callers) = reader.entries(identity.as_ref());
        let seconds = "is not valid, expected a whole number of seconds from 60 to 3300";
        let (low, high) = MIN_REMAINING_SECONDS;
        let min_remaining_seconds = reader.number("min_remaining_seconds", low, high, seconds);
        let calls = "is not valid, expected a whole number from 1 to 100";
        let calls_per_minute = reader.number("upstream_calls_per_minute", 1, 100, calls);
        let public_url = reader.public_url(&callers);
        let audited = reader.audited();
        match identity {
            Some(identity) if reader.is_usable && (mutation::holds(Rule::EntryMistake) || reader.found.is_empty()) => {
                let current = Pair { client_id, client_secret };
                let default = Application::new(application::DEFAULT, current, next, &identity);
                applications.insert(0, Rc::new(default));
                Ok(Self {
                    identity,
                    applications,
                    callers,
                    issuers,
                    min_remaining: Duration::from_secs(min_remaining_seconds.into()),
                    calls_per_minute: calls_per_minute.into(),
                    public_url,
                    audited,
                    mistakes: reader.found,
                })
            }
            _ => Err(reader.found),
        }
    }

    /// All mistakes in the variables, whatever they disable.
    pub fn mistakes<'a>(lookup: impl Fn(&str) -> &'a str) -> Vec<Mistake> {
        Self::parse(lookup).map_or_else(|mistakes| mistakes, |config| config.mistakes)
    }

    /// The application whose tokens `caller` gets; `None` if a mistake has disabled it.
    pub fn application(&self, caller: &Caller) -> Option<&Rc<Application>> {
        self.applications.iter().find(|application| application.name == caller.application)
    }
}

/// Parses one variable after the other, and collects the mistakes.
struct Reader<L> {
    lookup: L,
    found: Vec<Mistake>,
    /// No mistake so far concerns more than one entry of a variable.
    is_usable: bool,
}

impl<'a, L: Fn(&str) -> &'a str> Reader<L> {
    fn text(&self, variable: &'static str) -> &'a str {
        (self.lookup)(variable).trim()
    }

    fn note(&mut self, variable: &'static str, problem: &'static str) {
        let mut mistakes = Mistakes::of(variable);
        mistakes.replace("", problem);
        self.collect(mistakes);
    }

    fn collect(&mut self, mistakes: Mistakes) {
        self.is_usable &= !mistakes.spoil_variable();
        self.found.extend(mistakes);
    }

    fn required(&mut self, variable: &'static str, problem: &'static str) -> &'a str {
        let text = self.text(variable);
        if text.is_empty() {
            self.note(variable, problem);
        }
        text
    }

    /// The next pair of the default application. An id without a secret disables nothing: an
    /// operator who empties the two one after the other must not stop the callers, and the current
    /// pair still works.
    fn next_pair(&mut self) -> Pair<'a> {
        let client_id = self.text("officernd_client_id_next");
        let client_secret = self.text("officernd_client_secret_next");
        if !client_id.is_empty() && client_secret.is_empty() {
            let mut mistakes = Mistakes::of("officernd_client_id_next");
            mistakes.add("", "is ignored without officernd_client_secret_next, expected both or none");
            self.collect(mistakes);
        }
        Pair { client_id, client_secret }
    }

    fn number(&mut self, variable: &'static str, low: u16, high: u16, problem: &'static str) -> u16 {
        let number = parse_within(self.text(variable), low, high);
        if number.is_none() {
            self.note(variable, problem);
        }
        number.unwrap_or_default()
    }

    fn identity(&mut self) -> Option<Origin> {
        let identity = Origin::parse(self.text("officernd_identity_url"));
        if identity.is_none() {
            let problem = "is not an origin, expected https://HOST or https://HOST:PORT without a path; http only for localhost, 127.x.x.x and [::1]";
            self.note("officernd_identity_url", problem);
        }
        identity
    }

    /// The variables that have entries: applications, issuers and callers.
    fn entries(&mut self, identity: Option<&Origin>) -> (Vec<Rc<Application>>, Issuers, Callers) {
        let mut mistakes = Mistakes::of("applications");
        let (applications, names) = application::parse(self.text("applications"), identity, &mut mistakes);
        let are_all_known = !mistakes.spoil_variable();
        self.collect(mistakes);
        let is_known =
            |name: &str| name == application::DEFAULT || !are_all_known || names.iter().any(|known| known == name);
        let mut mistakes = Mistakes::of("issuers");
        let issuers = Issuers::parse(self.text("issuers"), &mut mistakes);
        self.collect(mistakes);
        let mut mistakes = Mistakes::of("callers");
        let callers = Callers::parse(self.text("callers"), is_known, &issuers, &mut mistakes);
        self.collect(mistakes);
        (applications, issuers, callers)
    }

    /// The public origin. Its lack disables nothing but assertions: a caller may have a secret as
    /// well.
    fn public_url(&mut self, callers: &Callers) -> Option<Origin> {
        let text = self.text("public_url");
        let public_url = Origin::parse(text);
        if text.is_empty() && callers.need_public_url() {
            let mut mistakes = Mistakes::of("public_url");
            mistakes.add(
                "",
                "is empty, expected the broker's origin: assertions must name it as their audience, and a caller has keys or identities",
            );
            self.collect(mistakes);
        }
        if public_url.is_none() && !text.is_empty() {
            self.note(
                "public_url",
                "is not an origin, expected nothing or an origin like that of officernd_identity_url",
            );
        }
        public_url
    }

    fn audited(&mut self) -> Audited {
        match self.text("audit") {
            "all" => Audited::All,
            "exceptions" => Audited::Exceptions,
            _ => {
                self.note("audit", "is unknown, expected all or exceptions");
                Audited::All
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLERS: &str = r#"{"a": {"secret_sha256": ["0000000000000000000000000000000000000000000000000000000000000000"], "scopes": ["x"]}}"#;

    /// Parses a valid configuration in which one variable has another value.
    fn parse_with(variable: &str, value: &str) -> Result<Config, Vec<String>> {
        Config::parse(|name| {
            if name == variable {
                return value;
            }
            match name {
                "officernd_client_id" => "id",
                "officernd_client_secret" => "secret",
                "officernd_identity_url" => "https://identity.example",
                "callers" => CALLERS,
                "min_remaining_seconds" => "300",
                "upstream_calls_per_minute" => "5",
                "officernd_client_id_next"
                | "officernd_client_secret_next"
                | "applications"
                | "issuers"
                | "public_url" => "",
                "audit" => "all",
                other => panic!("{other} is not a variable"),
            }
        })
        .map_err(|mistakes| mistakes.iter().map(Mistake::to_string).collect())
    }

    #[test]
    fn valid_configuration_has_every_value() {
        let config = parse_with("", "").unwrap();
        assert_eq!(config.identity.as_str(), "https://identity.example");
        assert_eq!(config.applications[0].current.client_id, "id");
        assert_eq!(config.min_remaining, Duration::from_secs(300));
        assert_eq!(config.calls_per_minute, 5);
    }

    #[test]
    fn variable_with_a_bad_value_is_one_mistake_that_names_it() {
        let check = |variable: &str, value: &str| {
            let mistakes = parse_with(variable, value).expect_err(value);
            assert_eq!(mistakes.len(), 1, "{mistakes:?}");
            assert!(mistakes[0].starts_with(&format!("{variable}: ")), "{mistakes:?}");
        };
        check("officernd_client_id", "");
        check("officernd_client_id", "  ");
        check("officernd_client_secret", "");
        check("callers", "");
        check("applications", "berlin");
        for word in ["", "none", "All"] {
            check("audit", word);
        }
        for number in ["", "x", "59", "3301", "-1", "+300", "3e2", "300.0", "99999999999999999999"] {
            check("min_remaining_seconds", number);
        }
        for url in ["x", "http://broker.example", "https://broker.example/path"] {
            check("public_url", url);
        }
        for number in ["", "0", "101", "five"] {
            check("upstream_calls_per_minute", number);
        }
    }

    #[test]
    fn next_id_without_a_next_secret_is_a_mistake_that_disables_nothing() {
        let config = parse_with("officernd_client_id_next", "other").unwrap();
        let mistakes: Vec<_> = config.mistakes.iter().map(Mistake::to_string).collect();
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        assert!(mistakes[0].starts_with("officernd_client_id_next: is ignored without officernd_client_secret_next"));
        assert_eq!(config.applications[0].credentials().count(), 1);
        let config = parse_with("officernd_client_secret_next", "other").unwrap();
        assert!(config.mistakes.is_empty());
        assert_eq!(config.applications[0].next.as_ref().unwrap().client_id, "id");
    }

    #[test]
    fn caller_of_an_unknown_application_is_a_mistake() {
        let callers = CALLERS.replace(r#""scopes""#, r#""application": "berlin", "scopes""#);
        let parse = |applications: &str| {
            Config::parse(|name| match name {
                "applications" => applications,
                "callers" => &callers,
                "officernd_client_id" => "id",
                "officernd_client_secret" => "secret",
                name => Variable::default_of(name),
            })
        };
        let config = parse(r#"{"berlin": {"client_id": "i", "client_secret": "s"}}"#).unwrap();
        let names: Vec<_> = config.applications.iter().map(|application| application.name.as_str()).collect();
        assert_eq!(names, ["default", "berlin"]);
        let mistakes = |applications: &str| {
            let mistakes = parse(applications).unwrap().mistakes;
            mistakes.iter().map(Mistake::to_string).collect::<Vec<_>>().join("; ")
        };
        assert!(mistakes("{}").starts_with("callers: a.application: "), "{}", mistakes("{}"));
        // A mistake is reported once: not again by the caller that names the application.
        let broken = r#"{"berlin": {"client_id": "i"}}"#;
        assert_eq!(mistakes(broken), "applications: berlin.client_secret: is missing");
    }

    #[test]
    fn configuration_with_many_mistakes_reports_all_at_once() {
        let mistakes = Config::parse(|_| "").unwrap_err();
        let may_be_empty = VARIABLES.iter().filter(|variable| variable.default == Some("")).count();
        assert_eq!(mistakes.len(), VARIABLES.len() - may_be_empty, "{mistakes:?}");
    }
}
