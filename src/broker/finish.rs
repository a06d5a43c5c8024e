//! What a fetch leaves to do after its answer: write what the call changed, and release the lease.

use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join;

use super::config_memory::Turn;
use super::instance::Broker;
use super::lease::{LeaseAttempt, Watch};
use super::ports::{Followup, Ports};
use super::wanted::Wanted;
use crate::gate::Lease;
use crate::mutation::{self, Rule};
use crate::token::Index;

/// Pause before an instance tries again to write what the store did not accept; up to as much is
/// added at random. It is longer than the store's failures are remembered.
const SAVE_PAUSE: Duration = Duration::from_millis(2500);

/// How long an instance tries that. A call counts for no longer.
const SAVE_LIMIT: Duration = Duration::from_secs(65);

impl<P: Ports> Broker<P> {
    /// Writes the ledger, and releases the lease. What the store does not accept, or what was
    /// changed without a lease, is tried again with a lease of its own. Dropping this costs
    /// others no more than the rest of the lease.
    pub(super) async fn finish(self, wanted: Wanted, lease: Option<Lease>) {
        let config = &wanted.config;
        if let Some(lease) = lease {
            // The call may have taken seconds of the lease: another request's calls must not be erased.
            let (holds, ledger) = join(self.still_holds(config, lease), self.load_ledger(config)).await;
            let may_write = matches!(holds, Ok(true)) && ledger.is_ok() && lease.permits_writes(self.ports.now());
            if may_write && self.instance.lacks_saved_ledger() {
                let _ = self.store_ledger(config).await;
            }
            self.release_lease_patiently(config, lease).await;
        }
        let watch = Watch::begin_after(lease, self.ports.uptime());
        while self.lacks_saved(&wanted) && watch.lasts(self.ports.uptime()) < SAVE_LIMIT {
            match self.acquire_lease(config, &watch).await {
                LeaseAttempt::Won(lease) => {
                    self.save_with_lease(&wanted, lease).await;
                    self.release_lease_patiently(config, lease).await;
                    if !self.lacks_saved(&wanted) {
                        return;
                    }
                }
                // Others call one after the other, and must know of this call as well.
                LeaseAttempt::Lost(_) => {
                    self.wait_for_change(config, &watch, SAVE_LIMIT).await;
                    continue;
                }
                LeaseAttempt::NoStore => {}
            }
            self.ports.sleep(SAVE_PAUSE + SAVE_PAUSE * u32::from(self.ports.random() as u8) / 255).await;
        }
    }

    /// Whether the store lacks changes of the ledger, or the token.
    fn lacks_saved(&self, wanted: &Wanted) -> bool {
        let lacks = self.instance.lacks_saved_ledger() || self.instance.unsaved_token(wanted).is_some();
        lacks && mutation::holds(Rule::SaveLater)
    }

    async fn save_with_lease(&self, wanted: &Wanted, lease: Lease) {
        let config = &wanted.config;
        let index_key = Index::key(&config.identity);
        let (ledger, index) = join(self.load_ledger(config), self.get(&index_key)).await;
        if ledger.is_ok() && lease.permits_writes(self.ports.now()) {
            let _ = self.store_ledger(config).await;
        }
        let (Some(token), Ok(index)) = (self.instance.unsaved_token(wanted), index) else { return };
        if !self.save_in_index(wanted, &token, index, lease).await {
            return;
        }
        // Another instance may have fetched a later token meanwhile, or revoked this one, which an
        // earlier write has brought to the store after all.
        let loaded = self.load(wanted).await;
        if let Some(latest) = self.instance.unsaved_token(wanted)
            // Otherwise the index does not have it yet, and this function runs again.
            && ["", token.access_token.expose()].contains(&latest.access_token.expose())
            && loaded.outcome.is_ok()
            && lease.permits_writes(self.ports.now())
        {
            let _ = self.save(wanted, &latest).await;
        }
    }

    /// Looks once more at the records of a token that was revoked: another instance may have been
    /// writing the token at the same moment, or a write that was given up may have landed. Dropping
    /// this leaves the token to be revoked again.
    pub(super) fn check_revocation(&self, revoked: Vec<Wanted>) -> Followup {
        let broker = self.clone();
        Box::pin(async move {
            for wanted in revoked {
                let watch = Watch::begin(broker.ports.uptime());
                loop {
                    broker.ports.sleep(SAVE_PAUSE).await;
                    let has_answered = broker.load(&wanted).await.outcome.is_ok();
                    if has_answered || watch.lasts(broker.ports.uptime()) >= SAVE_LIMIT {
                        break;
                    }
                }
                // Not by way of `save_later`: another key's turn may last for a minute.
                if broker.instance.unsaved_token(&wanted).is_some() {
                    broker.clone().finish(wanted, None).await;
                }
            }
        })
    }

    /// Lets a request that was served a token which the store lacks write it after the answer, if
    /// the store works again.
    pub(super) fn save_after_answer(&self, wanted: &Wanted) -> Option<Followup> {
        if self.store_is_failing() { None } else { self.save_later(wanted) }
    }

    /// Lets a request write after its answer what the store lacks of a token, or of its revocation.
    pub(super) fn save_later(&self, wanted: &Wanted) -> Option<Followup> {
        let (broker, wanted) = (self.clone(), wanted.clone());
        self.instance.unsaved_token(&wanted).is_some().then(|| {
            Box::pin(async move {
                let instance = Rc::clone(&broker.instance);
                // One is enough for all requests of the instance.
                if let Some(_turn) = Turn::take(&instance.is_saving) {
                    broker.finish(wanted, None).await;
                }
            }) as Followup
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{TestPorts, at, finish, wanted};
    use super::*;
    use crate::error::{Cause, Error};
    use crate::gate::{LEASE_LIFE, Ledger, Need, lease_key, ledger_key};
    use crate::secret::AccessToken;
    use crate::token::Token;
    use crate::upstream::Failure;

    #[test]
    fn calls_of_others_are_not_erased() {
        let (ports, wanted) = (TestPorts::default(), wanted());
        let [other, broker] = [ports.broker(), ports.broker()];
        other.reserve(&wanted, Need::Now, at(0)).unwrap();
        finish(other.store_ledger(&wanted.config)).unwrap();
        // This instance makes its call while the store is down.
        broker.reserve(&wanted, Need::Now, at(1)).unwrap();
        let lease = Lease { holder: 1, until_ms: at(0) + LEASE_LIFE };
        finish(broker.finish(wanted.clone(), Some(lease)));
        let mut both = Ledger::default();
        both.reserve(at(0), wanted.caller_tag(), "default", 0);
        both.reserve(at(1), wanted.caller_tag(), "default", 1);
        assert_eq!(ports.0.store.borrow()[&ledger_key(&wanted.config.identity)], both.encode());
    }

    #[test]
    fn lease_is_kept_while_a_write_of_the_ledger_that_was_given_up_may_land() {
        let (ports, wanted) = (TestPorts::default(), wanted());
        ports.0.sleep_takes_time.set(true);
        let (broker, key) = (ports.broker(), lease_key(&wanted.config.identity));
        let lease = Lease { holder: 1, until_ms: at(0) + LEASE_LIFE };
        ports.0.store.borrow_mut().insert(key.clone(), lease.encode());
        broker.reserve(&wanted, Need::Now, at(0)).unwrap();
        ports.0.unanswered_sets.set(1);
        finish(broker.clone().finish(wanted.clone(), Some(lease)));
        // This request did not need to wait for its own lease.
        assert!(!broker.instance.lacks_saved_ledger());
        assert!((1..=6).contains(&ports.0.seconds.get()), "{} s", ports.0.seconds.get());
        let held = Lease::decode(&ports.0.store.borrow()[&key]).unwrap();
        assert_ne!(held, lease);
        ports.0.seconds.set(12);
        finish(broker.release_lease(&wanted.config, Lease { until_ms: at(30), ..held })).unwrap();
        assert_eq!(Lease::decode(&ports.0.store.borrow()[&key]), Some(held), "another one's");
        let later = Lease { until_ms: at(30), ..held };
        ports.0.store.borrow_mut().insert(key.clone(), later.encode());
        finish(broker.release_lease(&wanted.config, later)).unwrap();
        assert_eq!(ports.0.store.borrow()[&key], b"");
    }

    #[test]
    fn pause_grows_and_ends_also_after_the_store_has_been_read_again() {
        let (ports, wanted) = (TestPorts::default(), wanted());
        let broker = ports.broker();
        let play = |now: u64, kept: Result<Result<Rc<Token>, Error>, Failure>| {
            ports.0.seconds.set(now);
            let lease = Lease { holder: now, until_ms: at(now) + LEASE_LIFE };
            ports.0.store.borrow_mut().insert(lease_key(&wanted.config.identity), lease.encode());
            let reservation = broker.reserve(&wanted, Need::Now, at(now)).unwrap();
            finish(broker.store_ledger(&wanted.config)).unwrap();
            let _ = broker.settle(&wanted, reservation, &kept, at(now));
            finish(broker.clone().finish(wanted.clone(), Some(lease)));
            assert!(!broker.instance.lacks_saved_ledger());
            match broker.admit(&wanted, Need::Now, at(now)) {
                Err(Error::Unavailable { retry_after, .. }) => retry_after.as_secs(),
                other => panic!("{other:?} at {now} s"),
            }
        };
        let failure = || Err(Failure::Unavailable(Cause::ServerError, None));
        assert!((5..=6).contains(&play(0, failure())));
        assert!((10..=12).contains(&play(100, failure())));
        assert!((20..=24).contains(&play(200, failure())));
        // OfficeRnD grants a token, though one that is about to expire.
        let reservation = {
            ports.0.seconds.set(300);
            broker.reserve(&wanted, Need::Now, at(300)).unwrap()
        };
        finish(broker.store_ledger(&wanted.config)).unwrap();
        let expiring = Err(Error::unavailable(Cause::TokenExpiring, Duration::ZERO));
        let _ = broker.settle(&wanted, reservation, &Ok(expiring), at(300));
        finish(broker.load_ledger(&wanted.config)).unwrap();
        finish(broker.store_ledger(&wanted.config)).unwrap();
        assert!((5..=6).contains(&play(400, failure())), "a success starts the count again");
    }

    const REVOKED: &str = "revoked";

    /// What the store has under the key of `wanted`: the text of a token, or [`REVOKED`].
    fn stored(ports: &TestPorts, wanted: &Wanted) -> String {
        let bytes = ports.0.store.borrow()[&wanted.key().of_token()].clone();
        let token = Token::open(&bytes, wanted.key(), &wanted.credential.seal).expect("a sealed record");
        if token.revoked_at.is_some() { REVOKED.to_owned() } else { token.access_token.expose().to_owned() }
    }

    fn token() -> Token {
        let requested = wanted().scopes;
        Token {
            access_token: AccessToken::new("t"),
            scopes: requested.clone(),
            requested,
            expires_at: at(3600),
            fetched_at: at(0),
            stalled: false,
            revoked_at: None,
        }
    }

    #[test]
    fn token_that_is_written_late_does_not_undo_the_revocation_of_another_instance() {
        let (ports, wanted) = (TestPorts::default(), wanted());
        let [other, broker] = [ports.broker(), ports.broker()];
        broker.instance.remember(&wanted, at(0), Some(Rc::new(token())), true);
        let (of_other, revoked) = (wanted.clone(), Rc::new(token().revoked(at(1))));
        // Its first write has landed after all, and another instance revokes the token during the
        // next ones.
        ports.0.during_set.replace(Some(Box::new(move || finish(other.save(&of_other, &revoked)).unwrap())));
        let lease = Lease { holder: 1, until_ms: at(0) + LEASE_LIFE };
        finish(broker.save_with_lease(&wanted, lease));
        assert_eq!(stored(&ports, &wanted), REVOKED);
        assert!(!broker.lacks_saved(&wanted));
    }

    /// Revokes a token that the store has, or only this instance. A write of the token lands
    /// afterwards, and the next read of the store fails.
    fn revoke_before_a_late_write(is_unsaved: bool) {
        let (ports, wanted) = (TestPorts::default(), wanted());
        ports.0.sleep_takes_time.set(true);
        let [other, broker] = [ports.broker(), ports.broker()];
        if is_unsaved {
            broker.instance.remember(&wanted, at(0), Some(Rc::new(token())), true);
        } else {
            finish(other.save(&wanted, &Rc::new(token()))).unwrap();
        }
        let (config, caller) = (wanted.config.clone(), wanted.caller.clone());
        let revocation = finish(broker.revoke(&config, &caller, "t", wanted.request_id, at(0)));
        let followup = revocation.unwrap().expect("a look at the store");
        assert_eq!(stored(&ports, &wanted), REVOKED);
        let (of_other, failing) = (wanted.clone(), ports.clone());
        ports.0.during_sleep.replace(Some(Box::new(move || {
            finish(other.save(&of_other, &Rc::new(Token { stalled: true, ..token() }))).unwrap();
            failing.0.outcomes.replace([false, false].into());
        })));
        finish(followup);
        assert!(ports.0.during_sleep.borrow().is_none(), "the follow-up waits before it looks");
        assert_eq!(stored(&ports, &wanted), REVOKED, "unsaved: {is_unsaved}");
    }

    #[test]
    fn revocation_is_written_again_if_a_write_of_the_token_lands_after_it() {
        revoke_before_a_late_write(false);
        revoke_before_a_late_write(true);
    }

    #[test]
    fn token_that_the_index_lacks_is_not_written_in_place_of_another() {
        let (ports, wanted) = (TestPorts::default(), wanted());
        let broker = ports.broker();
        let revoked = Rc::new(token().revoked(at(1)));
        broker.instance.remember(&wanted, at(0), Some(revoked), true);
        // A fetch without the store ends during the read that follows the write of the ledger.
        let (reading, other, of_other) = (ports.clone(), broker.clone(), wanted.clone());
        ports.0.during_set.replace(Some(Box::new(move || {
            let (other, of_other) = (other.clone(), of_other.clone());
            reading.0.during_get.replace(Some(Box::new(move || {
                let next = Token { access_token: AccessToken::new("next"), fetched_at: at(2), ..token() };
                other.instance.remember(&of_other, at(2), Some(Rc::new(next)), true);
            })));
        })));
        let lease = Lease { holder: 1, until_ms: at(0) + LEASE_LIFE };
        finish(broker.save_with_lease(&wanted, lease));
        let is_indexed = |ports: &TestPorts| {
            let index = ports.0.store.borrow().get(&Index::key(&wanted.config.identity)).cloned();
            Index::decode(index.unwrap_or_default()).find("next").is_some()
        };
        assert!(broker.lacks_saved(&wanted) || is_indexed(&ports));
        finish(broker.save_with_lease(&wanted, lease));
        assert_eq!((stored(&ports, &wanted).as_str(), is_indexed(&ports)), ("next", true));
    }
}
