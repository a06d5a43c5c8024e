//! Revokes a token on behalf of a caller (RFC 7009).

use std::rc::Rc;
use std::time::Duration;

use super::fetch::RETRY_SOON;
use super::instance::Broker;
use super::ports::Ports;
use super::store::StoreFailed;
use super::wanted::Wanted;
use crate::config::Config;
use crate::config::application::Credential;
use crate::config::caller::Caller;
use crate::error::{Cause, Error};
use crate::gate::Need;
use crate::time::is_recent;
use crate::token::{Index, Token};

/// Shortest time between two revocations of one key: a job that revokes at every 401 must not
/// use up the call quota.
const REVOCATION_INTERVAL: Duration = Duration::from_secs(60);

impl<P: Ports> Broker<P> {
    /// Makes the broker forget a token that does not work. Every instance stops serving it within
    /// 2 s, and the next request then fetches a new one.
    ///
    /// Only a token that the caller could have got is revoked: one of its application, for
    /// scopes that its policy permits. Any other token is ignored, as RFC 7009 requires for an
    /// unknown one. The function must be called only after authentication.
    ///
    /// # Errors
    /// When a token of the same key was revoked less than a minute ago, no call could bring
    /// another token now, or the store does not accept the revocation. Then nothing is erased
    /// (RFC 7009 section 2.2.1).
    pub async fn revoke(&self, config: &Rc<Config>, caller: &Caller, token: &str) -> Result<(), Error> {
        let unavailable = |StoreFailed| Error::unavailable(Cause::StoreUnavailable, RETRY_SOON);
        if self.instance.holds_unsaved(token) {
            return Err(unavailable(StoreFailed));
        }
        let index = self.get(&Index::key(&config.identity)).await.map_err(unavailable)?;
        let Some(key) = index.and_then(|bytes| Index::decode(bytes).find(token)) else {
            return Ok(());
        };
        // The ledger before the record, so that little time passes until the record is written.
        self.load_ledger(config).await.map_err(unavailable)?;
        let Some(bytes) = self.get(&key.of_token()).await.map_err(unavailable)? else { return Ok(()) };
        let application = config.application(caller).ok_or(Error::DisabledApplication)?;
        let open = |credential: &Rc<Credential>| {
            let record = Token::open(&bytes, key, &credential.seal)?;
            let scopes = record.requested.clone();
            let wanted = Wanted::new(config.clone(), application.clone(), credential.clone(), scopes);
            (wanted.key() == key && caller.scopes.permits(&record.requested)).then_some((wanted, record))
        };
        let Some((wanted, record)) = application.credentials().find_map(open) else { return Ok(()) };
        if record.access_token.expose() != token {
            return Ok(());
        }
        let now = self.ports.now();
        if let Some(revoked_at) = record.revoked_at
            && is_recent(revoked_at, now, REVOCATION_INTERVAL)
        {
            return Err(Error::unavailable(Cause::RevokedRecently, (revoked_at + REVOCATION_INTERVAL).since(now)));
        }
        let in_use = self.instance.ledger.borrow().credential_in_use(application, now).clone();
        if let Err(Error::Unavailable { retry_after, .. }) =
            self.admit(&wanted.with_credential(&in_use), Need::Now, now)
        {
            return Err(Error::unavailable(Cause::RevocationPostponed, retry_after));
        }
        let revoked = Rc::new(record.revoked(now));
        self.save(&wanted, &revoked).await.map_err(unavailable)?;
        // During a rotation, both credentials may have brought the same token.
        if let Some(other) = wanted.with_other_credential()
            && self.load(&other).await.0.is_some_and(|known| known.access_token.expose() == token)
        {
            self.save(&other, &revoked).await.map_err(unavailable)?;
        }
        Ok(())
    }
}
