//! Revokes a token on behalf of a caller (RFC 7009).

use std::rc::Rc;
use std::time::Duration;

use super::fetch::{RETRY_SOON, WAIT_LIMIT};
use super::instance::Broker;
use super::ports::{Followup, Ports};
use super::store::StoreFailed;
use super::wanted::{RequestId, Wanted};
use crate::config::Config;
use crate::config::application::{Application, Credential};
use crate::config::caller::Caller;
use crate::error::{Cause, Error};
use crate::gate::{Need, Refusal};
use crate::scope::Scopes;
use crate::time::{Timestamp, is_recent};
use crate::token::{Index, Key, Token};

/// Shortest time between two revocations of one key: a job that revokes at every 401 must not
/// use up the call quota.
const REVOCATION_INTERVAL: Duration = Duration::from_secs(60);

/// A token that the broker could return, and what it is for.
struct Found {
    wanted: Wanted,
    record: Token,
    /// Only the memory of this instance has it.
    is_unsaved: bool,
}

impl<P: Ports> Broker<P> {
    /// Makes the broker forget a token that does not work. Every instance stops serving it within
    /// 2 s, and the next request then fetches a new one. The request `request_id` arrived at
    /// `arrived`.
    ///
    /// Only a token that the caller could have got is revoked: one of its application, for
    /// scopes that its policy permits. Any other token is ignored, as RFC 7009 requires for an
    /// unknown one. The function must be called only after authentication.
    ///
    /// Returns the follow-up that looks whether the store has the revocation, and writes it otherwise.
    ///
    /// # Errors
    /// When a token of the same key was revoked less than a minute ago, no call could bring
    /// another token now, or the store does not accept the revocation. Then the token still counts
    /// as valid, and the caller can revoke it again (RFC 7009 section 2.2.1).
    pub async fn revoke(
        &self,
        config: &Rc<Config>,
        caller: &Rc<Caller>,
        token: &str,
        request_id: RequestId,
        arrived: Timestamp,
    ) -> Result<Option<Followup>, Error> {
        let application = config.application(caller).ok_or(Error::DisabledApplication)?;
        let revocation = async {
            let candidate = |credential: &Rc<Credential>, scopes| {
                let (config, caller, credential) = (config.clone(), caller.clone(), credential.clone());
                Wanted::new(config, caller, application.clone(), credential, scopes, request_id)
            };
            let found = match self.find_unsaved(application, token, candidate) {
                Some(found) => Some(found),
                None => self.find_stored(config, application, caller, token, candidate).await?,
            };
            match found.filter(|found| caller.scopes.permits(&found.record.requested)) {
                Some(found) => self.revoke_found(found).await,
                None => Ok(Ok(None)),
            }
        };
        let left = WAIT_LIMIT.saturating_sub(self.ports.now().since(arrived));
        let outcome = self.within(left, revocation).await.unwrap_or(Err(StoreFailed));
        outcome.unwrap_or_else(|StoreFailed| Err(Error::unavailable(Cause::StoreUnavailable, RETRY_SOON)))
    }

    fn find_unsaved(
        &self,
        application: &Application,
        token: &str,
        candidate: impl Fn(&Rc<Credential>, Scopes) -> Wanted,
    ) -> Option<Found> {
        application.credentials().find_map(|credential| {
            let scopes = self.instance.scopes_of(token, credential)?;
            let wanted = candidate(credential, scopes);
            let record = self.instance.unsaved_token(&wanted)?;
            Some(Found { wanted, record: Token::clone(&record), is_unsaved: true })
        })
    }

    /// Finds a token in the store: by the index, or, if that lacks it, by the scopes for which
    /// this instance or the caller usually gets tokens.
    async fn find_stored(
        &self,
        config: &Config,
        application: &Application,
        caller: &Caller,
        token: &str,
        candidate: impl Fn(&Rc<Credential>, Scopes) -> Wanted,
    ) -> Result<Option<Found>, StoreFailed> {
        let index = self.get(&Index::key(&config.identity)).await?;
        let keys = match index.and_then(|bytes| Index::decode(bytes).find(token)) {
            Some(key) => vec![key],
            None => application
                .credentials()
                .flat_map(|credential| {
                    let usual = [self.instance.scopes_of(token, credential), caller.authorize(None).ok()];
                    usual.into_iter().flatten().map(|scopes| Key::of(application, credential, &scopes))
                })
                .collect(),
        };
        // The ledger before the record, so that little time passes until the record is written.
        self.load_ledger(config).await?;
        for key in keys {
            let Some(bytes) = self.get(&key.of_token()).await? else { continue };
            let open = |credential: &Rc<Credential>| {
                let record = Token::open(&bytes, key, &credential.seal)?;
                let wanted = candidate(credential, record.requested.clone());
                let is_sought = wanted.key() == key && record.access_token.expose() == token;
                is_sought.then_some(Found { wanted, record, is_unsaved: false })
            };
            if let Some(found) = application.credentials().find_map(open) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Replaces a token by its revocation. The outer error is the store's.
    async fn revoke_found(&self, found: Found) -> Result<Result<Option<Followup>, Error>, StoreFailed> {
        let Found { wanted, record, is_unsaved } = found;
        let now = self.ports.now();
        if let Some(revoked_at) = record.revoked_at
            && is_recent(revoked_at, now, REVOCATION_INTERVAL)
        {
            let wait = (revoked_at + REVOCATION_INTERVAL).since(now);
            return Ok(Err(Error::unavailable(Cause::RevokedRecently, wait)));
        }
        let in_use = self.instance.ledger.borrow().credential_in_use(&wanted.application, now).clone();
        let next = wanted.with_credential(&in_use);
        if let Err(Error::Unavailable { retry_after, .. }) = self.admit(&next, Need::Now, now) {
            return Ok(Err(Error::unavailable(Cause::RevocationPostponed, retry_after)));
        }
        // OfficeRnD may have refused the scopes since it granted this token.
        let stored = if is_unsaved { None } else { self.get(&next.key().of_refusal()).await? };
        let refusals = [stored.and_then(|bytes| Refusal::decode(&bytes)), self.instance.refusal(next.key())];
        if let Some(remaining) = refusals.into_iter().flatten().find_map(|refusal| refusal.remaining(now)) {
            return Ok(Err(Error::unavailable(Cause::RevocationPostponed, remaining)));
        }
        let token = record.access_token.clone();
        let revoked = Rc::new(record.revoked(now));
        if is_unsaved {
            // A write of the token may be in progress, or may have landed without an answer.
            self.instance.remember(&wanted, now, Some(revoked.clone()), true);
            let _ = self.save(&wanted, &revoked).await;
            return Ok(Ok(Some(self.check_revocation(vec![wanted]))));
        }
        // During a rotation, both credentials may have brought the same token. The one that was found
        // is erased last, so that the caller can try again if the store fails.
        let mut written = Vec::new();
        if let Some(other) = wanted.with_other_credential()
            && self.load(&other).await.token.is_some_and(|known| known.access_token.expose() == token.expose())
        {
            self.save(&other, &revoked).await?;
            written.push(other);
        }
        self.save(&wanted, &revoked).await?;
        written.push(wanted);
        Ok(Ok(Some(self.check_revocation(written))))
    }
}
