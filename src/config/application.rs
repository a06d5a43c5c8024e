//! OfficeRnD applications and their credentials, and the variable `applications` that lists
//! them.

use std::fmt;
use std::rc::Rc;

use super::grammar::is_name;
use super::mistake::Mistakes;
use super::origin::Origin;
use crate::digest::{hex, sha256_of_fields};
use crate::json::{Json, for_each_entry};
use crate::seal::Seal;
use crate::secret::ClientSecret;

/// Name of the application whose tokens a caller gets if its policy names none.
pub const DEFAULT: &str = "default";

/// An OfficeRnD application: the broker fetches tokens on its behalf.
#[derive(Debug)]
pub struct Application {
    /// Name in the policy and in the log.
    pub name: String,
    /// Client id at OfficeRnD.
    pub client_id: String,
    /// Credential in use until OfficeRnD refuses it.
    pub current: Rc<Credential>,
    /// Credential that replaces the current one once OfficeRnD refuses it.
    pub next: Option<Rc<Credential>>,
}

/// One of an application's client secrets, with what is derived from it.
#[derive(Debug)]
pub struct Credential {
    /// Client secret at OfficeRnD.
    pub client_secret: ClientSecret,
    /// Identifies the credential without revealing it.
    pub fingerprint: Fingerprint,
    /// Seals the tokens that this credential fetched.
    pub seal: Seal,
}

/// Identifies a credential: SHA-256 of identity host, client id and client secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Application {
    /// Creates an application. An empty next secret is ignored, and so is one equal to the
    /// current secret: an operator who moves a secret between the two variables briefly sets
    /// both.
    pub fn new(name: &str, client_id: &str, client_secret: &str, next: &str, identity: &Origin) -> Self {
        let credential = |client_secret: &str| {
            let client_secret = ClientSecret::new(client_secret);
            let fingerprint = Fingerprint::of(identity, client_id, &client_secret);
            Rc::new(Credential { seal: Seal::of(&client_secret), client_secret, fingerprint })
        };
        Self {
            name: name.to_owned(),
            client_id: client_id.to_owned(),
            current: credential(client_secret),
            next: (!next.is_empty() && next != client_secret).then(|| credential(next)),
        }
    }

    /// The credentials, the current one first.
    pub fn credentials(&self) -> impl Iterator<Item = &Rc<Credential>> {
        [&self.current].into_iter().chain(&self.next)
    }
}

impl Fingerprint {
    /// Computes the fingerprint of a credential at an identity host.
    pub fn of(identity: &Origin, client_id: &str, client_secret: &ClientSecret) -> Self {
        Self(sha256_of_fields(["credential", identity.as_str(), client_id, client_secret.expose()].map(str::as_bytes)))
    }

    /// All 64 hexadecimal digits, which name the credential in the ledger.
    pub fn to_hex(self) -> String {
        hex(&self.0)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}…", hex(&self.0[..4]))
    }
}

/// Parses the variable `applications`, and adds every mistake in it to `mistakes`. Returns the
/// applications without a mistake, and the names of all.
///
/// `{"berlin": {"client_id": "…", "client_secret": "…", "client_secret_next": "…"}}`; the last
/// field is optional, and so is the variable.
pub fn parse(text: &str, identity: Option<&Origin>, mistakes: &mut Mistakes) -> (Vec<Rc<Application>>, Vec<String>) {
    let mut applications: Vec<Rc<Application>> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    if text.is_empty() {
        return (applications, names);
    }
    let read = for_each_entry(
        text,
        |_| true,
        |name, entry| {
            let mistakes_before = mistakes.len();
            if !is_name(&name) {
                mistakes.add(&name, "is not a name, expected 1 to 128 characters of printable ASCII");
            } else if name == DEFAULT {
                mistakes.add(&name, "is reserved for the application of officernd_client_id, expected another name");
            } else if names.iter().any(|known| *known == name) {
                mistakes.add(&name, "appears twice, expected each application once");
                applications.retain(|known| known.name != name);
            } else if let Some([client_id, client_secret, next]) = parse_application(&name, &entry, mistakes)
                && let Some(identity) = identity
                && mistakes.len() == mistakes_before
            {
                applications.push(Rc::new(Application::new(&name, &client_id, &client_secret, &next, identity)));
            }
            names.push(name.into_owned());
        },
    );
    if let Err(place) = read {
        mistakes.replace(
            &place,
            "is not valid, expected nothing or a JSON object of applications by name, {\"berlin\": {…}}",
        );
    }
    (applications, names)
}

const FIELDS: [&str; 3] = ["client_id", "client_secret", "client_secret_next"];

fn parse_application(name: &str, entry: &Json<'_>, mistakes: &mut Mistakes) -> Option<[String; 3]> {
    let Json::Object(fields) = entry else {
        mistakes.add(name, "is not an object, expected one with client_id and client_secret");
        return None;
    };
    let mut values: [Option<String>; 3] = Default::default();
    for (field, value) in fields {
        let place = format!("{name}.{field}");
        let Some(index) = FIELDS.iter().position(|known| known == field) else {
            mistakes.add(&place, "is unknown, expected client_id, client_secret or client_secret_next");
            continue;
        };
        match value.text().map(|text| text.trim().to_owned()) {
            _ if values[index].is_some() => mistakes.add(&place, "appears twice, expected each field once"),
            Some(text) if !text.is_empty() || index == 2 => values[index] = Some(text),
            _ => mistakes.add(&place, "is not valid, expected a non-empty string"),
        }
    }
    for (field, value) in FIELDS.iter().zip(&values).take(2) {
        if value.is_none() && !fields.iter().any(|(found, _)| found == field) {
            mistakes.add(&format!("{name}.{field}"), "is missing");
        }
    }
    let [client_id, client_secret, next] = values;
    Some([client_id?, client_secret?, next.unwrap_or_default()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<Rc<Application>>, Vec<String>) {
        let identity = Origin::parse("https://identity.example").unwrap();
        let mut mistakes = Mistakes::of("applications");
        let (applications, _) = parse(text, Some(&identity), &mut mistakes);
        (applications, mistakes.into_iter().map(|mistake| mistake.to_string()).collect())
    }

    #[test]
    fn applications_with_one_or_two_secrets_are_parsed() {
        let (applications, mistakes) = read(
            r#"{"berlin": {"client_id": "i", "client_secret": "s"},
                "oslo": {"client_id": "j", "client_secret": "t", "client_secret_next": "u"},
                "rome": {"client_id": "k", "client_secret": "v", "client_secret_next": "v"}}"#,
        );
        assert_eq!(mistakes, Vec::<String>::new());
        let secrets = |application: &Application| {
            application.credentials().map(|credential| credential.client_secret.expose().to_owned()).collect::<Vec<_>>()
        };
        let found: Vec<_> = applications
            .iter()
            .map(|application| {
                (application.name.as_str(), application.client_id.as_str(), secrets(application).join(" "))
            })
            .collect();
        assert_eq!(found, [("berlin", "i", "s".into()), ("oslo", "j", "t u".into()), ("rome", "k", "v".into())]);
        assert!(read("").0.is_empty());
        assert!(read("{}").1.is_empty());
    }

    #[test]
    fn mistake_in_applications_names_application_and_field() {
        let check = |text: &str, expected: &[&str]| {
            let (_, mistakes) = read(text);
            assert_eq!(mistakes.len(), expected.len(), "{text} {mistakes:?}");
            for (mistake, expected) in mistakes.iter().zip(expected) {
                assert!(
                    mistake.starts_with(&format!("applications: {expected}")),
                    "{text}: {mistake} is not {expected}"
                );
                assert!(!mistake.contains("hunter2"), "{mistake}");
            }
        };
        check("[]", &["is not valid, expected nothing or a JSON object"]);
        check(r#"{"berlin": "hunter2"}"#, &["berlin: is not an object, expected"]);
        check(r#"{"berlin": {}}"#, &["berlin.client_id: is missing", "berlin.client_secret: is missing"]);
        check(
            r#"{"berlin": {"client_id": "", "client_secret": 1, "secret": "hunter2"}}"#,
            &[
                "berlin.client_id: is not valid, expected",
                "berlin.client_secret: is not valid, expected",
                "berlin.secret: is unknown, expected",
            ],
        );
        let good = r#"{"client_id": "i", "client_secret": "hunter2"}"#;
        check(&format!(r#"{{"": {good}}}"#), &["is not a name, expected"]);
        check(&format!(r#"{{"default": {good}}}"#), &["default: is reserved"]);
        check(&format!(r#"{{"a": {good}, "a": {good}}}"#), &["a: appears twice, expected each application once"]);
        check(
            r#"{"a": {"client_id": "i", "client_id": "j", "client_secret": "s", "client_secret_next": null}}"#,
            &["a.client_id: appears twice, expected each field once", "a.client_secret_next: is not valid, expected"],
        );
    }
}
