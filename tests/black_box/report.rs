//! The operator's command `report`: its figures are those of jq, and its page shows them in a browser.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tests::{Program, installed, run_peer_with};

/// Names of callers. A log is untrusted: whoever writes it can write names that the policy would refuse.
const NAMES: [&str; 8] = [
    "nightly-export",
    "billing",
    "unknown",
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "'--></style><b>&amp;",
    "\u{202e}txt.exe \u{7}",
    "a-name-without-an-end-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
];

/// Words for a request: path, outcome, status, reason, source of the token.
type Words = (&'static str, &'static str, u16, Option<&'static str>, Option<&'static str>);

const REQUESTS: [Words; 10] = [
    ("/oauth/token", "ok", 200, None, Some("hit")),
    ("/oauth/token", "ok", 200, None, Some("miss")),
    ("/oauth/token", "ok", 200, None, Some("stale")),
    ("/oauth/token", "ok", 200, None, Some("collapsed")),
    ("/oauth/token", "denied", 401, Some("expired_secret"), None),
    ("/oauth/token", "denied", 400, Some("<i>reason"), None),
    ("/oauth/token", "failed", 503, Some("budget_spent"), None),
    ("/oauth/revoke", "ok", 200, None, None),
    ("/healthz", "ok", 200, None, None),
    ("/<b>path", "failed", 503, Some("store"), None),
];

const CALLS: [(&str, &str, Option<&str>); 5] = [
    ("current", "ok", None),
    ("current", "ok", None),
    ("next", "ok", None),
    ("current", "failed", Some("upstream_timed_out")),
    ("current", "failed", Some("outbound_denied")),
];

/// A log of four days with all of the above, the same each time; its lines are up to a minute out of order.
fn log() -> String {
    // Knuth's generator, of which the upper bits are random enough.
    let mut state = 1_u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut log = String::new();
    for number in 0..3_000 {
        let time = 1_795_000_000_000 + number * 115_200 + random(60_000);
        let id = format!("{number:032x}");
        let (route, outcome, status, reason, cache) = REQUESTS[random(10) as usize];
        let caller = NAMES[random(8).min(random(8)) as usize];
        let mut line = json!({"time_ms": time, "request_id": id, "route": route, "caller": caller, "outcome": outcome});
        line["status"] = status.into();
        let words =
            [("reason", reason), ("cache", cache), ("scopes", cache), ("version", (number == 0).then_some("0.1.0"))];
        for (field, word) in words.into_iter().filter_map(|(field, word)| Some((field, word?))) {
            line[field] = word.into();
        }
        if cache.is_some() {
            line["token"] = format!("{:016x}", random(50)).into();
        }
        log += &format!("{line}\n");
        if matches!(cache, Some("miss" | "stale")) {
            let (credential, outcome, reason) = CALLS[random(5) as usize];
            let mut call = json!({"time_ms": time + random(9_000), "request_id": id, "application": "default"});
            call["credential"] = credential.into();
            call["outcome"] = outcome.into();
            if let Some(reason) = reason {
                call["reason"] = reason.into();
            }
            call["upstream_ms"] = (40 + random(4_000)).into();
            log += &format!("{call}\n");
        }
    }
    log
}

/// Runs `broker-operator report` with a log, and returns its figures and its page.
fn report(log: &str, folder: &std::path::Path) -> Value {
    let ended = Program::run_operator(&["report", "--json", "--html", "report.html", "-"], log, folder);
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    serde_json::from_str(&ended.stdout).unwrap()
}

#[test]
fn figures_of_report_are_those_of_jq() {
    let (folder, log) = (tempfile::tempdir().unwrap(), log());
    let figures = report(&format!("Serving http://127.0.0.1:3000\n{log}"), folder.path());
    fs::write(folder.path().join("log"), log).unwrap();
    let jq = Command::new("jq")
        .args(["--null-input", "--from-file"])
        .arg(installed().join("report.jq"))
        .arg(folder.path().join("log"))
        .output()
        .unwrap_or_else(|error| panic!("jq does not start: {error}"));
    assert!(jq.status.success(), "{}", String::from_utf8_lossy(&jq.stderr));
    let counted: Value = serde_json::from_slice(&jq.stdout).unwrap();

    assert_eq!(figures["requests"], counted["requests"]);
    assert_eq!(figures["lines"]["foreign"], 1);
    for field in ["hit", "collapsed", "miss", "stale"] {
        assert_eq!(figures["cache"][field], counted["cache"][field], "{field}");
    }
    for field in ["total", "ok", "failed", "by_application", "by_credential", "by_reason", "longest_ms"] {
        assert_eq!(figures["calls"][field], counted["calls"][field], "{field}");
    }
    assert_eq!(figures["calls"]["busiest_minute"]["calls"], counted["calls"]["busiest_minute"]);
    let fields = ["requests", "ok", "denied", "failed", "by_reason"];
    let row = |caller: &Value| fields.iter().map(|field| (*field, caller[field].clone())).collect::<BTreeMap<_, _>>();
    let callers = figures["callers"].as_array().unwrap();
    assert_eq!(callers.len(), NAMES.len());
    for caller in callers {
        assert_eq!(row(caller), row(&counted["callers"][caller["name"].as_str().unwrap()]), "{caller}");
    }
}

/// The figures of `--json` in the form in which the page's tables are read.
fn tables(figures: &Value) -> Value {
    // The page shows no character that controls a display.
    let name = |text: &str| text.replace(char::is_control, "\u{fffd}");
    let minute = |time: &Value| time.as_str().unwrap()[..16].replace('T', " ");
    let words = |numbers: &Value| {
        let numbers = numbers.as_object().unwrap().iter().map(|(word, number)| (name(word), json!([number])));
        Value::Object(numbers.collect())
    };
    let some = |numbers: &Value, fields: &[&str]| {
        Value::Object(fields.iter().map(|field| ((*field).to_owned(), json!([numbers[field]]))).collect())
    };
    let (requests, calls, lines) = (&figures["requests"], &figures["calls"], &figures["lines"]);
    let list = |of: &Value| of.as_array().unwrap().clone();
    let callers = list(&figures["callers"]).into_iter().map(|row| {
        let numbers = ["requests", "ok", "denied", "failed", "tokens", "scope_sets", "calls", "share_of_calls"];
        let mut cells: Vec<_> = numbers.iter().map(|field| row[field].clone()).collect();
        // JavaScript writes 0.0 as 0.
        cells.iter_mut().filter(|cell| cell.as_f64() == Some(0.0)).for_each(|cell| *cell = 0.into());
        cells.push(minute(&row["last_seen"]).into());
        (name(row["name"].as_str().unwrap()), Value::Array(cells))
    });
    let timeline = list(&figures["timeline"]["buckets"]).into_iter().map(|bucket| {
        let numbers = ["ok", "denied", "failed", "calls", "most_calls_in_a_minute"].map(|field| bucket[field].clone());
        (minute(&bucket["from"]), json!(numbers))
    });
    json!({
        "Calls by outcome": some(calls, &["ok", "failed"]),
        "Failed calls by reason": words(&calls["by_reason"]),
        "Calls by application": words(&calls["by_application"]),
        "Calls by credential": words(&calls["by_credential"]),
        "Time of calls in ms": {"on average": [calls["mean_ms"]], "at most": [calls["longest_ms"]]},
        "Requests by outcome": some(requests, &["ok", "denied", "failed"]),
        "Requests by reason": words(&requests["by_reason"]),
        "Requests by path": words(&requests["by_route"]),
        "Tokens by source": some(&figures["cache"], &["hit", "collapsed", "miss", "stale"]),
        "All callers": callers.collect::<serde_json::Map<_, _>>(),
        "What was read": {
            "lines of requests": [lines["requests"]],
            "lines of calls": [lines["calls"]],
            "foreign lines, skipped": [lines["foreign"]],
            "calls too late for the busiest minute": [calls["out_of_order"]],
            "calls of requests without a line nearby": [calls["without_request"]],
            "requests of further callers": [figures["requests_not_listed"]],
        },
        "Instances by version": words(&figures["versions"]),
        "Numbers over time": timeline.collect::<serde_json::Map<_, _>>(),
    })
}

#[test]
fn page_shows_the_figures_on_a_phone_and_a_wide_screen_light_and_dark() {
    let folder = tempfile::tempdir().unwrap();
    let figures = report(&log(), folder.path());
    let page = folder.path().join("report.html");
    let shown = run_peer_with(&["node", "check_report.mjs", page.to_str().unwrap()], &[], Stdio::null());
    let shown: Value = serde_json::from_str(&shown).unwrap_or_else(|error| panic!("{error}: {shown}"));
    let expected = tables(&figures);
    for (caption, table) in expected.as_object().unwrap() {
        assert_eq!(&shown["tables"][caption], table, "{caption}");
    }
    assert_eq!(shown["tables"].as_object().unwrap().len(), expected.as_object().unwrap().len());
    let tiles = json!({
        "Requests": figures["requests"]["total"],
        "Tokens without a call": figures["cache"]["share_served"],
        "Calls to OfficeRnD": figures["calls"]["total"],
        "Most calls in 60 s": figures["calls"]["busiest_minute"]["calls"],
    });
    assert_eq!(shown["tiles"], tiles);
    assert_eq!(shown["findings"].as_array().unwrap().len(), figures["findings"].as_array().unwrap().len());
}

#[test]
fn page_replaces_only_a_page() {
    let (folder, log) = (tempfile::tempdir().unwrap(), log());
    let path = |name: &str| folder.path().join(name);
    fs::write(path("log"), &log).unwrap();
    let run = |arguments: &[&str]| Program::run_operator(&[&["report"], arguments].concat(), &log, folder.path());
    for _ in 0..2 {
        let ended = run(&["--html", "report.html", "log"]);
        assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (0, "", ""));
    }
    assert!(fs::read_to_string(path("report.html")).unwrap().ends_with("</html>\n"));
    // FILE is forgotten: without the check, the log would be lost.
    let ended = run(&["--html", "log"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (1, ""));
    assert!(ended.stderr.contains("log: is not a page of this command"), "{}", ended.stderr);
    assert_eq!(fs::read_to_string(path("log")).unwrap(), log);
    let ended = run(&["--html", "missing/report.html", "log"]);
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("cannot write missing/report.html"), "{}", ended.stderr);
}
