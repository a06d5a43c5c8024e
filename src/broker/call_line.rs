//! The line that each call to OfficeRnD leaves in the log.

use std::rc::Rc;

use serde::Serialize;

use super::ports::Ports;
use super::wanted::Wanted;
use crate::json::to_json;
use crate::time::Timestamp;

/// A call in progress. When it is dropped, it writes its line, so that each call leaves exactly one
/// line, also if the host drops the request during the call.
pub(super) struct CallLine<'a, P: Ports> {
    ports: &'a P,
    wanted: &'a Wanted,
    began: Timestamp,
    ended: Option<Timestamp>,
    status: Option<u16>,
    reason: Option<&'static str>,
}

/// The line as JSON. It has no field for a secret, a token or OfficeRnD's own words.
/// `docs/audit.md` documents each field.
#[derive(Serialize)]
struct Line<'a> {
    time_ms: Timestamp,
    request_id: &'a str,
    application: &'a str,
    credential: &'static str,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_status: Option<u16>,
    upstream_ms: u64,
}

/// Length of a line with the longest words and a short application name, in bytes.
const LINE_LENGTH: usize = 256;

impl<'a, P: Ports> CallLine<'a, P> {
    pub(super) fn begin(ports: &'a P, wanted: &'a Wanted) -> Self {
        Self { ports, wanted, began: ports.now(), ended: None, status: None, reason: Some("upstream_abandoned") }
    }

    /// Writes the line. `status` is that of OfficeRnD's answer, if one came, and `reason` says why
    /// the call brought no token.
    pub(super) fn end(mut self, now: Timestamp, status: Option<u16>, reason: Option<&'static str>) {
        (self.ended, self.status, self.reason) = (Some(now), status, reason);
    }
}

impl<P: Ports> Drop for CallLine<'_, P> {
    fn drop(&mut self) {
        let Wanted { application, credential, request_id, .. } = self.wanted;
        let took = self.ended.unwrap_or_else(|| self.ports.now()).since(self.began);
        let line = Line {
            time_ms: self.began,
            request_id: request_id.as_str(),
            application: &application.name,
            credential: if Rc::ptr_eq(credential, &application.current) { "current" } else { "next" },
            outcome: if self.reason.is_none() { "ok" } else { "failed" },
            reason: self.reason,
            upstream_status: self.status,
            upstream_ms: took.as_millis().try_into().unwrap_or(u64::MAX),
        };
        let mut json = to_json(&line, LINE_LENGTH);
        json.push(b'\n');
        self.ports.audit(json);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{TestPorts, at, wanted};
    use super::*;

    #[test]
    fn call_leaves_one_line_also_if_it_is_dropped() {
        let (ports, wanted) = (TestPorts::default(), wanted());
        let check = |end: &dyn Fn(CallLine<'_, TestPorts>), expected: &str| {
            ports.0.seconds.set(1);
            let line = CallLine::begin(&ports, &wanted);
            ports.0.seconds.set(3);
            end(line);
            let lines = ports.0.lines.take();
            assert_eq!(lines.len(), 1, "{lines:?}");
            let begin = format!(
                r#"{{"time_ms":{},"request_id":"00000000000000000000000000000007","application":"default","#,
                at(1).unix_ms()
            );
            assert_eq!(lines[0], format!("{begin}{expected}\n"));
        };
        check(
            &|line| line.end(at(2), Some(200), None),
            r#""credential":"current","outcome":"ok","upstream_status":200,"upstream_ms":1000}"#,
        );
        check(
            &|line| line.end(at(2), None, Some("upstream_timed_out")),
            r#""credential":"current","outcome":"failed","reason":"upstream_timed_out","upstream_ms":1000}"#,
        );
        check(
            &|line| drop(line),
            r#""credential":"current","outcome":"failed","reason":"upstream_abandoned","upstream_ms":2000}"#,
        );
    }
}
