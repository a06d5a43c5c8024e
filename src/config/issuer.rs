//! Outside issuers, whose tokens are identities of callers, and the variable `issuers` that lists
//! them.

use std::rc::Rc;
use std::time::Duration;

use http::Uri;

use super::grammar::{is_name, is_printable};
use super::mistake::Mistakes;
use super::origin::{Origin, parse_url};
use crate::assertion::{Assertion, Reason};
use crate::json::{Json, for_each_entry};
use crate::key_set::KeySet;
use crate::signature::{Algorithm, PublicKey};
use crate::time::Timestamp;

/// An outside issuer: a platform that gives its jobs signed tokens (RFC 7521 section 3).
#[derive(Debug)]
pub struct Issuer {
    /// Name in the policy and in the log.
    pub name: String,
    /// The claim `iss` of its tokens, compared exactly.
    pub identifier: String,
    keys: KeySource,
    /// Audience of its tokens, if it is not the broker's `public_url`.
    audience: Option<String>,
    /// Longest life that a token may have left, from 60 s to a day.
    max_life: Duration,
    /// Algorithms that it signs with; empty if any will do.
    algorithms: Vec<Algorithm>,
    /// Claims of which each identity names at least one.
    pins: Vec<String>,
}

/// Where the keys that sign an issuer's tokens are.
#[derive(Debug)]
enum KeySource {
    /// In the policy.
    Inline(KeySet),
    /// At an address, from which they are fetched.
    Fetched(Uri),
}

/// All issuers of the policy.
#[derive(Debug, Default)]
pub struct Issuers {
    known: Vec<Rc<Issuer>>,
    /// Names of all, those with a mistake included.
    names: Vec<String>,
    /// The variable has not been read: any name may be in it.
    is_unread: bool,
}

/// Life of a token if the issuer has no other, and the bounds in seconds.
const MAX_LIFE: Duration = Duration::from_secs(3600);
const MAX_LIFE_SECONDS: (f64, f64) = (60.0, 86_400.0);

/// Longest identifier and longest audience, in bytes.
const IDENTIFIER_BYTES: usize = 512;

/// Most keys of an issuer, and most claims that it pins.
const MOST_KEYS: usize = 16;
const MOST_PINS: usize = 16;

/// Claims that every token has, or that differ in each: they identify no job.
pub(super) const NOT_PINNED: [&str; 6] = ["iss", "aud", "exp", "nbf", "iat", "jti"];

/// Ids that are never given to another owner, by issuers that serve many customers. A customer can
/// register a name again that another has given up, and with it the same `sub`.
const PINS: [(&str, &[&str]); 4] = [
    ("https://token.actions.githubusercontent.com", &["repository_id", "repository_owner_id"]),
    ("https://gitlab.com", &["project_id", "namespace_id"]),
    ("https://agent.buildkite.com", &["organization_id", "pipeline_id"]),
    ("https://app.terraform.io", &["terraform_workspace_id", "terraform_project_id", "terraform_organization_id"]),
];

impl Issuer {
    /// Address of its keys; `None` if they are in the policy.
    pub fn jwks_uri(&self) -> Option<&Uri> {
        match &self.keys {
            KeySource::Inline(_) => None,
            KeySource::Fetched(uri) => Some(uri),
        }
    }

    /// Its keys, if they are in the policy.
    pub fn inline_keys(&self) -> Option<&KeySet> {
        match &self.keys {
            KeySource::Inline(keys) => Some(keys),
            KeySource::Fetched(_) => None,
        }
    }

    /// The audience that its tokens must have: its own or else `public_url`.
    pub fn audience<'a>(&'a self, public_url: Option<&'a Origin>) -> Option<&'a str> {
        self.audience.as_deref().or(public_url.map(Origin::as_str))
    }

    /// Longest life that a token of it may have left.
    pub fn max_life(&self) -> Duration {
        self.max_life
    }

    /// The key of the policy that may have signed an assertion whose header names this id and this
    /// algorithm.
    pub fn inline_key(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<&PublicKey> {
        self.inline_keys()?.find(kid, algorithm)
    }

    /// Checks audience, times and algorithm of a token, which tells nothing about the policy's
    /// callers. `public_url` is the audience unless the issuer has another.
    ///
    /// # Errors
    /// [`Reason::WrongAudience`], [`Reason::Expired`], [`Reason::Early`], [`Reason::Long`] or
    /// [`Reason::Algorithm`].
    pub fn check(&self, token: &Assertion, public_url: Option<&Origin>, now: Timestamp) -> Result<(), Reason> {
        token.check_audience(self.audience(public_url).ok_or(Reason::WrongAudience)?)?;
        token.check_times(now, self.max_life)?;
        let is_permitted = self.algorithms.is_empty() || self.algorithms.contains(&token.algorithm());
        if is_permitted { Ok(()) } else { Err(Reason::Algorithm) }
    }

    /// Whether its tokens are for an audience of their own, so that the broker needs no
    /// `public_url` for them.
    pub(super) fn has_audience(&self) -> bool {
        self.audience.is_some()
    }

    /// Whether an identity with these claims is bound to an id that no other owner can get.
    pub(super) fn is_pinned_by<'a>(&self, mut claims: impl Iterator<Item = &'a str>) -> bool {
        claims.any(|claim| self.pins.iter().any(|pin| pin == claim))
    }
}

impl Issuers {
    /// The issuers of a variable that has not been read, for a tool that has only the callers: any
    /// name may be that of an issuer.
    pub fn unread() -> Self {
        Self { is_unread: true, ..Self::default() }
    }

    /// Parses the variable `issuers`, and adds every mistake in it to `mistakes`. An issuer with a
    /// mistake is left out, and so are two that share an identifier.
    ///
    /// `{"cluster": {"issuer": "https://kubernetes.default.svc", "jwks": {"keys": […]}}}`, or with
    /// `jwks_uri` in place of `jwks`; the other fields are optional, and so is the variable.
    pub fn parse(text: &str, mistakes: &mut Mistakes) -> Self {
        let mut issuers = Self::default();
        if text.is_empty() {
            return issuers;
        }
        let mut identifiers: Vec<String> = Vec::new();
        let read = for_each_entry(text, &mut |_| true, &mut |name, entry| {
            let mistakes_before = mistakes.len();
            if !is_name(name) {
                mistakes.add(name, "is not a name, expected 1 to 128 characters of printable ASCII");
            } else if issuers.names.iter().any(|known| known == name) {
                mistakes.add(name, "appears twice, expected each issuer once");
                issuers.known.retain(|known| known.name != name);
            } else if let Some(issuer) = parse_issuer(name, entry, mistakes) {
                if identifiers.contains(&issuer.identifier) {
                    mistakes.add(&format!("{name}.issuer"), "is that of another issuer too, expected each once");
                    issuers.known.retain(|known| known.identifier != issuer.identifier);
                }
                identifiers.push(issuer.identifier.clone());
                if mistakes.len() == mistakes_before {
                    issuers.known.push(Rc::new(issuer));
                }
            }
            issuers.names.push(name.to_owned());
        });
        if let Err(place) = read {
            let problem = "is not valid, expected nothing or a JSON object of issuers by name, {\"cluster\": {…}}";
            mistakes.replace(&place, problem);
        }
        issuers
    }

    /// The issuers without a mistake.
    pub fn iter(&self) -> impl Iterator<Item = &Rc<Issuer>> {
        self.known.iter()
    }

    /// The issuer whose tokens have this `iss`, compared byte for byte: a prefix, another case or a
    /// slash at the end is another issuer (CVE-2024-53861).
    pub fn of_identifier(&self, identifier: &str) -> Option<&Rc<Issuer>> {
        self.known.iter().find(|issuer| issuer.identifier == identifier)
    }

    /// The issuer of this name in the policy; `Some(None)` if a mistake has disabled it.
    pub(super) fn of_name(&self, name: &str) -> Option<Option<&Rc<Issuer>>> {
        let is_known = self.is_unread || self.names.iter().any(|known| known == name);
        is_known.then(|| self.known.iter().find(|issuer| issuer.name == name))
    }
}

/// The fields of an issuer, as far as they are right.
#[derive(Default)]
struct Fields {
    identifier: Option<String>,
    jwks: Option<KeySet>,
    jwks_uri: Option<Uri>,
    audience: Option<String>,
    max_life: Option<Duration>,
    algorithms: Option<Vec<Algorithm>>,
    pins: Option<Vec<String>>,
}

impl Fields {
    /// Takes the value of a field, and says what is wrong with it.
    fn take(&mut self, field: &str, at: &str, value: Json<'_, '_>, mistakes: &mut Mistakes) -> Option<&'static str> {
        let (is_right, problem) = match field {
            "issuer" => {
                self.identifier = parse_identifier(value);
                (self.identifier.is_some(), "is not valid, expected 1 to 512 characters of printable ASCII")
            }
            "jwks" => {
                self.jwks = parse_keys(at, value, mistakes);
                return None;
            }
            "jwks_uri" => {
                self.jwks_uri = value.text().and_then(|text| parse_url(text));
                (self.jwks_uri.is_some(), "is not valid, expected https://HOST/PATH; http only for this machine")
            }
            "audience" => {
                self.audience = parse_identifier(value);
                (self.audience.is_some(), "is not valid, expected 1 to 512 characters of printable ASCII")
            }
            "max_lifetime_seconds" => {
                self.max_life = parse_max_life(value);
                (self.max_life.is_some(), "is not valid, expected a number of seconds from 60 to 86400")
            }
            "algorithms" => {
                self.algorithms = parse_algorithms(value);
                (self.algorithms.is_some(), "is not valid, expected a list of RS256, PS256 or ES256")
            }
            "pin" => {
                self.pins = parse_pins(value);
                let problem =
                    "is not valid, expected a list of 1 to 16 claims, none of them iss, aud, exp, nbf, iat or jti";
                (self.pins.is_some(), problem)
            }
            _ => (
                false,
                "is unknown, expected issuer, jwks, jwks_uri, audience, max_lifetime_seconds, algorithms or pin",
            ),
        };
        (!is_right).then_some(problem)
    }
}

/// Returns `None` without an identifier or keys; any other mistake is only added.
fn parse_issuer(name: &str, entry: Json<'_, '_>, mistakes: &mut Mistakes) -> Option<Issuer> {
    let Some(fields) = entry.fields() else {
        mistakes.add(name, "is not an object, expected one with issuer and with jwks_uri or jwks");
        return None;
    };
    let mut found = Fields::default();
    for (place, (field, value)) in fields.clone().enumerate() {
        let at = format!("{name}.{field}");
        let is_repeated = fields.clone().take(place).any(|(earlier, _)| earlier == field);
        let problem = match is_repeated {
            true => Some("appears twice, expected each field once"),
            false => found.take(field, &at, value, mistakes),
        };
        if let Some(problem) = problem {
            mistakes.add(&at, problem);
        }
    }
    let has = |name: &str| fields.clone().any(|(field, _)| field == name);
    if !has("issuer") {
        mistakes.add(&format!("{name}.issuer"), "is missing");
    }
    if has("jwks") == has("jwks_uri") {
        mistakes.add(&format!("{name}.jwks_uri"), "is missing or beside jwks, expected exactly one of the two");
    }
    let identifier = found.identifier?;
    let keys = found.jwks.map(KeySource::Inline).or(found.jwks_uri.map(KeySource::Fetched));
    Some(Issuer {
        name: name.to_owned(),
        keys: keys?,
        audience: found.audience,
        max_life: found.max_life.unwrap_or(MAX_LIFE),
        algorithms: found.algorithms.unwrap_or_default(),
        pins: found.pins.unwrap_or_else(|| default_pins(&identifier)),
        identifier,
    })
}

fn parse_identifier(value: Json<'_, '_>) -> Option<String> {
    value.text().filter(|text| is_printable(text, IDENTIFIER_BYTES)).map(|text| text.to_string())
}

fn parse_max_life(value: Json<'_, '_>) -> Option<Duration> {
    let (low, high) = MAX_LIFE_SECONDS;
    let seconds = value.number().filter(|seconds| (low..=high).contains(seconds))?;
    Some(Duration::from_secs(seconds as u64))
}

/// Parses the keys of an issuer. Keys for another purpose are ignored: an operator copies the set
/// from the issuer.
fn parse_keys(at: &str, value: Json<'_, '_>, mistakes: &mut Mistakes) -> Option<KeySet> {
    let Some((keys, wrong)) = KeySet::from_json(value) else {
        mistakes.add(at, "is not valid, expected a JWK Set of RFC 7517, {\"keys\": […]}");
        return None;
    };
    let mistakes_before = mistakes.len();
    for wrong in wrong {
        mistakes.add_key(at, wrong.index, wrong.mistake);
    }
    if mistakes.len() == mistakes_before && !(1..=MOST_KEYS).contains(&keys.count()) {
        mistakes.add(at, "has no usable key or too many, expected 1 to 16 for RS256, PS256 or ES256");
    }
    (mistakes.len() == mistakes_before).then_some(keys)
}

fn parse_algorithms(value: Json<'_, '_>) -> Option<Vec<Algorithm>> {
    let algorithm = |name: Json<'_, '_>| Algorithm::of_name(name.text()?);
    let algorithms: Option<Vec<_>> = value.values()?.map(algorithm).collect();
    algorithms.filter(|algorithms| (1..=Algorithm::ALL.len()).contains(&algorithms.len()))
}

fn parse_pins(value: Json<'_, '_>) -> Option<Vec<String>> {
    let claim = |name: Json<'_, '_>| {
        let name = name.text().filter(|name| is_name(name) && !NOT_PINNED.contains(&&***name))?;
        Some(name.to_string())
    };
    let pins: Option<Vec<_>> = value.values()?.map(claim).collect();
    pins.filter(|pins| (1..=MOST_PINS).contains(&pins.len()))
}

/// The claims that identify a job for ever, by issuer. GitHub's enterprises have issuers of their
/// own below the shared one.
fn default_pins(identifier: &str) -> Vec<String> {
    let is_of =
        |shared: &str| identifier.strip_prefix(shared).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let pins = PINS.iter().find(|(shared, _)| is_of(shared)).map_or(&["sub"][..], |(_, pins)| pins);
    pins.iter().map(|pin| (*pin).to_owned()).collect()
}

#[cfg(test)]
mod tests;
