//! Invariants, checked at every answer and at every call.

use std::cell::RefCell;
use std::time::Duration;

use http::Response;
use http::header::RETRY_AFTER;
use officernd_token_broker::token::{Key, LEAST_REMAINING, Token};
use tokio::time::Instant;

use super::{Attempt, LIMIT, World, scopes_of};
use crate::officernd::WINDOW;

/// Longest wait of a request.
const LONGEST_WAIT: Duration = Duration::from_secs(12);

/// How long an instance may act on the store's last failure: it remembers it for 2 s, and an
/// operation that began in the fault may end a second after it.
const RECOVERY: Duration = Duration::from_secs(3);

impl World {
    /// Checks an answer and returns its `Retry-After`.
    pub(crate) fn check_response(
        &self,
        set: usize,
        attempt: Attempt,
        asked: Instant,
        response: &Response<String>,
    ) -> Option<u64> {
        let mut report = self.report.get();
        report.answered += 1;
        let status = response.status().as_u16();
        let slack = self.clock_slack();
        if asked.elapsed() > LONGEST_WAIT + slack {
            self.violate(format!("an answer took {:?}", asked.elapsed()));
        }
        match (attempt, status) {
            (Attempt::Allowed, 200) => {
                report.tokens += 1;
                self.check_token(set, slack, response.body());
            }
            (Attempt::Allowed, 502 | 503) => {
                report.told_when += 1;
                self.trace(|| {
                    format!("set {set} gets Retry-After: {} {:?}", response.body(), response.headers().get(RETRY_AFTER))
                });
                self.check_nothing_better(set, asked, slack);
            }
            (Attempt::OthersScopes, 400) | (Attempt::WrongSecret, 401) => {}
            (_, status) => self.violate(format!("{attempt:?} got {status} {}", response.body())),
        }
        self.report.set(report);
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        if matches!(status, 502 | 503) && retry_after.is_none() {
            self.violate(format!("an answer of status {status} has no Retry-After"));
        }
        let retry_after = retry_after?;
        if !(1..=900).contains(&retry_after) {
            self.violate(format!("an answer says Retry-After: {retry_after}"));
        }
        Some(retry_after)
    }

    /// Checks a token: it has at least 30 s left, the caller may have it, and `expires_in` is
    /// true.
    fn check_token(&self, set: usize, slack: Duration, body: &str) {
        let answer: serde_json::Value = serde_json::from_str(body).expect("an answer is JSON");
        let officernd = self.officernd.borrow();
        let issued = &officernd.issued[answer["access_token"].as_str().expect("an answer has a token")];
        if issued.scopes != scopes_of(set) || issued.client_id != self.config.applications[0].client_id {
            self.violate(format!("set {set} got a token for {:?}", issued.scopes));
        }
        let remaining = issued.until.saturating_duration_since(Instant::now());
        if remaining + slack * 2 < LEAST_REMAINING {
            self.violate(format!("set {set} got a token with {remaining:?} left"));
        }
        let claimed = Duration::from_secs(answer["expires_in"].as_u64().expect("an answer has a lifetime"));
        if claimed > remaining + slack * 2 {
            self.violate(format!("set {set} was told {claimed:?} of a token with {remaining:?} left"));
        }
    }

    /// Checks that a caller without a token could not have got one from the store: a usable
    /// token is served through every failure of OfficeRnD.
    fn check_nothing_better(&self, set: usize, asked: Instant, slack: Duration) {
        if !self.store_was_sound_since(asked.checked_sub(RECOVERY).unwrap_or(self.started)) {
            return;
        }
        let Some(token) = self.stored_token(set) else { return };
        let known_for = self.truth().since(token.fetched_at);
        let remaining = token.remaining(self.truth());
        // A token stored while the answer was in progress does not count.
        if known_for > asked.elapsed() + slack + Duration::from_secs(3)
            && remaining > LEAST_REMAINING + slack + Duration::from_secs(3)
        {
            self.violate(format!("set {set} got no token although the store has one with {remaining:?} left"));
        }
    }

    /// Lets a call arrive at OfficeRnD, and checks the call quota and that no usable token made
    /// it unnecessary.
    pub(crate) fn arrive(
        &self,
        place: usize,
        own: &RefCell<Vec<Instant>>,
        body: &str,
    ) -> Option<Result<Response<Vec<u8>>, officernd_token_broker::broker::SendError>> {
        let answer = self.officernd.borrow_mut().call(body);
        self.trace(|| format!("instance {place} calls for {:?}", body.rsplit('=').next()));
        let slack = self.clock_slack();
        let window_began = Instant::now() - WINDOW.min(self.started.elapsed());
        let arrivals = self.officernd.borrow().arrivals.iter().filter(|arrival| **arrival > window_began).count();
        // An instance keeps the call quota for itself, whatever the store does.
        let mut own = own.borrow_mut();
        own.push(Instant::now());
        own.retain(|arrival| *arrival > window_began);
        if own.len() > LIMIT {
            self.violate(format!("an instance made {} calls in a minute", own.len()));
        }
        let minute_ago = Instant::now() - WINDOW.min(self.started.elapsed());
        let store_was_sound = self.store_was_sound_since(minute_ago);
        if arrivals > LIMIT && store_was_sound {
            self.violate(format!("OfficeRnD got {arrivals} calls in a minute"));
        }
        if self.scenario.faults.kills && self.chance(5) {
            self.kill(place);
        }
        let set = (0..self.scenario.scope_sets)
            .find(|set| body.contains(&format!("scope={}", scopes_of(*set).as_str().replace(' ', "+"))));
        if let Some(set) = set
            && slack.is_zero()
            && store_was_sound
            && let Some(token) = self.stored_token(set)
        {
            let age = self.truth().since(token.fetched_at);
            // The instance decided on the call up to a second before it arrives.
            let lived = token.remaining(self.truth()) > LEAST_REMAINING;
            if lived && age < WINDOW - Duration::from_secs(2) {
                self.violate(format!("OfficeRnD was called for set {set} {age:?} after the last call for it"));
            }
        }
        answer
    }

    fn stored_token(&self, set: usize) -> Option<Token> {
        let scopes = scopes_of(set);
        let application = &self.config.applications[0];
        let key = Key::of(application, &application.current, &scopes);
        Token::open(self.store.borrow().get(&key.of_token())?, key, &application.current.seal)
    }
}
