//! Caches tokens and scope refusals, in memory and in the store.

use std::rc::Rc;
use std::time::Duration;

use super::instance::{Broker, Remembered};
use super::ports::Ports;
use super::store::StoreFailed;
use super::wanted::Wanted;
use crate::gate::{Lease, Refusal};
use crate::mutation::{self, Rule};
use crate::time::{FUTURE_LIMIT, Timestamp, is_recent};
use crate::token::{Index, LEAST_REMAINING, Token};

/// How long an instance serves a token from memory before it asks the store again. This bounds
/// how late it notices a token that another instance fetched or revoked.
const TOKEN_MEMORY: Duration = Duration::from_secs(2);

/// What a look for a token in the store found.
pub(super) struct Loaded {
    /// The token, from the store or from memory.
    pub(super) token: Option<Rc<Token>>,
    /// When the store answered.
    pub(super) at: Timestamp,
    /// Whether it did.
    pub(super) outcome: Result<(), StoreFailed>,
}

impl<P: Ports> Broker<P> {
    /// Returns the remembered token if the store was asked recently. During a rotation the
    /// token of the other credential is as good.
    pub(super) fn recent_in_memory(&self, wanted: &Wanted, now: Timestamp) -> Option<Rc<Token>> {
        let recent_of = |wanted: &Wanted| {
            let known = |known: &Remembered| (known.looked_at, known.token.clone());
            let (looked_at, token) = self.instance.remembered(wanted, known)?;
            token.filter(|_| is_recent(looked_at, now, TOKEN_MEMORY) || !mutation::holds(Rule::TokenMemory))
        };
        recent_of(wanted).or_else(|| recent_of(&wanted.with_other_credential()?))
    }

    /// Returns the token that the store holds, and the time of its answer: a store operation
    /// can take a second of a token's life. During a rotation a usable token of the other
    /// credential is as good.
    pub(super) async fn load_any(&self, wanted: &Wanted) -> (Option<Rc<Token>>, Timestamp) {
        let Loaded { token: found, at: now, .. } = self.load(wanted).await;
        let is_usable = |token: &Rc<Token>, now| token.remaining(now) >= LEAST_REMAINING;
        match wanted.with_other_credential() {
            Some(other) if !found.as_ref().is_some_and(|token| is_usable(token, now)) => {
                let Loaded { token: others, at: now, .. } = self.load(&other).await;
                (others.filter(|token| is_usable(token, now)).or(found), now)
            }
            _ => (found, now),
        }
    }

    /// Asks the store for the token of one credential, and remembers the answer. Memory stands
    /// in when the store fails, or when the store did not accept the token.
    pub(super) async fn load(&self, wanted: &Wanted) -> Loaded {
        let found = self.get(&wanted.key().of_token()).await;
        let now = self.ports.now();
        let (remembered, is_unsaved) =
            self.instance.remembered(wanted, |known| (known.token.clone(), known.is_unsaved)).unwrap_or_default();
        let outcome = found.as_ref().map(|_| ()).map_err(|failed| *failed);
        let stored = found.map(|bytes| bytes.and_then(|bytes| self.open_record(&bytes, wanted, now)));
        let is_older = |token: &Token| remembered.as_ref().is_some_and(|ours| ours.fetched_at > token.fetched_at);
        let is_revoked = |token: &Token| remembered.as_ref().is_some_and(|ours| token.is_revoked_by(ours));
        let (token, is_unsaved) = match stored {
            Err(StoreFailed) => (remembered, is_unsaved),
            Ok(None) if is_unsaved => (remembered, true),
            Ok(Some(token)) if is_unsaved && is_older(&token) => (remembered, true),
            // A write of the token has landed after its revocation.
            Ok(Some(token)) if is_revoked(&token) => (remembered, true),
            Ok(token) => (token.map(Rc::new), false),
        };
        self.instance.remember(wanted, now, token.clone(), is_unsaved);
        Loaded { token, at: now, outcome }
    }

    /// The token of a record. One that is unreadable, for other scopes, or from the future counts
    /// as absent: a clock that was wrong has written a wrong expiry as well.
    fn open_record(&self, bytes: &[u8], wanted: &Wanted, now: Timestamp) -> Option<Token> {
        let token = Token::open(bytes, wanted.key(), &wanted.credential.seal);
        if token.is_none() {
            self.ports.warn("the store contains a token record that does not open; it was damaged or tampered with, and is treated as absent");
        }
        let latest = now + FUTURE_LIMIT;
        token.filter(|token| token.requested == wanted.scopes && token.fetched_at <= latest)
    }

    /// Writes a token's place in the index, and returns whether the token may be written next: no
    /// token is in the store that cannot be revoked. Only the holder of `lease` may call it, because
    /// only holders write the index; `index` is the store's present one.
    pub(super) async fn save_in_index(
        &self,
        wanted: &Wanted,
        token: &Token,
        index: Option<Vec<u8>>,
        lease: Lease,
    ) -> bool {
        let now = self.ports.now();
        if !lease.permits_writes(now) {
            return false;
        }
        // The index finds tokens that can be revoked; a token without text is a revocation.
        if token.access_token.expose().is_empty() {
            return true;
        }
        let mut index = Index::decode(index.unwrap_or_default());
        let most = 60 * wanted.config.calls_per_minute;
        index.insert(token.access_token.expose(), wanted.key(), token.expires_at, now, most);
        let is_in_index = self.set(&Index::key(&wanted.config.identity), index.as_bytes()).await.is_ok();
        // That write may have taken the rest of the lease.
        is_in_index && lease.permits_writes(self.ports.now())
    }

    /// Writes a token to the store, and remembers that the store has it. If this instance has
    /// revoked the token meanwhile, the store lacks the revocation.
    pub(super) async fn save(&self, wanted: &Wanted, token: &Rc<Token>) -> Result<(), StoreFailed> {
        let revocation = || self.instance.last_token(wanted).filter(|known| token.is_revoked_by(known));
        let written = revocation().unwrap_or_else(|| token.clone());
        let sealed = written.seal(wanted.key(), &wanted.credential.seal, self.nonce());
        self.set(&wanted.key().of_token(), &sealed).await?;
        let (known, is_unsaved) = match revocation() {
            Some(revoked) => {
                let is_unsaved = written.revoked_at != revoked.revoked_at;
                (revoked, is_unsaved)
            }
            None => (written, false),
        };
        self.instance.remember(wanted, self.ports.now(), Some(known), is_unsaved);
        Ok(())
    }

    /// Remembers that OfficeRnD refused these scopes, in the store as well unless the lease is
    /// about to end.
    pub(super) async fn keep_refusal(&self, wanted: &Wanted, refusal: Refusal, lease: Option<Lease>) {
        let now = self.ports.now();
        self.instance.remember_refusal(wanted, refusal, now);
        if lease.is_none_or(|lease| lease.permits_writes(now)) {
            let _ = self.set(&wanted.key().of_refusal(), &refusal.encode()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{TestPorts, at, finish, wanted};
    use super::*;
    use crate::scope::Scopes;
    use crate::secret::AccessToken;

    fn token(text: &str, fetched_at: u64) -> Rc<Token> {
        let scopes = Scopes::parse("a b").unwrap();
        let (access_token, expires_at, fetched_at) = (AccessToken::new(text), at(3600), at(fetched_at));
        let requested = scopes.clone();
        Rc::new(Token { access_token, requested, scopes, expires_at, fetched_at, stalled: false, revoked_at: None })
    }

    /// What an instance loads at 100 s that remembers one token, or none, where another
    /// instance has saved one, or none.
    fn load(remembered: Option<(Rc<Token>, bool)>, stored: Option<Rc<Token>>, outcomes: &[bool]) -> Option<String> {
        let (ports, wanted) = (TestPorts::default(), wanted());
        ports.0.seconds.set(100);
        if let Some(stored) = stored {
            finish(ports.broker().save(&wanted, &stored)).unwrap();
        }
        let broker = ports.broker();
        if let Some((token, is_unsaved)) = remembered {
            broker.instance.remember(&wanted, at(100), Some(token), is_unsaved);
        }
        ports.0.outcomes.replace(outcomes.iter().copied().collect());
        let found = finish(broker.load(&wanted)).token;
        let now_remembered = broker.instance.last_token(&wanted);
        let text = |token: &Rc<Token>| token.access_token.expose().to_owned();
        assert_eq!(found.as_ref().map(text), now_remembered.as_ref().map(text));
        found.as_ref().map(text)
    }

    #[test]
    fn loaded_token_is_the_stores_unless_memory_has_one_that_the_store_lacks() {
        let (old, new) = (token("old", 10), token("new", 20));
        let check = |remembered, stored, outcomes: &[bool], expected: Option<&str>| {
            let what = format!("{remembered:?} {stored:?} {outcomes:?}");
            assert_eq!(load(remembered, stored, outcomes).as_deref(), expected, "{what}");
        };
        check(None, None, &[], None);
        check(None, Some(new.clone()), &[], Some("new"));
        check(None, Some(new.clone()), &[false, false], None);
        check(Some((old.clone(), false)), Some(new.clone()), &[], Some("new"));
        check(Some((old.clone(), false)), None, &[], None);
        check(Some((old.clone(), false)), None, &[false, false], Some("old"));
        check(Some((old.clone(), true)), None, &[], Some("old"));
        check(Some((new.clone(), true)), Some(old.clone()), &[], Some("new"));
        check(Some((old.clone(), true)), Some(new.clone()), &[], Some("new"));
        // 31 s ahead of the clock.
        check(None, Some(token("future", 131)), &[], None);
    }

    #[test]
    fn revocation_during_or_after_a_write_of_the_token_outlasts_it() {
        let (ports, wanted) = (TestPorts::default(), wanted());
        ports.0.seconds.set(100);
        let (broker, live) = (ports.broker(), token("live", 20));
        let revoked = Rc::new(Token::clone(&live).revoked(at(100)));
        let (other, of_wanted, revocation) = (broker.clone(), wanted.clone(), revoked.clone());
        ports.0.during_set.replace(Some(Box::new(move || {
            other.instance.remember(&of_wanted, at(100), Some(revocation.clone()), true);
        })));
        let is_revoked = |token: Option<Rc<Token>>| token.unwrap().revoked_at == Some(at(100));
        finish(broker.save(&wanted, &live)).unwrap();
        assert!(is_revoked(broker.instance.unsaved_token(&wanted)), "the store has the live token");
        assert!(is_revoked(finish(broker.load(&wanted)).token));
        // Another write of the same token, which began before the revocation.
        finish(broker.save(&wanted, &live)).unwrap();
        assert!(is_revoked(finish(ports.broker().load(&wanted)).token), "the store has the revocation");
        assert!(broker.instance.unsaved_token(&wanted).is_none());
        // A write that was given up lands.
        finish(ports.broker().save(&wanted, &live)).unwrap();
        assert!(is_revoked(finish(broker.load(&wanted)).token));
        // A token that another instance had fetched before, but saves only now, is another one.
        finish(ports.broker().save(&wanted, &token("earlier", 50))).unwrap();
        assert_eq!(finish(broker.load(&wanted)).token.unwrap().access_token.expose(), "earlier");
        broker.instance.remember(&wanted, at(100), Some(revoked.clone()), false);
        // A token that another instance has fetched since then counts.
        finish(ports.broker().save(&wanted, &token("new", 101))).unwrap();
        assert_eq!(finish(broker.load(&wanted)).token.unwrap().access_token.expose(), "new");
    }

    #[test]
    fn token_is_not_written_if_the_index_took_the_rest_of_the_lease() {
        let (ports, wanted) = (TestPorts::default(), wanted());
        let lease = Lease { holder: 1, until_ms: at(11) };
        for (seconds, is_written) in [(8, true), (9, false)] {
            ports.0.store.borrow_mut().clear();
            ports.0.seconds.set(seconds);
            ports.0.clock_ahead.set(0);
            let during_index = ports.clone();
            ports.0.during_set.replace(Some(Box::new(move || during_index.0.clock_ahead.set(1))));
            let may_write = finish(ports.broker().save_in_index(&wanted, &token("t", 0), None, lease));
            assert!(ports.0.store.borrow().contains_key(&Index::key(&wanted.config.identity)));
            assert_eq!(may_write, is_written);
        }
    }

    #[test]
    fn damaged_token_record_is_absent_and_logged() {
        let (ports, wanted) = (TestPorts::default(), wanted());
        ports.0.store.borrow_mut().insert(wanted.key().of_token(), b"garbage".to_vec());
        let broker = ports.broker();
        assert!(finish(broker.load(&wanted)).token.is_none());
        assert!(ports.0.warnings.borrow()[0].contains("a token record that does not open"));
        // It must not cost the token that only memory has.
        broker.instance.remember(&wanted, at(0), Some(token("unsaved", 0)), true);
        assert!(finish(broker.load(&wanted)).token.is_some());
    }

    #[test]
    fn remembered_token_is_served_for_two_seconds() {
        let (broker, wanted) = (TestPorts::default().broker(), wanted());
        broker.instance.remember(&wanted, at(100), Some(token("t", 100)), false);
        for (now, is_recent) in [(100, true), (101, true), (102, false), (99, false)] {
            assert_eq!(broker.recent_in_memory(&wanted, at(now)).is_some(), is_recent, "at {now} s");
        }
    }
}
