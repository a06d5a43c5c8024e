//! The audit line of a request: a JSON object, written to the log.

use std::hint::black_box;
use std::rc::Rc;

use serde::Serialize;

use crate::broker::{RequestId, Source};
use crate::config::caller::{Caller, UNKNOWN};
use crate::json::to_json;
use crate::scope::Scopes;
use crate::time::Timestamp;
use crate::token::Token;

/// What the log says about a request: which caller got what, or why not. It has no field for a
/// secret. `docs/audit.md` documents each field.
#[derive(Debug)]
pub struct Audit {
    /// Time at which the request's headers arrived.
    pub time: Timestamp,
    /// Name of the request, as in the answer's `X-Request-Id`.
    pub request_id: RequestId,
    /// Path of the request, or `unknown` for a path that the broker does not serve.
    pub route: &'static str,
    /// Caller that authenticated, or whose name was presented with a secret or an assertion that does
    /// not authenticate.
    pub caller: Option<Rc<Caller>>,
    /// How the caller authenticated, or tried to.
    pub method: Option<AuthenticationMethod>,
    /// Characters that the names lack to the longest that a refusal's line can have.
    pub padding: usize,
    /// Scopes that were authorized.
    pub scopes: Option<Scopes>,
    /// HTTP status of the answer.
    pub status: u16,
    /// Why the request was denied, or failed.
    pub reason: Option<&'static str>,
    /// Where the token came from.
    pub source: Option<Source>,
    /// Whether this request led a call to OfficeRnD, and waited for it. The call has a line of its
    /// own.
    pub is_called: bool,
    /// Token of the answer; the line contains only its name, never its text.
    pub token: Option<Rc<Token>>,
}

/// How a caller authenticates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthenticationMethod {
    /// By a secret of its own.
    Secret,
    /// By an assertion that it has signed with a key of its own.
    Key,
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
    method: Option<AuthenticationMethod>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scopes: Option<&'a str>,
    outcome: &'static str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
}

/// Length of a memory hit's line without its names and scopes, in bytes.
const LINE_OVERHEAD: usize = 244;

/// Characters of [`Audit::padding`]. Two names have 128 each.
const PADDING: &str = match str::from_utf8(&[b'x'; 256]) {
    Ok(padding) => padding,
    Err(_) => panic!("a letter is UTF-8"),
};

/// The part of a line that [`Audit::padding`] replaces.
#[derive(Serialize)]
struct Padding<'a> {
    caller: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    application: Option<&'a str>,
}

impl Audit {
    /// Starts the record of a request about which nothing is known yet.
    pub fn begin(time: Timestamp, request_id: RequestId, route: &'static str) -> Self {
        Self {
            time,
            request_id,
            route,
            caller: None,
            method: None,
            padding: 0,
            scopes: None,
            status: 0,
            reason: None,
            source: None,
            is_called: false,
            token: None,
        }
    }

    /// Whether the cache served the request and nothing unusual happened.
    pub fn is_routine(&self) -> bool {
        self.source == Some(Source::Hit) && !self.is_called && self.reason.is_none()
    }

    /// Makes a refusal's line take as long as that of the caller with the longest names. The work
    /// for a line grows with its names, so the time of a refusal would otherwise tell whether the
    /// log names a caller, and so which callers exist.
    fn work_as_for_longest_names(&self) {
        let padding = &PADDING[..self.padding.min(PADDING.len())];
        let application = self.caller.is_none().then_some("");
        black_box(to_json(&Padding { caller: padding, application }, LINE_OVERHEAD + padding.len()));
    }

    /// The line as JSON, with its line break.
    pub fn line(&self) -> Vec<u8> {
        let line = Line {
            time_ms: self.time,
            request_id: self.request_id.as_str(),
            route: self.route,
            caller: self.caller.as_ref().map_or(UNKNOWN, |caller| &caller.name),
            application: self.caller.as_ref().map(|caller| &*caller.application),
            method: self.method,
            scopes: self.scopes.as_ref().map(Scopes::as_str),
            outcome: match self.status {
                ..400 => "ok",
                400..500 => "denied",
                500.. => "failed",
            },
            status: self.status,
            reason: self.reason,
            cache: self.source.map(Source::as_str),
            token: self.token.as_ref().map(|token| token.access_token.name()),
        };
        if line.status == 401 {
            self.work_as_for_longest_names();
        }
        let names = [Some(line.caller), line.application, line.scopes].into_iter().flatten();
        let mut json = to_json(&line, LINE_OVERHEAD + names.map(str::len).sum::<usize>());
        json.push(b'\n');
        json
    }
}
