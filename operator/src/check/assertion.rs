//! Checks one assertion with the component's own code, and says which rule or which claim fails.

mod claims;
mod difference;

use std::collections::BTreeMap;

use officernd_token_broker::assertion::{Assertion, Reason};
use officernd_token_broker::config::caller::Unauthenticated;
use officernd_token_broker::config::issuer::Issuer;
use officernd_token_broker::config::{Config, escape};
use officernd_token_broker::key_set::KeySet;
use officernd_token_broker::secret::PresentedSecret;
use officernd_token_broker::signature::verify;
use officernd_token_broker::time::Timestamp;

use super::GivenVariables;
use claims::Presented;
use difference::Difference;

/// The keys of issuers that have been fetched, by their address; or why they have not.
pub(crate) type FetchedKeys = BTreeMap<String, Result<KeySet, String>>;

/// What the broker would say to an assertion, for the operator. It contains claims, but neither the
/// assertion nor its signature.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The caller that the assertion authenticates, or what is wrong, each as one line.
    pub(crate) outcome: Result<String, String>,
    /// Why the signature was not checked, if it was not.
    pub(crate) unchecked: Option<String>,
}

/// Why an assertion is refused.
struct Refusal {
    /// The value of the audit field `reason`, or the error word if the log has none.
    word: &'static str,
    detail: String,
}

/// An assertion that is being checked, with everything that decides.
struct Check<'a> {
    config: &'a Config,
    presented: &'a Presented,
    difference: Difference<'a>,
    client_id: Option<&'a str>,
    now: Timestamp,
    keys: Option<&'a FetchedKeys>,
    unchecked: Option<String>,
}

impl GivenVariables {
    /// Checks an assertion as the broker would at the time `now`. `client_id` is that of the request.
    /// Without `keys`, the signature of a token is not checked if its issuer's keys have to be fetched.
    /// `None` if the variables have a mistake that stops every caller.
    pub(crate) fn check_assertion(
        &self,
        text: &str,
        client_id: Option<&str>,
        now: Timestamp,
        keys: Option<&FetchedKeys>,
    ) -> Option<Verdict> {
        let config = Config::parse(|name| self.lookup(name)).ok()?;
        // A file ends with a line break.
        let text = PresentedSecret::new(text.trim());
        let presented = Presented::read(&text);
        let callers = self.object("callers").unwrap_or_default();
        let difference =
            Difference { presented: &presented, callers: &callers, public_url: config.public_url.as_ref(), now };
        let mut check =
            Check { config: &config, presented: &presented, difference, client_id, now, keys, unchecked: None };
        let outcome = check.evaluate(&text).map_err(|Refusal { word, detail }| format!("assertion: {word}: {detail}"));
        Some(Verdict { outcome, unchecked: check.unchecked })
    }
}

impl Check<'_> {
    /// Takes the steps of `src/endpoint/authentication.rs`, each with the function that it uses.
    fn evaluate(&mut self, text: &PresentedSecret) -> Result<String, Refusal> {
        let (config, presented) = (self.config, self.presented);
        let assertion = Assertion::parse(text).map_err(|reason| {
            let detail = match reason {
                Reason::Type => presented.type_problem(),
                Reason::Algorithm => self.difference.algorithm(),
                _ => presented.shape_problem(text),
            };
            refusal(reason, detail)
        })?;
        if let Some(issuer) = config.issuers.of_identifier(assertion.issuer()) {
            return self.by_identity(issuer, &assertion);
        }
        if assertion.issuer() != assertion.subject() {
            let detail = self.difference.unknown_issuer(&config.issuers, assertion.issuer(), assertion.subject());
            return Err(refusal(Unauthenticated::UnknownIssuer, detail));
        }
        let caller = escape(assertion.subject());
        if self.client_id.is_some_and(|id| id != assertion.subject()) {
            let detail = format!("--caller is not \"{caller}\", the sub of the assertion, expected the same");
            return Err(Refusal { word: "invalid_request", detail });
        }
        match config.callers.authenticate_by_assertion(&assertion, config.public_url.as_ref(), self.now) {
            Ok(_) => Ok(format!("the assertion authenticates the caller \"{caller}\" with its own key")),
            Err(refused) => Err(refusal(refused.because, self.difference.own_key(refused.because, &assertion))),
        }
    }

    fn by_identity(&mut self, issuer: &std::rc::Rc<Issuer>, token: &Assertion) -> Result<String, Refusal> {
        let public_url = self.config.public_url.as_ref();
        issuer.check(token, public_url, self.now).map_err(|reason| {
            let detail = match reason {
                Reason::Algorithm => format!(
                    "alg is {}, which algorithms of the issuer \"{}\" does not list",
                    token.algorithm().name(),
                    escape(&issuer.name)
                ),
                _ => self.difference.audience_or_time(reason, issuer.audience(public_url), issuer.max_life()),
            };
            refusal(reason, detail)
        })?;
        self.check_signature(issuer, token)?;
        let claims = token.text_claims(|claim| self.config.callers.pin(claim));
        match self.config.callers.identify(issuer, &claims, self.client_id) {
            Ok(caller) => {
                let verb = if self.unchecked.is_some() { "would authenticate" } else { "authenticates" };
                let (caller, issuer) = (escape(&caller.name), escape(&issuer.name));
                Ok(format!("the assertion {verb} the caller \"{caller}\" as an identity at the issuer \"{issuer}\""))
            }
            Err(refused) => {
                let claim = refused.claim.as_deref();
                let detail = self.difference.identity(refused.because, &issuer.name, self.client_id, claim);
                Err(refusal(refused.because, detail))
            }
        }
    }

    fn check_signature(&mut self, issuer: &Issuer, token: &Assertion) -> Result<(), Refusal> {
        let name = escape(&issuer.name);
        let set = match (issuer.jwks_uri(), self.keys) {
            (None, _) => issuer.inline_keys(),
            (Some(_), _) if token.kid().is_none() => {
                let detail = format!("the header has no kid, expected one, because the keys of \"{name}\" are fetched");
                return Err(refusal(Reason::UnknownKey, detail));
            }
            (Some(_), None) => {
                self.unchecked = Some(format!(
                    "the signature was not checked, because the keys of the issuer \"{name}\" are at its jwks_uri: \
                     --fetch gets them"
                ));
                return Ok(());
            }
            (Some(uri), Some(fetched)) => match fetched.get(&uri.to_string()) {
                Some(Ok(keys)) => Some(keys),
                _ => {
                    let detail = format!("the keys of the issuer \"{name}\" could not be fetched");
                    return Err(Refusal { word: "keys_unavailable", detail });
                }
            },
        };
        let key = set.and_then(|keys| keys.find(token.kid(), token.algorithm()));
        let Some(key) = key else {
            let known = set.into_iter().flat_map(KeySet::iter).map(|key| (key.kid(), key.algorithm().name()));
            let detail = self.difference.unknown_key(token, known, &format!("the issuer \"{name}\""));
            return Err(refusal(Reason::UnknownKey, detail));
        };
        if verify(Some(key), token.algorithm(), token.signed(), token.signature()) {
            return Ok(());
        }
        let detail =
            format!("the key of the issuer \"{name}\" with this kid has not signed it, or it was changed since");
        Err(refusal(Reason::WrongSignature, detail))
    }
}

fn refusal(because: impl Into<Unauthenticated>, detail: String) -> Refusal {
    Refusal { word: because.into().reason(), detail }
}

#[cfg(test)]
mod tests;
