//! Invariants of answers: the right token, in time, and no refusal without a reason.

use std::time::Duration;

use http::header::RETRY_AFTER;
use officernd_token_broker::token::{Key, LEAST_REMAINING, Token};
use tokio::time::Instant;

use super::faults::LARGEST_ERROR;
use super::requests::{Answered, Attempt, Journey, scopes_of};
use super::{LARGEST_DIFFERENCE, World};
use crate::officernd;
use crate::scenario::Faults;

/// Longest wait of a request.
const LONGEST_WAIT: Duration = Duration::from_secs(12);

/// How much shorter a token's life is for the broker, which counts whole seconds from the start of
/// the call.
const ROUNDING: Duration = Duration::from_secs(3);

/// How long an instance believes what it has last read of a token.
const TOKEN_MEMORY: Duration = Duration::from_secs(2);

/// How long a write that was given up may take to land, and until it is noticed.
const LONGEST_LANDING: Duration = Duration::from_secs(15);

/// How long an instance may act on the store's last failure: it remembers it for 2 s, and an
/// operation that began in the fault may end a second after it.
const RECOVERY: Duration = Duration::from_secs(3);

/// How long an instance goes on with reading other variables after one has failed, and remembers
/// that, and how long it remembers that the policy had a mistake.
const UNREADABLE_MEMORY: Duration = Duration::from_millis(1200 + 1000);
const MISTAKE_MEMORY: Duration = Duration::from_secs(10);

impl World {
    /// Checks an answer and returns its `Retry-After`.
    pub(crate) fn check_answer(&self, answered: &Answered) -> Option<u64> {
        let Answered { journey, response, running } = answered;
        let (caller, attempt, taken) = (journey.caller, journey.attempt, journey.taken.get());
        let status = response.status().as_u16();
        let took = taken.elapsed();
        let mut report = self.report.get();
        report.answered += 1;
        report.longest = report.longest.max(took);
        report.tokens += usize::from(status == 200);
        report.told_when += usize::from(matches!(status, 502 | 503));
        self.report.set(report);
        let stepped = if self.clock_stepped_since(running.host, taken) { LARGEST_DIFFERENCE } else { Duration::ZERO };
        // A block that no deadline can end: the answer leaves at its end.
        if took > LONGEST_WAIT + stepped && !running.has_been_blocked_since(taken + LONGEST_WAIT + stepped) {
            self.violate(format!("an answer took {took:?}"));
        }
        if status != 200 {
            self.trace(|| {
                let (reason, headers) = (journey.reason.borrow(), response.headers());
                let retry_after = headers.get(RETRY_AFTER);
                format!(
                    "instance {}: caller {caller} gets {status} {reason:?} {retry_after:?} after {took:?}",
                    running.number
                )
            });
        }
        if !self.check_configuration(answered) {
            match (attempt, status) {
                (Attempt::Allowed, 200) => self.check_token(answered),
                (Attempt::Allowed, 502 | 503) => {
                    self.check_share(answered);
                    self.check_memory(answered);
                    self.check_store(answered);
                }
                (Attempt::OthersScopes, 400) | (Attempt::WrongSecret, 401) => {}
                (Attempt::NewScopes(_), 200 | 502 | 503) => {}
                (Attempt::Revocation(number), 200) => self.note_revocation(journey, number),
                (Attempt::Revocation(_), 503) => {}
                (_, status) => self.violate(format!("{attempt:?} got {status} {}", response.body())),
            }
        }
        self.check_retry_after(answered)
    }

    fn check_retry_after(&self, answered: &Answered) -> Option<u64> {
        let response = &answered.response;
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let status = response.status().as_u16();
        if matches!(status, 502 | 503) && retry_after.is_none() {
            self.violate(format!("an answer of status {status} has no Retry-After"));
        }
        let retry_after = retry_after?;
        if !(1..=900).contains(&retry_after) {
            self.violate(format!("an answer says Retry-After: {retry_after}"));
        }
        Some(retry_after)
    }

    /// Returns whether a request was refused because of the variables, and checks that it had to
    /// be: an instance with a configuration goes on with it, and a mistake in the entry of one
    /// caller concerns no other one.
    fn check_configuration(&self, answered: &Answered) -> bool {
        let Answered { journey, response, running } = answered;
        let (reason, taken) = (journey.reason.borrow(), journey.taken.get());
        let since = |memory: Duration| {
            let slack = if self.clock_slack().is_zero() { Duration::ZERO } else { LARGEST_DIFFERENCE };
            taken - (memory + slack).min(taken - self.started)
        };
        let excuse = match reason.as_deref() {
            Some("variables_unreadable") => {
                running.seen.hopeless.get() > 0
                    || running.seen.unreadable_at.get().is_some_and(|at| at >= since(UNREADABLE_MEMORY))
            }
            Some("configuration_invalid") => self.variables.was_nonsense_since(since(MISTAKE_MEMORY)),
            Some("caller_disabled") => {
                running.seen.has_config.set(true);
                let last_read = running.seen.policy_read_before(taken);
                if !self.variables.may_refuse(journey.caller, last_read.unwrap_or(taken).min(since(Duration::ZERO))) {
                    self.violate(format!("caller {} is disabled for another caller's mistake", journey.caller));
                }
                return true;
            }
            _ => {
                running.seen.has_config.set(true);
                return false;
            }
        };
        let what = format!("instance {} answers {} {:?}", running.number, response.status(), reason.as_deref());
        if running.seen.has_config.get() {
            self.violate(format!("{what} although it had a configuration"));
        } else if !excuse {
            self.violate(format!("{what} although the variables are sound"));
        }
        true
    }

    /// Notes a revocation if the request has written it: a caller may also revoke a token that the
    /// store does not have any more, or not yet.
    fn note_revocation(&self, journey: &Journey, number: u64) {
        let is_written =
            |(token, since): (Token, Instant)| token.access_token.expose().is_empty() && since >= journey.taken.get();
        if self.stored_token(journey.caller).is_some_and(is_written) {
            self.revoked.borrow_mut().insert(officernd::token(number), Instant::now());
        }
    }

    /// Checks that no request gets a token that was revoked well before, unless OfficeRnD issues it
    /// again or the store has lost the revocation.
    fn check_revoked(&self, answered: &Answered, token: &str) {
        let Some(revoked) = self.revoked.borrow().get(token).copied() else { return };
        let taken = answered.journey.taken.get();
        let limit = if self.store.is_sound_since(revoked - LONGEST_LANDING.min(revoked - self.started)) {
            TOKEN_MEMORY
        } else {
            LONGEST_LANDING
        };
        let is_late = revoked + limit + self.clock_slack() < taken;
        let is_sound = self.store.is_sound_since(taken - LONGEST_LANDING.min(taken - self.started));
        let is_excused = self.scenario.reissues
            || self.scenario.faults.kills
            || self.store.is_damaged_since(revoked)
            // It does not wait for the read that may learn of the revocation.
            || answered.journey.is_beside_a_try.get();
        if is_late && is_sound && !is_excused {
            let caller = answered.journey.caller;
            self.violate(format!("caller {caller} got a token {:?} after its revocation", revoked.elapsed()));
        }
    }

    /// Checks a token: it has at least 30 s left, the caller may have it, and `expires_in` is
    /// true.
    fn check_token(&self, answered: &Answered) {
        let caller = answered.journey.caller;
        let answer: serde_json::Value = serde_json::from_str(answered.response.body()).expect("an answer is JSON");
        let text = answer["access_token"].as_str().expect("an answer has a token");
        let slack = self.clock_slack();
        let until = {
            let officernd = self.officernd.borrow();
            let issued = &officernd.issued[text];
            if issued.scopes != scopes_of(caller) || issued.client_id != self.config.applications[0].current.client_id {
                self.violate(format!("caller {caller} got a token for {:?}", issued.scopes));
            }
            issued.until
        };
        self.check_revoked(answered, text);
        self.given.borrow_mut().insert(caller, u64::from_str_radix(text, 16).expect("a number"));
        let remaining = until.saturating_duration_since(Instant::now());
        if remaining + slack < LEAST_REMAINING {
            self.violate(format!("caller {caller} got a token with {remaining:?} left"));
        }
        let claimed = Duration::from_secs(answer["expires_in"].as_u64().expect("an answer has a lifetime"));
        if claimed > remaining + slack {
            self.violate(format!("caller {caller} was told {claimed:?} of a token with {remaining:?} left"));
        }
    }

    /// Checks that the callers of [`Scenario::beside_greed`](crate::Scenario::beside_greed) are never
    /// refused: two calls of each minute are left to them, and they need no more.
    fn check_share(&self, answered: &Answered) {
        let Faults { upstream, store, variables, kills, clocks, crowds: _, greed, revocations } = self.scenario.faults;
        if greed
            && self.scenario.callers == 2
            && ![upstream, store, variables, kills, clocks, revocations, self.scenario.reissues].contains(&true)
        {
            let Answered { journey, .. } = answered;
            let reason = journey.reason.borrow();
            self.violate(format!("caller {} is refused beside one with greed: {reason:?}", journey.caller));
        }
    }

    /// Checks that a caller without a token could not have got one from the memory of its
    /// instance: a usable token is served through every failure of store and OfficeRnD.
    fn check_memory(&self, answered: &Answered) {
        let Answered { journey, running, .. } = answered;
        let held = running.seen.tokens.borrow().get(&journey.caller).copied();
        if let Some(held) = held
            && held.since < journey.taken.get()
        {
            let remaining = held.until.saturating_duration_since(Instant::now());
            if remaining > LEAST_REMAINING + self.clock_slack() + ROUNDING {
                let caller = journey.caller;
                self.violate(format!("caller {caller} got no token although memory has one with {remaining:?} left"));
            }
        }
    }

    /// Checks that a caller without a token could not have got one from the store: a usable
    /// token is served through every failure of OfficeRnD.
    fn check_store(&self, answered: &Answered) {
        let (caller, taken) = (answered.journey.caller, answered.journey.taken.get());
        // After a failure one request tries the store, and those beside it do not wait for it.
        if answered.journey.is_beside_a_try.get() || answered.running.seen.has_begun_revocation(caller) {
            return;
        }
        if !self.store.is_readable_since(taken - RECOVERY.min(taken - self.started)) {
            return;
        }
        let Some((token, since)) = self.stored_token(caller) else { return };
        let remaining = token.remaining(self.truth());
        // An instance that has just looked for the token need not know it. It measures that by the wall
        // clock, because a second clock would cost each memory hit a call of the host: a clock that has
        // stepped back makes the look seem more recent than it is.
        let longest = TOKEN_MEMORY + LARGEST_DIFFERENCE;
        let has_stepped = self.clock_stepped_since(answered.running.host, taken - longest.min(taken - self.started));
        let memory = if has_stepped { longest } else { TOKEN_MEMORY };
        if since + memory <= taken && remaining > LEAST_REMAINING + self.clock_slack() + ROUNDING {
            self.violate(format!("caller {caller} got no token although the store has one with {remaining:?} left"));
        }
    }

    /// How far two clocks may differ.
    pub(super) fn clock_slack(&self) -> Duration {
        if self.scenario.faults.clocks { Duration::from_millis(2 * LARGEST_ERROR as u64) } else { Duration::ZERO }
    }

    /// The token of a caller in the store, and when it was written.
    pub(super) fn stored_token(&self, caller: usize) -> Option<(Token, Instant)> {
        let values = self.store.values.borrow();
        let (bytes, since) = values.get(&self.token_keys[caller])?;
        Some((self.open_token(caller, bytes)?, *since))
    }

    pub(super) fn open_token(&self, caller: usize, bytes: &[u8]) -> Option<Token> {
        let application = &self.config.applications[0];
        let key = Key::of(application, &application.current, &scopes_of(caller));
        Token::open(bytes, key, &application.current.seal)
    }

    /// When OfficeRnD lets a token expire.
    pub(super) fn expiry_of(&self, token: &str) -> Instant {
        self.officernd.borrow().issued.get(token).map_or(self.started, |issued| issued.until)
    }
}
