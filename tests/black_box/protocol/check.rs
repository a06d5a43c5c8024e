//! Comparison of a complete answer with the one its row expects.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::exchange::Got;
use super::table::{Answer, CROWD, Source, crowd_scopes};

/// Compares a complete answer with the expected one, and keeps its token for later rows.
pub(super) fn check(
    answer: &Answer,
    got: &Got,
    is_head: bool,
    tokens: &mut HashMap<String, String>,
) -> Result<(), String> {
    if let Answer::Server(statuses) = answer {
        let is_cors = |(name, _): &(String, String)| name.starts_with("access-control-");
        let is_sound = statuses.contains(&got.status) && !got.headers.iter().any(is_cors);
        return if is_sound { Ok(()) } else { Err(format!("expected one of {statuses:?}")) };
    }
    // Answers are serialized without spaces, so the length is known even for HEAD, which gets
    // no body.
    let found: Value = serde_json::from_slice(&got.body).unwrap_or_default();
    let lifetime = found["expires_in"].as_u64().unwrap_or_default();
    let mut more = BTreeMap::new();
    let (status, body) = match *answer {
        Answer::Token(source, scope) => {
            let scope = if scope == "<scopes 512>" { crowd_scopes(CROWD) } else { scope.to_owned() };
            let token = found["access_token"].as_str().unwrap_or_default();
            let before = tokens.get(&scope).map(String::as_str);
            if (source == Source::Hit) != (before == Some(token)) {
                return Err(format!("expected the token of before, or, after a fetch, another one: {before:?}"));
            }
            if !is_b64token(token) || !(3000..=3600).contains(&lifetime) {
                return Err("expected an access_token for about an hour".to_owned());
            }
            tokens.insert(scope.clone(), token.to_owned());
            let how = match source {
                Source::Hit => "hit",
                Source::Miss => "fwd=miss; stored",
                Source::Stale => "fwd=stale; stored",
            };
            more.insert("cache-status", format!("officernd-token-broker; {how}; ttl={lifetime}"));
            let body = json!({ "access_token": token, "token_type": "Bearer", "expires_in": lifetime, "scope": scope });
            (200, body)
        }
        Answer::Error(status, error, description) => {
            if status == 401 {
                let challenge = "Basic realm=\"officernd-token-broker\", charset=\"UTF-8\"";
                more.insert("www-authenticate", challenge.to_owned());
            }
            (status, error_body(error, description))
        }
        Answer::NotAllowed(methods) => {
            more.insert("allow", methods.to_owned());
            (405, error_body("invalid_request", "this path does not support the method"))
        }
        Answer::Later => {
            let value = got.headers.iter().find(|(name, _)| name == "retry-after").map(|(_, value)| value.clone());
            let seconds = value.filter(|value| (1..=60).contains(&value.parse().unwrap_or(0)));
            more.insert("retry-after", seconds.unwrap_or_else(|| "1 to 60".to_owned()));
            (503, error_body("temporarily_unavailable", "the request cannot be served now, retry later"))
        }
        Answer::Json(text) => (200, serde_json::from_str(text).expect("the table has JSON")),
        Answer::Metadata(issuer) => (200, metadata_body(issuer)),
        Answer::Server(_) => unreachable!("it has been checked"),
    };
    let length = if is_head { body.to_string().len() } else { got.body.len() };
    more.insert("cache-control", "no-store".to_owned());
    more.insert("content-length", length.to_string());
    more.insert("content-type", "application/json".to_owned());
    more.insert("pragma", "no-cache".to_owned());
    let headers: Vec<_> = more.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let is_body = if is_head { got.body.is_empty() } else { found == body };
    if got.status == status && got.headers == headers && is_body {
        return Ok(());
    }
    let body = if is_head { "no body".to_owned() } else { body.to_string() };
    Err(format!("expected {status} {headers:?}\n      {body}"))
}

fn error_body(error: &str, description: &str) -> Value {
    // RFC 6749 section 5.2: the characters allowed in both.
    let is_allowed = |byte: u8| matches!(byte, 0x20..=0x21 | 0x23..=0x5B | 0x5D..=0x7E);
    assert!(error.bytes().chain(description.bytes()).all(is_allowed), "{error}: {description}");
    json!({ "error": error, "error_description": description })
}

fn metadata_body(issuer: &str) -> Value {
    let methods = ["client_secret_basic", "client_secret_post"];
    json!({
        "issuer": issuer,
        "token_endpoint": format!("{issuer}/oauth/token"),
        "revocation_endpoint": format!("{issuer}/oauth/revoke"),
        "grant_types_supported": ["client_credentials"],
        "response_types_supported": [],
        "token_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_methods_supported": methods,
    })
}

/// Whether a text can be sent as a bearer token (RFC 6750 section 2.1).
fn is_b64token(text: &str) -> bool {
    let text = text.trim_end_matches('=');
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte))
}
