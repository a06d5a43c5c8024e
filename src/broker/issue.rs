//! From an authorized request to a token.

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{Either, Ready, ready, select};

use super::fetch::{RETRY_SOON, WAIT_LIMIT};
use super::flight::UpstreamCall;
use super::instance::Broker;
use super::lead::Lead;
use super::ports::{Followup, Ports};
use super::wanted::Wanted;
use crate::config::Config;
use crate::config::caller::Caller;
use crate::error::{Cause, Error};
use crate::gate::Need;
use crate::scope::Scopes;
use crate::time::Timestamp;
use crate::token::{LEAST_REMAINING, Life, Token};

/// A request whose token still lives waits no longer than this for the next one.
const WAIT_LIMIT_LATE: Duration = Duration::from_secs(4);

/// How a request for a token ends.
pub struct TokenOutcome {
    /// The token, or why there is none.
    pub token: Result<Rc<Token>, Error>,
    /// Where the token came from.
    pub source: Source,
    /// The call to OfficeRnD that this request waited for and led.
    pub upstream: Option<UpstreamCall>,
    /// What is still to be done.
    pub followup: Option<Followup>,
    /// The clock when that was decided: nothing was waited for since.
    pub at: Timestamp,
}

/// A [`TokenOutcome`] that is there at once, or one that has to wait and takes the room for it.
pub type TokenFuture = Either<Ready<TokenOutcome>, Pin<Box<dyn Future<Output = TokenOutcome>>>>;

impl TokenOutcome {
    /// Of a request that nothing was looked up for.
    pub(crate) fn refused(error: Error, at: Timestamp) -> Self {
        Self { token: Err(error), source: Source::Miss, upstream: None, followup: None, at }
    }

    fn hit(token: Rc<Token>, at: Timestamp) -> Self {
        Self { token: Ok(token), source: Source::Hit, upstream: None, followup: None, at }
    }
}

/// Where the token of an answer came from, in the words of RFC 9211.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The cache.
    Hit,
    /// OfficeRnD: nothing was cached.
    Miss,
    /// OfficeRnD: what was cached had too little life.
    Stale,
    /// Another request's fetch.
    Collapsed,
}

impl Source {
    /// The word for the log.
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
    /// A token of `scopes` for a caller that is known and may have them, for a request that came at `arrived`.
    ///
    /// Whoever calls this has authenticated the caller and authorized the scopes: from here on nobody asks.
    pub fn issue(&self, config: &Rc<Config>, caller: &Caller, scopes: Scopes, arrived: Timestamp) -> TokenFuture {
        let application = config.application(caller).clone();
        let credential = self.instance.ledger.borrow().credential_in_use(&application, arrived).clone();
        let wanted = Wanted::new(config.clone(), application, credential, scopes);
        let now = self.ports.now();
        let recent = self.from_memory(&wanted, now);
        match recent.as_ref().and_then(|token| self.serve(&wanted, token, now)) {
            Some(outcome) => Either::Left(ready(outcome)),
            None => Either::Right(Box::pin(self.clone().issue_after_lookup(wanted, recent, now, arrived))),
        }
    }

    /// The same where memory has nothing, or something with too little life.
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
                    return outcome;
                }
                (stored, now)
            }
        };
        let Some(token) = cached else {
            return self.issue_by_fetching(wanted, Need::Now, Source::Miss, arrived).await;
        };
        let need = if token.remaining(now) < LEAST_REMAINING { Need::Now } else { Need::Late };
        let outcome = self.issue_by_fetching(wanted, need, Source::Stale, arrived).await;
        // A token that lives outlives any trouble with OfficeRnD.
        match outcome.token {
            Err(_) if need == Need::Late && token.remaining(outcome.at) >= LEAST_REMAINING => {
                TokenOutcome { token: Ok(token), source: Source::Hit, ..outcome }
            }
            _ => outcome,
        }
    }

    /// Serves a cached token, if its life allows that without a wait for its successor.
    fn serve(&self, wanted: &Wanted, token: &Rc<Token>, now: Timestamp) -> Option<TokenOutcome> {
        let min_remaining = wanted.config.min_remaining;
        let life = token.life(now, min_remaining, self.instance.jitter(min_remaining));
        let in_flight = || self.instance.flight(wanted.key()).is_some();
        match life {
            Life::Aging if !in_flight() && self.may_renew(wanted, token, Need::Early, now) => {
                // In flight from now on, whenever the followup begins: who comes in between does not try as well.
                let lead = Lead::start(self.instance.clone(), wanted.key(), Need::Early);
                let (broker, wanted) = (self.clone(), wanted.clone());
                let followup = async move { lead.land(broker.fetch(&wanted, Need::Early).await) };
                Some(TokenOutcome { followup: Some(Box::pin(followup)), ..TokenOutcome::hit(token.clone(), now) })
            }
            Life::Late if in_flight() || self.may_renew(wanted, token, Need::Late, now) => None,
            Life::Fresh | Life::Aging | Life::Late => Some(TokenOutcome::hit(token.clone(), now)),
            Life::Unusable => None,
        }
    }

    /// Whether it makes sense to ask for a successor, as far as this instance knows.
    fn may_renew(&self, wanted: &Wanted, token: &Token, need: Need, now: Timestamp) -> bool {
        token.next_fetch(now) <= now && self.admit(wanted, need, now).is_ok()
    }

    async fn issue_by_fetching(&self, wanted: Wanted, need: Need, source: Source, arrived: Timestamp) -> TokenOutcome {
        // What the body and the store took is part of the wait.
        let left = WAIT_LIMIT.saturating_sub(self.ports.now().since(arrived));
        let patience = if need == Need::Late { left.min(WAIT_LIMIT_LATE) } else { left };
        let in_flight = self.instance.flight(wanted.key()).is_some();
        let fetch = Box::pin(self.clone().obtain(wanted, need));
        let deadline = pin!(self.ports.sleep(patience));
        let ended = select(fetch, deadline).await;
        let at = self.ports.now();
        match ended {
            Either::Left((outcome, _)) => {
                let source = if in_flight || outcome.upstream.is_none() { Source::Collapsed } else { source };
                TokenOutcome { token: outcome.token, source, upstream: outcome.upstream, followup: None, at }
            }
            // A call may be on its way and its token must not be lost: the fetch ends after the answer.
            Either::Right(((), fetch)) => TokenOutcome {
                token: Err(Error::unavailable(Cause::StillFetching, RETRY_SOON)),
                source,
                upstream: None,
                followup: Some(Box::pin(async move { drop(fetch.await) })),
                at,
            },
        }
    }
}
