//! Counts the lines of the log, in memory that does not grow with their number.

use officernd_token_broker::config::caller::UNKNOWN;

use super::callers::Callers;
use super::line::{Call, Line, Outcome, Request};
use super::minute::BusiestMinute;
use super::tally::Tally;
use super::timeline::Timeline;

/// Everything that is counted.
pub(super) struct Counts {
    pub(super) foreign: u64,
    /// First and last time of a line.
    pub(super) period: Option<(u64, u64)>,
    pub(super) versions: Tally,
    pub(super) requests: Requests,
    pub(super) calls: Calls,
    pub(super) callers: Callers,
    pub(super) timeline: Timeline,
}

#[derive(Default)]
pub(super) struct Requests {
    pub(super) ok: u64,
    pub(super) denied: u64,
    pub(super) failed: u64,
    pub(super) routes: Tally,
    pub(super) reasons: Tally,
    pub(super) cache: Tally,
}

impl Requests {
    pub(super) fn total(&self) -> u64 {
        self.ok + self.denied + self.failed
    }
}

#[derive(Default)]
pub(super) struct Calls {
    pub(super) ok: u64,
    pub(super) failed: u64,
    pub(super) applications: Tally,
    pub(super) credentials: Tally,
    pub(super) reasons: Tally,
    pub(super) total_ms: u64,
    pub(super) longest_ms: u64,
    pub(super) minute: BusiestMinute,
    pub(super) busiest: Option<(u64, u64)>,
}

/// The host refused this call, so OfficeRnD does not count it.
const NOT_SENT: &str = "outbound_denied";

impl Counts {
    pub(super) fn new() -> Self {
        Self {
            foreign: 0,
            period: None,
            versions: Tally::default(),
            requests: Requests::default(),
            calls: Calls::default(),
            callers: Callers::new(),
            timeline: Timeline::new(),
        }
    }

    pub(super) fn add(&mut self, line: &[u8]) {
        let Some(line) = Line::parse(line) else {
            self.foreign += 1;
            return;
        };
        let time = line.time_ms();
        let (from, to) = self.period.unwrap_or((time, time));
        self.period = Some((from.min(time), to.max(time)));
        match line {
            Line::Request(request) => self.add_request(&request),
            Line::Call(call) => self.add_call(&call),
        }
    }

    fn add_request(&mut self, request: &Request<'_>) {
        let bucket = self.timeline.at(request.time_ms);
        let requests = &mut self.requests;
        let (count, in_bucket) = match request.outcome {
            Outcome::Ok => (&mut requests.ok, &mut bucket.ok),
            Outcome::Denied => (&mut requests.denied, &mut bucket.denied),
            Outcome::Failed => (&mut requests.failed, &mut bucket.failed),
        };
        *count += 1;
        *in_bucket += 1;
        requests.routes.add(&request.route);
        let words = [(&request.reason, &mut requests.reasons), (&request.cache, &mut requests.cache)];
        for (word, tally) in words.into_iter().chain([(&request.version, &mut self.versions)]) {
            if let Some(word) = word {
                tally.add(word);
            }
        }
        self.callers.add_request(request);
    }

    fn add_call(&mut self, call: &Call<'_>) {
        let calls = &mut self.calls;
        self.timeline.at(call.time_ms).calls += 1;
        *(if call.outcome == Outcome::Ok { &mut calls.ok } else { &mut calls.failed }) += 1;
        calls.applications.add(&call.application);
        calls.credentials.add(&call.credential);
        if let Some(reason) = &call.reason {
            calls.reasons.add(reason);
        }
        if let Some(version) = &call.version {
            self.versions.add(version);
        }
        calls.total_ms = calls.total_ms.saturating_add(call.upstream_ms);
        calls.longest_ms = calls.longest_ms.max(call.upstream_ms);
        if call.reason.as_deref() != Some(NOT_SENT) {
            calls.minute.add(call.time_ms, |time, calls| self.timeline.raise_peak(time, calls));
        }
        self.callers.add_call(call);
    }

    /// Ends the log: no line follows.
    pub(super) fn finish(&mut self) {
        self.calls.busiest = self.calls.minute.finish(|time, calls| self.timeline.raise_peak(time, calls));
        // The callers with the most requests come first, and `unknown` last: it is no caller.
        self.callers.rows.sort_by(|one, other| {
            let key = |name: &str| name == UNKNOWN;
            (key(&one.name).cmp(&key(&other.name)))
                .then(other.requests.cmp(&one.requests))
                .then(one.name.cmp(&other.name))
        });
    }
}
