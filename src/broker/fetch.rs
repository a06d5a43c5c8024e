//! A fetch: everything from the lease to the stored token.

use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join;

use super::flight::FetchOutcome;
use super::instance::Broker;
use super::lease::{LeaseAttempt, Watch};
use super::look::Look;
use super::ports::{Followup, Ports};
use super::wanted::Wanted;
use crate::error::{Cause, Error};
use crate::gate::{Lease, Need, Refusal};
use crate::mutation::{self, Rule};
use crate::token::{LEAST_REMAINING, Token};
use crate::upstream::CALL_LIMIT;

/// Longest time that a request waits for a token, and that a fetch waits for the lease.
pub const WAIT_LIMIT: Duration = Duration::from_secs(12);

/// A call does not begin if the lease leaves it less time than this.
const SHORTEST_CALL: Duration = Duration::from_secs(2);

/// `Retry-After` for a request whose fetch has not ended in time, and for a revocation that the
/// store did not accept.
pub(super) const RETRY_SOON: Duration = Duration::from_secs(2);

/// The end of a fetch: its outcome, and what is left to do after the answer.
pub(super) struct Fetched {
    pub(super) outcome: FetchOutcome,
    pub(super) rest: Option<Followup>,
}

impl Fetched {
    pub(super) fn without_call(token: Result<Rc<Token>, Error>) -> Self {
        Self { outcome: FetchOutcome::without_call(token), rest: None }
    }
}

/// What keeps a fetch from going on, and how long it may last. It may be over after a wait.
type Obstacle = (Cause, Duration);

const STORE_FAILED: Obstacle = (Cause::StoreUnavailable, RETRY_SOON);

impl<P: Ports> Broker<P> {
    /// Waits for the lease, then calls. After every wait it reads cache and ledger again,
    /// because another instance may have fetched the token, or met a failure, in the meantime.
    pub(super) async fn fetch(&self, wanted: &Wanted, need: Need) -> Fetched {
        let wanted = &self.with_credential_in_use(wanted).await;
        let known = self.instance.last_token(wanted);
        let watch = Watch::begin(self.ports.uptime());
        loop {
            let (cause, retry_after) = match self.try_to_fetch(wanted, need, known.as_deref(), &watch).await {
                Ok(fetched) => return fetched,
                Err(obstacle) => obstacle,
            };
            // While the store fails, a usable token is good enough.
            let gives_up = need == Need::Early || (need == Need::Late && cause == Cause::StoreUnavailable);
            if gives_up || watch.lasts(self.ports.uptime()) >= WAIT_LIMIT {
                return Fetched::without_call(Err(Error::unavailable(cause, retry_after)));
            }
            self.wait_for_change(&wanted.config, &watch, WAIT_LIMIT).await;
        }
    }

    /// Tries once to fetch: looks for a token, acquires the lease, calls.
    async fn try_to_fetch(
        &self,
        wanted: &Wanted,
        need: Need,
        known: Option<&Token>,
        watch: &Watch,
    ) -> Result<Fetched, Obstacle> {
        let config = &wanted.config;
        match self.first_look(wanted, need, known, watch.has_not_waited()).await.settled {
            None => {}
            // The store may work again, and have the token.
            Some(Err(_)) if need == Need::Now && self.store_failed_only_before(watch.started) => {
                return Err(STORE_FAILED);
            }
            // The call that used up the quota may be fetching this very token.
            Some(Err(Error::Unavailable { cause: cause @ (Cause::QuotaUsedUp | Cause::ShareUsedUp), retry_after })) => {
                if let Ok(Some(remaining)) = self.remaining_lease(config, watch).await {
                    return Err((Cause::StillFetching, remaining.max(retry_after)));
                }
                // That call may have ended since the look for the token.
                let loaded = self.load(wanted).await;
                let is_news = |token: &Token| known.is_none_or(|known| token.expires_at > known.expires_at);
                let is_good = |token: &Rc<Token>| token.remaining(loaded.at) >= LEAST_REMAINING && is_news(token);
                let refused = Error::unavailable(cause, retry_after);
                return Ok(Fetched::without_call(loaded.token.filter(is_good).ok_or(refused)));
            }
            Some(settled) => return Ok(Fetched::without_call(settled)),
        }
        let second_look = self.second_look(wanted, need, known);
        let (attempt, look) = match self.bid_for_lease(config, watch).await {
            Ok(lease) => join(self.confirm_lease(config, watch, lease), second_look).await,
            Err(attempt) => (attempt, Look::none()),
        };
        let lease = match attempt {
            LeaseAttempt::Won(lease) => Some(lease),
            LeaseAttempt::Lost(remaining) => return Err((Cause::StillFetching, remaining)),
            // Without a store, the instance keeps the quota with its own flights and ledger.
            LeaseAttempt::NoStore => {
                let is_patient = !self.store_is_down() || self.store_failed_only_before(watch.started);
                if need != Need::Now || (is_patient && mutation::holds(Rule::Patience)) {
                    return Err(STORE_FAILED);
                }
                None
            }
        };
        self.call_with_lease(wanted, need, lease, look).await
    }

    /// Makes the call with the lease, or without one if the store is down. If OfficeRnD refuses
    /// the credential, tries the application's other one.
    async fn call_with_lease(
        &self,
        wanted: &Wanted,
        need: Need,
        lease: Option<Lease>,
        look: Look,
    ) -> Result<Fetched, Obstacle> {
        let mut called = wanted.clone();
        let mut outcome = self.call_once(wanted, need, lease, look).await;
        if let Ok(first) = &outcome
            && matches!(first.token, Err(Error::Unavailable { cause: Cause::CredentialRefused, .. }))
            && first.is_called
            && let Some(other) = wanted.with_other_credential()
            && Rc::ptr_eq(
                self.instance.ledger.borrow().credential_in_use(&other.application, self.ports.now()),
                &other.credential,
            )
        {
            let look = self.second_look(&other, need, None).await;
            if let Ok(second) = self.call_once(&other, need, lease, look).await {
                outcome = Ok(FetchOutcome { is_called: true, ..second });
                called = other;
            }
        }
        if outcome.is_err()
            && let Some(lease) = lease
        {
            let _ = self.release_lease(&wanted.config, lease).await;
        }
        outcome.map(|outcome| {
            // A fetch without lease and call has changed nothing.
            let has_rest = lease.is_some() || outcome.is_called;
            let rest = has_rest.then(|| Box::pin(self.clone().finish(called, lease)) as Followup);
            Fetched { outcome, rest }
        })
    }

    /// Records the call, and makes it. A holder of the lease that could not read or write the
    /// store's records makes no call, and neither does one that has lost the lease.
    async fn call_once(
        &self,
        wanted: &Wanted,
        need: Need,
        lease: Option<Lease>,
        look: Look,
    ) -> Result<FetchOutcome, Obstacle> {
        if mutation::holds(Rule::SecondLook)
            && let Some(settled) = look.settled
        {
            return Ok(FetchOutcome::without_call(settled));
        }
        if lease.is_some() && look.outcome.is_err() && mutation::holds(Rule::CompleteLook) {
            return Err(STORE_FAILED);
        }
        let started = self.ports.now();
        let reservation = match self.reserve(wanted, need, started) {
            Ok(reservation) => reservation,
            Err(error) => return Ok(FetchOutcome::without_call(Err(error))),
        };
        let limit = match self.record_call(wanted, lease).await {
            Ok(limit) => limit,
            // The store's ledger may keep the call, which costs one call of the next minute.
            Err(obstacle) => {
                self.instance.update_ledger(|ledger| ledger.cancel(reservation));
                return Err(obstacle);
            }
        };
        let reservation = reservation.begun(self.ports.now());
        let answer = self.call(wanted, limit).await;
        let ended = self.ports.now();
        let token = match answer {
            Ok(grant) => {
                let kept = self.keep_grant(wanted, grant, started, ended, lease).await;
                if !Rc::ptr_eq(&wanted.credential, &wanted.application.current) {
                    self.advise_to_swap(wanted);
                }
                self.settle(wanted, reservation, &Ok(kept), ended)
            }
            Err(failure) => {
                self.warn_of_failure(wanted, failure);
                // Before the write, during which the host may drop the request.
                let token = self.settle(wanted, reservation, &Err(failure), ended);
                if let Some(refusal) = Refusal::after(failure, ended) {
                    self.keep_refusal(wanted, refusal, lease).await;
                }
                token
            }
        };
        Ok(FetchOutcome { token, is_called: true })
    }

    /// Writes a reserved call to the store's ledger, and returns how long it may take.
    ///
    /// # Errors
    /// When the store failed, or the lease is lost or almost over: these operations may have
    /// taken seconds of it.
    async fn record_call(&self, wanted: &Wanted, lease: Option<Lease>) -> Result<Duration, Obstacle> {
        const LOST: Obstacle = (Cause::StillFetching, RETRY_SOON);
        let Some(lease) = lease else { return Ok(CALL_LIMIT) };
        if lease.time_to_call(self.ports.now()) < SHORTEST_CALL {
            return Err(LOST);
        }
        self.store_ledger(&wanted.config).await.map_err(|_| STORE_FAILED)?;
        if !self.still_holds(&wanted.config, lease).await.map_err(|_| STORE_FAILED)? {
            return Err(LOST);
        }
        Some(lease.time_to_call(self.ports.now())).filter(|limit| *limit >= SHORTEST_CALL).ok_or(LOST)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{TestPorts, at, finish, wanted};
    use super::*;
    use crate::gate::Ledger;
    use crate::upstream::Failure;

    #[test]
    fn refusal_is_settled_before_it_is_written_and_remembered_if_the_store_fails() {
        let (ports, wanted) = (TestPorts::default(), wanted());
        ports.0.answer.set(Some((400, r#"{"error":"invalid_scope"}"#)));
        let broker = ports.broker();
        let call = || finish(broker.call_once(&wanted, Need::Now, None, Look::none())).unwrap().token;
        let mut settled = Ledger::default();
        let reservation = settled.reserve(at(0), wanted.caller_tag(), "default", 0);
        settled.settle_failure(reservation, at(0), Failure::ScopeNotGranted, &wanted.credential.fingerprint, 0);
        let other = broker.clone();
        ports.0.during_set.replace(Some(Box::new(move || assert_eq!(*other.instance.ledger.borrow(), settled))));
        assert_eq!(call().unwrap_err().reason(), "scope_not_granted");
        assert!(ports.0.during_set.borrow().is_none(), "the refusal was written");

        ports.0.store.borrow_mut().clear();
        let reason_at = |seconds: u64| {
            ports.0.seconds.set(seconds);
            let settled = finish(broker.second_look(&wanted, Need::Now, None)).settled;
            settled.map(|outcome| outcome.unwrap_err().reason())
        };
        assert_eq!(reason_at(299), Some("scope_not_granted"));
        assert_eq!(reason_at(300), None);
    }
}
