//! One JSON line per request.

use std::rc::Rc;

use serde::Serialize;

use crate::broker::{Source, UpstreamCall};
use crate::config::caller::{Caller, UNKNOWN};
use crate::json::to_json;
use crate::scope::Scopes;
use crate::time::Timestamp;
use crate::token::Token;

/// What the log says of a request: who got what, or why not. It has no field for a secret. `docs/audit.md` documents it.
#[derive(Debug)]
pub struct Audit {
    /// When the request came.
    pub time: Timestamp,
    /// What the answer calls the request.
    pub request_id: String,
    /// The path it was for, as far as the broker knows it.
    pub route: &'static str,
    /// The caller, once it is established.
    pub caller: Option<Rc<Caller>>,
    /// The scopes that were authorized.
    pub scopes: Option<Scopes>,
    /// The status of the answer.
    pub status: u16,
    /// Why there was no token.
    pub reason: Option<&'static str>,
    /// Where the token came from.
    pub source: Option<Source>,
    /// The call to OfficeRnD that the request led.
    pub upstream: Option<UpstreamCall>,
    /// The token of the answer, of which the line has the name alone.
    pub token: Option<Rc<Token>>,
}

#[derive(Serialize)]
struct Line<'a> {
    time_ms: Timestamp,
    request_id: &'a str,
    route: &'a str,
    caller: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    application: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scopes: Option<&'a str>,
    outcome: &'static str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
}

/// Room for what the line of a hit has besides names and scopes, in bytes.
const LINE_OVERHEAD: usize = 224;

impl Audit {
    /// Of a request of which nothing is known yet.
    pub fn begin(time: Timestamp, request_id: String, route: &'static str) -> Self {
        Self {
            time,
            request_id,
            route,
            caller: None,
            scopes: None,
            status: 0,
            reason: None,
            source: None,
            upstream: None,
            token: None,
        }
    }

    /// Whether a request as usual is all there is to tell: the cache could serve it.
    pub fn is_routine(&self) -> bool {
        self.source == Some(Source::Hit) && self.upstream.is_none() && self.reason.is_none()
    }

    /// The line with its line break.
    pub fn line(&self) -> Vec<u8> {
        let line = Line {
            time_ms: self.time,
            request_id: &self.request_id,
            route: self.route,
            caller: self.caller.as_ref().map_or(UNKNOWN, |caller| &caller.name),
            application: self.caller.as_ref().map(|caller| &*caller.application),
            scopes: self.scopes.as_ref().map(Scopes::as_str),
            outcome: match self.status {
                ..400 => "ok",
                400..500 => "denied",
                500.. => "failed",
            },
            status: self.status,
            reason: self.reason,
            cache: self.source.map(Source::as_str),
            upstream_status: self.upstream.and_then(|call| call.status),
            upstream_ms: self.upstream.map(|call| call.ms),
            token: self.token.as_ref().map(|token| token.access_token.name()),
        };
        let names = [Some(line.caller), line.application, line.scopes].into_iter().flatten();
        let mut json = to_json(&line, LINE_OVERHEAD + names.map(str::len).sum::<usize>());
        json.push(b'\n');
        json
    }
}
