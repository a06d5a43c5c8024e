//! What an instance remembers between requests: configuration, tokens, flights and ledger.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::config_memory::ConfigMemory;
use super::flight::Flight;
use super::key_memory::KeyMemory;
use super::store_failures::StoreMemory;
use super::wanted::Wanted;
use crate::config::Audited;
use crate::config::application::{Application, Credential};
use crate::gate::{Counts, Ledger, Refusal};
use crate::scope::Scopes;
use crate::time::Timestamp;
use crate::token::{Key, Token};

/// Most tokens that an instance remembers. The one that was looked up longest ago makes room.
const TOKENS_REMEMBERED: usize = 256;

/// State that outlives a request. Of callers it has the policy, who leads each flight, and the
/// ledger's tags.
///
/// Requests of an instance run interleaved, so no borrow of a cell may cross an await.
#[derive(Debug)]
pub struct Instance {
    pub(super) config: RefCell<ConfigMemory>,
    /// Whether a request is reading the variables.
    pub(super) is_reading_config: Cell<bool>,
    /// Whether a request is writing a token that the store lacks.
    pub(super) is_saving: Cell<bool>,
    /// Whether a request is checking the store for `/readyz`.
    pub(super) is_checking_store: Cell<bool>,
    /// When the store was last checked for `/readyz`, and whether it worked.
    pub(super) store_checked: Cell<Option<(Timestamp, bool)>>,
    /// A list: at this length, searching it takes less time and less code than a map.
    pub(super) tokens: RefCell<Vec<Remembered>>,
    /// Refusals of scope sets that this instance has met and that are not over: the store may not
    /// have accepted them.
    refusals: RefCell<Vec<(Key, Refusal)>>,
    pub(super) flights: RefCell<Vec<Rc<Flight>>>,
    /// Ledger as last read or written, merged with `unsaved_ledger`.
    pub(super) ledger: RefCell<Ledger>,
    /// Number of reads and writes of the ledger so far, and of the latest whose outcome `ledger` has.
    pub(super) ledger_operations: Cell<u64>,
    pub(super) ledger_known: Cell<u64>,
    /// Changes since the store last accepted the ledger. The store can lack them, even if it
    /// can be read.
    pub(super) unsaved_ledger: RefCell<Ledger>,
    /// Numbers of calls that the store had when it was last read for metrics.
    pub(super) counts: RefCell<Option<Counts>>,
    /// When the operator was last told that two clocks are too far apart.
    pub(super) warned_of_clock_at: Cell<Option<Timestamp>>,
    /// Keys of issuers that are fetched.
    pub(super) issuer_keys: KeyMemory,
    /// Failures of the store, until an operation succeeds.
    pub(super) store: StoreMemory,
    /// Differs between the instances of a fleet, so that they renew at different times and name
    /// their requests differently.
    pub(super) random: u64,
    /// Number of requests that got a name.
    pub(super) requests_named: Cell<u64>,
}

#[derive(Clone, Debug)]
pub(super) struct Remembered {
    /// Hash of the next three fields, compared first: scope strings share long prefixes, so
    /// comparing all 256 remembered entries in full would be slow.
    pub(super) hash: u64,
    /// The inputs of [`Key`], compared as they are, so that a memory hit computes no SHA-256.
    pub(super) application: Rc<Application>,
    pub(super) credential: Rc<Credential>,
    pub(super) scopes: Scopes,
    /// When the store was last asked for this token, or the token was fetched.
    pub(super) looked_at: Timestamp,
    /// Token that the store held then, or that it did not accept; `None` if it held none.
    pub(super) token: Option<Rc<Token>>,
    /// The store did not accept the token, so no other instance has it.
    pub(super) is_unsaved: bool,
}

impl Instance {
    /// An instance that remembers nothing yet.
    pub fn new(random: u64) -> Self {
        Self {
            config: RefCell::default(),
            is_reading_config: Cell::default(),
            is_saving: Cell::default(),
            is_checking_store: Cell::default(),
            store_checked: Cell::default(),
            tokens: RefCell::default(),
            refusals: RefCell::default(),
            flights: RefCell::default(),
            ledger: RefCell::default(),
            ledger_operations: Cell::default(),
            ledger_known: Cell::default(),
            unsaved_ledger: RefCell::default(),
            counts: RefCell::default(),
            warned_of_clock_at: Cell::default(),
            issuer_keys: KeyMemory::default(),
            store: StoreMemory::default(),
            random,
            requests_named: Cell::default(),
        }
    }

    /// A name that no other request of the fleet has.
    pub fn name_request(&self) -> u128 {
        let number = self.requests_named.get();
        self.requests_named.set(number + 1);
        u128::from(self.random) << 64 | u128::from(number)
    }

    /// Which requests leave an audit line; all of them while no configuration is known.
    pub fn audited(&self) -> Audited {
        self.config.borrow().last_good().map_or(Audited::All, |config| config.audited)
    }

    /// How much later this instance renews than others, from 0 to 255.
    pub(super) fn jitter(&self) -> u8 {
        self.random as u8
    }

    pub(super) fn remember(&self, wanted: &Wanted, looked_at: Timestamp, token: Option<Rc<Token>>, is_unsaved: bool) {
        let mut tokens = self.tokens.borrow_mut();
        tokens.retain(|remembered| !remembered.is_for(wanted));
        if tokens.len() >= TOKENS_REMEMBERED {
            // Each lookup appends its entry, so the first entry was looked up longest ago. An entry
            // without a token is worth the least, and one that only this memory has the most.
            let first = |is_spared: fn(&Remembered) -> bool| tokens.iter().position(|known| !is_spared(known));
            let place = first(|known| known.token.is_some()).or_else(|| first(|known| known.is_unsaved));
            tokens.remove(place.unwrap_or(0));
        }
        let Wanted { hash, application, credential, scopes, .. } = wanted.clone();
        tokens.push(Remembered { hash, application, credential, scopes, looked_at, token, is_unsaved });
    }

    pub(super) fn remembered<T>(&self, wanted: &Wanted, read: impl Fn(&Remembered) -> T) -> Option<T> {
        self.tokens.borrow().iter().find(|remembered| remembered.is_for(wanted)).map(read)
    }

    /// The remembered token, if the store did not accept it.
    pub(super) fn unsaved_token(&self, wanted: &Wanted) -> Option<Rc<Token>> {
        self.remembered(wanted, |remembered| remembered.token.clone().filter(|_| remembered.is_unsaved))?
    }

    /// Remembers a refusal, and forgets those that are over. A refusal costs a call, so the call
    /// quota limits their number.
    pub(super) fn remember_refusal(&self, wanted: &Wanted, refusal: Refusal, now: Timestamp) {
        let mut refusals = self.refusals.borrow_mut();
        refusals.retain(|(key, known)| *key != wanted.key() && known.remaining(now).is_some());
        refusals.push((wanted.key(), refusal));
    }

    /// The last refusal of these scopes, whether or not it is over.
    pub(super) fn refusal(&self, key: Key) -> Option<Refusal> {
        self.refusals.borrow().iter().find(|(other, _)| *other == key).map(|(_, refusal)| *refusal)
    }

    /// The scopes for which this instance got `token` with a credential.
    pub(super) fn scopes_of(&self, token: &str, credential: &Credential) -> Option<Scopes> {
        let is_token = |known: &&Remembered| {
            known.credential.fingerprint == credential.fingerprint
                && known.token.as_ref().is_some_and(|known| known.access_token.expose() == token)
        };
        self.tokens.borrow().iter().find(is_token).map(|remembered| remembered.scopes.clone())
    }

    /// Whether the store lacks changes of the ledger.
    pub(super) fn lacks_saved_ledger(&self) -> bool {
        self.unsaved_ledger.borrow().has_changes()
    }

    /// The remembered token, however old the memory is.
    pub(super) fn last_token(&self, wanted: &Wanted) -> Option<Rc<Token>> {
        self.remembered(wanted, |remembered| remembered.token.clone())?
    }

    /// Number of remembered tokens that have not expired.
    pub(super) fn count_tokens(&self, now: Timestamp) -> usize {
        let tokens = self.tokens.borrow();
        tokens.iter().filter(|known| known.token.as_ref().is_some_and(|token| token.expires_at > now)).count()
    }

    /// Changes the ledger, and notes the change as unsaved until the store accepts it.
    pub(super) fn update_ledger<T>(&self, change: impl Fn(&mut Ledger) -> T) -> T {
        let (mut unsaved, mut ledger) = (self.unsaved_ledger.borrow_mut(), self.ledger.borrow_mut());
        change(&mut unsaved);
        let outcome = change(&mut ledger);
        unsaved.take_pauses_of(&ledger);
        outcome
    }

    pub(super) fn flight(&self, key: Key) -> Option<Rc<Flight>> {
        self.flights.borrow().iter().find(|flight| flight.key == key).cloned()
    }
}

/// One instance's broker: its memory, and its way to the outside world.
#[derive(Clone, Debug)]
pub struct Broker<P> {
    /// Clock, store, variables and OfficeRnD.
    pub ports: P,
    /// State that outlives a request.
    pub instance: Rc<Instance>,
}

impl Remembered {
    fn is_for(&self, wanted: &Wanted) -> bool {
        self.hash == wanted.hash
            && self.scopes == wanted.scopes
            && self.credential.fingerprint == wanted.credential.fingerprint
            && self.application.name == wanted.application.name
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{at, wanted};
    use super::*;
    use crate::secret::AccessToken;

    #[test]
    fn full_memory_forgets_absent_tokens_first_and_unsaved_ones_last() {
        let instance = Instance::new(7);
        let with_scopes = |scopes: String| {
            let wanted = wanted();
            let scopes = Scopes::parse(&scopes).unwrap();
            Wanted::new(wanted.config, wanted.caller, wanted.application, wanted.credential, scopes, wanted.request_id)
        };
        let token = Rc::new(Token {
            access_token: AccessToken::new("t"),
            requested: Scopes::parse("a").unwrap(),
            scopes: Scopes::parse("a").unwrap(),
            expires_at: at(3600),
            fetched_at: at(0),
            stalled: false,
            revoked_at: None,
        });
        let (unsaved, saved) = (with_scopes("unsaved".into()), with_scopes("saved".into()));
        instance.remember(&unsaved, at(0), Some(token.clone()), true);
        instance.remember(&saved, at(0), Some(token.clone()), false);
        for number in 0..TOKENS_REMEMBERED {
            instance.remember(&with_scopes(format!("s{number}")), at(0), None, false);
        }
        assert!(instance.last_token(&saved).is_some() && instance.last_token(&unsaved).is_some());
        for number in 0..TOKENS_REMEMBERED {
            instance.remember(&with_scopes(format!("s{number}")), at(0), Some(token.clone()), false);
        }
        assert!(instance.last_token(&saved).is_none() && instance.last_token(&unsaved).is_some());
        assert_eq!(instance.tokens.borrow().len(), TOKENS_REMEMBERED);
    }
}
