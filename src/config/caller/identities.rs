//! Identities of callers: how the policy lists them, and which caller a verified token of an
//! issuer is.

use std::rc::Rc;

use super::{Caller, Callers, Refused, Unauthenticated};
use crate::assertion::TextClaims;
use crate::config::grammar::is_name;
use crate::config::issuer::{Issuer, Issuers, NOT_PINNED};
use crate::config::mistake::Mistakes;
use crate::json::Json;

/// Most identities of one caller, claims of an identity, and values of a claim.
const MOST_IDENTITIES: usize = 32;
const MOST_CLAIMS: usize = 16;
const MOST_VALUES: usize = 16;

/// Events for which GitHub runs a workflow of the repository on behalf of somebody who may not
/// change it. Forgejo and Gitea have the first too.
const EVENTS_FOR_STRANGERS: [&str; 2] = ["pull_request_target", "workflow_run"];
const EVENT_NAME: &str = "event_name";

/// Tokens of an issuer that authenticate a caller: those whose claims have these values. Values are
/// compared as whole texts: patterns are how others were attacked (octo-sts/app#1643).
#[derive(Clone, Debug)]
pub(super) struct Identity {
    issuer: Rc<Issuer>,
    claims: Box<[PinnedClaim]>,
}

/// A claim, and the values of it that the policy permits.
#[derive(Clone, Debug)]
struct PinnedClaim {
    name: Box<str>,
    values: Box<[Box<str>]>,
}

/// Why a token does not have an identity.
struct Misfit<'p> {
    /// Claims that do match.
    matching: usize,
    /// The first claim that does not; `None` if the event is the reason.
    claim: Option<&'p str>,
}

impl Identity {
    /// Compares the claims of a token of this issuer.
    fn compare(&self, claims: &TextClaims) -> Result<(), Misfit<'_>> {
        let matches = |PinnedClaim { name, values }: &PinnedClaim| {
            claims.get(name).is_some_and(|presented| values.iter().any(|value| **value == *presented))
        };
        if let Some(other) = self.claims.iter().find(|claim| !matches(claim)) {
            let matching = self.claims.iter().filter(|claim| matches(claim)).count();
            return Err(Misfit { matching, claim: Some(&other.name) });
        }
        let is_for_strangers = claims.get(EVENT_NAME).is_some_and(|event| EVENTS_FOR_STRANGERS.contains(&event));
        if is_for_strangers && !self.claims.iter().any(|claim| *claim.name == *EVENT_NAME) {
            return Err(Misfit { matching: self.claims.len(), claim: None });
        }
        Ok(())
    }
}

impl Callers {
    /// Whether a claim of a token decides which caller it authenticates.
    pub fn pin(&self, claim: &str) -> bool {
        claim == EVENT_NAME || self.pinned_claims.iter().any(|pinned| **pinned == *claim)
    }

    /// The caller that a token of `issuer` authenticates, once its signature is verified. A
    /// `client_id` names the caller, whose identities are then the only ones that count; without
    /// one, the token must have an identity of exactly one caller.
    ///
    /// # Errors
    /// When the token has no identity of a caller, or of several, or was made for an event that
    /// strangers cause. Only the log may tell which, and which claim differs from the identity that
    /// is the closest.
    pub fn identify(
        &self,
        issuer: &Rc<Issuer>,
        claims: &TextClaims,
        client_id: Option<&str>,
    ) -> Result<Rc<Caller>, Refused> {
        if let Some(name) = client_id {
            let caller = self.find(name);
            return match caller {
                None => Err(self.refused(Unauthenticated::UnknownCaller, None)),
                Some(caller) if caller.is_disabled => Err(self.refused(Unauthenticated::DisabledCaller, Some(caller))),
                Some(caller) => match caller.compare(issuer, claims) {
                    Ok(()) => Ok(caller.clone()),
                    Err(misfit) => Err(self.misfit(misfit, Some(caller))),
                },
            };
        }
        let mut found: Option<&Rc<Caller>> = None;
        let mut closest = None;
        for (_, caller) in &self.known {
            match caller.compare(issuer, claims) {
                Ok(()) if found.is_some() => return Err(self.refused(Unauthenticated::AmbiguousIdentity, None)),
                Ok(()) => found = Some(caller),
                Err(misfit) => closest = closer(closest, misfit),
            }
        }
        found.cloned().ok_or_else(|| self.misfit(closest, None))
    }

    fn misfit(&self, misfit: Option<Misfit<'_>>, caller: Option<&Rc<Caller>>) -> Refused {
        let claim = misfit.as_ref().and_then(|misfit| misfit.claim);
        let because = match misfit {
            Some(Misfit { claim: None, .. }) => Unauthenticated::EventRefused,
            _ => Unauthenticated::WrongIdentity,
        };
        Refused { claim: claim.map(Into::into), ..self.refused(because, caller) }
    }
}

impl Caller {
    /// Whether one of its identities is for tokens whose audience is the broker's `public_url`.
    pub(super) fn has_identity_for_public_url(&self) -> bool {
        self.identities.iter().any(|identity| !identity.issuer.has_audience())
    }

    /// Adds the claims of its identities to those of other callers.
    pub(super) fn note_pinned_claims(&self, pinned: &mut Vec<Box<str>>) {
        for claim in self.identities.iter().flat_map(|identity| &identity.claims) {
            if !pinned.contains(&claim.name) {
                pinned.push(claim.name.clone());
            }
        }
    }

    /// Whether a token of `issuer` has one of the caller's identities; otherwise how the closest one
    /// differs, if the caller has any of this issuer.
    fn compare(&self, issuer: &Rc<Issuer>, claims: &TextClaims) -> Result<(), Option<Misfit<'_>>> {
        let mut closest = None;
        for identity in self.identities.iter().filter(|identity| Rc::ptr_eq(&identity.issuer, issuer)) {
            match identity.compare(claims) {
                Ok(()) => return Ok(()),
                Err(misfit) => closest = closer(closest, Some(misfit)),
            }
        }
        Err(closest)
    }
}

/// The misfit of the identity with more matching claims.
fn closer<'p>(one: Option<Misfit<'p>>, other: Option<Misfit<'p>>) -> Option<Misfit<'p>> {
    let matching = |misfit: &Option<Misfit<'_>>| misfit.as_ref().map(|misfit| misfit.matching);
    if matching(&other) > matching(&one) { other } else { one }
}

/// Parses the field `identities` of a caller, and adds every mistake. Leaves out the identities of
/// an issuer that has a mistake, which the issuer's own variable reports.
pub(super) fn parse_identities(
    place: impl Fn() -> String,
    value: Json<'_, '_>,
    issuers: &Issuers,
    mistakes: &mut Mistakes,
) -> Option<Box<[Identity]>> {
    let mistakes_before = mistakes.len();
    let entries = value.values().into_iter().flatten();
    if !(1..=MOST_IDENTITIES).contains(&entries.clone().count()) {
        mistakes.add(&place(), "is not valid, expected a list of 1 to 32 objects with issuer and claims");
        return None;
    }
    let mut identities = Vec::new();
    for (index, entry) in entries.enumerate() {
        let place = |field: &str| {
            let of_field = if field.is_empty() { "" } else { ", " };
            format!("{}: identity {}{of_field}{field}", place(), index + 1)
        };
        identities.extend(parse_identity(place, entry, issuers, mistakes));
    }
    (mistakes.len() == mistakes_before).then(|| identities.into_boxed_slice())
}

/// Returns `None` if there is a mistake in the identity or in its issuer.
fn parse_identity(
    place: impl Fn(&str) -> String,
    entry: Json<'_, '_>,
    issuers: &Issuers,
    mistakes: &mut Mistakes,
) -> Option<Identity> {
    let (mut issuer, mut claims) = (None, None);
    for (field, value) in entry.fields().into_iter().flatten() {
        let is_repeated = match field {
            "issuer" => issuer.replace(value).is_some(),
            "claims" => claims.replace(value).is_some(),
            _ => {
                mistakes.add(&place(field), "is unknown, expected issuer and claims");
                false
            }
        };
        if is_repeated {
            mistakes.add(&place(field), "appears twice, expected each field once");
        }
    }
    let issuer = issuer.and_then(Json::text).and_then(|name| issuers.of_name(name));
    if issuer.is_none() {
        mistakes.add(&place("issuer"), "is missing or unknown, expected a name in the variable issuers");
    }
    let claims = claims.and_then(parse_claims);
    if claims.is_none() {
        mistakes.add(
            &place("claims"),
            "is not valid, expected an object of 1 to 16 claims, each a text or a list of 1 to 16 texts, none of them \
             iss, aud, exp, nbf, iat or jti",
        );
    }
    let (issuer, claims) = (issuer.flatten()?, claims?);
    if !issuer.is_pinned_by(claims.iter().map(|claim| &*claim.name)) {
        mistakes.add(
            &place("claims"),
            "has no id that is given only once, expected at least one of the claims in the issuer's pin; \
             docs/configuration.md lists those of known issuers",
        );
    }
    Some(Identity { issuer: Rc::clone(issuer), claims })
}

fn parse_claims(claims: Json<'_, '_>) -> Option<Box<[PinnedClaim]>> {
    let mut parsed: Vec<PinnedClaim> = Vec::new();
    for (name, value) in claims.fields()? {
        let values: Option<Box<[Box<str>]>> = match value.text() {
            Some(text) => Some([Box::from(&**text)].into()),
            None => value.values()?.map(|value| value.text().map(|text| Box::from(&**text))).collect(),
        };
        let values = values.filter(|values| (1..=MOST_VALUES).contains(&values.len()))?;
        if !is_name(name) || NOT_PINNED.contains(&name) || parsed.iter().any(|known| *known.name == *name) {
            return None;
        }
        parsed.push(PinnedClaim { name: name.into(), values });
    }
    (1..=MOST_CLAIMS).contains(&parsed.len()).then(|| parsed.into_boxed_slice())
}

#[cfg(test)]
mod tests;
