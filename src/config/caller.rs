//! The policy: who may call, how a caller authenticates, and which scopes it may have.

mod identities;
mod keys;
mod parse;
#[cfg(test)]
mod properties;

use std::borrow::Cow;
use std::rc::Rc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::application;
use super::mistake::Mistakes;
use crate::assertion;
use crate::digest::in_memory_hash;
use crate::scope::policy::ScopePolicy;
use crate::scope::{ScopeRefusal, Scopes};
use crate::secret::PresentedSecret;
use crate::time::Timestamp;

/// SHA-256 of a caller's secret. A secret has 256 random bits, so its digest reveals nothing
/// and needs no salt.
type Digest = [u8; 32];

/// A secret that authenticates a caller, until it expires.
#[derive(Clone, Debug, PartialEq, Eq)]
struct KnownSecret {
    digest: Digest,
    expires_at: Option<Timestamp>,
}

/// Secrets of one caller: mostly one. So the first needs no allocation: a policy may have thousands
/// of callers. It may be [`NO_SECRET`].
#[derive(Clone, Debug, PartialEq, Eq)]
struct Secrets {
    first: KnownSecret,
    others: Box<[KnownSecret]>,
}

/// A client of the broker, as the policy describes it.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Client id at the broker.
    pub name: String,
    /// Name of the application whose tokens it gets.
    pub application: Cow<'static, str>,
    /// Scopes that it may have. Neighbours in the policy with the same list share them.
    pub scopes: Rc<ScopePolicy>,
    /// Remaining lifetime below which its tokens are renewed, if not the variable's.
    pub min_remaining: Option<Duration>,
    /// Whether it may read the metrics.
    pub reads_metrics: bool,
    /// Secrets, any of which authenticates; several while one is being rotated.
    secrets: Secrets,
    /// Public keys, any of which verifies its assertions.
    keys: Box<[keys::KnownKey]>,
    /// Identities at outside issuers, any of which authenticates.
    identities: Box<[identities::Identity]>,
    /// Its entry has a mistake, so it may have nothing.
    is_disabled: bool,
}

/// Longest life that an assertion of a caller's own may have left.
pub const LONGEST_LIFE: Duration = Duration::from_secs(3600);

/// Name of an unauthenticated caller in the log. No caller may have it.
pub const UNKNOWN: &str = "unknown";

/// All callers of the policy.
///
/// Authentication by a secret takes the same number of name hashes and digest comparisons for
/// every request, so its duration reveals no name. For an assertion see
/// [`Callers::authenticate_by_assertion`].
#[derive(Clone, Debug, Default)]
pub struct Callers {
    /// Sorted by the hash of the name.
    known: Vec<(u64, Rc<Caller>)>,
    /// Callers that may have no scopes, only metrics.
    without_scopes: usize,
    most_secrets: usize,
    most_keys: keys::MostKeys,
    /// One of them has an identity at an issuer without an audience of its own.
    need_public_url: bool,
    /// Claims that identities have, each once.
    pinned_claims: Vec<Box<str>>,
    /// Most characters that a caller's name and its application's have together.
    longest_names: usize,
}

/// Why a caller is not authenticated. Only the log tells the reasons apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unauthenticated {
    /// Neither an `Authorization` header, nor an id and a secret in the body, nor an assertion.
    NoCredentials,
    /// The `Authorization` header is not valid HTTP Basic.
    UnreadableCredentials,
    /// The policy has no caller of this name.
    UnknownCaller,
    /// The secret is not one of the caller's.
    WrongSecret,
    /// The secret is one of the caller's, but has expired.
    ExpiredSecret,
    /// The caller's entry in the policy has a mistake.
    DisabledCaller,
    /// The assertion is wrong, or no key of the caller has signed it.
    Assertion(assertion::Reason),
    /// The assertion is neither by a caller about itself nor by an issuer of the policy.
    UnknownIssuer,
    /// The issuer's token has no identity of a caller.
    WrongIdentity,
    /// The issuer's token has an identity of several callers, and the request names none of them.
    AmbiguousIdentity,
    /// The issuer's token is for an event that strangers can cause.
    EventRefused,
}

impl From<assertion::Reason> for Unauthenticated {
    fn from(reason: assertion::Reason) -> Self {
        Self::Assertion(reason)
    }
}

/// A failed authentication.
#[derive(Debug)]
pub struct Refused {
    /// Why it failed.
    pub because: Unauthenticated,
    /// Caller of the presented name, if the policy has one. It is only for the log: the request
    /// has not shown that it comes from this caller.
    pub named: Option<Rc<Caller>>,
    /// Characters that the log line's names lack to the longest line of the policy. Work on as many
    /// keeps the duration of a refusal from telling whether the line names a caller.
    pub padding: usize,
    /// Claim of an issuer's token that differs from the policy, if that is why. Only for the log.
    pub claim: Option<Rc<str>>,
}

/// Padding for callers with fewer secrets, so that every lookup compares equally many digests.
/// No known input has this SHA-256, and the entry has already expired.
const NO_SECRET: KnownSecret = KnownSecret { digest: [0; 32], expires_at: Some(Timestamp::from_unix_ms(0)) };

impl Unauthenticated {
    /// The value of the audit field `reason`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NoCredentials => "no_credentials",
            Self::UnreadableCredentials => "unreadable_credentials",
            Self::UnknownCaller => "unknown_caller",
            Self::WrongSecret => "wrong_secret",
            Self::ExpiredSecret => "expired_secret",
            Self::DisabledCaller => "caller_disabled",
            Self::Assertion(reason) => reason.as_str(),
            Self::UnknownIssuer => "unknown_issuer",
            Self::WrongIdentity => "wrong_identity",
            Self::AmbiguousIdentity => "ambiguous_identity",
            Self::EventRefused => "event_refused",
        }
    }
}

impl Callers {
    /// Authenticates a caller by name and secret.
    ///
    /// # Errors
    /// When the name is unknown, the caller's entry has a mistake, or the secret is wrong or has
    /// expired. Only the log may tell which.
    pub fn authenticate(&self, name: &str, secret: &PresentedSecret, now: Timestamp) -> Result<Rc<Caller>, Refused> {
        let presented: Digest = Sha256::digest(secret.expose().as_bytes()).into();
        let caller = self.find(name);
        let secrets = caller.map(|caller| &caller.secrets);
        let because = match (caller, self.matches_one_of(&presented, secrets, now)) {
            (None, _) => Unauthenticated::UnknownCaller,
            (Some(caller), _) if caller.is_disabled => Unauthenticated::DisabledCaller,
            (Some(caller), (_, true)) => return Ok(caller.clone()),
            (Some(_), (true, false)) => Unauthenticated::ExpiredSecret,
            (Some(_), (false, false)) => Unauthenticated::WrongSecret,
        };
        Err(self.refused(because, caller))
    }

    fn refused(&self, because: Unauthenticated, caller: Option<&Rc<Caller>>) -> Refused {
        let logged = caller.map_or(UNKNOWN.len(), |caller| caller.names_length());
        let padding = self.longest_names.saturating_sub(logged);
        Refused { because, named: caller.cloned(), padding, claim: None }
    }

    /// Whether one of them may authenticate by an assertion whose audience is the broker.
    pub(super) fn need_public_url(&self) -> bool {
        !self.most_keys.are_none() || self.need_public_url
    }

    /// Number of callers that may ask for tokens, those with a mistake included.
    pub fn count(&self) -> usize {
        self.known.len() - self.without_scopes
    }

    /// When the first secret or key of each caller expires that has not expired yet; if the caller can no
    /// longer authenticate, when the last one expired. Callers of which none expires are left out.
    pub fn next_expirations(&self, now: Timestamp) -> impl Iterator<Item = (&str, Timestamp)> {
        self.known.iter().filter_map(move |(_, caller)| {
            let of_secrets = (0..caller.secrets.count()).filter_map(|place| caller.secrets.get(place));
            let ends = of_secrets.map(|secret| secret.expires_at);
            let ends = ends.chain(caller.keys.iter().map(|key| key.expires_at));
            let next = ends.clone().flatten().filter(|expires_at| *expires_at > now).min();
            let is_useless = next.is_none() && caller.identities.is_empty() && ends.clone().all(|end| end.is_some());
            let shown = if is_useless { ends.flatten().max() } else { next };
            shown.map(|expires_at| (caller.name.as_str(), expires_at))
        })
    }

    /// Finds a caller by name, without authentication.
    pub(crate) fn find(&self, name: &str) -> Option<&Rc<Caller>> {
        let hash = in_memory_hash(name);
        let place = self.known.partition_point(|(known, _)| *known < hash).min(self.known.len().checked_sub(1)?);
        let nearest = self.known.get(place..)?;
        // Compares exactly one name, even if no hash matches; more only if two names have the
        // same hash.
        let alike = nearest.iter().take_while(|(known, _)| *known == hash).count().max(1);
        nearest.iter().take(alike).map(|(_, caller)| caller).find(|caller| is_same(&caller.name, name))
    }

    /// Replaces callers of the same name by ones that may have nothing.
    fn disable_repeated(&mut self, mistakes: &mut Mistakes) {
        for alike in self.known.chunk_by_mut(|(left, _), (right, _)| left == right) {
            // More than one only if a name appears twice, or two names have the same hash.
            for place in 1..alike.len() {
                let (before, (_, caller)) = (&alike[..place], &alike[place]);
                let Some(first) = before.iter().position(|(_, other)| other.name == caller.name) else { continue };
                mistakes.add(&caller.name, "appears twice, expected each caller once");
                for place in [first, place] {
                    let (_, caller) = &mut alike[place];
                    *caller = Rc::new(Caller::disabled(&caller.name));
                    self.longest_names = self.longest_names.max(caller.names_length());
                }
            }
        }
    }

    /// Whether the digest matches one of the secrets, and whether a match has not expired.
    /// Compares every secret, even after a match.
    fn matches_one_of(&self, presented: &Digest, secrets: Option<&Secrets>, now: Timestamp) -> (bool, bool) {
        let (mut is_known, mut opens) = (Choice::from(0), Choice::from(0));
        for place in 0..self.most_secrets {
            let secret = secrets.and_then(|secrets| secrets.get(place)).unwrap_or(&NO_SECRET);
            let matches = secret.digest.ct_eq(presented);
            let is_unexpired = secret.expires_at.is_none_or(|expires_at| now < expires_at);
            is_known |= matches;
            opens |= matches & Choice::from(u8::from(is_unexpired));
        }
        (is_known.into(), opens.into())
    }
}

/// Compares two names in time proportional to the presented one. A shorter known name is repeated,
/// so that each byte costs the same.
fn is_same(known: &str, presented: &str) -> bool {
    let known = known.as_bytes();
    let difference = |place: usize, byte: u8| byte ^ known.get(place % known.len().max(1)).copied().unwrap_or_default();
    let bytes = presented.bytes().enumerate();
    bytes.fold(0, |all, (place, byte)| all | difference(place, byte)) == 0 && known.len() == presented.len()
}

impl Secrets {
    /// Secrets of a caller that has none.
    fn none() -> Self {
        Self { first: NO_SECRET, others: Box::default() }
    }

    fn count(&self) -> usize {
        1 + self.others.len()
    }

    fn get(&self, place: usize) -> Option<&KnownSecret> {
        place.checked_sub(1).map_or(Some(&self.first), |place| self.others.get(place))
    }
}

impl Caller {
    /// A caller whose entry has a mistake: its name is known, and it may have nothing.
    fn disabled(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            application: Cow::Borrowed(application::DEFAULT),
            scopes: Rc::new(ScopePolicy::nothing()),
            min_remaining: None,
            reads_metrics: false,
            secrets: Secrets::none(),
            keys: Box::default(),
            identities: Box::default(),
            is_disabled: true,
        }
    }

    fn names_length(&self) -> usize {
        self.name.len() + self.application.len()
    }

    /// The scopes that a request gets: those that it asks for, or all of the caller's if it
    /// names none.
    ///
    /// # Errors
    /// When the policy does not permit one of them, or the request has to name them.
    pub fn authorize(&self, requested: Option<Scopes>) -> Result<Scopes, ScopeRefusal> {
        match requested {
            None if self.scopes.is_nothing() => Err(ScopeRefusal::OutsidePolicy),
            None => self.scopes.everything().cloned().ok_or(ScopeRefusal::Unnamed),
            Some(requested) if self.scopes.permits(&requested) => Ok(requested),
            Some(_) => Err(ScopeRefusal::OutsidePolicy),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::issuer::Issuers;

    fn digest_of(secret: &str) -> String {
        Sha256::digest(secret.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn parse(text: &str) -> (Callers, Vec<String>) {
        let mut mistakes = Mistakes::of("callers");
        let is_application = |name: &str| ["default", "berlin"].contains(&name);
        let callers = Callers::parse(text, is_application, &Issuers::default(), &mut mistakes);
        (callers, mistakes.into_iter().map(|mistake| mistake.to_string()).collect())
    }

    fn two_callers() -> Callers {
        let (callers, mistakes) = parse(&format!(
            r#"{{"a": {{"secret_sha256": ["{}", "{}"], "scopes": ["x", "y"]}},
                 "b": {{"secret_sha256": ["{}"], "scopes": ["z", "z.*.read"], "application": "berlin"}}}}"#,
            digest_of("old"),
            digest_of("new"),
            digest_of("other").to_uppercase(),
        ));
        assert!(mistakes.is_empty(), "{mistakes:?}");
        callers
    }

    #[test]
    fn caller_authenticates_with_any_of_its_secrets() {
        let callers = two_callers();
        let check = |name: &str, secret: &str, expected: Result<&str, Unauthenticated>| {
            let found = callers.authenticate(name, &PresentedSecret::new(secret), Timestamp::from_unix_ms(0));
            assert_eq!(
                found.as_ref().map(|caller| caller.name.as_str()).map_err(|refused| refused.because),
                expected,
                "{name} {secret}"
            );
            let named = found.err().and_then(|refused| refused.named).map(|caller| caller.name.clone());
            let expected = matches!(expected, Err(Unauthenticated::WrongSecret)).then(|| name.to_owned());
            assert_eq!(named, expected, "{name} {secret}");
        };
        check("a", "old", Ok("a"));
        check("a", "new", Ok("a"));
        check("b", "other", Ok("b"));
        check("a", "other", Err(Unauthenticated::WrongSecret));
        check("a", "", Err(Unauthenticated::WrongSecret));
        check("A", "old", Err(Unauthenticated::UnknownCaller));
        check("", "old", Err(Unauthenticated::UnknownCaller));
    }

    #[test]
    fn scope_outside_the_policy_is_refused() {
        let callers = two_callers();
        let check = |name: &str, requested: Option<&str>, expected: Result<&str, ScopeRefusal>| {
            let caller = callers.find(name).unwrap();
            let granted = caller.authorize(requested.map(|text| Scopes::parse(text).unwrap()));
            let granted = granted.as_ref().map(Scopes::as_str).map_err(|because| *because);
            assert_eq!(granted, expected, "{name} {requested:?}");
        };
        check("a", None, Ok("x y"));
        check("a", Some("y x x"), Ok("x y"));
        check("a", Some("y"), Ok("y"));
        check("a", Some("z"), Err(ScopeRefusal::OutsidePolicy));
        check("a", Some("x y z"), Err(ScopeRefusal::OutsidePolicy));
        check("a", Some("X"), Err(ScopeRefusal::OutsidePolicy));
        check("b", Some("z.members.read"), Ok("z.members.read"));
        check("b", Some("z.members.write"), Err(ScopeRefusal::OutsidePolicy));
        check("b", None, Err(ScopeRefusal::Unnamed));
    }

    #[test]
    fn callers_with_equal_lists_share_their_scopes_and_others_have_their_own() {
        let lists = [r#"["x", "y"]"#, r#"["x", "\u0079"]"#, r#"["y", "x"]"#, r#"["x"]"#, r#"["x", "y", 1]"#, "{}"];
        let entry =
            |(number, list)| format!(r#""c{number}": {{"secret_sha256": ["{}"], "scopes": {list}}}"#, digest_of("s"));
        let entries: Vec<_> = lists.iter().enumerate().map(entry).collect();
        let (callers, mistakes) = parse(&format!("{{{}}}", entries.join(",")));
        assert_eq!(mistakes.len(), 2, "{mistakes:?}");
        let scopes = |number: usize| &callers.find(&format!("c{number}")).unwrap().scopes;
        let everything = |number: usize| scopes(number).everything().map(Scopes::as_str);
        assert_eq!([0, 1, 2, 3, 4, 5].map(everything), [Some("x y"), Some("x y"), Some("x y"), Some("x"), None, None]);
        assert!(Rc::ptr_eq(scopes(0), scopes(1)));
    }

    #[test]
    fn name_that_appears_three_times_is_two_mistakes_and_disables_all() {
        let entry = format!(r#"{{"secret_sha256": ["{}"], "scopes": ["x"]}}"#, digest_of("s"));
        let (callers, mistakes) = parse(&format!(r#"{{"a": {entry}, "b": {entry}, "a": {entry}, "a": {entry}}}"#));
        assert_eq!(mistakes, ["callers: a: appears twice, expected each caller once"; 2]);
        let now = Timestamp::from_unix_ms(0);
        let found =
            |name| callers.authenticate(name, &PresentedSecret::new("s"), now).map_err(|refused| refused.because);
        assert_eq!(found("a").map(drop), Err(Unauthenticated::DisabledCaller));
        assert!(found("b").is_ok());
        assert!(callers.known.iter().all(|(_, caller)| caller.is_disabled == (caller.name == "a")));
    }

    #[test]
    fn secret_authenticates_until_it_expires() {
        let (callers, mistakes) = parse(&format!(
            r#"{{"a": {{"scopes": ["x"], "secret_sha256": [
                "{}",
                {{"sha256": "{}", "expires": "2027-01-31"}},
                {{"expires": "2027-01-31T12:00:00Z", "sha256": "{}"}}]}}}}"#,
            digest_of("always"),
            digest_of("day"),
            digest_of("noon"),
        ));
        assert!(mistakes.is_empty(), "{mistakes:?}");
        let check = |secret: &str, now: &str, expected: Result<(), Unauthenticated>| {
            let now = Timestamp::parse_rfc3339(now).unwrap();
            let found = callers.authenticate("a", &PresentedSecret::new(secret), now).map(drop);
            assert_eq!(found.map_err(|refused| refused.because), expected, "{secret} at {now:?}");
        };
        check("always", "2999-01-01", Ok(()));
        check("day", "2027-01-30T23:59:59.999Z", Ok(()));
        check("day", "2027-01-31", Err(Unauthenticated::ExpiredSecret));
        check("noon", "2027-01-31T11:59:59Z", Ok(()));
        check("noon", "2027-01-31T12:00:00Z", Err(Unauthenticated::ExpiredSecret));
        check("other", "2027-01-31T12:00:00Z", Err(Unauthenticated::WrongSecret));
    }
}
