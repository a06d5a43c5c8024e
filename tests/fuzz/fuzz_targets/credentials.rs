//! Fuzzes a name and a secret, one line each. Printed as HTTP Basic and as a form, both are
//! read back unchanged. A secret that differs in any byte does not authenticate.

#![no_main]

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use fuzz::{World, digest_of};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Request, StatusCode};
use libfuzzer_sys::fuzz_target;
use serde_json::json;

fuzz_target!(|input: &str| {
    let (name, secret) = input.split_once('\n').unwrap_or((input, ""));
    let is_name = (1..=128).contains(&name.len()) && name.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    // A caller with another name is disabled.
    let expected = if is_name && name != "unknown" { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
    let callers = json!({ name: { "secret_sha256": [digest_of(secret)], "scopes": ["a"] } }).to_string();

    // An empty parameter counts as absent. So an empty secret is missing in the body, but
    // present in the header.
    let in_body = if secret.is_empty() { StatusCode::UNAUTHORIZED } else { expected };
    assert_eq!(ask(&callers, name, secret, true), expected, "{name:?} {secret:?}");
    assert_eq!(ask(&callers, name, secret, false), in_body, "{name:?} {secret:?}");

    let mut shortened = secret.to_owned();
    shortened.pop();
    for other in [format!("{secret}x"), format!(" {secret}"), shortened].iter().filter(|other| *other != secret) {
        assert_eq!(ask(&callers, name, other, true), StatusCode::UNAUTHORIZED, "{name:?} {other:?}");
    }
});

fn ask(callers: &str, name: &str, secret: &str, in_header: bool) -> StatusCode {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials");
    let mut request = Request::post("/oauth/token").header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    if in_header {
        let credentials = BASE64_STANDARD.encode(format!("{}:{}", encode(name), encode(secret)));
        request = request.header(AUTHORIZATION, format!("Basic {credentials}"));
    } else {
        form.append_pair("client_id", name).append_pair("client_secret", secret);
    }
    let request = request.body(Ok(form.finish().into_bytes())).expect("base64 is a header value");
    World::new(callers, b"", |_| None).ask(request).0.status()
}
