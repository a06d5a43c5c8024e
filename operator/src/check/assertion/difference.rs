//! How an assertion differs from what the policy expects, in words for the operator.

use std::time::Duration;

use officernd_token_broker::assertion::{Assertion, ISSUER_CLOCK_SKEW, Reason};
use officernd_token_broker::config::caller::{LONGEST_LIFE, Unauthenticated};
use officernd_token_broker::config::issuer::Issuers;
use officernd_token_broker::config::{Origin, escape};
use officernd_token_broker::time::Timestamp;
use serde_json::{Map, Value};

use super::claims::{Presented, shown};

/// Everything that a message compares. It decides nothing.
pub(super) struct Difference<'a> {
    pub(super) presented: &'a Presented,
    /// The policy as the operator has written it.
    pub(super) callers: &'a Map<String, Value>,
    pub(super) public_url: Option<&'a Origin>,
    pub(super) now: Timestamp,
}

impl Difference<'_> {
    pub(super) fn algorithm(&self) -> String {
        let alg = self.presented.member("alg").map_or("missing".into(), shown);
        format!("alg is {alg}, expected RS256, PS256 or ES256")
    }

    pub(super) fn unknown_issuer(&self, issuers: &Issuers, iss: &str, sub: &str) -> String {
        let bare = |text: &str| text.trim_end_matches('/').to_owned();
        for issuer in issuers.iter() {
            let (name, known) = (escape(&issuer.name), issuer.identifier.as_str());
            let difference = if bare(known) == bare(iss) {
                "only by a slash at the end"
            } else if bare(known).eq_ignore_ascii_case(&bare(iss)) {
                "only by upper and lower case"
            } else {
                continue;
            };
            return format!(
                "iss is \"{}\", which differs {difference} from \"{}\", the issuer \"{name}\": expected the same text",
                escape(iss),
                escape(known)
            );
        }
        if self.callers.contains_key(sub) || self.callers.contains_key(iss) {
            return format!(
                "iss is \"{}\" and sub is \"{}\", expected both to be the caller's name for a key of its own",
                escape(iss),
                escape(sub)
            );
        }
        let known: Vec<_> = issuers.iter().map(|issuer| format!("\"{}\"", escape(&issuer.identifier))).collect();
        let known = if known.is_empty() { "none".into() } else { known.join(", ") };
        format!("iss is \"{}\", which is no issuer of the variable issuers: it has {known}", escape(iss))
    }

    pub(super) fn audience_or_time(&self, reason: Reason, audience: Option<&str>, max_life: Duration) -> String {
        match reason {
            Reason::WrongAudience => self.audience(audience),
            Reason::Expired => format!("exp was {} s ago, {}", self.seconds_since("exp").abs(), permitted()),
            Reason::Early => {
                let claim = ["nbf", "iat"].into_iter().min_by_key(|claim| self.seconds_since(claim)).unwrap_or("nbf");
                let seconds = self.seconds_since(claim).abs();
                format!("{claim} is in {seconds} s, {}: compare the clocks of both machines", permitted())
            }
            _ => format!(
                "exp is in {} s, expected at most {} s, which max_lifetime_seconds of an issuer changes",
                self.seconds_since("exp").abs(),
                max_life.as_secs()
            ),
        }
    }

    fn audience(&self, audience: Option<&str>) -> String {
        let Some(expected) = audience else {
            return "public_url is not set, so no assertion is accepted, expected the broker's address there".into();
        };
        let of_endpoint = |text: &str| text.strip_prefix(expected).is_some_and(|path| path.starts_with("/oauth/"));
        let problem = match self.presented.claim("aud") {
            Some(Value::Array(list)) if list.len() != 1 => ", and it must be the only one",
            Some(Value::String(text)) if of_endpoint(text) => ", which is the address of an endpoint",
            Some(Value::String(text)) if text.strip_suffix('/') == Some(expected) => ", which has a slash at the end",
            _ => "",
        };
        format!("{}{problem}, expected \"{}\"", self.presented.named("aud"), escape(expected))
    }

    /// Seconds from a claim until now; negative if the time is still to come.
    fn seconds_since(&self, claim: &str) -> i64 {
        let now = (self.now.unix_ms() / 1000) as i64;
        self.presented.claim(claim).and_then(Value::as_f64).map_or(0, |seconds| now - seconds as i64)
    }

    /// Why no key of the caller itself authenticates it.
    pub(super) fn own_key(&self, because: Unauthenticated, assertion: &Assertion) -> String {
        let name = format!("the caller \"{}\"", escape(assertion.subject()));
        match because {
            Unauthenticated::UnknownCaller => {
                format!("iss and sub are \"{}\", which is neither a caller nor an issuer", escape(assertion.subject()))
            }
            Unauthenticated::DisabledCaller => format!("{name} has a mistake in its entry"),
            Unauthenticated::Assertion(Reason::Type) => self.presented.type_problem(),
            Unauthenticated::Assertion(Reason::UnknownKey) => {
                let keys = self.callers.get(assertion.subject()).and_then(|entry| entry["keys"].as_array());
                let keys = keys.into_iter().flatten().map(|entry| entry.get("jwk").unwrap_or(entry));
                let known = keys.map(|jwk| (jwk["kid"].as_str(), jwk["alg"].as_str().unwrap_or_default()));
                self.unknown_key(assertion, known, &name)
            }
            Unauthenticated::Assertion(Reason::ExpiredKey) => {
                format!("a key of {name} has signed it, but expires of this key is in the past")
            }
            Unauthenticated::Assertion(Reason::WrongSignature) => {
                format!("no key of {name} has signed it, or it was changed since")
            }
            Unauthenticated::Assertion(reason) => {
                self.audience_or_time(reason, self.public_url.map(Origin::as_str), LONGEST_LIFE)
            }
            _ => format!("{name} is not authenticated"),
        }
    }

    pub(super) fn unknown_key<'k>(
        &self,
        token: &Assertion,
        known: impl Iterator<Item = (Option<&'k str>, &'k str)>,
        owner: &str,
    ) -> String {
        let known: Vec<_> = known
            .map(|(kid, algorithm)| {
                let kid = kid.map_or("no kid".into(), |kid| format!("\"{}\"", escape(kid)));
                if algorithm.is_empty() { kid } else { format!("{kid} for {algorithm}") }
            })
            .collect();
        let known = if known.is_empty() { "none".into() } else { known.join(", ") };
        let kid = token.kid().map_or("missing".into(), |kid| format!("\"{}\"", escape(kid)));
        format!("kid is {kid} and alg is {}, expected one key of {owner}: it has {known}", token.algorithm().name())
    }

    /// Why a token of `issuer` is not the identity of a caller. `claim` is the first that differs
    /// from the identity that is the closest.
    pub(super) fn identity(
        &self,
        because: Unauthenticated,
        issuer: &str,
        client_id: Option<&str>,
        claim: Option<&str>,
    ) -> String {
        let at = format!("the issuer \"{}\"", escape(issuer));
        let caller = client_id.map(|name| format!("the caller \"{}\"", escape(name)));
        match because {
            Unauthenticated::UnknownCaller => format!("{} is not in the policy", caller.unwrap_or_default()),
            Unauthenticated::DisabledCaller => format!("{} has a mistake in its entry", caller.unwrap_or_default()),
            Unauthenticated::AmbiguousIdentity => {
                format!("several callers have this identity at {at}, expected one, or a client_id: --caller names it")
            }
            Unauthenticated::EventRefused => format!(
                "{}, an event that strangers can cause, expected another, or event_name among the claims of the identity",
                self.presented.named("event_name")
            ),
            _ => match claim {
                Some(claim) => self.closest(issuer, client_id, claim),
                None => format!("{} has no identity at {at}", caller.unwrap_or("no caller of the policy".into())),
            },
        }
    }

    /// All claims that differ from the identity with the fewest such claims, `claim` the first.
    fn closest(&self, issuer: &str, client_id: Option<&str>, claim: &str) -> String {
        let mut closest: Option<(String, Vec<String>)> = None;
        for (name, entry) in self.callers.iter().filter(|(name, _)| client_id.is_none_or(|id| id == *name)) {
            let identities = entry["identities"].as_array().into_iter().flatten();
            for (number, identity) in (1..).zip(identities).filter(|(_, identity)| identity["issuer"] == issuer) {
                let differing: Vec<_> =
                    identity["claims"].as_object().into_iter().flatten().filter(|pin| !self.matches(*pin)).collect();
                if differing.first().is_none_or(|(first, _)| *first != claim) {
                    continue;
                }
                let is_closer = closest.as_ref().is_none_or(|(_, least)| differing.len() < least.len());
                if is_closer {
                    let place = format!("callers: {}.identities: identity {number}", escape(name));
                    closest = Some((place, differing.into_iter().map(|pin| self.difference(pin)).collect()));
                }
            }
        }
        match closest {
            Some((place, differing)) => format!("{} ({place} is the closest)", differing.join("; ")),
            None => self.presented.named(claim),
        }
    }

    fn matches(&self, (name, expected): (&String, &Value)) -> bool {
        let presented = self.presented.claim(name).filter(|value| value.is_string());
        presented.is_some_and(|value| value == expected || expected.as_array().is_some_and(|list| list.contains(value)))
    }

    fn difference(&self, (name, expected): (&String, &Value)) -> String {
        let expected = match expected.as_array() {
            Some(list) => list.iter().map(shown).collect::<Vec<_>>().join(" or "),
            None => shown(expected),
        };
        format!("{}, expected {expected}", self.presented.named(&escape(name)))
    }
}

fn permitted() -> String {
    format!("expected at most {} s of difference", ISSUER_CLOCK_SKEW.as_secs())
}
