//! What outlives a request.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use super::flight::Flight;
use super::wanted::Wanted;
use crate::config::application::{Application, Credential};
use crate::config::{Audited, Config};
use crate::error::Error;
use crate::gate::Ledger;
use crate::scope::Scopes;
use crate::time::{Timestamp, is_recent};
use crate::token::{Key, Token};

/// How long a configuration is remembered, so that a changed variable is heeded without a restart.
const CONFIG_MEMORY: Duration = Duration::from_secs(10);

/// Most tokens an instance remembers. The one that was looked up longest ago makes room.
const TOKENS_REMEMBERED: usize = 256;

/// What outlives a request. Nothing in it tells who called.
///
/// Requests of an instance run interleaved: no borrow of a cell may cross an await.
#[derive(Debug)]
pub struct Instance {
    pub(super) config: RefCell<Option<ReadConfig>>,
    /// A short list: a search through it costs less than the code of a map.
    pub(super) tokens: RefCell<Vec<Remembered>>,
    pub(super) flights: RefCell<Vec<Rc<Flight>>>,
    /// The ledger as last seen or written, with what is in `unsaved_ledger`.
    pub(super) ledger: RefCell<Ledger>,
    /// What the store does not know, because it did not take the ledger since: it may be read all the same.
    pub(super) unsaved_ledger: RefCell<Ledger>,
    /// Sets this instance apart from the others of a fleet: in when it renews, and in the names of its requests.
    pub(super) random: u64,
    /// How many requests got a name.
    pub(super) requests_named: Cell<u64>,
}

#[derive(Debug)]
pub(super) struct ReadConfig {
    /// When the variables were last asked for.
    pub(super) read_at: Timestamp,
    /// When they last answered.
    pub(super) answered_at: Timestamp,
    pub(super) outcome: Result<Rc<Config>, Error>,
}

#[derive(Clone, Debug)]
pub(super) struct Remembered {
    /// Of the next three, and compared first: scopes are alike to the last letters, and as many as are remembered would be
    /// compared to the end.
    pub(super) hash: u64,
    /// What [`Key`] hashes, compared as it is: a request that memory can serve needs no digest for it.
    pub(super) application: Rc<Application>,
    pub(super) credential: Rc<Credential>,
    pub(super) scopes: Scopes,
    /// When the store was last asked, or told.
    pub(super) looked_at: Timestamp,
    /// What it had, or what it would not keep.
    pub(super) token: Option<Rc<Token>>,
    /// The store did not take the token: it is here or nowhere.
    pub(super) is_unsaved: bool,
}

impl Instance {
    /// An instance that remembers nothing yet.
    pub fn new(random: u64) -> Self {
        Self {
            config: RefCell::default(),
            tokens: RefCell::default(),
            flights: RefCell::default(),
            ledger: RefCell::default(),
            unsaved_ledger: RefCell::default(),
            random,
            requests_named: Cell::default(),
        }
    }

    /// A name that no other request has, of this instance or another.
    pub fn name_request(&self) -> u128 {
        let number = self.requests_named.get();
        self.requests_named.set(number + 1);
        u128::from(self.random) << 64 | u128::from(number)
    }

    /// The configuration, if it was read within 10 s.
    pub(super) fn recent_config(&self, now: Timestamp) -> Option<Result<Rc<Config>, Error>> {
        let config = self.config.borrow();
        config
            .as_ref()
            .filter(|config| is_recent(config.read_at, now, CONFIG_MEMORY))
            .map(|config| config.outcome.clone())
    }

    /// Which requests the configuration wants in the log; all of them, while there is none.
    pub fn audited(&self) -> Audited {
        match &*self.config.borrow() {
            Some(ReadConfig { outcome: Ok(config), .. }) => config.audited,
            _ => Audited::All,
        }
    }

    /// From none up to a quarter of `min_remaining`.
    pub(super) fn jitter(&self, min_remaining: Duration) -> Duration {
        min_remaining / 4 * u32::from(self.random as u8) / 255
    }

    pub(super) fn remember(&self, wanted: &Wanted, looked_at: Timestamp, token: Option<Rc<Token>>, is_unsaved: bool) {
        let mut tokens = self.tokens.borrow_mut();
        tokens.retain(|remembered| !remembered.is_for(wanted));
        if tokens.len() >= TOKENS_REMEMBERED {
            // Every look is written at the end, so the first is the one that was looked up longest ago.
            tokens.remove(0);
        }
        let Wanted { hash, application, credential, scopes, .. } = wanted.clone();
        tokens.push(Remembered { hash, application, credential, scopes, looked_at, token, is_unsaved });
    }

    pub(super) fn remembered<T>(&self, wanted: &Wanted, read: impl Fn(&Remembered) -> T) -> Option<T> {
        self.tokens.borrow().iter().find(|remembered| remembered.is_for(wanted)).map(read)
    }

    /// Whether this token is one that the store did not take.
    pub(super) fn holds_unsaved(&self, token: &str) -> bool {
        let is_token = |known: &Rc<Token>| known.access_token.expose() == token;
        self.tokens.borrow().iter().any(|remembered| remembered.is_unsaved && remembered.token.iter().any(is_token))
    }

    /// The token as last seen.
    pub(super) fn last_token(&self, wanted: &Wanted) -> Option<Rc<Token>> {
        self.remembered(wanted, |remembered| remembered.token.clone())?
    }

    /// Changes the ledger. Until the store has taken it, the change is unsaved.
    pub(super) fn update_ledger<T>(&self, change: impl Fn(&mut Ledger) -> T) -> T {
        change(&mut self.unsaved_ledger.borrow_mut());
        change(&mut self.ledger.borrow_mut())
    }

    pub(super) fn flight(&self, key: Key) -> Option<Rc<Flight>> {
        self.flights.borrow().iter().find(|flight| flight.key == key).cloned()
    }
}

/// The broker of one instance.
#[derive(Clone, Debug)]
pub struct Broker<P> {
    /// The world.
    pub ports: P,
    /// What outlives a request.
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
