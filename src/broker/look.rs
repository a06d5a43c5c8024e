//! Looks for a reason not to call OfficeRnD: a token that another request has fetched, a refusal,
//! a pause, or a call quota that is used up.

use std::rc::Rc;

use futures_util::future::{join, join3};

use super::cache::Loaded;
use super::instance::{Broker, Remembered};
use super::ports::Ports;
use super::store::StoreFailed;
use super::wanted::Wanted;
use crate::error::{Cause, Error};
use crate::gate::{Need, Refusal};
use crate::time::{Timestamp, is_recent};
use crate::token::{LEAST_REMAINING, Token};

/// What a look found.
pub(super) struct Look {
    /// The outcome of the fetch, if it needs no call.
    pub(super) settled: Option<Result<Rc<Token>, Error>>,
    /// Whether the store answered every read.
    pub(super) outcome: Result<(), StoreFailed>,
}

impl Look {
    /// No look, because the store is down.
    pub(super) fn none() -> Self {
        Self { settled: None, outcome: Err(StoreFailed) }
    }
}

impl<P: Ports> Broker<P> {
    /// Looks before the lease: at the token first, because most requests that wait find it.
    pub(super) async fn first_look(&self, wanted: &Wanted, need: Need, known: Option<&Token>, is_first: bool) -> Look {
        let Loaded { token, at, outcome } = match self.just_loaded(wanted).filter(|_| is_first) {
            Some(loaded) => loaded,
            None => self.load(wanted).await,
        };
        if let Some(settled) = settled_by_token(token, known, at) {
            return Look { settled: Some(settled), outcome };
        }
        let refusal = wanted.key().of_refusal();
        let (refusal, ledger) = join(self.get(&refusal), self.load_ledger(&wanted.config)).await;
        self.settled_by_records(wanted, need, [outcome, ledger], refusal)
    }

    /// Looks with the lease, at everything side by side.
    pub(super) async fn second_look(&self, wanted: &Wanted, need: Need, known: Option<&Token>) -> Look {
        let refusal = wanted.key().of_refusal();
        let (loaded, refusal, ledger) =
            join3(self.load(wanted), self.get(&refusal), self.load_ledger(&wanted.config)).await;
        match settled_by_token(loaded.token, known, loaded.at) {
            Some(settled) => {
                Look { settled: Some(settled), outcome: loaded.outcome.and(refusal.map(|_| ())).and(ledger) }
            }
            None => self.settled_by_records(wanted, need, [loaded.outcome, ledger], refusal),
        }
    }

    fn settled_by_records(
        &self,
        wanted: &Wanted,
        need: Need,
        outcomes: [Result<(), StoreFailed>; 2],
        refusal: Result<Option<Vec<u8>>, StoreFailed>,
    ) -> Look {
        let now = self.ports.now();
        let (refusal, outcome) = match refusal {
            Ok(refusal) => (refusal, outcomes[0].and(outcomes[1])),
            Err(failed) => (None, Err(failed)),
        };
        let stored = refusal.and_then(|bytes| Refusal::decode(&bytes)?.error(now));
        let refused = stored.or_else(|| self.instance.refusal(wanted.key())?.error(now));
        let settled = refused.or_else(|| self.admit(wanted, need, now).err()).map(Err);
        Look { settled, outcome }
    }

    /// What memory has, if this request has just asked the store.
    fn just_loaded(&self, wanted: &Wanted) -> Option<Loaded> {
        let now = self.ports.now();
        let recent = |known: &Remembered| {
            let loaded = Loaded { token: known.token.clone(), at: now, outcome: Ok(()) };
            is_recent(known.looked_at, now, super::store::JUST_NOW).then_some(loaded)
        };
        self.instance.remembered(wanted, recent)?
    }
}

/// The outcome of a fetch that finds this token: it is news and usable, or no fetch is due yet.
fn settled_by_token(
    found: Option<Rc<Token>>,
    known: Option<&Token>,
    now: Timestamp,
) -> Option<Result<Rc<Token>, Error>> {
    let token = found?;
    let is_usable = token.remaining(now) >= LEAST_REMAINING;
    let is_news = known.is_none_or(|known| token.expires_at > known.expires_at);
    let next_fetch = token.next_fetch(now);
    if is_usable && (is_news || next_fetch > now) {
        return Some(Ok(token));
    }
    (next_fetch > now).then(|| Err(Error::unavailable(Cause::TokenExpiring, next_fetch.since(now))))
}
