//! Reports of whole logs.

use serde_json::{Value, json};

use super::Report;

fn figures(log: &str, policy: &[&str]) -> (Value, String) {
    let mut report = Report::new();
    report.read(log.as_bytes()).unwrap();
    let figures = report.finish(5, Some(&policy.iter().map(|name| (*name).to_owned()).collect()));
    (serde_json::to_value(&figures).unwrap(), figures.to_string())
}

fn request(time: u64, id: u64, caller: &str, more: &str) -> String {
    format!(r#"{{"time_ms":{time},"request_id":"{id:032x}","route":"/oauth/token","caller":"{caller}",{more}}}"#) + "\n"
}

fn call(time: u64, id: u64, more: &str) -> String {
    format!(r#"{{"time_ms":{time},"request_id":"{id:032x}","application":"default",{more},"upstream_ms":40}}"#) + "\n"
}

const MISS: &str = r#""scopes":"a","outcome":"ok","status":200,"cache":"miss","token":"0000000000000001""#;
const OK: &str = r#""credential":"current","outcome":"ok","upstream_status":200"#;

#[test]
fn calls_belong_to_the_caller_whose_request_led_them_in_any_order() {
    let log = request(1000, 1, "a", MISS)
        + &call(1001, 1, OK)
        + &call(2000, 2, OK)
        + &call(2001, 2, OK)
        + &request(2000, 2, "b", MISS)
        + &call(3000, 3, OK)
        + "foreign\n";
    let (figures, text) = figures(&log, &["a", "b", "c"]);
    let calls: Vec<_> = figures["callers"].as_array().unwrap().iter().map(|row| &row["calls"]).collect();
    assert_eq!(calls, [1, 2], "{figures}");
    assert_eq!(figures["calls"]["without_request"], 1);
    assert_eq!(figures["lines"], json!({"requests": 2, "calls": 4, "foreign": 1}));
    assert_eq!(figures["calls"]["busiest_minute"], json!({"calls": 4, "from": "1970-01-01T00:00:01.001Z"}));
    assert_eq!(figures["absent_callers"], json!(["c"]));
    assert!(text.contains("never came: c") && text.contains("4 of the call quota of 5"), "{text}");
}

#[test]
fn refusals_are_counted_by_reason_and_lead_to_a_page() {
    let expired = r#""application":"default","outcome":"denied","status":401,"reason":"expired_secret""#;
    let refused = r#""credential":"current","outcome":"failed","reason":"credential_refused","upstream_status":401"#;
    let denied = r#""credential":"current","outcome":"failed","reason":"outbound_denied""#;
    let log = request(1, 1, "late", expired) + &call(2, 2, refused) + &call(3, 2, denied);
    let (figures, text) = figures(&log, &["late"]);
    assert_eq!(figures["callers"][0]["by_reason"], json!({"expired_secret": 1}));
    // The host did not send the other call, so OfficeRnD does not count it.
    assert_eq!((&figures["calls"]["total"], &figures["calls"]["busiest_minute"]["calls"]), (&json!(2), &json!(1)));
    for expected in ["expired (1 request, 0 calls): late\n    see broker caller rotate", "refused a client id"] {
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn log_without_audit_lines_has_no_figures() {
    let (figures, text) = figures("Serving http://127.0.0.1:3000\n\n", &[]);
    assert_eq!((&figures["period"], &figures["lines"]["foreign"]), (&Value::Null, &json!(2)));
    assert_eq!(text, "the log has no audit line (2 foreign lines)\n");
}

#[test]
fn name_cannot_control_the_terminal() {
    let (_, text) = figures(&request(1, 1, "a\\u001b[2Jb", MISS), &[]);
    assert!(text.contains("a\u{fffd}[2Jb") && !text.contains('\u{1b}'), "{text}");
}

/// Makes the page of a log.
fn page(log: &str) -> (Value, String) {
    let mut report = Report::new();
    report.read(log.as_bytes()).unwrap();
    let figures = report.finish(5, None);
    (serde_json::to_value(&figures).unwrap(), figures.to_page().unwrap())
}

#[test]
fn words_of_the_log_are_text_of_the_page() {
    let hostile = "</style><script>'x'</script>\\\"><img src=x>&\\u0007";
    let log = request(1, 1, hostile, MISS)
        + &request(2, 2, "a", &format!(r#""outcome":"denied","status":401,"reason":"{hostile}""#))
        + &call(3, 1, &OK.replace("current", hostile)).replace("default", hostile)
        + &request(4, 3, "a", MISS)
            .replace("/oauth/token", hostile)
            .replace("\"scopes\"", "\"version\":\"<i>\",\"scopes\"");
    let (figures, page) = page(&log);
    assert_eq!(figures["lines"], json!({"requests": 3, "calls": 1, "foreign": 0}));
    // One style, and no other tag of the name.
    assert_eq!((page.matches("</style>").count(), page.matches("<i>").count()), (1, 0));
    for tag in ["<script", "<img", "\u{7}"] {
        assert!(!page.contains(tag), "{tag}: {page}");
    }
    let escaped = "&lt;/style&gt;&lt;script&gt;&#39;x&#39;&lt;/script&gt;&quot;&gt;&lt;img src=x&gt;&amp;\u{fffd}";
    // Caller, its finding, reason twice, credential, application and path.
    assert_eq!(page.matches(escaped).count(), 6, "{page}");
}

#[test]
fn page_has_the_figures_and_nothing_from_elsewhere() {
    let log: String = (0..1_234).map(|id| request(id * 60_000, id, "a", MISS) + &call(id * 60_000, id, OK)).collect();
    let (figures, page) = page(&log);
    assert_eq!((&figures["requests"]["ok"], &figures["calls"]["ok"]), (&json!(1_234), &json!(1_234)));
    for row in ["ok", "miss", "/oauth/token", "default", "current", "lines of calls"] {
        let row = format!("<bdi>{row}</bdi></th><td><data value=\"1234\">1,234</data></td>");
        assert!(page.contains(&row), "{row}");
    }
    let policy = page.split("content=\"").nth(1).unwrap().split('"').next().unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    let without_namespace = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
    for elsewhere in ["http:", "https:", "url(", "src=", "href=", "@import", "<script", " style=", "#000"] {
        assert!(!without_namespace.contains(elsewhere), "{elsewhere}");
    }
    // Three charts, each for a wide screen and for a phone.
    assert_eq!(page.matches("<svg ").count(), 6);
}

#[test]
fn page_of_a_log_without_audit_lines_says_so() {
    let (_, page) = page("Serving\n");
    assert!(page.contains("<p>The log has no audit line (1 foreign line).</p>"), "{page}");
}
