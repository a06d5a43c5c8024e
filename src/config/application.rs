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
    /// Credential in use until OfficeRnD refuses it.
    pub current: Rc<Credential>,
    /// Credential that replaces the current one once OfficeRnD refuses it.
    pub next: Option<Rc<Credential>>,
}

/// One of an application's pairs of client id and client secret, with what is derived from it.
/// The id may differ as well, because OfficeRnD gives one id only one secret.
#[derive(Debug)]
pub struct Credential {
    /// Client id at OfficeRnD.
    pub client_id: String,
    /// Client secret at OfficeRnD.
    pub client_secret: ClientSecret,
    /// Identifies the credential without revealing it.
    pub fingerprint: Fingerprint,
    /// Seals the tokens that this credential fetched, under a key from the secret. A token's
    /// place, which the seal protects, contains the fingerprint, and so the id.
    pub seal: Seal,
}

/// A client id and a client secret as the variables have them; both may be empty.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Pair<'a> {
    /// Client id at OfficeRnD.
    pub client_id: &'a str,
    /// Client secret at OfficeRnD.
    pub client_secret: &'a str,
}

/// Identifies a credential: SHA-256 of identity host, client id and client secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Application {
    /// Creates an application. A next pair without a secret is ignored; without an id, it has
    /// the current one. A next pair equal to the current one is ignored too: an operator who
    /// swaps the two pairs briefly sets both to the same.
    pub fn new(name: &str, current: Pair<'_>, next: Pair<'_>, identity: &Origin) -> Self {
        let credential = |pair: Pair<'_>| {
            let client_secret = ClientSecret::new(pair.client_secret);
            let fingerprint = Fingerprint::of(identity, pair.client_id, &client_secret);
            let client_id = pair.client_id.to_owned();
            Rc::new(Credential { client_id, seal: Seal::of(&client_secret), client_secret, fingerprint })
        };
        let next =
            Pair { client_id: if next.client_id.is_empty() { current.client_id } else { next.client_id }, ..next };
        let is_in_use = !next.client_secret.is_empty() && next != current;
        Self { name: name.to_owned(), current: credential(current), next: is_in_use.then(|| credential(next)) }
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
/// `{"berlin": {"client_id": "…", "client_secret": "…", "client_id_next": "…",
/// "client_secret_next": "…"}}`; the last two fields are optional, and so is the variable.
pub fn parse(text: &str, identity: Option<&Origin>, mistakes: &mut Mistakes) -> (Vec<Rc<Application>>, Vec<String>) {
    let mut applications: Vec<Rc<Application>> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    if text.is_empty() {
        return (applications, names);
    }
    let read = for_each_entry(text, &mut |_| true, &mut |name, entry| {
        let mistakes_before = mistakes.len();
        if !is_name(name) {
            mistakes.add(name, "is not a name, expected 1 to 128 characters of printable ASCII");
        } else if name == DEFAULT {
            mistakes.add(name, "is reserved for the application of officernd_client_id, expected another name");
        } else if names.iter().any(|known| known == name) {
            mistakes.add(name, "appears twice, expected each application once");
            applications.retain(|known| known.name != name);
        } else if let Some([client_id, client_secret, id_next, secret_next]) = parse_application(name, entry, mistakes)
            && let Some(identity) = identity
            && mistakes.len() == mistakes_before
        {
            let current = Pair { client_id: &client_id, client_secret: &client_secret };
            let next = Pair { client_id: &id_next, client_secret: &secret_next };
            applications.push(Rc::new(Application::new(name, current, next, identity)));
        }
        names.push(name.to_owned());
    });
    if let Err(place) = read {
        mistakes.replace(
            &place,
            "is not valid, expected nothing or a JSON object of applications by name, {\"berlin\": {…}}",
        );
    }
    (applications, names)
}

/// The first two are required.
const FIELDS: [&str; 4] = ["client_id", "client_secret", "client_id_next", "client_secret_next"];
const REQUIRED: usize = 2;

fn parse_application(name: &str, entry: Json<'_, '_>, mistakes: &mut Mistakes) -> Option<[String; 4]> {
    let Some(fields) = entry.fields() else {
        mistakes.add(name, "is not an object, expected one with client_id and client_secret");
        return None;
    };
    let mut values: [Option<String>; 4] = Default::default();
    for (field, value) in fields.clone() {
        let place = format!("{name}.{field}");
        let Some(index) = FIELDS.iter().position(|known| *known == field) else {
            mistakes.add(&place, "is unknown, expected client_id, client_secret, client_id_next or client_secret_next");
            continue;
        };
        match value.text().map(|text| text.trim().to_owned()) {
            _ if values[index].is_some() => mistakes.add(&place, "appears twice, expected each field once"),
            Some(text) if !text.is_empty() || index >= REQUIRED => values[index] = Some(text),
            _ => mistakes.add(&place, "is not valid, expected a non-empty string"),
        }
    }
    for (field, value) in FIELDS.iter().zip(&values).take(REQUIRED) {
        if value.is_none() && !fields.clone().any(|(found, _)| found == *field) {
            mistakes.add(&format!("{name}.{field}"), "is missing");
        }
    }
    let [client_id, client_secret, id_next, secret_next] = values;
    let has_secret_next = match &secret_next {
        Some(text) => !text.is_empty(),
        // One of a wrong type is a mistake already.
        None => fields.clone().any(|(found, _)| found == FIELDS[3]),
    };
    if !has_secret_next && id_next.as_ref().is_some_and(|text| !text.is_empty()) {
        mistakes.add(&format!("{name}.client_secret_next"), "is missing, expected one beside client_id_next");
    }
    Some([client_id?, client_secret?, id_next.unwrap_or_default(), secret_next.unwrap_or_default()])
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
    fn applications_with_one_or_two_pairs_are_parsed() {
        let (applications, mistakes) = read(
            r#"{"berlin": {"client_id": "i", "client_secret": "s"},
                "oslo": {"client_id": "j", "client_secret": "t", "client_secret_next": "u"},
                "rome": {"client_id": "k", "client_secret": "v", "client_secret_next": "v"},
                "bern": {"client_id": "l", "client_secret": "w", "client_id_next": "m", "client_secret_next": "x"},
                "kyiv": {"client_id": "n", "client_secret": "y", "client_id_next": "o", "client_secret_next": "y"},
                "lima": {"client_id": "p", "client_secret": "z", "client_id_next": "p", "client_secret_next": "z"},
                "oran": {"client_id": "q", "client_secret": "a", "client_id_next": " ", "client_secret_next": ""}}"#,
        );
        assert_eq!(mistakes, Vec::<String>::new());
        let pairs = |application: &Application| {
            let pair =
                |credential: &Rc<Credential>| [&credential.client_id, credential.client_secret.expose()].concat();
            application.credentials().map(pair).collect::<Vec<_>>().join(" ")
        };
        let found: Vec<_> =
            applications.iter().map(|application| format!("{}: {}", application.name, pairs(application))).collect();
        let expected = ["berlin: is", "oslo: jt ju", "rome: kv", "bern: lw mx", "kyiv: ny oy", "lima: pz", "oran: qa"];
        assert_eq!(found, expected);
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
        let half = |rest: &str| {
            format!(r#"{{"a": {{"client_id": "i", "client_secret": "hunter2", "client_id_next": "j"{rest}}}}}"#)
        };
        check(&half(""), &["a.client_secret_next: is missing, expected one beside client_id_next"]);
        check(&half(r#", "client_secret_next": " ""#), &["a.client_secret_next: is missing"]);
        check(&half(r#", "client_secret_next": 1"#), &["a.client_secret_next: is not valid"]);
    }
}
