//! Secrets and audit lines: secrets never appear in a log or an answer, and each request leaves
//! one line.

use broker_host::sandbox::{Answer as Upstream, Then};
use broker_host::{Fail, Faults, KeyValue};
use http::header::AUTHORIZATION;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tests::{
    Answer, Broker, COMPANIES, Caller, MEMBERS, PAYMENTS, RESOURCES, Secret, Setup, basic, encodings, find_leaks, form,
    revocation_request, token_request,
};

/// Takes every path through the broker at least once, with secrets also in places where they do
/// not belong. Returns all answers and the log.
async fn everything(broker: &Broker) -> (Vec<Answer>, String) {
    let (nightly, door) = (&broker.setup.nightly, &broker.setup.door);
    let mut answers = Vec::new();
    let mut send = async |request: Request<String>| answers.push(broker.send(request).await);
    let secret = broker.setup.application.secret.as_str();
    let own = |name: &str, value: &str, scope: &str| {
        let mut request = token_request(nightly, Some(scope));
        request.headers_mut().insert(AUTHORIZATION, basic(name, value).parse().unwrap());
        request
    };
    let with_form = |fields: &[(&str, &str)]| {
        let mut request = token_request(nightly, None);
        *request.body_mut() = form(fields);
        request
    };
    let with_path = |method: Method, path: String| {
        let mut request = token_request(nightly, Some(MEMBERS));
        *request.uri_mut() = path.parse().unwrap();
        *request.method_mut() = method;
        request
    };

    // Denials with secrets in place of names, scopes, grants and paths.
    send(own("nobody", &nightly.secret, MEMBERS)).await;
    send(own(&nightly.secret, &nightly.name, MEMBERS)).await;
    send(own(&nightly.name, &door.secret, MEMBERS)).await;
    send(own(&nightly.name, secret, MEMBERS)).await;
    send(token_request(nightly, Some(&nightly.secret))).await;
    send(token_request(nightly, Some(&format!("{MEMBERS} {}", door.secret)))).await;
    send(token_request(nightly, Some(RESOURCES))).await;
    send(with_form(&[("grant_type", &nightly.secret)])).await;
    send(with_form(&[("grant_type", "client_credentials"), (&nightly.secret, "1"), ("scope", PAYMENTS)])).await;
    let id = ("client_id", nightly.name.as_str());
    let known = ("client_secret", nightly.secret.as_str());
    send(with_form(&[("grant_type", "client_credentials"), id, known])).await;
    send(with_form(&[("grant_type", "client_credentials"), ("client_id", &nightly.secret)])).await;
    send(with_path(Method::POST, format!("/oauth/token?{}", form(&[id, known])))).await;
    send(with_path(Method::GET, format!("/oauth/token?{}", form(&[id, known])))).await;
    send(with_path(Method::POST, format!("/{}", nightly.secret))).await;
    send(with_path(Method::GET, format!("/healthz?{}", form(&[known])))).await;
    send(with_path(Method::GET, "/readyz".into())).await;
    let mut request = token_request(nightly, Some(MEMBERS));
    request.headers_mut().insert(AUTHORIZATION, format!("Bearer {}", nightly.secret).parse().unwrap());
    send(request).await;
    let mut request = token_request(nightly, None);
    request.body_mut().push_str(&format!("&padding={}", nightly.secret.repeat(1000)));
    send(request).await;

    // Tokens from OfficeRnD and from the cache, also while the store fails.
    send(token_request(nightly, Some(MEMBERS))).await;
    broker.set_store_faults(Faults { fail: Fail::Always, ..Faults::default() });
    send(token_request(nightly, Some(MEMBERS))).await;
    send(token_request(nightly, Some(COMPANIES))).await;
    broker.set_store_faults(Faults::default());
    send(token_request(door, None)).await;

    // Revocations by the token's owner, by another caller and by guessing, and with a secret in
    // place of a token.
    let token = broker.nightly(MEMBERS).await.token();
    for (caller, token) in [(door, &token), (nightly, &nightly.secret), (nightly, &token), (nightly, &token)] {
        send(revocation_request(caller, token)).await;
    }

    // Answers of OfficeRnD that repeat the credentials in every field.
    let echo = json!({
        "error": secret,
        "error_description": form(&[("client_id", &broker.setup.application.id), ("client_secret", secret)]),
        "access_token": secret,
        "token_type": secret,
        "expires_in": secret,
        "scope": secret,
    });
    let echo = |status: u16, scope: Value| {
        let mut echo = echo.clone();
        if !scope.is_null() {
            echo["token_type"] = "Bearer".into();
            echo["expires_in"] = 3599.into();
            echo["scope"] = scope;
        }
        Upstream::json(StatusCode::from_u16(status).unwrap(), &echo)
    };
    let mut log = broker.server.output();
    for upstream in [
        echo(200, Value::Null),
        echo(200, secret.into()),
        echo(200, RESOURCES.into()),
        echo(400, Value::Null),
        echo(401, Value::Null),
        echo(429, Value::Null),
        echo(500, Value::Null),
        Upstream::Raw(format!("HTTP/1.1 500 {secret}\r\n{secret}: {secret}\r\n\r\n{secret}").into(), Then::Close),
        Upstream::Raw(format!("{secret}\r\n\r\n").into(), Then::Close),
    ] {
        let calls = broker.calls().len();
        broker.sandbox.answer_always(upstream);
        // A host with a new store, because the gate would remember the failure before.
        let cold = broker.beside(KeyValue::memory()).await;
        for _ in 0..2 {
            answers.push(cold.nightly(COMPANIES).await);
        }
        assert_eq!(broker.calls().len(), calls + 1);
        log += &cold.server.output();
    }
    (answers, log)
}

#[tokio::test]
async fn secrets_appear_in_no_log_and_no_answer_but_the_token_itself() {
    let broker = Setup::in_one_instance().start().await;
    let (answers, log) = everything(&broker).await;
    assert!(answers.len() >= 30, "{}", answers.len());
    let count = |status: u16| answers.iter().filter(|answer| answer.status == status).count();
    for status in [200, 400, 401, 404, 405, 413, 502, 503] {
        assert!(count(status) > 0, "no {status} among {answers:?}");
    }

    let mut secrets = broker.secrets();
    let is_grant = |answer: &&Answer| answer.status == 200 && answer.body.contains("access_token");
    for answer in answers.iter().filter(is_grant) {
        assert_eq!(find_leaks(format!("{answer:?}").as_bytes(), &secrets), [""; 0]);
    }
    secrets.extend(answers.iter().filter(is_grant).map(|answer| Secret::new("a token", answer.token())));
    assert!(secrets.len() > 5, "the answers have no tokens");
    for answer in answers.iter().filter(|answer| !is_grant(answer)) {
        assert_eq!(find_leaks(format!("{answer:?}").as_bytes(), &secrets), [""; 0], "{answer:?}");
    }
    assert_eq!(find_leaks(log.as_bytes(), &secrets), [""; 0], "{log}");

    // Check the search itself: every secret planted into the log must be found.
    for secret in &secrets {
        for (encoding, bytes) in encodings(&secret.text) {
            let (begin, end) = log.as_bytes().split_at(log.len() / 2);
            let planted = [begin, &bytes, end].concat();
            let found = find_leaks(&planted, std::slice::from_ref(secret));
            assert!(found.iter().any(|found| found.ends_with(encoding)), "{encoding}: {found:?}");
        }
    }
}

#[tokio::test]
async fn each_request_leaves_one_json_line_with_caller_and_scopes() {
    let broker = Setup::in_one_instance().start().await;
    let (nightly, door) = (&broker.setup.nightly, &broker.setup.door);
    broker.token(nightly, Some(MEMBERS)).await.token();
    broker.token(nightly, Some(MEMBERS)).await.token();
    broker.token(door, Some(MEMBERS)).await;
    broker.token(&Caller { secret: "wrong".into(), ..nightly.clone() }, None).await;
    // A name with a line break must not forge a log line.
    broker.token(&Caller { name: "x\n{\"status\":200}".into(), ..nightly.clone() }, None).await;
    let forged = format!("{MEMBERS}\n{{\"status\":200}}");
    broker.token(nightly, Some(&forged)).await;
    broker.fetch(Method::GET, "/no/such/path").await;
    broker.fetch(Method::GET, "/healthz").await;

    let log = broker.server.output();
    let (calls, lines): (Vec<Value>, Vec<Value>) =
        log.lines().map(|line| serde_json::from_str(line).unwrap()).partition(|line: &Value| line["route"].is_null());
    let text = |line: &Value, field: &str| line[field].as_str().unwrap_or_default().to_owned();
    let seen: Vec<_> = lines
        .iter()
        .map(|line| {
            (text(line, "caller"), line["status"].as_u64().unwrap(), text(line, "scopes"), text(line, "reason"))
        })
        .collect();
    let line = |caller: &str, status, scopes: &str, reason: &str| (caller.into(), status, scopes.into(), reason.into());
    let expected: [(String, u64, String, String); 8] = [
        line(&nightly.name, 200, MEMBERS, ""),
        line(&nightly.name, 200, MEMBERS, ""),
        line(&door.name, 400, "", "scope_outside_policy"),
        line(&nightly.name, 401, "", "wrong_secret"),
        line("unknown", 401, "", "unknown_caller"),
        line(&nightly.name, 400, "", "scope_malformed"),
        line("unknown", 404, "", ""),
        line("unknown", 200, "", ""),
    ];
    assert_eq!(seen, expected, "{log}");
    assert_eq!((&lines[0]["cache"], &lines[1]["cache"]), (&"miss".into(), &"hit".into()));
    assert_eq!((calls.len(), &calls[0]["request_id"]), (1, &lines[0]["request_id"]), "the call has a line of its own");
    assert_eq!(lines[0]["token"], lines[1]["token"], "the same token has the same hash in the log");
}
