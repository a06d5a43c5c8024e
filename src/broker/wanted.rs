//! What a request wants: scopes of an application, fetched with one of its credentials.

use std::cell::OnceCell;
use std::rc::Rc;
use std::time::Duration;

use crate::config::Config;
use crate::config::application::{Application, Credential};
use crate::digest::in_memory_hash;
use crate::scope::Scopes;
use crate::token::Key;

/// The token that a request wants, before it is found.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) config: Rc<Config>,
    pub(super) application: Rc<Application>,
    /// Credential that a fetch would use.
    pub(super) credential: Rc<Credential>,
    pub(super) scopes: Scopes,
    /// Remaining lifetime below which the token is renewed before it is returned.
    pub(super) min_remaining: Duration,
    /// Hash of application, credential and scopes, as in `Remembered`.
    pub(super) hash: u64,
    pub(super) key: OnceCell<Key>,
}

impl Wanted {
    pub(super) fn new(
        config: Rc<Config>,
        application: Rc<Application>,
        credential: Rc<Credential>,
        scopes: Scopes,
    ) -> Self {
        let hash = in_memory_hash((&application.name, &credential.fingerprint, &scopes));
        let min_remaining = config.min_remaining;
        Self { config, application, credential, scopes, min_remaining, hash, key: OnceCell::new() }
    }

    pub(super) fn key(&self) -> Key {
        *self.key.get_or_init(|| Key::of(&self.application, &self.credential, &self.scopes))
    }

    /// The same scopes and application with another credential.
    pub(super) fn with_credential(&self, credential: &Rc<Credential>) -> Self {
        let (config, application) = (self.config.clone(), self.application.clone());
        let min_remaining = self.min_remaining;
        Self { min_remaining, ..Self::new(config, application, credential.clone(), self.scopes.clone()) }
    }

    /// The same with the application's other credential, if a rotation is in progress.
    pub(super) fn with_other_credential(&self) -> Option<Self> {
        let is_other = |other: &&Rc<Credential>| !Rc::ptr_eq(other, &self.credential);
        self.application.credentials().find(is_other).map(|other| self.with_credential(other))
    }
}
