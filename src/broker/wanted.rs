//! What a request wants: scopes of an application, fetched with one of its credentials.

use std::cell::OnceCell;
use std::rc::Rc;
use std::time::Duration;

use crate::config::Config;
use crate::config::application::{Application, Credential};
use crate::config::caller::Caller;
use crate::digest::{hex, in_memory_hash};
use crate::gate::{CallerTag, Need, Quota};
use crate::mutation::{self, Rule};
use crate::scope::Scopes;
use crate::token::Key;

/// Name of a request in the log: 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId([u8; 32]);

impl RequestId {
    /// The name with this number.
    pub fn new(number: u128) -> Self {
        Self::from_digits(&hex(&number.to_be_bytes())).expect("sixteen bytes have 32 digits")
    }

    /// The name with these digits, which must be lower-case hexadecimal; `None` if they are not 32.
    pub(crate) fn from_digits(digits: &str) -> Option<Self> {
        digits.as_bytes().try_into().ok().map(Self)
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("digits are ASCII")
    }
}

/// The token that a request wants, before it is found.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) config: Rc<Config>,
    /// The caller that asks, or for which a renewal was begun.
    pub(super) caller: Rc<Caller>,
    pub(super) application: Rc<Application>,
    /// Credential that a fetch would use.
    pub(super) credential: Rc<Credential>,
    pub(super) scopes: Scopes,
    /// Request that wants it.
    pub(super) request_id: RequestId,
    /// Remaining lifetime below which the token is renewed before it is returned.
    pub(super) min_remaining: Duration,
    /// Hash of application, credential and scopes, as in `Remembered`.
    pub(super) hash: u64,
    pub(super) key: OnceCell<Key>,
    /// Computed only if a call may be necessary.
    pub(super) caller_tag: OnceCell<CallerTag>,
}

impl Wanted {
    pub(super) fn new(
        config: Rc<Config>,
        caller: Rc<Caller>,
        application: Rc<Application>,
        credential: Rc<Credential>,
        scopes: Scopes,
        request_id: RequestId,
    ) -> Self {
        let hash = in_memory_hash((&application.name, &credential.fingerprint, &scopes));
        let min_remaining = caller.min_remaining.unwrap_or(config.min_remaining);
        Self {
            config,
            caller,
            application,
            credential,
            scopes,
            request_id,
            min_remaining,
            hash,
            key: OnceCell::new(),
            caller_tag: OnceCell::new(),
        }
    }

    pub(super) fn key(&self) -> Key {
        *self.key.get_or_init(|| Key::of(&self.application, &self.credential, &self.scopes))
    }

    /// The caller's name in the ledger. It does not change when a fetch uses the next credential.
    pub(super) fn caller_tag(&self) -> CallerTag {
        *self.caller_tag.get_or_init(|| CallerTag(self.application.current.seal.tag(&self.caller.name)))
    }

    /// The call quota for a need. Renewals leave calls to others in any case.
    pub(super) fn quota(&self, need: Need) -> Quota {
        let is_shared = need == Need::Now && self.config.callers.count() > 1 && mutation::holds(Rule::Share);
        Quota { calls: self.config.calls_per_minute, shared_by: is_shared.then(|| self.caller_tag()) }
    }

    /// The same scopes and application with another credential.
    pub(super) fn with_credential(&self, credential: &Rc<Credential>) -> Self {
        let (config, caller, application) = (self.config.clone(), self.caller.clone(), self.application.clone());
        let wanted = Self::new(config, caller, application, credential.clone(), self.scopes.clone(), self.request_id);
        Self { caller_tag: self.caller_tag.clone(), ..wanted }
    }

    /// The same with the application's other credential, if a rotation is in progress.
    pub(super) fn with_other_credential(&self) -> Option<Self> {
        let is_other = |other: &&Rc<Credential>| !Rc::ptr_eq(other, &self.credential);
        self.application.credentials().find(is_other).map(|other| self.with_credential(other))
    }
}
