//! Flights: fetches that several requests of one instance share, and how they end.

use std::cell::RefCell;
use std::rc::Rc;

use crate::config::caller::Caller;
use crate::error::Error;
use crate::gate::Need;
use crate::token::{Key, Token};

/// A running fetch, and its outcome once it has ended.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) key: Key,
    pub(super) need: Need,
    /// The caller whose request leads it.
    pub(super) caller: Rc<Caller>,
    pub(super) landed: RefCell<Option<Landing>>,
}

#[derive(Clone, Debug)]
pub(super) enum Landing {
    Ended(FetchOutcome),
    /// The host dropped the request that led the fetch.
    Abandoned,
}

/// How a fetch ended.
#[derive(Clone, Debug)]
pub(super) struct FetchOutcome {
    pub(super) token: Result<Rc<Token>, Error>,
    /// Whether the fetch called OfficeRnD.
    pub(super) is_called: bool,
}

impl FetchOutcome {
    pub(super) fn without_call(token: Result<Rc<Token>, Error>) -> Self {
        Self { token, is_called: false }
    }
}
