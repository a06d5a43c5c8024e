//! Identities: a job authenticates with a token of its platform, and the broker has no secret and no
//! key of it.

use http::Method;
use http::header::{AUTHORIZATION, HeaderValue};
use serde_json::{Value, json};
use tests::{
    Answer, Broker, CLUSTER, GITHUB, MEMBERS, PrivateKey, Program, Setup, TestIssuer, assertion_request, basic,
    github_claims, kubernetes_claims, seconds_since_epoch, set, token_request,
};
use tokio::time::sleep;

use crate::assertions::{last_line, without_id};
use crate::configuration::TAKES_EFFECT;

const AUDIENCE: &str = "https://broker.example.com";

/// Two issuers with keys of different kinds, as they really are.
struct Issuers {
    github: TestIssuer,
    cluster: TestIssuer,
}

impl Issuers {
    fn new() -> Self {
        Self {
            github: TestIssuer::new(GITHUB, PrivateKey::rsa(0)),
            cluster: TestIssuer::new(CLUSTER, PrivateKey::p256()),
        }
    }

    fn variable(&self) -> Value {
        json!({
            "github": { "issuer": GITHUB, "jwks": self.github.jwks() },
            "cluster": { "issuer": CLUSTER, "jwks": self.cluster.jwks(), "max_lifetime_seconds": 600 },
        })
    }

    /// A token of the job that is the caller `nightly`.
    fn github(&self, claims: Value) -> String {
        self.github.token(json!(AUDIENCE), github_claims()).claims(claims).sign(&self.github.key)
    }

    fn cluster(&self, claims: Value) -> String {
        let claims_of_pod = kubernetes_claims("jobs", "nightly-sync");
        self.cluster.token(json!([AUDIENCE]), claims_of_pod).claims(claims).sign(&self.cluster.key)
    }
}

/// What the caller `nightly` is at both issuers.
fn identities() -> Value {
    json!([
        { "issuer": "github", "claims": { "repository_id": "74", "environment": "production", "ref": ["refs/heads/main"] } },
        { "issuer": "cluster", "claims": { "sub": "system:serviceaccount:jobs:nightly-sync" } },
    ])
}

/// A broker whose caller `nightly` has these identities, and no secret unless `has_secret`.
fn setup(issuers: &Issuers, identities: Value, has_secret: bool) -> Setup {
    let mut setup = Setup::in_one_instance();
    let mut policy = setup.policy();
    let entry = &mut policy[&setup.nightly.name];
    set(entry, json!({ "identities": identities }));
    if !has_secret {
        set(entry, json!({ "secret_sha256": null }));
    }
    setup.variables.push(("callers", policy.to_string()));
    setup.variables.push(("issuers", issuers.variable().to_string()));
    setup.variables.push(("public_url", AUDIENCE.to_owned()));
    setup
}

async fn send(broker: &Broker, token: &str, client_id: Option<&str>) -> Answer {
    let mut more = vec![("scope", MEMBERS)];
    more.extend(client_id.map(|id| ("client_id", id)));
    broker.send(assertion_request(token, &more)).await
}

#[tokio::test]
async fn job_gets_and_revokes_its_token_with_the_token_of_its_platform() {
    let issuers = Issuers::new();
    let broker = setup(&issuers, identities(), false).start().await;
    let name = broker.setup.nightly.name.clone();
    for (issuer, token, subject) in [
        ("github", issuers.github(json!({})), "repo:octo-org@65/octo-repo@74:environment:production"),
        ("cluster", issuers.cluster(json!({})), "system:serviceaccount:jobs:nightly-sync"),
    ] {
        let first = send(&broker, &token, None).await.token();
        let line = last_line(&broker);
        let logged = [&line["caller"], &line["method"], &line["issuer"], &line["subject"]];
        assert_eq!(logged, [&json!(name), &json!("identity"), &json!(issuer), &json!(subject)], "{line}");
        assert_eq!(send(&broker, &token, Some(&name)).await.token(), first);
        let mut revocation = assertion_request(&token, &[("token", &first)]);
        *revocation.uri_mut() = http::Uri::from_static("/oauth/revoke");
        // A token is revoked once a minute, so only for the first issuer.
        let expected = if issuer == "github" { 200 } else { 503 };
        assert_eq!(broker.send(revocation).await.status, expected, "{issuer}");
    }
    // The form of `sub` that older repositories have: the identity does not depend on it.
    let old = issuers.github(json!({ "sub": "repo:octo-org/octo-repo:environment:production" }));
    send(&broker, &old, None).await.token();
    let long = issuers.github(json!({ "sub": "x".repeat(300) }));
    send(&broker, &long, None).await.token();
    assert_eq!(last_line(&broker)["subject"], "x".repeat(255));
}

#[tokio::test]
async fn job_moves_from_its_secret_to_an_identity_while_both_work() {
    let issuers = Issuers::new();
    let broker = setup(&issuers, identities(), true).start().await;
    let token = broker.nightly(MEMBERS).await.token();
    assert_eq!(send(&broker, &issuers.github(json!({})), None).await.token(), token);
    // A caller without identities is no identity of the issuer, whatever the token claims.
    let door = broker.setup.door.name.clone();
    assert_eq!(send(&broker, &issuers.github(json!({})), Some(&door)).await.status, 401);
    let line = last_line(&broker);
    assert_eq!((&line["reason"], &line["caller"]), (&json!("wrong_identity"), &json!(door)));
}

/// Every rule of an issuer's token, broken alone: what, the forgery, the reason, and the claim.
fn forgeries(issuers: &Issuers) -> Vec<(&'static str, String, &'static str, Option<&'static str>)> {
    let now = seconds_since_epoch();
    let of_cluster = |token: &TestIssuer| token.token(json!(AUDIENCE), kubernetes_claims("jobs", "nightly-sync"));
    let cluster = || of_cluster(&issuers.cluster);
    let github = || issuers.github.token(json!(AUDIENCE), github_claims());
    let [cluster_key, github_key] = [&issuers.cluster.key, &issuers.github.key];
    let signed = issuers.cluster(json!({}));
    let (parts, _) = signed.rsplit_once('.').expect("three parts");
    let (_, other_signature) = {
        let other = issuers.cluster(json!({ "sub": "x" }));
        let (parts, signature) = other.rsplit_once('.').expect("three parts");
        (parts.to_owned(), signature.to_owned())
    };
    vec![
        ("a text that is no token", "x.y".to_owned(), "assertion_unreadable", None),
        ("the signature of another token", format!("{parts}.{other_signature}"), "wrong_signature", None),
        ("another key", cluster().sign(&PrivateKey::p256()), "wrong_signature", None),
        ("an unknown kid", cluster().header(json!({ "kid": "x" })).sign(cluster_key), "unknown_key", None),
        (
            "the kid of another issuer's key",
            cluster().header(json!({ "kid": issuers.github.kid })).sign(cluster_key),
            "unknown_key",
            None,
        ),
        (
            "a key of another issuer",
            github().header(json!({ "kid": issuers.cluster.kid, "alg": "ES256" })).sign(cluster_key),
            "unknown_key",
            None,
        ),
        ("alg none", cluster().header(json!({ "alg": "none" })).sign(cluster_key), "assertion_algorithm", None),
        ("alg of another kind", github().header(json!({ "alg": "PS256" })).sign(github_key), "unknown_key", None),
        ("another type", cluster().header(json!({ "typ": "vc+jwt" })).sign(cluster_key), "assertion_type", None),
        ("another audience", issuers.cluster(json!({ "aud": "https://vault.example.com" })), "wrong_audience", None),
        (
            "several audiences",
            issuers.cluster(json!({ "aud": [AUDIENCE, "https://vault.example.com"] })),
            "wrong_audience",
            None,
        ),
        (
            "the token endpoint",
            issuers.cluster(json!({ "aud": format!("{AUDIENCE}/oauth/token") })),
            "wrong_audience",
            None,
        ),
        ("an expired token", issuers.cluster(json!({ "exp": now - 40 })), "assertion_expired", None),
        ("a token of tomorrow", issuers.cluster(json!({ "nbf": now + 86_400 })), "assertion_early", None),
        ("a longer life than the issuer's", issuers.cluster(json!({ "exp": now + 700 })), "assertion_long", None),
        (
            "an issuer with a slash more",
            issuers.cluster(json!({ "iss": format!("{CLUSTER}/") })),
            "unknown_issuer",
            None,
        ),
        ("an issuer in capitals", issuers.cluster(json!({ "iss": CLUSTER.to_uppercase() })), "unknown_issuer", None),
        (
            "another service account",
            issuers.cluster(json!({ "sub": "system:serviceaccount:jobs:default" })),
            "wrong_identity",
            Some("sub"),
        ),
        (
            "another repository",
            issuers.github(json!({ "repository_id": "75" })),
            "wrong_identity",
            Some("repository_id"),
        ),
        ("a number for text", issuers.github(json!({ "repository_id": 74 })), "wrong_identity", Some("repository_id")),
        ("no environment", issuers.github(json!({ "environment": null })), "wrong_identity", Some("environment")),
        ("a longer branch", issuers.github(json!({ "ref": "refs/heads/main2" })), "wrong_identity", Some("ref")),
        (
            "an event of strangers",
            issuers.github(json!({ "event_name": "pull_request_target" })),
            "event_refused",
            None,
        ),
    ]
}

#[tokio::test]
async fn forged_token_of_an_issuer_gets_the_answer_of_a_wrong_secret() {
    let issuers = Issuers::new();
    let broker = setup(&issuers, identities(), true).start().await;
    let name = broker.setup.nightly.name.clone();
    send(&broker, &issuers.cluster(json!({})), None).await.token();
    broker.at_rest().await;
    let mut wrong = token_request(&broker.setup.nightly, Some(MEMBERS));
    wrong.headers_mut().insert(AUTHORIZATION, HeaderValue::from_str(&basic(&name, "x")).unwrap());
    let expected = without_id(&broker.send(wrong).await);
    for (what, forgery, reason, claim) in forgeries(&issuers) {
        for client_id in [None, Some(name.as_str())] {
            let before = broker.touched();
            assert_eq!(without_id(&send(&broker, &forgery, client_id).await), expected, "{what}");
            let line = last_line(&broker);
            assert_eq!((line["reason"].as_str(), line["claim"].as_str()), (Some(reason), claim), "{what}: {line}");
            assert_eq!(broker.touched(), before, "{what}");
        }
    }
    let unknown = send(&broker, &issuers.cluster(json!({})), Some("x")).await;
    assert_eq!((without_id(&unknown), last_line(&broker)["reason"].as_str()), (expected, Some("unknown_caller")));
}

#[tokio::test]
async fn token_of_two_callers_needs_a_client_id() {
    let issuers = Issuers::new();
    let mut setup = setup(&issuers, identities(), false);
    let mut policy = setup.policy();
    for name in [&setup.nightly.name, &setup.door.name] {
        set(&mut policy[name], json!({ "identities": identities() }));
    }
    setup.variables.push(("callers", policy.to_string()));
    let broker = setup.start().await;
    let token = issuers.github(json!({}));
    assert_eq!(send(&broker, &token, None).await.status, 401);
    let line = last_line(&broker);
    assert_eq!((&line["reason"], &line["caller"]), (&json!("ambiguous_identity"), &json!("unknown")));
    send(&broker, &token, Some(&broker.setup.nightly.name)).await.token();
    // The scopes are those of the caller that the request names.
    assert_eq!(send(&broker, &token, Some(&broker.setup.door.name)).await.error(), "invalid_scope");
}

#[tokio::test]
async fn issuer_with_an_audience_of_its_own_needs_no_public_url() {
    let issuers = Issuers::new();
    let mut setup = setup(&issuers, json!([{ "issuer": "cluster", "claims": { "sub": "a" } }]), false);
    setup.variables.retain(|(name, _)| !["public_url", "issuers"].contains(name));
    let cluster = json!({ "issuer": CLUSTER, "jwks": issuers.cluster.jwks(), "audience": "api://broker" });
    setup.variables.push(("issuers", json!({ "cluster": cluster }).to_string()));
    let broker = setup.start().await;
    send(&broker, &issuers.cluster(json!({ "sub": "a", "aud": "api://broker" })), None).await.token();
    assert_eq!(broker.fetch(Method::GET, "/readyz").await.status, 200);
    assert_eq!(send(&broker, &issuers.cluster(json!({ "sub": "a" })), None).await.status, 401);
    assert_eq!(last_line(&broker)["reason"], "wrong_audience");
}

#[tokio::test]
async fn mistake_in_an_issuer_refuses_only_its_tokens() {
    let issuers = Issuers::new();
    let mut setup = setup(&issuers, identities(), true);
    let mut variable = issuers.variable();
    set(&mut variable["github"], json!({ "algorithms": ["HS256"] }));
    setup.variables.push(("issuers", variable.to_string()));
    let broker = setup.start().await;
    assert_eq!(send(&broker, &issuers.github(json!({})), None).await.status, 401);
    assert_eq!(last_line(&broker)["reason"], "unknown_issuer");
    send(&broker, &issuers.cluster(json!({})), None).await.token();
    broker.nightly(MEMBERS).await.token();
    let readiness = broker.fetch(Method::GET, "/readyz").await;
    assert_eq!((readiness.status, readiness.json()["problem"].as_str()), (503, Some("configuration")));
    let warning = "issuers: github.algorithms: is not valid, expected a list of RS256, PS256 or ES256";
    assert!(broker.server.output().contains(warning), "{}", broker.server.output());
}

#[tokio::test]
async fn withdrawn_issuer_or_key_is_refused_once_the_change_takes_effect() {
    let issuers = Issuers::new();
    let broker = setup(&issuers, identities(), true).start().await;
    let token = issuers.github(json!({}));
    send(&broker, &token, None).await.token();
    let mut variable = issuers.variable();
    let other = TestIssuer { key: PrivateKey::rsa(1), ..issuers.github.clone() };
    set(&mut variable["github"], json!({ "jwks": other.jwks() }));
    broker.variables.set("issuers", variable.to_string());
    sleep(TAKES_EFFECT).await;
    assert_eq!(send(&broker, &token, None).await.status, 401);
    assert_eq!(last_line(&broker)["reason"], "wrong_signature");
    let again = other.token(json!(AUDIENCE), github_claims()).sign(&other.key);
    send(&broker, &again, None).await.token();
}

/// What `check --assertion` prints for a token: stdout and stderr in one text, and whether it succeeds.
fn check_assertion(setup: &Setup, token: &str, client_id: Option<&str>) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let given = |name: &str| setup.variables.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| value);
    let mut variables = json!({ "officernd_client_id": "id", "officernd_client_secret": "secret" });
    for name in ["callers", "issuers", "public_url"] {
        set(&mut variables, json!({ name: given(name) }));
    }
    std::fs::write(folder.path().join("v.json"), variables.to_string()).unwrap();
    let mut arguments = vec!["check", "--variables", "v.json", "--assertion", "-"];
    arguments.extend(client_id.iter().flat_map(|id| ["--caller", id]));
    let ended = Program::run_operator(&arguments, token, folder.path());
    for part in token.split('.').filter(|part| part.len() > 8) {
        assert!(!format!("{ended:?}").contains(part), "the token is printed: {ended:?}");
    }
    (ended.code == 0, format!("{}{}", ended.stdout, ended.stderr))
}

#[tokio::test]
async fn check_of_an_assertion_has_the_outcome_and_the_reason_of_the_log() {
    let issuers = Issuers::new();
    let setup = setup(&issuers, identities(), true);
    let broker = setup.start().await;
    let nightly = broker.setup.nightly.name.clone();
    let (now, other) = (seconds_since_epoch(), TestIssuer::new(GITHUB, PrivateKey::rsa(1)));
    let good = issuers.github(json!({}));
    let tokens = [
        (good.clone(), None),
        (good.clone(), Some(nightly.as_str())),
        (good.clone(), Some(broker.setup.door.name.as_str())),
        (good.clone(), Some("stranger")),
        (issuers.cluster(json!({})), None),
        (good.replace('.', ".A"), None),
        (format!("{good}A"), None),
        (other.token(json!(AUDIENCE), github_claims()).sign(&other.key), None),
        (issuers.github.token(json!(AUDIENCE), github_claims()).sign(&other.key), None),
        (issuers.github(json!({ "aud": format!("{AUDIENCE}/oauth/token") })), None),
        (issuers.github(json!({ "aud": [AUDIENCE, "x"] })), None),
        (issuers.github(json!({ "iss": format!("{GITHUB}/") })), None),
        (issuers.github(json!({ "iss": CLUSTER })), None),
        (issuers.github(json!({ "exp": now - 60 })), None),
        (issuers.github(json!({ "nbf": now + 60 })), None),
        (issuers.cluster(json!({ "exp": now + 3600 })), None),
        (issuers.github(json!({ "ref": "refs/heads/other" })), None),
        (issuers.github(json!({ "event_name": "pull_request_target" })), None),
        (issuers.github(json!({ "sub": null })), None),
    ];
    let mut reasons = std::collections::BTreeSet::new();
    for (token, client_id) in tokens {
        let answer = send(&broker, &token, client_id).await;
        let line = last_line(&broker);
        let (is_accepted, printed) = check_assertion(&broker.setup, &token, client_id);
        assert_eq!(is_accepted, answer.status == 200, "{line} {printed}");
        match line["reason"].as_str() {
            Some(reason) if answer.status != 200 => {
                assert!(printed.contains(&format!("\nassertion: {reason}: ")), "{line} {printed}");
                reasons.insert(reason.to_owned());
            }
            _ => assert!(
                printed.contains(&format!("authenticates the caller \"{nightly}\" as an identity")),
                "{printed}"
            ),
        }
        // The log has only the name of the claim.
        if let Some(claim) = line["claim"].as_str() {
            assert!(
                printed.contains(&format!("{claim} is \"refs/heads/other\", expected \"refs/heads/main\"")),
                "{printed}"
            );
        }
    }
    assert!(reasons.len() >= 10, "{reasons:?}");
}
