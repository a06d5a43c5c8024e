//! Makes one call to OfficeRnD, and records in cache and ledger what it brought.

use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join;

use super::call_line::CallLine;
use super::instance::Broker;
use super::ports::{Ports, SendError};
use super::store::StoreFailed;
use super::wanted::Wanted;
use crate::config::application;
use crate::error::{Cause, Error};
use crate::gate::{Lease, Reservation};
use crate::time::Timestamp;
use crate::token::{Index, LEAST_REMAINING, Token};
use crate::upstream::{self, ANSWER_LIMIT, Failure};

impl<P: Ports> Broker<P> {
    /// Sends the token request, reads the answer, and logs the call. Takes at most `limit`.
    pub(super) async fn call(&self, wanted: &Wanted, limit: Duration) -> Result<upstream::Grant, Failure> {
        let Wanted { config, credential, scopes, .. } = wanted;
        let request = upstream::token_request(&config.identity, credential, scopes);
        let line = CallLine::begin(&self.ports, wanted);
        let answer = self.within(limit, self.ports.send(request, ANSWER_LIMIT)).await;
        let now = self.ports.now();
        let status = match &answer {
            Some(Ok(answer)) => Some(answer.status().as_u16()),
            _ => None,
        };
        let grant = match answer {
            Some(Ok(answer)) => {
                upstream::read_answer(answer.status(), answer.headers(), answer.body(), &wanted.scopes, now)
            }
            Some(Err(SendError::TooLong)) => Err(Failure::Unavailable(Cause::AnswerTooLong, None)),
            Some(Err(SendError::Unreachable)) => Err(Failure::Unavailable(Cause::Unreachable, None)),
            Some(Err(SendError::Denied)) => Err(Failure::Unavailable(Cause::OutboundDenied, None)),
            None => Err(Failure::Unavailable(Cause::TimedOut, None)),
        };
        line.end(now, status, grant.as_ref().err().map(|failure| failure.reason()));
        grant
    }

    /// Caches the token that OfficeRnD granted between `started` and `now`.
    ///
    /// # Errors
    /// When its remaining lifetime is too short to return it.
    pub(super) async fn keep_grant(
        &self,
        wanted: &Wanted,
        grant: upstream::Grant,
        started: Timestamp,
        now: Timestamp,
        lease: Option<Lease>,
    ) -> Result<Rc<Token>, Error> {
        let mut token = Token {
            access_token: grant.access_token,
            requested: wanted.scopes.clone(),
            scopes: grant.scopes,
            expires_at: started + grant.expires_in,
            fetched_at: now,
            stalled: false,
            revoked_at: None,
        };
        // Without a lease the store is down, and `finish` writes later.
        let mut index = Err(StoreFailed);
        if lease.is_some() {
            let index_key = Index::key(&wanted.config.identity);
            // Read again, because a caller may have revoked the token during the call.
            let (loaded, beside) = join(self.load(wanted), self.get(&index_key)).await;
            // After a failure one operation tries the store for all, and this one may have been
            // beside it.
            index = if loaded.outcome.is_ok() && beside.is_err() { self.get(&index_key).await } else { beside };
        }
        if let Some(previous) = self.instance.last_token(wanted) {
            if previous.expires_at >= token.expires_at {
                token = Token { fetched_at: now, stalled: true, ..Token::clone(&previous) };
            } else if previous.access_token.expose() == token.access_token.expose() {
                token.stalled = true;
            }
            token.revoked_at = previous.revoked_at;
        }
        let is_usable = token.remaining(now) >= LEAST_REMAINING;
        token.stalled |= !is_usable;
        let token = Rc::new(token);
        // Before the write to the store, so that a request that arrives during the write is
        // served.
        self.instance.remember(wanted, now, Some(token.clone()), true);
        if let (Some(lease), Ok(index)) = (lease, index)
            && self.save_in_index(wanted, &token, index, lease).await
        {
            let _ = self.save(wanted, &token).await;
        }
        if is_usable {
            Ok(token)
        } else {
            Err(Error::unavailable(Cause::TokenExpiring, token.next_fetch(now).since(now)))
        }
    }

    /// Records in the ledger how a reserved call ended. Returns the token, or the error for the
    /// requests that wait for it.
    pub(super) fn settle(
        &self,
        wanted: &Wanted,
        reservation: Reservation,
        kept: &Result<Result<Rc<Token>, Error>, Failure>,
        ended: Timestamp,
    ) -> Result<Rc<Token>, Error> {
        let credential = &wanted.credential.fingerprint;
        let random = self.ports.random();
        self.instance.update_ledger(|ledger| match kept {
            Ok(kept) => {
                ledger.settle_success(reservation, ended, credential);
                kept.clone()
            }
            Err(failure) => Err(ledger.settle_failure(reservation, ended, *failure, credential, random)),
        })
    }

    /// Tells the operator that a call failed.
    pub(super) fn warn_of_failure(&self, wanted: &Wanted, failure: Failure) {
        let application = &wanted.application.name;
        self.ports.warn(&format!("OfficeRnD issued no token for {application}: {}", failure.reason()));
    }

    /// Tells the operator to make the next pair of an application the current one. If both pairs
    /// have one id, only the secrets must be swapped.
    pub(super) fn advise_to_swap(&self, wanted: &Wanted) {
        let (v, place) = match wanted.application.name.as_str() {
            application::DEFAULT => ("officernd_", String::new()),
            name => ("", format!("applications: {name}: ")),
        };
        let refuses = if wanted.credential.client_id == wanted.application.current.client_id {
            format!("{v}client_secret and accepts {v}client_secret_next: swap the two, and remove the old one")
        } else {
            format!(
                "{v}client_id with {v}client_secret and accepts {v}client_id_next with {v}client_secret_next: swap the \
                 two pairs, and remove the old one"
            )
        };
        self.ports.warn(&format!("{place}OfficeRnD refuses {refuses} after an hour"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::store_failures::StoreFailures;
    use super::super::testing::{TestPorts, at, finish, wanted};
    use super::*;
    use crate::secret::AccessToken;

    #[test]
    fn granted_token_is_written_although_a_read_failed_before() {
        let (ports, wanted) = (TestPorts::default(), wanted());
        ports.0.seconds.set(5);
        let broker = ports.broker();
        let failed = StoreFailures { began: Duration::ZERO, last: Duration::ZERO, tried: Duration::ZERO };
        broker.instance.store.reads.set(Some(failed));
        let grant = upstream::Grant {
            access_token: AccessToken::new("t"),
            scopes: wanted.scopes.clone(),
            expires_in: Duration::from_secs(3600),
        };
        let lease = Lease { holder: 1, until_ms: at(16) };
        finish(broker.keep_grant(&wanted, grant, at(5), at(5), Some(lease))).unwrap();
        assert!(broker.instance.unsaved_token(&wanted).is_none());
        assert!(ports.0.store.borrow().contains_key(&wanted.key().of_token()));
    }
}
