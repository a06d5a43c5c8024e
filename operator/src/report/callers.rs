//! What each caller did, for a bounded number of callers.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};

use super::line::{Call, Outcome, Request};
use super::recent::Recent;
use super::tally::Tally;

/// Most callers that get a row. The broker writes only names of the policy, and `unknown`.
const MAX_CALLERS: usize = 2_000;

/// Most sets of scopes that are told apart for one caller.
pub(super) const MAX_SCOPE_SETS: usize = 200;

/// Tokens of callers that are remembered: a token is counted again if so many others were in use since.
const TOKENS: usize = 50_000;

/// Requests that are remembered for their calls.
const REQUESTS: usize = 20_000;

#[derive(Default)]
pub(super) struct Caller {
    pub(super) name: String,
    pub(super) requests: u64,
    pub(super) ok: u64,
    pub(super) denied: u64,
    pub(super) failed: u64,
    pub(super) tokens: u64,
    /// Digests of the sets of scopes.
    pub(super) scope_sets: HashSet<u64>,
    /// Calls to OfficeRnD that the caller's requests led.
    pub(super) calls: u64,
    pub(super) reasons: Tally,
    pub(super) first_ms: u64,
    pub(super) last_ms: u64,
}

pub(super) struct Callers {
    pub(super) rows: Vec<Caller>,
    places: HashMap<String, u32>,
    /// Requests of callers beyond the bound.
    pub(super) not_listed: u64,
    tokens: Recent<(u32, u64), (), TOKENS>,
    requests: Recent<u128, u32, REQUESTS>,
    /// Calls whose line came before that of their request.
    ahead: Recent<u128, u64, REQUESTS>,
    hasher: RandomState,
}

impl Callers {
    pub(super) fn new() -> Self {
        Self {
            rows: Vec::new(),
            places: HashMap::new(),
            not_listed: 0,
            tokens: Recent::new(),
            requests: Recent::new(),
            ahead: Recent::new(),
            hasher: RandomState::new(),
        }
    }

    pub(super) fn add_request(&mut self, request: &Request<'_>) {
        let Some(place) = self.place(&request.caller, request.time_ms) else {
            self.not_listed += 1;
            return;
        };
        let row = &mut self.rows[place as usize];
        row.requests += 1;
        row.first_ms = row.first_ms.min(request.time_ms);
        row.last_ms = row.last_ms.max(request.time_ms);
        match request.outcome {
            Outcome::Ok => row.ok += 1,
            Outcome::Denied => row.denied += 1,
            Outcome::Failed => row.failed += 1,
        }
        if let Some(reason) = &request.reason {
            row.reasons.add(reason);
        }
        if let Some(scopes) = &request.scopes {
            let digest = self.hasher.hash_one(scopes.as_ref());
            if row.scope_sets.len() < MAX_SCOPE_SETS {
                row.scope_sets.insert(digest);
            }
        }
        if let Some(token) = request.token
            && self.tokens.insert((place, token), ()).is_none()
        {
            row.tokens += 1;
        }
        // Only an authorized request leads a call.
        if request.scopes.is_some() {
            row.calls += self.ahead.remove(&request.id).unwrap_or_default();
            self.requests.insert(request.id, place);
        }
    }

    pub(super) fn add_call(&mut self, call: &Call<'_>) {
        match self.requests.get(&call.id) {
            Some(place) => self.rows[*place as usize].calls += 1,
            None => {
                let before = self.ahead.get(&call.id).copied().unwrap_or_default();
                self.ahead.insert(call.id, before + 1);
            }
        }
    }

    /// The place of a caller's row, which is made if there is room.
    fn place(&mut self, name: &str, time_ms: u64) -> Option<u32> {
        if let Some(place) = self.places.get(name) {
            return Some(*place);
        }
        if self.rows.len() >= MAX_CALLERS {
            return None;
        }
        let place = self.rows.len() as u32;
        self.places.insert(name.to_owned(), place);
        self.rows.push(Caller { name: name.to_owned(), first_ms: time_ms, ..Caller::default() });
        Some(place)
    }
}
