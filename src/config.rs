//! Strings become a [`Config`] once; nothing is served from one that has a mistake.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use crate::application::{self, Application};
use crate::caller::{Caller, Callers};
use crate::secret::ClientSecret;

/// A variable that the broker reads.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What it is when nobody sets it; nothing when somebody must.
    pub default: Option<&'static str>,
}

/// Every variable the broker reads, in the order in which it does. Variables may change between two reads: a next secret that
/// is read before it becomes the current one is there twice, read after it, the old one would stand alone.
pub const VARIABLES: [Variable; 10] = [
    Variable { name: "officernd_client_id", default: None },
    Variable { name: "officernd_client_secret_next", default: Some("") },
    Variable { name: "officernd_client_secret", default: None },
    Variable { name: "officernd_identity_url", default: Some("https://identity.officernd.com") },
    Variable { name: "applications", default: Some("") },
    Variable { name: "callers", default: None },
    Variable { name: "min_remaining_seconds", default: Some("300") },
    Variable { name: "upstream_calls_per_minute", default: Some("5") },
    Variable { name: "public_url", default: Some("") },
    Variable { name: "audit", default: Some("all") },
];

/// A configuration without a mistake.
#[derive(Debug)]
pub struct Config {
    /// Where tokens come from.
    pub identity: Origin,
    /// The applications whose tokens are handed out, the default one first.
    pub applications: Vec<Rc<Application>>,
    /// Who may call.
    pub callers: Callers,
    /// The remaining life below which a cached token is not handed out if a new one can be had: 30 s to 55 min.
    pub min_remaining: Duration,
    /// How many calls OfficeRnD takes in 60 s: 1 to 100.
    pub calls_per_minute: usize,
    /// Where callers reach the broker, if its own requests do not tell: behind a proxy that ends TLS.
    pub public_url: Option<Origin>,
    /// Which requests leave a line in the log.
    pub audited: Audited,
}

/// Which requests leave a line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audited {
    /// All of them.
    All,
    /// All but those that the cache could serve.
    Exceptions,
}

/// Scheme, host and port: `https`, or `http` on a loopback host; no path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(String);

/// One mistake in the variables. It names the place and what belongs there, never a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    variable: &'static str,
    place: String,
    problem: &'static str,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place.is_empty() {
            write!(f, "{}: {}", self.variable, self.problem)
        } else {
            write!(f, "{}: {}: {}", self.variable, self.place, self.problem)
        }
    }
}

/// The mistakes of one variable, as they are found.
#[derive(Debug)]
pub struct Mistakes {
    variable: &'static str,
    found: Vec<Mistake>,
}

impl Mistakes {
    /// None yet, for `variable`.
    pub fn of(variable: &'static str) -> Self {
        Self { variable, found: Vec::new() }
    }

    /// Notes what makes every other mistake void.
    pub fn replace(&mut self, place: &str, problem: &'static str) {
        self.found.clear();
        self.add(place, problem);
    }

    /// Notes that at `place` (empty: the whole variable) something is wrong.
    pub fn add(&mut self, place: &str, problem: &'static str) {
        // A place is made of names out of the variable: shortened and escaped, it cannot flood or forge a log line.
        let place = place.chars().take(160).flat_map(char::escape_debug).collect();
        self.found.push(Mistake { variable: self.variable, place, problem });
    }
}

impl IntoIterator for Mistakes {
    type Item = Mistake;
    type IntoIter = std::vec::IntoIter<Mistake>;

    fn into_iter(self) -> Self::IntoIter {
        self.found.into_iter()
    }
}

impl Config {
    /// Reads the variables; `lookup` gives the value of one of [`VARIABLES`], or the empty text.
    ///
    /// # Errors
    /// Every mistake in them, at once.
    pub fn parse<'a>(lookup: impl Fn(&str) -> &'a str) -> Result<Self, Vec<Mistake>> {
        let mut found = Vec::new();
        let mut read = |variable: &'static str, parse: &mut dyn FnMut(&str, &mut Mistakes)| {
            let mut mistakes = Mistakes::of(variable);
            parse(lookup(variable).trim(), &mut mistakes);
            found.extend(mistakes);
        };

        let mut client_id = String::new();
        read("officernd_client_id", &mut |text, mistakes| {
            client_id = text.to_owned();
            if text.is_empty() {
                mistakes.add("", "is empty, and must be the client id of the OfficeRnD application");
            }
        });
        let mut client_secret = ClientSecret::new("");
        read("officernd_client_secret", &mut |text, mistakes| {
            client_secret = ClientSecret::new(text);
            if text.is_empty() {
                mistakes.add("", "is empty, and must be the client secret of the OfficeRnD application");
            }
        });
        let mut next_secret = ClientSecret::new("");
        read("officernd_client_secret_next", &mut |text, _| next_secret = ClientSecret::new(text));
        let mut identity = None;
        read("officernd_identity_url", &mut |text, mistakes| {
            identity = Origin::parse(text);
            if identity.is_none() {
                mistakes
                    .add("", "must be https://HOST or https://HOST:PORT without a path; http only for localhost, 127.x.x.x and [::1]");
            }
        });
        let mut applications = Vec::new();
        let mut are_all_known = false;
        read("applications", &mut |text, mistakes| {
            applications = application::parse(text, identity.as_ref(), mistakes);
            are_all_known = mistakes.found.is_empty() && identity.is_some();
        });
        let mut callers = None;
        read("callers", &mut |text, mistakes| {
            let is_known = |name: &str| {
                name == application::DEFAULT || !are_all_known || applications.iter().any(|known| known.name == name)
            };
            callers = Some(Callers::parse(text, is_known, mistakes));
        });
        let mut min_remaining_seconds = 0;
        read("min_remaining_seconds", &mut |text, mistakes| match parse_within(text, 30, 3300) {
            Some(seconds) => min_remaining_seconds = seconds,
            None => mistakes.add("", "must be a whole number of seconds from 30 to 3300"),
        });
        let mut calls_per_minute = 0;
        read("upstream_calls_per_minute", &mut |text, mistakes| match parse_within(text, 1, 100) {
            Some(calls) => calls_per_minute = calls,
            None => mistakes.add("", "must be a whole number from 1 to 100"),
        });
        let mut public_url = None;
        read("public_url", &mut |text, mistakes| {
            public_url = Origin::parse(text);
            if public_url.is_none() && !text.is_empty() {
                mistakes.add("", "must be empty, or an origin as officernd_identity_url is one");
            }
        });
        let mut audited = Audited::All;
        read("audit", &mut |text, mistakes| match text {
            "all" => audited = Audited::All,
            "exceptions" => audited = Audited::Exceptions,
            _ => mistakes.add("", "must be all or exceptions"),
        });

        match (identity, callers) {
            (Some(identity), Some(callers)) if found.is_empty() => Ok(Self {
                applications: {
                    let (current, next) = (client_secret.expose(), next_secret.expose());
                    let default = Application::new(application::DEFAULT, &client_id, current, next, &identity);
                    applications.insert(0, Rc::new(default));
                    applications
                },
                identity,
                callers,
                min_remaining: Duration::from_secs(min_remaining_seconds.into()),
                calls_per_minute: calls_per_minute.into(),
                public_url,
                audited,
            }),
            _ => Err(found),
        }
    }

    /// The application that `caller` gets tokens of.
    pub fn application(&self, caller: &Caller) -> &Rc<Application> {
        let is_its_own = |application: &&Rc<Application>| application.name == caller.application;
        self.applications.iter().find(is_its_own).expect("a policy that names another application is a mistake")
    }
}

impl Origin {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let origin = text.strip_suffix('/').unwrap_or(text);
        let uri: http::Uri = origin.parse().ok()?;
        let authority = uri.authority()?;
        let host = authority.host();
        let scheme = uri.scheme_str()?;
        let is_allowed = match scheme {
            "https" => true,
            "http" => matches!(host, "localhost" | "[::1]") || is_loopback_v4(host),
            _ => false,
        };
        // `Uri` takes user information, a path, a query, a fragment and any port. The text must be an origin and nothing
        // else, so that a credential goes nowhere by accident.
        let is_origin =
            origin.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://")) == Some(authority.as_str());
        let port = authority.as_str().strip_prefix(host)?;
        let is_port = |text: &str| parse_within(text, 1, u16::MAX).is_some();
        let has_good_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        (is_allowed && is_origin && has_good_port && !host.is_empty()).then(|| Self(origin.to_owned()))
    }

    /// The origin, without a slash at the end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where tokens are to be had.
    pub fn token_endpoint(&self) -> http::Uri {
        format!("{}/oauth/token", self.0).parse().expect("an origin with a path is a URI")
    }
}

/// 127.0.0.0/8. A part that begins with a zero is octal to some, who would find another host: `0127` is 87. The parser of
/// the standard library would be the largest function of this crate.
fn is_loopback_v4(host: &str) -> bool {
    let number = |part: &str| parse_within(part, 0, 255).filter(|_| part == "0" || !part.starts_with('0'));
    let parts: Vec<_> = host.split('.').map(number).collect();
    matches!(parts[..], [Some(127), Some(_), Some(_), Some(_)])
}

/// Whether this can be the name of a caller or an application. RFC 6749 appendix A.1: a client id is printable ASCII.
pub(crate) fn is_name(text: &str) -> bool {
    (1..=NAME_LIMIT).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// Longest name of a caller or an application, in bytes.
const NAME_LIMIT: usize = 128;

/// A whole number in decimal digits, within bounds.
fn parse_within(text: &str, low: u16, high: u16) -> Option<u16> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| is_plain && (low..=high).contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLERS: &str = r#"{"a": {"secret_sha256": ["0000000000000000000000000000000000000000000000000000000000000000"], "scopes": ["x"]}}"#;

    /// A sound configuration but for one variable.
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
                "officernd_client_secret_next" | "applications" | "public_url" => "",
                "audit" => "all",
                other => panic!("{other} is not a variable"),
            }
        })
        .map_err(|mistakes| mistakes.iter().map(Mistake::to_string).collect())
    }

    #[test]
    fn a_sound_configuration_has_every_value() {
        let config = parse_with("", "").unwrap();
        assert_eq!(config.identity.as_str(), "https://identity.example");
        assert_eq!(config.applications[0].client_id, "id");
        assert_eq!(config.min_remaining, Duration::from_secs(300));
        assert_eq!(config.calls_per_minute, 5);
    }

    #[test]
    fn a_bad_value_is_an_error_that_names_its_variable() {
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
        for number in ["", "x", "29", "3301", "-1", "+300", "3e2", "300.0", "99999999999999999999"] {
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
    fn a_caller_has_an_application_that_there_is() {
        let callers = CALLERS.replace(r#""scopes""#, r#""application": "berlin", "scopes""#);
        let parse = |applications: &str| {
            Config::parse(|name| match name {
                "applications" => applications,
                "callers" => &callers,
                "officernd_client_id" => "id",
                "officernd_client_secret" => "secret",
                name => VARIABLES.iter().find(|variable| variable.name == name).unwrap().default.unwrap(),
            })
        };
        let config = parse(r#"{"berlin": {"client_id": "i", "client_secret": "s"}}"#).unwrap();
        let names: Vec<_> = config.applications.iter().map(|application| application.name.as_str()).collect();
        assert_eq!(names, ["default", "berlin"]);
        let mistakes = |applications: &str| {
            let mistakes = parse(applications).unwrap_err();
            mistakes.iter().map(Mistake::to_string).collect::<Vec<_>>().join("; ")
        };
        assert!(mistakes("{}").starts_with("callers: a.application: "), "{}", mistakes("{}"));
        // One mistake is one mistake.
        let broken = r#"{"berlin": {"client_id": "i"}}"#;
        assert_eq!(mistakes(broken), "applications: berlin.client_secret: is missing");
    }

    #[test]
    fn all_mistakes_come_at_once() {
        let mistakes = Config::parse(|_| "").unwrap_err();
        let may_be_empty = VARIABLES.iter().filter(|variable| variable.default == Some("")).count();
        assert_eq!(mistakes.len(), VARIABLES.len() - may_be_empty, "{mistakes:?}");
    }

    #[test]
    fn the_identity_url_is_an_origin_that_keeps_the_credential_private() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(Origin::parse(text).as_ref().map(Origin::as_str), expected, "{text:?}");
        };
        check("https://identity.officernd.com", Some("https://identity.officernd.com"));
        check("https://identity.officernd.com/", Some("https://identity.officernd.com"));
        check("https://identity.officernd.com:8443", Some("https://identity.officernd.com:8443"));
        check("http://127.0.0.1:9000", Some("http://127.0.0.1:9000"));
        check("http://127.1.2.3:9000", Some("http://127.1.2.3:9000"));
        check("http://localhost:9000/", Some("http://localhost:9000"));
        check("http://[::1]:9000", Some("http://[::1]:9000"));
        for text in [
            "",
            "identity.officernd.com",
            "http://identity.officernd.com",
            "http://127.0.0.1.evil.example",
            "http://127.evil.0.1",
            "http://127.0.0.256",
            "http://0127.0.0.1",
            "http://127.00.0.1",
            "http://128.0.0.1",
            "http://localhost.evil.example",
            "http://0.0.0.0",
            "ftp://127.0.0.1",
            "https://",
            "https:///",
            "https://host/path",
            "https://host/?query",
            "https://host//",
            "https://host#fragment",
            "https://host:99999",
            "https://host:",
            "https://user:password@host",
            "https://host evil",
            "//host",
        ] {
            check(text, None);
        }
    }
}
