//! What an operator does while the broker runs: callers come, change and go, secrets rotate, applications are added. Nothing
//! is restarted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use broker_host::sandbox::{self, Answer as Upstream};
use broker_host::{Fail, Faults, KeyValue};
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tests::{
    Answer, Broker, COMPANIES, Caller, MEMBERS, PAYMENTS, RESOURCES, Setup, digest_of, find_leaks, random,
    revocation_request, secret, token_request,
};
use tokio::time::sleep;

/// A changed variable is heeded after 10 s at most; the rest is for the machine.
const HEEDED: Duration = Duration::from_secs(15);

/// A setup in which neither OfficeRnD nor the broker minds more than five calls a minute.
fn unlimited() -> Setup {
    let mut setup = Setup::default();
    setup.sandbox.calls_per_minute = 100;
    setup.variables.push(("upstream_calls_per_minute", "100".into()));
    setup
}

/// The five jobs of the year, and what each is to get.
struct Year {
    broker: Broker,
    policy: BTreeMap<String, Value>,
    jobs: Vec<Job>,
}

struct Job {
    caller: Caller,
    scope: &'static str,
    expected: Expected,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Expected {
    /// A token that this client id obtained.
    TokenOf(String),
    Denied,
}

impl Year {
    fn enter(&mut self, caller: &Caller, entry: Value) {
        self.policy.insert(caller.name.clone(), entry);
        self.broker.variables.set("callers", json!(self.policy).to_string());
    }

    /// Asks for every job, until each gets what it is to get. What was right before and is to be so now is right all along.
    async fn settle(&mut self, what: &str, changes: &[(usize, Expected)]) {
        let before: Vec<_> = self.jobs.iter().map(|job| job.expected.clone()).collect();
        for (job, expected) in changes {
            self.jobs[*job].expected = expected.clone();
        }
        let begin = Instant::now();
        loop {
            let mut differing = Vec::new();
            for (index, job) in self.jobs.iter().enumerate() {
                let answer = self.broker.token(&job.caller, Some(job.scope)).await;
                let got = self.outcome(&answer);
                assert!(
                    got == job.expected || got == before[index],
                    "{what}: job {index} got {answer:?}\n{}",
                    self.broker.server.output()
                );
                if got != job.expected {
                    differing.push((index, got));
                }
            }
            if differing.is_empty() {
                return;
            }
            assert!(begin.elapsed() < HEEDED, "{what}: {differing:?}\n{}", self.broker.server.output());
            sleep(Duration::from_millis(100)).await;
        }
    }

    fn outcome(&self, answer: &Answer) -> Expected {
        match answer.status {
            200 => {
                let owner = self.broker.sandbox.owner(&answer.token());
                Expected::TokenOf(owner.expect("the sandbox knows its tokens"))
            }
            401 if answer.error() == "invalid_client" => Expected::Denied,
            _ => panic!("{answer:?}\n{}", self.broker.server.output()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_year_without_a_restart() {
    let mut setup = unlimited();
    let store = tempfile::tempdir().unwrap();
    setup.key_value = KeyValue::sqlite(store.path()).unwrap();
    setup.nightly.scopes.push(PAYMENTS.into());
    let (default, nightly) = (setup.application.clone(), setup.nightly.clone());
    let berlin = sandbox::Application {
        id: random("berlin"),
        secret: secret("berlin-secret"),
        scopes: [MEMBERS].map(String::from).to_vec(),
    };
    let renewed = Caller { secret: secret("nightly-renewed"), ..nightly.clone() };
    let backup = Caller::new("backup", &[RESOURCES]);
    let reports = Caller::new("reports", &["flex.community.*.read"]);
    let abroad = Caller::new("abroad", &[MEMBERS]);
    let job = |caller: &Caller, scope| Job { caller: caller.clone(), scope, expected: Expected::Denied };
    let jobs = vec![
        job(&nightly, MEMBERS),
        job(&renewed, MEMBERS),
        job(&backup, RESOURCES),
        job(&reports, COMPANIES),
        job(&abroad, MEMBERS),
    ];
    let broker = setup.start().await;
    let mut year = Year { broker, policy: BTreeMap::new(), jobs };
    let (home, away) = (Expected::TokenOf(default.id.clone()), Expected::TokenOf(berlin.id.clone()));
    let entry = |caller: &Caller, digests: Value| json!({ "secret_sha256": digests, "scopes": caller.scopes });

    year.enter(&nightly, entry(&nightly, json!([digest_of(&nightly.secret)])));
    year.enter(&reports, entry(&reports, json!([digest_of(&reports.secret)])));
    year.settle("a beginning", &[(0, home.clone()), (3, home.clone())]).await;

    year.enter(&backup, entry(&backup, json!([digest_of(&backup.secret)])));
    year.settle("a caller is added", &[(2, home.clone())]).await;

    let both = json!([digest_of(&nightly.secret), digest_of(&renewed.secret)]);
    year.enter(&nightly, entry(&nightly, both));
    year.settle("its secret rotates, and both open", &[(1, home.clone())]).await;

    let end = jiff::Timestamp::now().as_second() + HEEDED.as_secs() as i64;
    let expires = jiff::Timestamp::from_second(end).unwrap().to_string();
    let expiring = json!([{ "sha256": digest_of(&nightly.secret), "expires": expires }, digest_of(&renewed.secret)]);
    year.enter(&nightly, entry(&nightly, expiring));
    // Long enough for the entry to be read.
    sleep(HEEDED - Duration::from_secs(3)).await;
    assert_eq!(year.broker.token(&nightly, Some(MEMBERS)).await.status, 200, "it has not expired yet");
    year.settle("the old one expires", &[(0, Expected::Denied)]).await;
    assert!(jiff::Timestamp::now().as_second() >= end, "but not before its time");

    // Upstream: the next secret is configured, then OfficeRnD refuses the current one.
    let next = sandbox::Application { secret: secret("next-secret"), ..default.clone() };
    year.broker.variables.set("officernd_client_secret_next", &next.secret);
    year.settle("a next secret is configured", &[]).await;
    sleep(HEEDED).await;
    year.broker.sandbox.set_applications(vec![next.clone()]);
    let before = year.broker.calls().len();
    let mut fresh = nightly.clone();
    fresh.secret.clone_from(&renewed.secret);
    for scope in [PAYMENTS, &format!("{COMPANIES} {MEMBERS}")] {
        let answer = year.broker.token(&fresh, Some(scope)).await;
        assert_eq!(answer.status, 200, "{answer:?} {}", year.broker.server.output());
    }
    // The current secret once, and then the next one for both: whichever instance asks.
    let statuses: Vec<_> = year.broker.calls()[before..].iter().map(|call| call.status).collect();
    assert_eq!(statuses, [Some(401), Some(200), Some(200)]);
    let log = year.broker.server.output();
    let advice = "OfficeRnD refuses officernd_client_secret and takes officernd_client_secret_next: swap the two";
    assert!(log.contains(advice), "{log}");
    year.settle("the current secret is refused", &[]).await;
    year.broker.variables.set("officernd_client_secret", &next.secret);
    year.settle("the next one takes its place", &[]).await;
    year.broker.variables.unset("officernd_client_secret_next");
    sleep(HEEDED).await;
    year.settle("and the rotation is over", &[]).await;

    let applications = json!({ "berlin": { "client_id": berlin.id, "client_secret": berlin.secret } });
    year.broker.sandbox.set_applications(vec![next.clone(), berlin.clone()]);
    year.broker.variables.set("applications", applications.to_string());
    let mut abroad_entry = entry(&abroad, json!([digest_of(&abroad.secret)]));
    abroad_entry["application"] = "berlin".into();
    year.enter(&abroad, abroad_entry);
    year.settle("an application is added", &[(4, away.clone())]).await;

    year.policy.remove(&backup.name);
    let reports_entry = year.policy[&reports.name].clone();
    year.enter(&reports, reports_entry);
    year.settle("a caller is removed", &[(2, Expected::Denied)]).await;

    // What the year has left behind: nothing in the store, and nothing in the log, that tells a secret.
    let mut secrets = year.broker.secrets();
    for secret in [&renewed.secret, &backup.secret, &reports.secret, &abroad.secret, &next.secret, &berlin.secret] {
        secrets.push(tests::Secret::new("a secret of the year", secret));
    }
    let tokens = year.broker.sandbox.tokens();
    assert!(tokens.len() >= 5, "{tokens:?}");
    secrets.extend(tokens.iter().map(|token| tests::Secret::new("a token", token)));
    assert_eq!(find_leaks(year.broker.server.output().as_bytes(), &secrets), [""; 0]);
    for name in [&default.id, &berlin.id, &nightly.name, &backup.name, &reports.name, &abroad.name] {
        secrets.push(tests::Secret::new("a name", name));
    }
    let mut files = 0;
    for entry in std::fs::read_dir(store.path()).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(find_leaks(&bytes, &secrets), [""; 0], "{}", path.display());
        // The search itself.
        let planted = [&bytes[..], tokens[0].as_bytes()].concat();
        assert!(!find_leaks(&planted, &secrets).is_empty());
        files += 1;
    }
    assert!(files > 0);
    assert_eq!(year.broker.server.traps(), 0);
}

#[tokio::test]
async fn when_both_secrets_are_refused_each_was_tried_once() {
    let mut setup = unlimited();
    setup.variables.push(("officernd_client_secret_next", secret("next-secret")));
    let broker = setup.start().await;
    broker.sandbox.set_applications(Vec::new());
    for _ in 0..3 {
        let answer = broker.nightly(MEMBERS).await;
        assert_eq!((answer.status, answer.error().as_str()), (502, "server_error"));
        // 30 s, and up to a fifth more.
        assert!((1..=36).contains(&answer.retry_after().unwrap()), "{answer:?}");
    }
    assert_eq!(broker.calls().len(), 2);
    let secrets: Vec<_> = broker.calls().iter().map(|call| call.form()[1].1.clone()).collect();
    assert_eq!(secrets, [broker.setup.application.secret.clone(), broker.setup.variables[1].1.clone()]);
    assert!(!broker.server.output().contains("swap the two"), "{}", broker.server.output());
}

#[tokio::test]
async fn a_next_secret_that_is_not_needed_is_not_used() {
    let mut setup = unlimited();
    setup.variables.push(("officernd_client_secret_next", secret("next-secret")));
    let broker = setup.start().await;
    let token = broker.nightly(MEMBERS).await.token();
    broker.nightly(COMPANIES).await.token();
    assert_eq!(broker.nightly(MEMBERS).await.token(), token);
    // Not refused, but failing: the secret is not to blame.
    broker.sandbox.answer_always(Upstream::text(StatusCode::INTERNAL_SERVER_ERROR, "oops"));
    assert_eq!(broker.token(&broker.setup.door, None).await.status, 503);
    let secrets: Vec<_> = broker.calls().iter().map(|call| call.form()[1].1.clone()).collect();
    assert_eq!(secrets, vec![broker.setup.application.secret.clone(); 3]);
}

#[tokio::test]
async fn swapping_the_two_secrets_loses_no_token() {
    let mut setup = Setup::default();
    // More than could be fetched again within a minute.
    let scopes = setup.with_scopes(8);
    let broker = setup.start().await;
    let mut tokens = Vec::new();
    for scope in &scopes {
        tokens.push(broker.store_token(scope, Duration::from_secs(3000)).await);
    }
    let next = random("next-secret");
    broker.variables.set("officernd_client_secret_next", &broker.setup.application.secret);
    broker.variables.set("officernd_client_secret", &next);
    broker.sandbox.set_applications(vec![sandbox::Application { secret: next, ..broker.setup.application.clone() }]);
    sleep(HEEDED).await;
    for (scope, token) in scopes.iter().zip(&tokens) {
        assert_eq!(&broker.nightly(scope).await.token(), token);
    }
    assert_eq!(broker.calls().len(), 0);
    broker.nightly(MEMBERS).await.token();
    assert_eq!(broker.calls().len(), 1, "the new one is in use");
}

#[tokio::test]
async fn a_token_that_both_secrets_brought_is_revoked_for_both() {
    let mut setup = Setup::default();
    setup.variables.push(("officernd_client_secret_next", random("next-secret")));
    let broker = setup.start().await;
    let token = broker.nightly(MEMBERS).await.token();
    let application = &broker.config().applications[0];
    let next = application.next.as_ref().unwrap();
    broker.store_token_of(application, next, &token, MEMBERS, Duration::from_secs(3000)).await;
    let revocation = revocation_request(&broker.setup.nightly, &token);
    assert_eq!(broker.send(revocation).await.status, 200);
    sleep(Duration::from_millis(2100)).await;
    assert_ne!(broker.nightly(MEMBERS).await.token(), token);
}

/// A broker with the applications `default` and `berlin`, and a caller of each that may have [`MEMBERS`].
async fn two_applications() -> (Broker, Caller, sandbox::Application) {
    let setup = unlimited();
    let berlin = sandbox::Application {
        id: random("berlin"),
        secret: secret("berlin-secret"),
        scopes: [MEMBERS].map(String::from).to_vec(),
    };
    let abroad = Caller::new("abroad", &[MEMBERS, COMPANIES]);
    let broker = setup.start().await;
    broker.sandbox.set_applications(vec![broker.setup.application.clone(), berlin.clone()]);
    let mut policy = broker.setup.policy();
    policy[&abroad.name] = json!({
        "secret_sha256": [digest_of(&abroad.secret)],
        "scopes": abroad.scopes,
        "application": "berlin",
    });
    policy["late"] = json!({
        "secret_sha256": [{ "sha256": digest_of("late"), "expires": "2020-01-01" }],
        "scopes": [MEMBERS],
    });
    broker.variables.set("callers", policy.to_string());
    let applications = json!({ "berlin": { "client_id": berlin.id, "client_secret": berlin.secret } });
    broker.variables.set("applications", applications.to_string());
    (broker, abroad, berlin)
}

#[tokio::test]
async fn tokens_and_pauses_of_two_applications_never_mix() {
    let (broker, abroad, berlin) = two_applications().await;
    let home = broker.nightly(MEMBERS).await.token();
    let away = broker.token(&abroad, Some(MEMBERS)).await.token();
    assert_eq!(broker.sandbox.owner(&home), Some(broker.setup.application.id.clone()));
    assert_eq!(broker.sandbox.owner(&away), Some(berlin.id.clone()));
    assert_eq!(broker.nightly(MEMBERS).await.token(), home);
    assert_eq!(broker.token(&abroad, Some(MEMBERS)).await.token(), away);
    assert_eq!(broker.calls().len(), 2);

    // Nobody revokes the other's token.
    assert_eq!(broker.send(revocation_request(&abroad, &home)).await.status, 200);
    sleep(Duration::from_millis(2100)).await;
    assert_eq!(broker.nightly(MEMBERS).await.token(), home);

    // One is not granted a scope that the other has.
    assert_eq!(broker.token(&abroad, Some(COMPANIES)).await.error(), "invalid_scope");
    broker.nightly(COMPANIES).await.token();

    // One is refused, and pauses; the other does not notice.
    broker.sandbox.set_applications(vec![broker.setup.application.clone()]);
    let wanted = format!("{COMPANIES} {MEMBERS}");
    assert_eq!(broker.token(&abroad, Some(&wanted)).await.status, 502);
    broker.nightly(&wanted).await.token();
    assert_eq!(broker.token(&abroad, Some(&wanted)).await.status, 502);
    assert_eq!(broker.calls().iter().filter(|call| call.status == Some(401)).count(), 1);
}

#[tokio::test]
async fn a_caller_with_a_pattern_has_to_name_its_scopes() {
    let mut setup = Setup::default();
    setup.nightly.scopes = vec!["flex.community.*.read".into()];
    let broker = setup.start().await;
    let unnamed = broker.token(&broker.setup.nightly, None).await;
    assert_eq!((unnamed.status, unnamed.error().as_str()), (400, "invalid_scope"));
    let description = &unnamed.json()["error_description"];
    assert_eq!(description, "scope is missing: this client has to name the scopes it wants");
    for refused in [RESOURCES, PAYMENTS, "flex.community.*.read", "flex.community.members.notes.read"] {
        let answer = broker.nightly(refused).await;
        assert_eq!((answer.status, answer.error().as_str()), (400, "invalid_scope"), "{refused}");
    }
    assert_eq!(broker.calls().len(), 0);
    let answer = broker.nightly(&format!("{MEMBERS} {COMPANIES}")).await;
    assert_eq!(answer.scope(), format!("{COMPANIES} {MEMBERS}"));
}

#[tokio::test]
async fn a_record_that_was_tampered_with_or_moved_is_a_miss() {
    let broker = unlimited().start().await;
    let members = broker.nightly(MEMBERS).await.token();
    let companies = broker.nightly(COMPANIES).await.token();
    let stored: BTreeMap<_, _> = broker.stored().into_iter().collect();
    let key = broker.key(MEMBERS);
    let record = &stored[&key];
    let mut tampered = record.clone();
    *tampered.last_mut().unwrap() ^= 1;
    let moved = stored[&broker.key(COMPANIES)].clone();
    for (what, value) in [("tampered with", tampered), ("moved", moved), ("nothing", Vec::new())] {
        let calls = broker.calls().len();
        broker.store(&key, value).await;
        sleep(Duration::from_millis(2100)).await;
        let token = broker.nightly(MEMBERS).await.token();
        assert!(![&members, &companies].contains(&&token), "{what}");
        assert_eq!(broker.calls().len(), calls + 1, "{what}");
    }
    assert!(broker.server.output().contains("does not open"), "{}", broker.server.output());
    // Put back as it was, it is good again: that is all that somebody who writes to the store can do.
    broker.store(&key, record.clone()).await;
    sleep(Duration::from_millis(2100)).await;
    assert_eq!(broker.nightly(MEMBERS).await.token(), members);
}

#[tokio::test]
async fn readiness_tells_the_class_of_the_problem_and_no_more() {
    let (broker, abroad, berlin) = two_applications().await;
    let check = async |problem: Option<&str>| {
        let answer = broker.fetch(Method::GET, "/readyz").await;
        let expected = match problem {
            None => (200, json!({ "status": "ready" })),
            Some(problem) => (503, json!({ "status": "unavailable", "problem": problem })),
        };
        assert_eq!((answer.status, answer.json()), expected, "{}", broker.server.output());
    };
    check(None).await;
    broker.set_store_faults(Faults { fail: Fail::Always, ..Faults::default() });
    check(Some("store")).await;
    broker.set_store_faults(Faults::default());
    check(None).await;
    broker.sandbox.set_applications(vec![berlin]);
    assert_eq!(broker.nightly(MEMBERS).await.status, 502);
    // The other application's callers are served.
    check(None).await;
    broker.sandbox.set_applications(Vec::new());
    assert_eq!(broker.token(&abroad, Some(MEMBERS)).await.status, 502);
    check(Some("credential")).await;
}

#[tokio::test]
async fn the_log_is_as_its_schema_says() {
    let (broker, abroad, _) = two_applications().await;
    let nightly = &broker.setup.nightly;
    let mut answers = vec![
        broker.nightly(MEMBERS).await,
        broker.nightly(MEMBERS).await,
        broker.token(&abroad, Some(MEMBERS)).await,
        broker.token(&abroad, Some(COMPANIES)).await,
        broker.nightly(PAYMENTS).await,
        broker.nightly("\"").await,
        broker.token(&Caller { secret: "wrong".into(), ..nightly.clone() }, None).await,
        broker.token(&Caller { name: "nobody".into(), ..nightly.clone() }, None).await,
        broker.token(&Caller { name: "late".into(), secret: "late".into(), scopes: Vec::new() }, None).await,
        broker.fetch(Method::GET, "/oauth/token").await,
        broker.fetch(Method::GET, "/nowhere").await,
        broker.fetch(Method::GET, "/.well-known/oauth-authorization-server").await,
        broker.fetch(Method::GET, "/healthz").await,
        broker.fetch(Method::HEAD, "/readyz").await,
    ];
    answers.push(broker.send(revocation_request(nightly, &answers[0].token())).await);
    sleep(Duration::from_millis(2100)).await;
    answers.push(broker.nightly(MEMBERS).await);
    answers.push(broker.send(revocation_request(nightly, &answers.last().unwrap().token())).await);
    let mut bad_form = token_request(nightly, None);
    bad_form.headers_mut().remove("content-type");
    answers.push(broker.send(bad_form).await);
    let mut large = token_request(nightly, None);
    *large.body_mut() = "x".repeat(20_000);
    answers.push(broker.send(large).await);
    let crowd = (0..20).map(|_| broker.token(nightly, None));
    answers.extend(futures_util::future::join_all(crowd).await);
    broker.sandbox.answer_always(Upstream::text(StatusCode::INTERNAL_SERVER_ERROR, "oops"));
    answers.push(broker.token(&broker.setup.door, None).await);

    let schema = include_str!("../../../docs/audit.schema.json");
    let schema = jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap();
    let log = broker.server.output();
    let lines: Vec<Value> = log
        .lines()
        .filter(|line| !line.starts_with("officernd-token-broker: "))
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    assert_eq!(lines.len(), answers.len(), "{log}");
    for line in &lines {
        let problems: Vec<_> = schema.iter_errors(line).map(|error| error.to_string()).collect();
        assert!(problems.is_empty(), "{line}: {problems:?}");
    }
    // Each answer says which line is its own.
    for answer in &answers {
        let own: Vec<_> = lines.iter().filter(|line| line["request_id"] == answer.request_id.as_str()).collect();
        assert_eq!(own.len(), 1, "{answer:?}");
        assert_eq!(own[0]["status"], answer.status);
    }
    let seen = |field: &str| lines.iter().filter(|line| !line[field].is_null()).count();
    for field in ["caller", "application", "scopes", "reason", "cache", "upstream_status", "upstream_ms", "token"] {
        assert!(seen(field) > 0, "no {field} in {log}");
    }
    for cache in ["hit", "miss", "stale", "collapsed"] {
        assert!(lines.iter().any(|line| line["cache"] == cache), "no {cache} in {log}");
    }
    // Which job still has its old secret.
    let late: Vec<_> = lines.iter().filter(|line| line["reason"] == "expired_secret").collect();
    assert_eq!((late.len(), &late[0]["caller"]), (1, &"late".into()));
    let token = answers[0].token();
    assert_eq!(lines[0]["token"], digest_of(&token)[..16]);

    // The check itself: a line with anything more, or less, is none of the schema's.
    let mut more = lines[0].clone();
    more["secret"] = "x".into();
    let mut less = lines[0].clone();
    less.as_object_mut().unwrap().remove("caller");
    let mut other = lines[0].clone();
    other["status"] = 500.into();
    assert!([more, less, other].iter().all(|line| !schema.is_valid(line)));

    // The page has every field and every reason of the schema.
    let page = include_str!("../../../docs/audit.md");
    let schema: Value = serde_json::from_str(include_str!("../../../docs/audit.schema.json")).unwrap();
    let properties = &schema["properties"];
    let reasons = properties["reason"]["enum"].as_array().unwrap().iter().map(|word| word.as_str().unwrap());
    for word in properties.as_object().unwrap().keys().map(String::as_str).chain(reasons) {
        assert!(page.contains(&format!("`{word}`")), "docs/audit.md does not have {word}");
    }
}

#[tokio::test]
async fn a_request_is_called_as_its_trace_is() {
    let broker = Setup::default().start().await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let mut request = token_request(&broker.setup.nightly, Some(MEMBERS));
    let traceparent = format!("00-{trace}-00f067aa0ba902b7-01");
    request.headers_mut().insert("traceparent", traceparent.parse().unwrap());
    assert_eq!(broker.send(request).await.request_id, trace);
    assert!(broker.server.output().contains(&format!(r#""request_id":"{trace}""#)));
    let mut ids = std::collections::HashSet::new();
    for _ in 0..300 {
        let request = Request::get("/healthz").header("traceparent", "00-secret\"-x-01").body(String::new()).unwrap();
        let id = broker.send(request).await.request_id;
        assert!(id.len() == 32 && ids.insert(id.clone()), "{id}");
    }
}

#[tokio::test]
async fn a_log_of_exceptions_has_no_line_for_what_the_cache_could_serve() {
    let mut setup = Setup::default();
    setup.variables.push(("audit", "exceptions".into()));
    let broker = setup.start().await;
    for _ in 0..5 {
        broker.nightly(MEMBERS).await.token();
    }
    broker.nightly(PAYMENTS).await;
    let log = broker.server.output();
    let statuses: Vec<_> =
        log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["status"].clone()).collect();
    assert_eq!(statuses, [200, 400], "the fetch and the denial: {log}");
}

#[tokio::test]
async fn a_line_of_more_than_a_host_takes_at_once_is_whole() {
    let mut setup = Setup::default();
    let scopes = setup.with_scopes(200).join(" ");
    assert!(scopes.len() > 4096);
    let broker = setup.start().await;
    broker.nightly(&scopes).await.token();
    for answer in futures_util::future::join_all((0..32).map(|_| broker.nightly(&scopes))).await {
        answer.token();
    }
    let log = broker.server.output();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    assert_eq!(
        lines.filter(|line| line["scopes"].as_str().is_some_and(|text| text.len() == scopes.len())).count(),
        33,
        "{log}"
    );
}
