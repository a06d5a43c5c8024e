//! Changes by the operator while the broker runs: callers, their secrets, client secrets and
//! applications. Nothing is restarted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use broker_host::KeyValue;
use broker_host::sandbox::{self, Answer as Upstream};
use http::StatusCode;
use serde_json::{Value, json};
use tests::{
    Answer, Broker, COMPANIES, Caller, MEMBERS, PAYMENTS, RESOURCES, Setup, digest_of, find_leaks, random,
    revocation_request, secret,
};
use tokio::time::sleep;

use super::configuration::TAKES_EFFECT;

/// Returns a setup with a call quota of 100, at OfficeRnD and in the broker.
pub(super) fn unlimited() -> Setup {
    let mut setup = Setup::default();
    setup.sandbox.calls_per_minute = 100;
    setup.variables.push(("upstream_calls_per_minute", "100".into()));
    setup
}

/// A broker over a year of changes, and its five jobs with the answer that each must get.
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
    /// A token issued to this client id.
    TokenOf(String),
    Denied,
}

impl Year {
    fn enter(&mut self, caller: &Caller, entry: Value) {
        self.policy.insert(caller.name.clone(), entry);
        self.broker.variables.set("callers", json!(self.policy).to_string());
    }

    /// Requests a token for every job until each gets its expected answer. A job whose answer
    /// does not change must get it all along.
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
            assert!(begin.elapsed() < TAKES_EFFECT, "{what}: {differing:?}\n{}", self.broker.server.output());
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
async fn changed_policy_or_secret_takes_effect_without_restart() {
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
    year.settle("two callers at the start", &[(0, home.clone()), (3, home.clone())]).await;

    year.enter(&backup, entry(&backup, json!([digest_of(&backup.secret)])));
    year.settle("a caller is added", &[(2, home.clone())]).await;

    let both = json!([digest_of(&nightly.secret), digest_of(&renewed.secret)]);
    year.enter(&nightly, entry(&nightly, both));
    year.settle("both secrets of a caller are valid", &[(1, home.clone())]).await;

    let end = jiff::Timestamp::now().as_second() + TAKES_EFFECT.as_secs() as i64;
    let expires = jiff::Timestamp::from_second(end).unwrap().to_string();
    let expiring = json!([{ "sha256": digest_of(&nightly.secret), "expires": expires }, digest_of(&renewed.secret)]);
    year.enter(&nightly, entry(&nightly, expiring));
    // Long enough for the broker to read the entry.
    sleep(TAKES_EFFECT - Duration::from_secs(3)).await;
    assert_eq!(year.broker.token(&nightly, Some(MEMBERS)).await.status, 200, "the old secret has not expired yet");
    year.settle("the old secret expires", &[(0, Expected::Denied)]).await;
    assert!(jiff::Timestamp::now().as_second() >= end, "the old secret expired too early");

    // Client secret: the next one is configured, then OfficeRnD refuses the current one.
    let next = sandbox::Application { secret: secret("next-secret"), ..default.clone() };
    year.broker.variables.set("officernd_client_secret_next", &next.secret);
    year.settle("a next secret is configured", &[]).await;
    sleep(TAKES_EFFECT).await;
    year.broker.sandbox.set_applications(vec![next.clone()]);
    let before = year.broker.calls().len();
    let mut fresh = nightly.clone();
    fresh.secret.clone_from(&renewed.secret);
    for scope in [PAYMENTS, &format!("{COMPANIES} {MEMBERS}")] {
        let answer = year.broker.token(&fresh, Some(scope)).await;
        assert_eq!(answer.status, 200, "{answer:?} {}", year.broker.server.output());
    }
    // The current secret is tried once, then the next one is used for both scope sets, by any
    // instance.
    let statuses: Vec<_> = year.broker.calls()[before..].iter().map(|call| call.status).collect();
    assert_eq!(statuses, [Some(401), Some(200), Some(200)]);
    let log = year.broker.server.output();
    let advice = "OfficeRnD refuses officernd_client_secret and accepts officernd_client_secret_next: swap the two";
    assert!(log.contains(advice), "{log}");
    year.settle("the current secret is refused", &[]).await;
    year.broker.variables.set("officernd_client_secret", &next.secret);
    year.settle("the next secret becomes the current one", &[]).await;
    year.broker.variables.unset("officernd_client_secret_next");
    sleep(TAKES_EFFECT).await;
    year.settle("the rotation is complete", &[]).await;

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

    // Neither the log nor the store may contain a secret at the end of the year.
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
        // Check the search itself with a planted token.
        let planted = [&bytes[..], tokens[0].as_bytes()].concat();
        assert!(!find_leaks(&planted, &secrets).is_empty());
        files += 1;
    }
    assert!(files > 0);
    assert_eq!(year.broker.server.traps(), 0);
}

#[tokio::test]
async fn refused_secrets_are_each_tried_once() {
    let mut setup = unlimited();
    setup.variables.push(("officernd_client_secret_next", secret("next-secret")));
    let broker = setup.start().await;
    broker.sandbox.set_applications(Vec::new());
    for _ in 0..3 {
        let answer = broker.nightly(MEMBERS).await;
        assert_eq!((answer.status, answer.error().as_str()), (502, "server_error"));
        // 30 s, and up to a fifth of jitter.
        assert!((1..=36).contains(&answer.retry_after().unwrap()), "{answer:?}");
    }
    assert_eq!(broker.calls().len(), 2);
    let secrets: Vec<_> = broker.calls().iter().map(|call| call.form()[1].1.clone()).collect();
    assert_eq!(secrets, [broker.setup.application.secret.clone(), broker.setup.variables[1].1.clone()]);
    assert!(!broker.server.output().contains("swap the two"), "{}", broker.server.output());
}

#[tokio::test]
async fn next_secret_is_unused_while_the_current_one_works() {
    let mut setup = unlimited();
    setup.variables.push(("officernd_client_secret_next", secret("next-secret")));
    let broker = setup.start().await;
    let token = broker.nightly(MEMBERS).await.token();
    broker.nightly(COMPANIES).await.token();
    assert_eq!(broker.nightly(MEMBERS).await.token(), token);
    // OfficeRnD fails without refusing the secret, so the next one must not be tried.
    broker.sandbox.answer_always(Upstream::text(StatusCode::INTERNAL_SERVER_ERROR, "oops"));
    assert_eq!(broker.token(&broker.setup.door, None).await.status, 503);
    let secrets: Vec<_> = broker.calls().iter().map(|call| call.form()[1].1.clone()).collect();
    assert_eq!(secrets, vec![broker.setup.application.secret.clone(); 3]);
}

#[tokio::test]
async fn swapping_the_two_secrets_keeps_every_token() {
    let mut setup = Setup::default();
    // More tokens than the call quota could fetch again within a minute.
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
    sleep(TAKES_EFFECT).await;
    for (scope, token) in scopes.iter().zip(&tokens) {
        assert_eq!(&broker.nightly(scope).await.token(), token);
    }
    assert_eq!(broker.calls().len(), 0);
    broker.nightly(MEMBERS).await.token();
    assert_eq!(broker.calls().len(), 1, "the new secret is not in use");
}

#[tokio::test]
async fn token_fetched_with_both_secrets_is_revoked_for_both() {
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
