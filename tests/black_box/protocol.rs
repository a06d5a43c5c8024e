//! A table of requests with the complete answers that the standards require.
//!
//! Each row quotes in short the sentence of the standard that decides it, and does not rest on
//! what the broker happens to do. Every request is written as bytes, because no HTTP library
//! would send half of them, and uses a new connection.

mod check;
mod exchange;
mod rows;
mod table;

use std::collections::HashMap;

use check::check;
use exchange::{Got, exchange};
use rows::GROUPS;
use table::{Answer, MEMBERS, Row, Source, setup};

/// Rows that `wasmtime serve` answers differently, with the reason.
const NOT_ON_WASMTIME_SERVE: [(&str, &[&str]); 3] = [
    ("it looks at no Host", &["HTTP/1.1 without Host", "a Host that is not a host"]),
    (
        "it hands the component no Host, and so no issuer without public_url",
        &[
            "metadata",
            "metadata with a port in Host",
            "metadata with an IPv6 address in Host",
            "metadata with an IPv4 address in Host",
            "metadata over http for another host than this one",
            "metadata with HTTP/1.0",
            "metadata with headers of a proxy",
            "metadata, from a page",
            "metadata with a query, for a part of it, and with wrong credentials",
            "metadata at an escaped path",
            "metadata for HEAD",
        ],
    ),
    ("there is no store, and readiness says so", &["readiness", "readiness for HEAD"]),
];

#[tokio::test]
async fn protocol_table_requests_get_the_answers_of_the_standards() {
    let rows: Vec<_> = GROUPS.into_iter().flatten().collect();
    assert!(rows.len() >= 80, "{} rows", rows.len());
    let broker = setup().start().await;
    let mut tokens = HashMap::new();
    let mut failures = Vec::new();
    for (index, Row { what, because, request, answer }) in rows.iter().enumerate() {
        let token = tokens.get(MEMBERS).map_or("", String::as_str);
        let outcome = match exchange(broker.server.addr(), request, token).await {
            Ok(got) => check(answer, &got, request.line.starts_with("HEAD "), &mut tokens).map_err(|problem| {
                let Got { status, headers, body } = got;
                format!("{problem}\n      got {status} {headers:?}\n      {}", String::from_utf8_lossy(&body))
            }),
            Err(problem) => Err(problem),
        };
        let is_otherwise =
            broker.setup.in_wasmtime_serve && NOT_ON_WASMTIME_SERVE.iter().any(|(_, rows)| rows.contains(what));
        let outcome = match outcome {
            Ok(()) if is_otherwise => Err("correct on wasmtime serve, so it must not be listed".to_owned()),
            Err(_) if is_otherwise => Ok(()),
            outcome => outcome,
        };
        if let Err(problem) = outcome {
            failures.push(format!("{:3}. {what}\n      {because}\n      {problem}", index + 1));
        }
    }
    let failed = failures.len();
    // Denials make no call, and each token needs only one.
    let fetches = |row: &&&Row| matches!(row.answer, Answer::Token(Source::Miss | Source::Stale, _));
    let (calls, expected) = (broker.calls().len(), rows.iter().filter(fetches).count());
    assert!(
        failures.is_empty() && calls == expected,
        "{failed} of {} rows fail, {calls} calls instead of {expected}:\n{}",
        rows.len(),
        failures.join("\n")
    );
    assert_eq!(broker.server.traps(), 0, "{}", broker.server.output());
}
