//! Authenticates the caller, which is the first step of both client endpoints (RFC 6749 section
//! 2.3, RFC 7009 section 2.1).

use std::rc::Rc;

use http::Request;

use super::request::{Body, ClientRequest, Credentials, IdAndSecret};
use crate::assertion::{Assertion, Reason};
use crate::audit::{Audit, AuthenticationMethod, PresentedIdentity};
use crate::config::Config;
use crate::config::caller::{Caller, Refused, Unauthenticated};
use crate::config::issuer::Issuer;
use crate::error::Error;
use crate::secret::PresentedSecret;
use crate::signature::verify;
use crate::time::Timestamp;

/// Longest part of a token's `sub` that the log has, in characters. OpenID Connect Core section 2
/// permits no longer one.
const SUBJECT_CHARACTERS: usize = 255;

/// Parses a request, and authenticates the caller that it comes from.
pub(super) fn authenticate<'a>(
    config: &Config,
    request: &'a Request<Body>,
    audit: &mut Audit,
) -> Result<(ClientRequest<'a>, Rc<Caller>), Error> {
    let client_request = ClientRequest::parse(request)?;
    let credentials = client_request.credentials.as_ref().map_err(|because| Error::InvalidClient(*because))?;
    let authenticated = match credentials {
        Credentials::Secret(IdAndSecret { id, secret }) => {
            audit.method = Some(AuthenticationMethod::Secret);
            config.callers.authenticate(id, secret, audit.time)
        }
        Credentials::Assertion { client_id, assertion } => {
            by_assertion(config, client_id.as_deref(), assertion, audit)?
        }
    };
    match authenticated {
        Ok(caller) => {
            audit.caller = Some(caller.clone());
            Ok((client_request, caller))
        }
        Err(refused) => {
            // If the policy has this name, the operator must learn which job fails.
            audit.caller = refused.named;
            audit.padding = refused.padding;
            Err(Error::InvalidClient(refused.because))
        }
    }
}

/// Authenticates by an assertion: the token of an outside issuer, or one that the caller has signed
/// with its own key. The claim `iss` tells which. The outer error is a request that contradicts
/// itself, or an assertion that cannot be read or is not valid.
fn by_assertion(
    config: &Config,
    client_id: Option<&str>,
    assertion: &PresentedSecret,
    audit: &mut Audit,
) -> Result<Result<Rc<Caller>, Refused>, Error> {
    audit.method = Some(AuthenticationMethod::Key);
    let refused = |because: Unauthenticated| Error::InvalidClient(because);
    let assertion = Assertion::parse(assertion).map_err(|reason| refused(reason.into()))?;
    if let Some(issuer) = config.issuers.of_identifier(assertion.issuer()) {
        audit.method = Some(AuthenticationMethod::Identity);
        let identity =
            audit.identity.insert(Box::new(PresentedIdentity { issuer: issuer.clone(), subject: None, claim: None }));
        verify_identity(config, issuer, &assertion, audit.time).map_err(|reason| refused(reason.into()))?;
        identity.subject = Some(assertion.subject().chars().take(SUBJECT_CHARACTERS).collect());
        let outcome = config.callers.identify(issuer, &assertion.text_claims(), client_id);
        identity.claim = outcome.as_ref().err().and_then(|refused| refused.claim.clone());
        return Ok(outcome);
    }
    if assertion.issuer() != assertion.subject() {
        return Err(refused(Unauthenticated::UnknownIssuer));
    }
    // RFC 7521 section 4.2: it must identify the same client.
    if client_id.is_some_and(|id| id != assertion.subject()) {
        return Err(Error::InvalidRequest("client_id differs from the subject of the assertion"));
    }
    Ok(config.callers.authenticate_by_assertion(&assertion, config.public_url.as_ref(), audit.time))
}

/// Checks that a key of `issuer` has signed a token, and that the token is for the broker and for
/// now. It looks at no caller: a stranger without such a token learns nothing about the policy.
fn verify_identity(config: &Config, issuer: &Issuer, token: &Assertion, now: Timestamp) -> Result<(), Reason> {
    issuer.check(token, config.public_url.as_ref(), now)?;
    let key = issuer.keys.find(token.kid(), token.algorithm()).ok_or(Reason::UnknownKey)?;
    let is_signed = verify(Some(key), token.algorithm(), token.signed(), token.signature());
    if is_signed { Ok(()) } else { Err(Reason::WrongSignature) }
}
