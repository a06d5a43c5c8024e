//! A fetch: everything from the lease to the stored token.

use std::rc::Rc;
use std::time::Duration;

use super::cache::is_refusal;
use super::flight::FetchOutcome;
use super::instance::Broker;
use super::lease::{LeaseAttempt, Watch};
use super::ports::Ports;
use super::wanted::Wanted;
use crate::error::{Cause, Error};
use crate::gate::{Lease, Need};
use crate::mutation::{self, Rule};
use crate::scope::ScopeRefusal;
use crate::token::{LEAST_REMAINING, Token};
use crate::upstream::{CALL_LIMIT, Failure};

/// Longest time that a request waits for a token, and that a fetch waits for the lease.
pub const WAIT_LIMIT: Duration = Duration::from_secs(12);

/// A call does not begin if the lease leaves it less time than this.
const SHORTEST_CALL: Duration = Duration::from_secs(2);

/// `Retry-After` for a request whose fetch has not ended in time, and for a revocation that the
/// store did not accept.
pub(super) const RETRY_SOON: Duration = Duration::from_secs(2);

impl<P: Ports> Broker<P> {
    /// Waits for the lease, then calls. After every wait it reads cache and ledger again,
    /// because another instance may have fetched the token, or met a failure, in the meantime.
    pub(super) async fn fetch(&self, wanted: &Wanted, need: Need) -> FetchOutcome {
        let wanted = &self.with_credential_in_use(wanted).await;
        let known = self.instance.last_token(wanted);
        let watch = Watch::begin(self.ports.now());
        loop {
            let (cause, retry_after) = match self.try_to_fetch(wanted, need, known.as_deref(), &watch).await {
                Ok(outcome) => return outcome,
                Err(obstacle) => obstacle,
            };
            // While the store fails, a usable token is good enough.
            let gives_up = need == Need::Early || (need == Need::Late && cause == Cause::StoreUnavailable);
            if gives_up || watch.lasts(self.ports.now()) >= WAIT_LIMIT {
                return FetchOutcome::without_call(Err(Error::unavailable(cause, retry_after)));
            }
            self.wait_for_change(&wanted.config, &watch, WAIT_LIMIT).await;
        }
    }

    /// Tries once to fetch: looks for a token, acquires the lease, calls.
    ///
    /// # Errors
    /// What may be over after a wait, and how long it may last.
    async fn try_to_fetch(
        &self,
        wanted: &Wanted,
        need: Need,
        known: Option<&Token>,
        watch: &Watch,
    ) -> Result<FetchOutcome, (Cause, Duration)> {
        const STORE: (Cause, Duration) = (Cause::StoreUnavailable, RETRY_SOON);
        let attempt = match self.outcome_without_call(wanted, need, known).await {
            None => self.acquire_lease(&wanted.config, watch).await,
            // The store may work again, and have the token.
            Some(Err(_)) if need == Need::Now && self.store_failed_only_before(watch.started) => return Err(STORE),
            // The call that used up the quota may be fetching this very token.
            Some(Err(Error::Unavailable { cause: Cause::QuotaUsedUp, retry_after })) => {
                if let Ok(Some(remaining)) = self.remaining_lease(&wanted.config, watch).await {
                    return Err((Cause::StillFetching, remaining.max(retry_after)));
                }
                // That call may have ended since the look for the token.
                let (found, now) = self.load(wanted).await;
                let is_news = |token: &Token| known.is_none_or(|known| token.expires_at > known.expires_at);
                let token = found.filter(|token| token.remaining(now) >= LEAST_REMAINING && is_news(token));
                let refused = Error::unavailable(Cause::QuotaUsedUp, retry_after);
                return Ok(FetchOutcome::without_call(token.ok_or(refused)));
            }
            Some(settled) => return Ok(FetchOutcome::without_call(settled)),
        };
        let lease = match attempt {
            LeaseAttempt::Won(lease) => Some(lease),
            LeaseAttempt::Lost(remaining) => return Err((Cause::StillFetching, remaining)),
            // Without a store, the instance keeps the quota with its own flights and ledger.
            LeaseAttempt::NoStore => {
                let is_patient = !self.store_is_down() || self.store_failed_only_before(watch.started);
                if need != Need::Now || (is_patient && mutation::holds(Rule::Patience)) {
                    return Err(STORE);
                }
                None
            }
        };
        self.call_and_release(wanted, need, known, lease).await.ok_or(STORE)
    }

    /// Makes the call with the lease, or without one if the store is down; then releases the
    /// lease. If OfficeRnD refuses the credential, tries the application's other one. `None` if
    /// the store failed, or the lease was lost, before the call.
    async fn call_and_release(
        &self,
        wanted: &Wanted,
        need: Need,
        known: Option<&Token>,
        lease: Option<Lease>,
    ) -> Option<FetchOutcome> {
        let mut outcome = self.call_once(wanted, need, known, lease).await;
        if let Some(first) = &outcome
            && matches!(first.token, Err(Error::Unavailable { cause: Cause::CredentialRefused, .. }))
            && first.upstream.is_some()
            && let Some(other) = wanted.with_other_credential()
            && Rc::ptr_eq(
                self.instance.ledger.borrow().credential_in_use(&other.application, self.ports.now()),
                &other.credential,
            )
            && let Some(second) = self.call_once(&other, need, None, lease).await
        {
            outcome = Some(FetchOutcome { upstream: second.upstream.or(first.upstream), ..second });
        }
        self.release_lease(&wanted.config, lease).await;
        outcome
    }

    /// Checks the cache again, records the call, and makes it. A holder of the lease that could
    /// not read or write the ledger makes no call, and neither does one that has lost the lease:
    /// `None`.
    async fn call_once(
        &self,
        wanted: &Wanted,
        need: Need,
        known: Option<&Token>,
        lease: Option<Lease>,
    ) -> Option<FetchOutcome> {
        if mutation::holds(Rule::SecondLook)
            && let Some(settled) = self.outcome_without_call(wanted, need, known).await
        {
            return Some(FetchOutcome::without_call(settled));
        }
        if lease.is_some() && self.store_is_failing() {
            return None;
        }
        let started = self.ports.now();
        if lease.is_some_and(|lease| lease.time_to_call(started) < SHORTEST_CALL) {
            // The store was too slow: a call now could still run when another request has the
            // lease.
            return Some(FetchOutcome::without_call(Err(Error::unavailable(Cause::StillFetching, RETRY_SOON))));
        }
        let reservation = match self.reserve(wanted, need, started) {
            Ok(reservation) => reservation,
            Err(error) => return Some(FetchOutcome::without_call(Err(error))),
        };
        let Some(limit) = self.record_call(wanted, lease).await else {
            self.instance.update_ledger(|ledger| ledger.cancel(reservation));
            return None;
        };
        let (answer, call) = self.call(wanted, limit).await;
        let ended = self.ports.now();
        // The token before the ledger, because other requests wait for the token.
        let kept = match answer {
            Ok(grant) => Ok(self.keep_grant(wanted, grant, started, ended).await),
            Err(failure) => {
                self.warn_of_failure(wanted, failure);
                if failure == Failure::ScopeNotGranted {
                    self.keep_refusal(wanted, ended).await;
                }
                Err(failure)
            }
        };
        if lease.is_some() {
            let _ = self.load_ledger(&wanted.config).await;
        }
        let token = self.settle(wanted, reservation, &kept, ended);
        if lease.is_some() {
            let _ = self.store_ledger(&wanted.config).await;
            if let Ok(token) = &token {
                self.note_in_index(&wanted.config, token.access_token.expose(), wanted.key()).await;
            }
        }
        if kept.is_ok() && !Rc::ptr_eq(&wanted.credential, &wanted.application.current) {
            self.advise_to_swap_secrets(&wanted.application.name);
        }
        Some(FetchOutcome { token, upstream: Some(call) })
    }

    /// Writes a reserved call to the store's ledger, and returns how long it may take. `None` if
    /// the store failed, or the lease is lost or almost over: these operations may have taken
    /// seconds of it.
    async fn record_call(&self, wanted: &Wanted, lease: Option<Lease>) -> Option<Duration> {
        let Some(lease) = lease else { return Some(CALL_LIMIT) };
        self.store_ledger(&wanted.config).await.ok()?;
        let still_holds = self.still_holds(&wanted.config, lease).await;
        Some(lease.time_to_call(self.ports.now())).filter(|limit| still_holds && *limit >= SHORTEST_CALL)
    }

    /// The outcome of a fetch that needs no call: a token that another request fetched, or a
    /// reason not to call.
    async fn outcome_without_call(
        &self,
        wanted: &Wanted,
        need: Need,
        known: Option<&Token>,
    ) -> Option<Result<Rc<Token>, Error>> {
        let (found, _) = self.load(wanted).await;
        let now = self.ports.now();
        if let Some(token) = found {
            let is_usable = token.remaining(now) >= LEAST_REMAINING;
            let is_news = known.is_none_or(|known| token.expires_at > known.expires_at);
            let next_fetch = token.next_fetch(now);
            if is_usable && (is_news || next_fetch > now) {
                return Some(Ok(token));
            }
            if next_fetch > now {
                return Some(Err(Error::unavailable(Cause::TokenExpiring, next_fetch.since(now))));
            }
        }
        if let Ok(Some(bytes)) = self.get(&wanted.key().of_refusal()).await
            && is_refusal(&bytes, now)
        {
            return Some(Err(Error::InvalidScope(ScopeRefusal::NotGranted)));
        }
        let _ = self.load_ledger(&wanted.config).await;
        self.admit(wanted, need, now).err().map(Err)
    }
}
