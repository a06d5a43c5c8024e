//! A fetch that requests of one instance share, and how it ended.

use std::cell::RefCell;
use std::rc::Rc;

use crate::error::Error;
use crate::gate::Need;
use crate::token::{Key, Token};

/// A fetch that requests of one instance share.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) key: Key,
    pub(super) need: Need,
    pub(super) landed: RefCell<Option<Landing>>,
}

#[derive(Clone, Debug)]
pub(super) enum Landing {
    Ended(FetchOutcome),
    /// The request that led the fetch was dropped on the way.
    Abandoned,
}

/// How a fetch ended.
#[derive(Clone, Debug)]
pub(super) struct FetchOutcome {
    pub(super) token: Result<Rc<Token>, Error>,
    /// The call it made, if it made one: it may as well find what another one brought.
    pub(super) upstream: Option<UpstreamCall>,
}

impl FetchOutcome {
    pub(super) fn without_call(token: Result<Rc<Token>, Error>) -> Self {
        Self { token, upstream: None }
    }
}

/// What a call to OfficeRnD looked like, for the audit line.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamCall {
    /// The HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// How long it took, in milliseconds.
    pub ms: u64,
}
