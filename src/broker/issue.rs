//! Answers an authorized request with a token: from the cache if one has enough life, otherwise
//! by a fetch.

use std::cell::Cell;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{Either, Ready, ready, select};

use super::fetch::{Fetched, RETRY_SOON, WAIT_LIMIT};
use super::instance::Broker;
use super::lead::Lead;
use super::ports::{Followup, Ports};
use super::wanted::{RequestId, Wanted};
use crate::config::Config;
use crate::config::application::Application;
use crate::config::caller::Caller;
use crate::error::{Cause, Error};
use crate::gate::Need;
use crate::scope::Scopes;
use crate::time::Timestamp;
use crate::token::{LEAST_REMAINING, Stage, Token};

/// Longest time that a request waits for a renewal while its current token is still usable.
const WAIT_LIMIT_LATE: Duration = Duration::from_secs(4);

/// How a request for a token ends.
pub struct TokenOutcome {
    /// The token, or why the request gets none.
    pub token: Result<Rc<Token>, Error>,
    /// Where the token came from.
    pub source: Source,
    /// Whether this request led a call to OfficeRnD, and waited for it.
    pub is_called: bool,
    /// Work to do after the answer.
    pub followup: Option<Followup>,
    /// Time of the outcome; no await happened since, so it also serves as the present.
    pub at: Timestamp,
}

/// A [`TokenOutcome`]: ready at once after a memory hit, otherwise a boxed future.
pub type TokenFuture = Either<Ready<TokenOutcome>, Pin<Box<dyn Future<Output = TokenOutcome>>>>;

impl TokenOutcome {
    /// The outcome of a request that was refused before any lookup.
    pub(crate) fn refused(error: Error, at: Timestamp) -> Self {
        Self { token: Err(error), source: Source::Miss, is_called: false, followup: None, at }
    }

    fn hit(token: Rc<Token>, at: Timestamp) -> Self {
        Self { token: Ok(token), source: Source::Hit, is_called: false, followup: None, at }
    }
}

/// Where an answer's token came from, in the terms of RFC 9211.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// From the cache.
    Hit,
    /// From OfficeRnD, because the cache had no token.
    Miss,
    /// From OfficeRnD, because the cached token had too little remaining lifetime.
    Stale,
    /// From a fetch that another request led.
    Collapsed,
}

impl Source {
    /// The value of the audit field `cache`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Stale => "stale",
            Self::Collapsed => "collapsed",
        }
    }
}

impl<P: Ports> Broker<P> {
    /// Finds a token of `scopes` of `application` for a caller, and tries to renew one whose
    /// remaining lifetime is too short for it. The request `request_id` arrived at `arrived`, from
    /// which its longest wait counts.
    ///
    /// The function must be called only after authentication and authorization: nothing below
    /// checks them again.
    pub fn issue(
        &self,
        config: &Rc<Config>,
        caller: Rc<Caller>,
        application: &Rc<Application>,
        scopes: Scopes,
        request_id: RequestId,
        arrived: Timestamp,
    ) -> TokenFuture {
        let application = application.clone();
        let credential = self.instance.ledger.borrow().credential_in_use(&application, arrived).clone();
        let wanted = Wanted::new(config.clone(), caller, application, credential, scopes, request_id);
        let now = self.ports.now();
        let recent = self.recent_in_memory(&wanted, now);
        match recent.as_ref().and_then(|token| self.serve(&wanted, token, now)) {
            Some(outcome) => Either::Left(ready(outcome)),
            None => Either::Right(Box::pin(self.clone().issue_after_lookup(wanted, recent, now, arrived))),
        }
    }

    /// Continues after memory had no token, or one with too little remaining lifetime.
    async fn issue_after_lookup(
        self,
        wanted: Wanted,
        recent: Option<Rc<Token>>,
        now: Timestamp,
        arrived: Timestamp,
    ) -> TokenOutcome {
        let (cached, now) = match recent {
            Some(_) => (recent, now),
            None => {
                let (stored, now) = self.load_any(&wanted).await;
                if let Some(outcome) = stored.as_ref().and_then(|token| self.serve(&wanted, token, now)) {
                    let followup = outcome.followup.or_else(|| self.save_after_answer(&wanted));
                    return TokenOutcome { followup, ..outcome };
                }
                (stored, now)
            }
        };
        let Some(token) = cached else {
            return self.issue_by_fetching(wanted, Need::Now, Source::Miss, arrived).await;
        };
        let need = if token.remaining(now) < LEAST_REMAINING { Need::Now } else { Need::Late };
        let outcome = self.issue_by_fetching(wanted, need, Source::Stale, arrived).await;
        // The current token is still usable, so a failed renewal does not matter yet.
        match outcome.token {
            Err(_) if need == Need::Late && token.remaining(outcome.at) >= LEAST_REMAINING => {
                TokenOutcome { token: Ok(token), source: Source::Hit, ..outcome }
            }
            _ => outcome,
        }
    }

    /// Serves a cached token, unless its remaining lifetime requires waiting for a renewal.
    fn serve(&self, wanted: &Wanted, token: &Rc<Token>, now: Timestamp) -> Option<TokenOutcome> {
        let stage = token.stage(now, wanted.min_remaining, self.instance.jitter());
        let in_flight = || self.instance.flight(wanted.key()).is_some();
        match stage {
            Stage::Aging if !in_flight() && self.may_renew(wanted, token, Need::Early, now) => {
                // Register the flight now rather than when the follow-up starts, so that
                // requests arriving in between do not start a second renewal.
                let lead = Lead::start(self.instance.clone(), wanted, Need::Early);
                let (broker, wanted) = (self.clone(), wanted.clone());
                let followup = async move {
                    let Fetched { outcome, rest } = broker.fetch(&wanted, Need::Early).await;
                    lead.land(outcome);
                    finish(rest).await;
                };
                Some(TokenOutcome { followup: Some(Box::pin(followup)), ..TokenOutcome::hit(token.clone(), now) })
            }
            Stage::Late if in_flight() || self.may_renew(wanted, token, Need::Late, now) => None,
            Stage::Fresh | Stage::Aging | Stage::Late => Some(TokenOutcome::hit(token.clone(), now)),
            Stage::Unusable => None,
        }
    }

    /// Whether a renewal is due, and store and gate, as this instance knows them, permit a call.
    fn may_renew(&self, wanted: &Wanted, token: &Token, need: Need, now: Timestamp) -> bool {
        token.next_fetch(now) <= now && !self.store_is_failing() && self.admit(wanted, need, now).is_ok()
    }

    async fn issue_by_fetching(&self, wanted: Wanted, need: Need, source: Source, arrived: Timestamp) -> TokenOutcome {
        let leads = Rc::new(Cell::new(false));
        let fetch = Box::pin(self.clone().obtain(wanted, need, leads.clone()));
        let deadline = pin!(async {
            // The time for reading the body and the store counts towards the longest wait. It is
            // taken after the fetch has begun, whose first store operation may block the instance.
            let left = WAIT_LIMIT.saturating_sub(self.ports.now().since(arrived));
            let patience = if need == Need::Late { left.min(WAIT_LIMIT_LATE) } else { left };
            self.ports.sleep(patience).await;
        });
        let ended = select(fetch, deadline).await;
        let at = self.ports.now();
        match ended {
            Either::Left((Fetched { outcome, rest }, _)) => {
                let source = if !leads.get() || !outcome.is_called { Source::Collapsed } else { source };
                TokenOutcome { token: outcome.token, source, is_called: outcome.is_called, followup: rest, at }
            }
            // If this request leads the fetch, a call may be in progress, and its token must not be
            // lost: the fetch continues as follow-up.
            Either::Right(((), fetch)) => TokenOutcome {
                token: Err(Error::unavailable(Cause::StillFetching, RETRY_SOON)),
                source,
                is_called: false,
                followup: leads.get().then(|| Box::pin(async move { finish(fetch.await.rest).await }) as Followup),
                at,
            },
        }
    }
}

async fn finish(rest: Option<Followup>) {
    if let Some(rest) = rest {
        rest.await;
    }
}
