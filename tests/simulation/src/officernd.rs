//! OfficeRnD's token endpoint, as far as the broker can tell. It counts every call and limits
//! them.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use http::{Response, StatusCode};
use tokio::time::Instant;

use officernd_token_broker::broker::SendError;
use officernd_token_broker::scope::Scopes;

/// Behaviour of OfficeRnD at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Answers as documented.
    Well,
    /// Answers 500.
    Down,
    /// Accepts the call and never answers.
    Hangs,
    /// Answers as documented, after seconds.
    Slow,
    /// Answers 200 with a body that is not a token.
    Garbage,
    /// Answers 429, with this `Retry-After` in seconds.
    Limits(Option<u64>),
    /// Answers 401.
    RefusesCredential,
    /// Refuses connections, so that a call never arrives.
    Unreachable,
}

/// A token that OfficeRnD has issued.
#[derive(Clone, Debug)]
pub(crate) struct Issued {
    pub(crate) scopes: Scopes,
    pub(crate) client_id: String,
    pub(crate) until: Instant,
}

/// A call to OfficeRnD.
pub(crate) struct Call {
    pub(crate) began: Instant,
    /// The caller whose request led to it.
    pub(crate) caller: usize,
    /// When it reached OfficeRnD.
    pub(crate) arrived: Cell<Option<Instant>>,
    /// Whether the store had told its instance before the call that the ledger has it.
    pub(crate) is_recorded: bool,
    /// Whether a ledger with it has reached the store, and whether one was lost although the store
    /// said that it had succeeded.
    pub(crate) is_stored: Cell<bool>,
    pub(crate) is_lost: Cell<bool>,
    /// Whether that happened when the call had arrived.
    pub(crate) is_lost_after_arrival: Cell<bool>,
    /// Whether nobody can know of the call any more.
    pub(crate) is_forgiven: Cell<bool>,
}

pub(crate) struct OfficeRnd {
    pub(crate) mood: Mood,
    limit: usize,
    life: Duration,
    reissues: bool,
    /// Arrival times of the calls in the last minute.
    arrivals: VecDeque<Instant>,
    pub(crate) calls: usize,
    pub(crate) issued: BTreeMap<String, Issued>,
}

/// How long OfficeRnD counts a call.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);

impl OfficeRnd {
    pub(crate) fn new(limit: usize, life: Duration, reissues: bool) -> Self {
        Self { mood: Mood::Well, limit, life, reissues, arrivals: VecDeque::new(), calls: 0, issued: BTreeMap::new() }
    }

    /// Handles a call. `None` means that it is never answered.
    pub(crate) fn call(&mut self, body: &str) -> Option<Result<Response<Vec<u8>>, SendError>> {
        let now = Instant::now();
        while self.arrivals.front().is_some_and(|arrival| *arrival + WINDOW <= now) {
            self.arrivals.pop_front();
        }
        if self.mood == Mood::Unreachable {
            return Some(Err(SendError::Unreachable));
        }
        self.arrivals.push_back(now);
        self.calls += 1;
        if self.arrivals.len() > self.limit {
            return Some(answer(429, "Too many requests, please try again later", None));
        }
        Some(match self.mood {
            Mood::Unreachable => unreachable!("returned above"),
            Mood::Hangs => return None,
            Mood::Down => answer(500, "", None),
            Mood::Garbage => answer(200, "<html>", None),
            Mood::Limits(seconds) => answer(429, "Too many requests, please try again later", seconds),
            Mood::RefusesCredential => answer(401, r#"{"error":"invalid_client"}"#, None),
            Mood::Well | Mood::Slow => self.grant(body, now),
        })
    }

    fn grant(&mut self, body: &str, now: Instant) -> Result<Response<Vec<u8>>, SendError> {
        let form: BTreeMap<String, String> = body
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.into(), value.replace('+', " ")))
            .collect();
        let scopes = Scopes::parse(&form["scope"]).expect("the broker sends a scope list");
        let client_id = &form["client_id"];
        let known = self.issued.iter().find(|(_, issued)| {
            self.reissues && issued.scopes == scopes && issued.client_id == *client_id && issued.until > now
        });
        let token = match known {
            Some((token, _)) => token.clone(),
            None => {
                let token = token(self.issued.len() as u64);
                let issued = Issued { scopes: scopes.clone(), client_id: client_id.clone(), until: now + self.life };
                self.issued.insert(token.clone(), issued);
                token
            }
        };
        let expires_in = (self.issued[&token].until - now).as_secs();
        let scope = scopes.as_str();
        answer(
            200,
            &format!(
                r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":{expires_in},"scope":"{scope}"}}"#
            ),
            None,
        )
    }
}

/// The text of the token of a number.
pub(crate) fn token(number: u64) -> String {
    format!("{number:040x}")
}

fn answer(status: u16, body: &str, retry_after: Option<u64>) -> Result<Response<Vec<u8>>, SendError> {
    let mut response = Response::new(body.as_bytes().to_vec());
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    if let Some(seconds) = retry_after {
        response.headers_mut().insert("retry-after", seconds.into());
    }
    Ok(response)
}
