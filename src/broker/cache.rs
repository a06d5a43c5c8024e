//! Tokens in memory and in the store.

use std::rc::Rc;
use std::time::Duration;

use super::instance::{Broker, Remembered};
use super::ports::Ports;
use super::store::StoreFailed;
use super::wanted::Wanted;
use crate::record::{decode_whole, encode};
use crate::time::{CLOCK_SKEW, Timestamp, is_pending, is_recent};
use crate::token::{Index, Key, LEAST_REMAINING, Token};

/// How long a token is served from memory before the store is asked again, so that a token that another instance
/// fetched, or forgot, gets around.
const TOKEN_MEMORY: Duration = Duration::from_secs(2);

/// How long OfficeRnD is believed that the application does not have a scope.
const SCOPE_REFUSAL_LIFE: Duration = Duration::from_secs(5 * 60);

impl<P: Ports> Broker<P> {
    /// What memory has, if that is recent. While a secret rotates, a token that the other one brought is as good.
    pub(super) fn from_memory(&self, wanted: &Wanted, now: Timestamp) -> Option<Rc<Token>> {
        let recent_of = |wanted: &Wanted| {
            let known = |known: &Remembered| (known.looked_at, known.token.clone());
            let (looked_at, token) = self.instance.remembered(wanted, known)?;
            token.filter(|_| is_recent(looked_at, now, TOKEN_MEMORY))
        };
        recent_of(wanted).or_else(|| recent_of(&wanted.with_other_credential()?))
    }

    /// What the store has, and when: it may take a second of a token's life.
    pub(super) async fn load_any(&self, wanted: &Wanted) -> (Option<Rc<Token>>, Timestamp) {
        let (found, now) = self.load(wanted).await;
        let lives = |token: &Rc<Token>, now| token.remaining(now) >= LEAST_REMAINING;
        match wanted.with_other_credential() {
            Some(other) if !found.as_ref().is_some_and(|token| lives(token, now)) => {
                let (others, now) = self.load(&other).await;
                (others.filter(|token| lives(token, now)).or(found), now)
            }
            _ => (found, now),
        }
    }

    /// Asks the store, and remembers what it says. Where it cannot answer, or did not take what it was told, memory
    /// stands in for it. The time is that of its answer.
    pub(super) async fn load(&self, wanted: &Wanted) -> (Option<Rc<Token>>, Timestamp) {
        let found = self.get(&wanted.key().of_token()).await;
        let now = self.ports.now();
        let (remembered, is_unsaved) =
            self.instance.remembered(wanted, |known| (known.token.clone(), known.is_unsaved)).unwrap_or_default();
        let (token, is_unsaved) = match found {
            Err(StoreFailed) => (remembered, is_unsaved),
            Ok(None) if is_unsaved => (remembered, true),
            Ok(None) => (None, false),
            Ok(Some(bytes)) => {
                // A record of the future was written by a clock that is wrong, and so is what it says of the token's life.
                let latest = now + CLOCK_SKEW;
                let is_ours = |token: &Token| token.requested == wanted.scopes && token.fetched_at <= latest;
                let token = self.open_record(&bytes, wanted).filter(is_ours);
                let is_older =
                    |token: &Token| remembered.as_ref().is_some_and(|ours| ours.fetched_at > token.fetched_at);
                match token {
                    Some(token) if is_unsaved && is_older(&token) => (remembered, true),
                    token => (token.map(Rc::new), false),
                }
            }
        };
        self.instance.remember(wanted, now, token.clone(), is_unsaved);
        (token, now)
    }

    pub(super) fn open_record(&self, bytes: &[u8], wanted: &Wanted) -> Option<Token> {
        let token = Token::open(bytes, wanted.key(), &wanted.credential.seal);
        if token.is_none() {
            self.ports.warn("the store has a token record that does not open: it was damaged or tampered with, and counts as absent");
        }
        token
    }

    /// Writes a token to the store, and remembers that it is there.
    pub(super) async fn save(&self, wanted: &Wanted, token: &Rc<Token>) -> Result<(), StoreFailed> {
        let sealed = token.seal(wanted.key(), &wanted.credential.seal, self.nonce());
        self.set(&wanted.key().of_token(), &sealed).await?;
        self.instance.remember(wanted, self.ports.now(), Some(token.clone()), false);
        Ok(())
    }

    /// For revocation. Only a holder of the lease writes the index.
    pub(super) async fn note_in_index(&self, token: &str, key: Key) {
        if let Ok(bytes) = self.get(Index::KEY).await {
            let mut index = Index::decode(bytes.unwrap_or_default());
            index.insert(token, key);
            let _ = self.set(Index::KEY, index.as_bytes()).await;
        }
    }

    /// Whether OfficeRnD has refused these scopes a short while ago.
    pub(super) async fn is_refused(&self, wanted: &Wanted, now: Timestamp) -> bool {
        let refusal = self.get(&wanted.key().of_refusal()).await;
        let is_pending = |until| is_pending(until, now, SCOPE_REFUSAL_LIFE);
        matches!(refusal, Ok(Some(bytes)) if decode_whole(&bytes).is_some_and(is_pending))
    }

    pub(super) async fn keep_refusal(&self, wanted: &Wanted, now: Timestamp) {
        let _ = self.set(&wanted.key().of_refusal(), &encode(&(now + SCOPE_REFUSAL_LIFE))).await;
    }
}
