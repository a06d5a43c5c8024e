//! The audit line of a request: a JSON object, written to the log.

use std::hint::black_box;
use std::rc::Rc;

use serde::Serialize;

use crate::broker::{RequestId, Source};
use crate::config::caller::{Caller, UNKNOWN};
use crate::config::issuer::Issuer;
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
    /// What is known of the token of an outside issuer.
    pub identity: Option<Box<PresentedIdentity>>,
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
    /// By a token of an outside issuer.
    Identity,
}

/// The token of an outside issuer with which a caller authenticates.
#[derive(Debug)]
pub struct PresentedIdentity {
    /// The issuer.
    pub issuer: Rc<Issuer>,
    /// The beginning of the token's `sub`, once its signature is verified.
    pub subject: Option<String>,
    /// The claim that differs from the policy, if that is why the request was denied.
    pub claim: Option<Rc<str>>,
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
    issuer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    claim: Option<&'a str>,
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
            identity: None,
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
        black_box(to_json(&Padding { caller: padding, application }, LINE_OVERHEAD + PADDING.len()));
    }

    /// The line as JSON, with its line break.
    pub fn line(&self) -> Vec<u8> {
        let identity = self.identity.as_deref();
        let line = Line {
            time_ms: self.time,
            request_id: self.request_id.as_str(),
            route: self.route,
            caller: self.caller.as_ref().map_or(UNKNOWN, |caller| &caller.name),
            application: self.caller.as_ref().map(|caller| &*caller.application),
            method: self.method,
            issuer: identity.map(|identity| identity.issuer.name.as_str()),
            subject: identity.and_then(|identity| identity.subject.as_deref()),
            claim: identity.and_then(|identity| identity.claim.as_deref()),
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
        // The buffers of all refusals have one length: the allocator's work depends on it.
        let capacity = LINE_OVERHEAD + names.map(str::len).sum::<usize>() + self.padding;
        let mut json = to_json(&line, capacity);
        json.push(b'\n');
        json
    }
}
