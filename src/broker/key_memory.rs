//! What an instance remembers of the keys of issuers.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use http::Uri;

use crate::config::Config;
use crate::key_record::KeyRecord;
use crate::mutation::{self, Rule};
use crate::time::Timestamp;

/// The keys at each address in the configuration.
#[derive(Debug, Default)]
pub(super) struct KeyMemory(RefCell<Vec<Rc<FetchedKeys>>>);

/// The keys at an address.
#[derive(Debug)]
pub(super) struct FetchedKeys {
    pub(super) uri: Uri,
    pub(super) record: RefCell<KeyRecord>,
    /// Whether a request is renewing the record.
    pub(super) is_renewing: Cell<bool>,
}

impl KeyMemory {
    /// The keys at an address. Forgets those whose issuer is no longer in the configuration.
    pub(super) fn at(&self, uri: &Uri, config: &Config) -> Rc<FetchedKeys> {
        let mut known = self.0.borrow_mut();
        if let Some(keys) = known.iter().find(|keys| keys.uri == *uri || !mutation::holds(Rule::KeysApart)) {
            return keys.clone();
        }
        known.retain(|keys| keys.are_used(config));
        let keys = Rc::new(FetchedKeys { uri: uri.clone(), record: RefCell::default(), is_renewing: Cell::default() });
        known.push(keys.clone());
        keys
    }

    /// Whether the keys of an issuer are an hour old, or there are none, and the last fetch failed.
    pub(super) fn is_in_trouble(&self, config: &Config, now: Timestamp) -> bool {
        self.0.borrow().iter().any(|keys| keys.are_used(config) && keys.record.borrow().is_in_trouble(now))
    }
}

impl FetchedKeys {
    fn are_used(&self, config: &Config) -> bool {
        config.issuers.iter().any(|issuer| issuer.jwks_uri() == Some(&self.uri))
    }
}
