//! Authenticates the caller, which is the first step of both client endpoints (RFC 6749 section
//! 2.3, RFC 7009 section 2.1).

use std::rc::Rc;

use super::request::{Credentials, IdAndSecret};
use crate::assertion::{Assertion, Reason};
use crate::audit::{Audit, AuthenticationMethod, PresentedIdentity};
use crate::broker::{Broker, Followup, FoundKey, Ports};
use crate::config::Config;
use crate::config::caller::{Caller, Refused, Unauthenticated};
use crate::config::issuer::Issuer;
use crate::error::Error;
use crate::secret::PresentedSecret;
use crate::signature::verify;

/// Longest part of a token's `sub` that the log has, in characters. OpenID Connect Core section 2
/// permits no longer one.
const SUBJECT_CHARACTERS: usize = 255;

/// A caller that has shown who it is, and work to do after the answer.
pub(super) struct Authenticated {
    pub(super) caller: Rc<Caller>,
    pub(super) followup: Option<Followup>,
}

/// Authenticates the caller that a request comes from.
pub(super) async fn authenticate<P: Ports>(
    broker: &Broker<P>,
    config: &Rc<Config>,
    credentials: &Result<Credentials, Unauthenticated>,
    audit: &mut Audit,
) -> Result<Authenticated, Error> {
    match credentials {
        Ok(Credentials::Assertion { client_id, assertion }) => {
            by_assertion(broker, config, client_id.as_deref(), assertion, audit).await
        }
        _ => Ok(Authenticated { caller: authenticate_by_secret(config, credentials, audit)?, followup: None }),
    }
}

/// Authenticates the caller by its id and its secret, which waits for nothing.
pub(super) fn authenticate_by_secret(
    config: &Config,
    credentials: &Result<Credentials, Unauthenticated>,
    audit: &mut Audit,
) -> Result<Rc<Caller>, Error> {
    match credentials {
        Ok(Credentials::Secret(IdAndSecret { id, secret })) => {
            audit.method = Some(AuthenticationMethod::Secret);
            note(config.callers.authenticate(id, secret, audit.time), audit)
        }
        Ok(Credentials::Assertion { .. }) => Err(refused(Unauthenticated::NoCredentials)),
        Err(because) => Err(refused(*because)),
    }
}

/// Notes in the audit line which caller it is or, if the policy has the presented name, which job
/// fails.
fn note(outcome: Result<Rc<Caller>, Refused>, audit: &mut Audit) -> Result<Rc<Caller>, Error> {
    match outcome {
        Ok(caller) => {
            audit.caller = Some(caller.clone());
            Ok(caller)
        }
        Err(refused) => {
            audit.caller = refused.named;
            audit.padding = refused.padding;
            Err(Error::InvalidClient(refused.because))
        }
    }
}

/// Authenticates by an assertion: the token of an outside issuer, or one that the caller has signed
/// with its own key. The claim `iss` tells which.
async fn by_assertion<P: Ports>(
    broker: &Broker<P>,
    config: &Rc<Config>,
    client_id: Option<&str>,
    assertion: &PresentedSecret,
    audit: &mut Audit,
) -> Result<Authenticated, Error> {
    audit.method = Some(AuthenticationMethod::Key);
    let assertion = Assertion::parse(assertion).map_err(refused)?;
    if let Some(issuer) = config.issuers.of_identifier(assertion.issuer()) {
        return by_identity(broker, config, issuer, client_id, &assertion, audit).await;
    }
    if assertion.issuer() != assertion.subject() {
        return Err(refused(Unauthenticated::UnknownIssuer));
    }
    // RFC 7521 section 4.2: it must identify the same client.
    if client_id.is_some_and(|id| id != assertion.subject()) {
        return Err(Error::InvalidRequest("client_id differs from the subject of the assertion"));
    }
    let outcome = config.callers.authenticate_by_assertion(&assertion, config.public_url.as_ref(), audit.time);
    Ok(Authenticated { caller: note(outcome, audit)?, followup: None })
}

/// Authenticates by the token of an issuer. It looks at no caller before the signature is verified:
/// a stranger without such a token learns nothing about the policy but its issuers.
async fn by_identity<P: Ports>(
    broker: &Broker<P>,
    config: &Rc<Config>,
    issuer: &Rc<Issuer>,
    client_id: Option<&str>,
    token: &Assertion,
    audit: &mut Audit,
) -> Result<Authenticated, Error> {
    audit.method = Some(AuthenticationMethod::Identity);
    let presented = PresentedIdentity { issuer: issuer.clone(), subject: None, claim: None };
    let presented = audit.identity.insert(Box::new(presented));
    issuer.check(token, config.public_url.as_ref(), audit.time).map_err(refused)?;
    let found = broker.issuer_key(config, issuer, token.kid(), token.algorithm(), audit.time).await?;
    let FoundKey { key, followup } = found;
    let key = key.ok_or(refused(Reason::UnknownKey))?;
    if !verify(Some(&key), token.algorithm(), token.signed(), token.signature()) {
        return Err(refused(Reason::WrongSignature));
    }
    presented.subject = Some(token.subject().chars().take(SUBJECT_CHARACTERS).collect());
    let claims = token.text_claims(|claim| config.callers.pin(claim));
    let outcome = config.callers.identify(issuer, &claims, client_id);
    presented.claim = outcome.as_ref().err().and_then(|refused| refused.claim.clone());
    Ok(Authenticated { caller: note(outcome, audit)?, followup })
}

fn refused(because: impl Into<Unauthenticated>) -> Error {
    Error::InvalidClient(because.into())
}
