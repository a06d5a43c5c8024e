//! Keys of issuers that are fetched: once for all hosts on a store, again when they age, and never
//! because of what a stranger sends.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_host::sandbox::{Answer as Reply, Config, Sandbox, Then};
use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tests::{
    Answer, Broker, CLUSTER, MEMBERS, PrivateKey, Program, Setup, TestIssuer, assertion_request, kubernetes_claims,
    random, seconds_since_epoch, set,
};

use crate::assertions::last_line;

const AUDIENCE: &str = "https://broker.example.com";
const MINUTE: u64 = 60;
const HOUR: u64 = 3600;

/// An issuer that serves its keys over HTTP.
struct Server {
    issuer: TestIssuer,
    keys: Arc<Sandbox>,
    /// Seconds by which the broker's clock is ahead.
    ahead: Cell<u64>,
}

impl Server {
    async fn start() -> Self {
        let keys = Sandbox::start(Config::default()).await.expect("loopback has a free port");
        let issuer = TestIssuer::new(CLUSTER, PrivateKey::p256());
        let server = Self { issuer, keys: Arc::new(keys), ahead: Cell::new(0) };
        server.serve(&server.issuer.jwks());
        server
    }

    fn serve(&self, keys: &Value) {
        self.keys.answer_always(Reply::json(StatusCode::OK, keys));
    }

    /// Changes to a new key.
    fn rotate(&mut self) {
        self.issuer = TestIssuer::new(CLUSTER, PrivateKey::p256());
        self.serve(&self.issuer.jwks());
    }

    fn fetches(&self) -> usize {
        self.keys.calls().len()
    }

    /// A setup whose caller `nightly` is a service account of this issuer.
    fn setup(&self) -> Setup {
        let mut setup = Setup::in_one_instance();
        let mut policy = setup.policy();
        let claims = json!({ "sub": "system:serviceaccount:jobs:nightly-sync" });
        let identities = json!([{ "issuer": "cluster", "claims": claims }]);
        set(&mut policy[&setup.nightly.name], json!({ "identities": identities }));
        let jwks_uri = format!("{}/openid/v1/jwks", self.keys.url());
        let issuers = json!({ "cluster": { "issuer": CLUSTER, "jwks_uri": jwks_uri, "max_lifetime_seconds": 86_400 } });
        setup.variables.push(("callers", policy.to_string()));
        setup.variables.push(("issuers", issuers.to_string()));
        setup.variables.push(("public_url", AUDIENCE.to_owned()));
        setup.variables.push(("keys_origin_1", self.keys.url()));
        setup
    }

    /// Sends a token of the job, which is made at the broker's time.
    async fn send(&self, broker: &Broker, header: Value) -> Answer {
        let now = seconds_since_epoch() + self.ahead.get();
        let token = self.issuer.token(json!([AUDIENCE]), kubernetes_claims("jobs", "nightly-sync"));
        let token = token.header(header).claims(json!({ "iat": now, "nbf": now, "exp": now + 600 }));
        broker.send(assertion_request(&token.sign(&self.issuer.key), &[("scope", MEMBERS)])).await
    }

    fn advance(&self, broker: &Broker, seconds: u64) {
        self.ahead.set(self.ahead.get() + seconds);
        broker.setup.clock.set_ahead(Duration::from_secs(self.ahead.get()));
    }

    /// Checks status and reason of the answer to a good token, and how often the keys were fetched.
    async fn check(&self, what: &str, broker: &Broker, expected: Option<&str>, fetches: usize) -> Answer {
        let answer = self.send(broker, json!({})).await;
        assert_eq!(last_line(broker)["reason"].as_str(), expected, "{what}: {}", broker.server.output());
        assert_eq!(answer.status == 200, expected.is_none(), "{what}");
        broker.at_rest().await;
        assert_eq!(self.fetches(), fetches, "{what}");
        answer
    }
}

#[tokio::test]
async fn keys_are_fetched_by_one_host_for_all_and_renewed_after_an_answer() {
    let mut server = Server::start().await;
    let broker = server.setup().start().await;
    server.check("the first token", &broker, None, 1).await;
    let fetched = server.keys.calls().remove(0);
    assert_eq!((fetched.method.as_str(), fetched.path.as_str()), ("GET", "/openid/v1/jwks"));
    assert!(fetched.header("authorization").is_none() && fetched.body.is_empty());
    assert!(fetched.header("user-agent").expect("firewalls want one").starts_with("officernd-token-broker/"));
    let other = broker.beside(broker.setup.key_value.clone()).await;
    server.check("another host reads the store", &other, None, 1).await;
    // After ten minutes.
    server.advance(&broker, 10 * MINUTE);
    server.check("a renewal", &broker, None, 2).await;
    server.check("the other host has not looked since", &other, None, 2).await;
    // The issuer has withdrawn the old key an hour ago.
    let old = TestIssuer { ..server.issuer.clone() };
    server.rotate();
    server.advance(&broker, HOUR);
    server.check("a new key", &broker, None, 3).await;
    let withdrawn = Server { issuer: old, keys: server.keys.clone(), ahead: server.ahead.clone() };
    withdrawn.check("the withdrawn key", &broker, Some("unknown_key"), 3).await;
}

#[tokio::test]
async fn stranger_causes_at_most_one_fetch_a_minute() {
    let mut server = Server::start().await;
    let broker = server.setup().start().await;
    server.check("the first token", &broker, None, 1).await;
    let flood = async |count: usize| {
        for _ in 0..count {
            assert_eq!(server.send(&broker, json!({ "kid": random("kid") })).await.status, 401);
            assert_eq!(last_line(&broker)["reason"], "unknown_key");
        }
    };
    flood(20).await;
    assert_eq!(server.fetches(), 1);
    server.advance(&broker, MINUTE);
    flood(20).await;
    assert_eq!(server.fetches(), 2);
    // A new key that arrives meanwhile is accepted within a minute.
    server.rotate();
    server.check("a new key within a minute of a fetch", &broker, Some("unknown_key"), 2).await;
    server.advance(&broker, MINUTE);
    server.check("a new key after it", &broker, None, 3).await;
    // `/readyz` fetches nothing.
    server.advance(&broker, 2 * HOUR);
    let readiness = broker.fetch(Method::GET, "/readyz").await;
    assert_eq!((readiness.status, server.fetches()), (200, 3));
}

#[tokio::test]
async fn crowd_of_jobs_waits_for_one_fetch() {
    let server = Server::start().await;
    let broker = server.setup().start().await;
    let answers = futures_util::future::join_all((0..50).map(|_| server.send(&broker, json!({})))).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    assert_eq!((server.fetches(), broker.calls().len()), (1, 1));
}

/// What an issuer does wrong.
fn bad_answers(good: &Value) -> Vec<(&'static str, Reply)> {
    let megabyte = json!({ "keys": good["keys"], "padding": "x".repeat(1 << 20) });
    vec![
        ("it is down", Reply::close()),
        ("it resets the connection", Reply::Raw(Bytes::new(), Then::Reset)),
        ("it answers 500", Reply::text(StatusCode::INTERNAL_SERVER_ERROR, "")),
        ("it answers 304", Reply::text(StatusCode::NOT_MODIFIED, "")),
        ("its set is empty", Reply::json(StatusCode::OK, &json!({ "keys": [] }))),
        ("it answers with a page", Reply::text(StatusCode::OK, "<html>")),
        ("it sends a megabyte", Reply::json(StatusCode::OK, &megabyte)),
        (
            "it sends without end",
            Reply::Raw("HTTP/1.1 200 OK\r\n\r\n".into(), Then::Repeat(b"x", Duration::from_millis(5))),
        ),
        ("it never answers", Reply::hang()),
    ]
}

#[tokio::test]
async fn bad_issuer_stops_only_its_callers_and_its_keys_serve_for_a_day() {
    let server = Server::start().await;
    let good = server.issuer.jwks();
    for (what, reply) in bad_answers(&good) {
        let before = server.fetches();
        server.keys.answer_always(reply.clone());
        server.ahead.set(0);
        let broker = server.setup().start().await;
        let refused = server.check(what, &broker, Some("keys_unavailable"), before + 1).await;
        let retry_after: u64 = refused.header("retry-after").expect("it says when").parse().expect("seconds");
        assert!((1..=60).contains(&retry_after), "{what}: {retry_after}");
        assert_eq!(refused.error(), "temporarily_unavailable", "{what}");
        server.check("within a minute nothing is tried", &broker, Some("keys_unavailable"), before + 1).await;
        let readiness = broker.fetch(Method::GET, "/readyz").await;
        assert_eq!((readiness.status, readiness.json()["problem"].as_str()), (200, Some("issuer_keys")), "{what}");
        assert!(broker.server.output().contains("issuers: cluster: no keys from http://127.0.0.1"), "{what}");
        broker.nightly(MEMBERS).await.token();

        // The issuer works again, and fails again.
        server.serve(&good);
        server.advance(&broker, MINUTE);
        server.check(what, &broker, None, before + 2).await;
        assert_eq!(broker.fetch(Method::GET, "/readyz").await.json()["problem"].as_str(), None, "{what}");
        server.keys.answer_always(reply);
        server.advance(&broker, 23 * HOUR);
        server.check(what, &broker, None, before + 3).await;
        let readiness = broker.fetch(Method::GET, "/readyz").await;
        assert_eq!((readiness.status, readiness.json()["problem"].as_str()), (200, Some("issuer_keys")), "{what}");
        server.advance(&broker, HOUR);
        server.check(what, &broker, Some("keys_unavailable"), before + 4).await;
    }
}

#[tokio::test]
async fn redirect_of_an_issuer_is_not_followed() {
    let server = Server::start().await;
    let elsewhere = Sandbox::start(Config::default()).await.expect("loopback has a free port");
    elsewhere.answer_always(Reply::json(StatusCode::OK, &server.issuer.jwks()));
    let mut redirect = http::Response::new(Bytes::new());
    *redirect.status_mut() = StatusCode::FOUND;
    redirect.headers_mut().insert("location", elsewhere.url().parse().expect("a URL is a header value"));
    server.keys.answer_always(Reply::Fixed(redirect));
    let broker = server.setup().start().await;
    server.check("a redirect", &broker, Some("keys_unavailable"), 1).await;
    assert_eq!(elsewhere.calls().len(), 0);
}

#[tokio::test]
async fn issuer_whose_origin_is_not_allowed_is_named_on_stderr() {
    let server = Server::start().await;
    let mut setup = server.setup();
    setup.variables.retain(|(name, _)| *name != "keys_origin_1");
    let broker = setup.start().await;
    server.check("no keys_origin", &broker, Some("keys_unavailable"), 0).await;
    assert!(broker.server.output().contains("set one of keys_origin_1 to keys_origin_4 to its origin"));
    broker.nightly(MEMBERS).await.token();
}

#[tokio::test]
async fn record_of_keys_that_was_changed_or_moved_counts_as_absent() {
    let server = Server::start().await;
    let broker = server.setup().start().await;
    server.check("the first token", &broker, None, 1).await;
    let entries = broker.setup.key_value.entries("default").expect("the store is in memory");
    let (key, record) = entries.into_iter().find(|(key, _)| key.starts_with("keys.")).expect("the keys are stored");
    // Who could write a key could call as any caller of the issuer.
    assert!(!record.windows(8).any(|window| window == &server.issuer.kid.as_bytes()[..8]), "it is sealed");
    let mut changed = record.clone();
    changed[40] ^= 1;
    for (what, value) in [("a byte changed", changed), ("garbage", b"{}".to_vec()), ("nothing", Vec::new())] {
        broker.setup.key_value.set("default", &key, value).await.expect("the store is in memory");
        let before = server.fetches();
        broker.server.end_instances();
        server.check(what, &broker, None, before + 1).await;
    }
}

/// An issuer that answers no request in time.
fn slow_answers() -> [(&'static str, Reply); 3] {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n";
    let a_byte_a_second = Then::Repeat(b"x", Duration::from_secs(1));
    [
        ("it never answers", Reply::hang()),
        ("it sends its header byte by byte", Reply::Raw(format!("{head}X-Slow: ").into(), a_byte_a_second)),
        ("it sends its keys byte by byte", Reply::Raw(format!("{head}\r\n").into(), a_byte_a_second)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn check_with_fetch_and_issuer_new_give_up_after_5_s_and_name_the_issuer() {
    let folder = tempfile::tempdir().unwrap();
    // The program may have to be built, which is not to count.
    assert_eq!(Program::run_operator(&["--help"], "", folder.path()).code, 0);
    let mut commands = Vec::new();
    for (number, (what, reply)) in slow_answers().into_iter().enumerate() {
        let issuer = Sandbox::start(Config::default()).await.expect("loopback has a free port");
        issuer.answer_always(reply.clone());
        let (url, file) = (issuer.url(), format!("{number}.json"));
        let issuers = json!({ "cluster": { "issuer": CLUSTER, "jwks_uri": format!("{url}/keys") } });
        let variables = json!({
            "officernd_client_id": "id",
            "officernd_client_secret": "secret",
            "callers": "{}",
            "issuers": issuers.to_string(),
        });
        std::fs::write(folder.path().join(&file), variables.to_string()).unwrap();
        let check = ["check", "--fetch", "--variables", &file].map(str::to_owned).to_vec();
        let told = format!("issuers: cluster.jwks_uri: no keys from {url}/keys: no answer within 5 s\n");
        commands.push((what, check, told, issuer));

        let issuer = Sandbox::start(Config::default()).await.expect("loopback has a free port");
        issuer.answer_always(reply.clone());
        let metadata = format!("{}/.well-known/openid-configuration", issuer.url());
        let new = ["issuer", "new", "cluster", &issuer.url()].map(str::to_owned).to_vec();
        commands.push((what, new, format!("no metadata from {metadata}: no answer within 5 s"), issuer));

        let issuer = Sandbox::start(Config::default()).await.expect("loopback has a free port");
        let (url, keys) = (issuer.url(), format!("{}/keys", issuer.url()));
        issuer.answer_next(Reply::json(StatusCode::OK, &json!({ "issuer": url, "jwks_uri": keys })));
        issuer.answer_always(reply);
        let new = ["issuer", "new", "cluster", &url].map(str::to_owned).to_vec();
        commands.push((what, new, format!("no keys from {keys}: no answer within 5 s"), issuer));
    }
    let run = |(what, arguments, told, issuer): (&'static str, Vec<String>, String, Sandbox)| {
        let folder = folder.path().to_owned();
        tokio::task::spawn_blocking(move || {
            let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
            let before = Instant::now();
            let ended = Program::run_operator(&arguments, "", &folder);
            let seconds = before.elapsed().as_secs_f64();
            assert!((4.5..9.0).contains(&seconds), "{what}: {arguments:?} took {seconds} s");
            assert!(ended.code == 1 && ended.stderr.contains(&told), "{what}: {arguments:?}: {ended:?}");
            assert!(!issuer.calls().is_empty(), "{what}: {arguments:?} sent nothing");
        })
    };
    for ended in futures_util::future::join_all(commands.into_iter().map(run)).await {
        ended.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_with_fetch_names_the_keys_and_checks_the_signature_with_them() {
    let server = Server::start().await;
    let setup = server.setup();
    let given = |name: &str| setup.variables.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| value);
    let mut variables = json!({ "officernd_client_id": "id", "officernd_client_secret": "secret" });
    for name in ["callers", "issuers", "public_url"] {
        set(&mut variables, json!({ name: given(name) }));
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("v.json"), variables.to_string()).unwrap();
    let check = |token: &str, more: &[&str]| {
        let arguments = [&["check", "--variables", "v.json", "--assertion", "-"], more].concat();
        Program::run_operator(&arguments, token, folder.path())
    };
    let token = |issuer: &TestIssuer| issuer.token(json!([AUDIENCE]), kubernetes_claims("jobs", "nightly-sync"));
    let good = token(&server.issuer).sign(&server.issuer.key);
    let ended = check(&good, &[]);
    assert_eq!((ended.code, server.fetches()), (0, 0), "{ended:?}");
    assert!(ended.stderr.starts_with("warning: the signature was not checked"), "{ended:?}");
    let ended = check(&good, &["--fetch"]);
    assert_eq!((ended.code, ended.stderr.as_str(), server.fetches()), (0, "", 1), "{ended:?}");
    assert!(
        ended.stdout.contains("issuers: cluster: keys from http://") && ended.stdout.contains("\" for ES256\n"),
        "{ended:?}"
    );
    assert!(ended.stdout.contains("authenticates the caller"), "{ended:?}");
    let forged = token(&server.issuer).sign(&PrivateKey::p256());
    let ended = check(&forged, &["--fetch"]);
    assert!(ended.code == 1 && ended.stderr.starts_with("assertion: wrong_signature: "), "{ended:?}");
    server.serve(&json!({ "keys": [] }));
    let ended = check(&good, &["--fetch"]);
    assert_eq!(ended.code, 1);
    for told in ["issuers: cluster.jwks_uri: no keys from http://", "\nassertion: keys_unavailable: "] {
        assert!(ended.stderr.contains(told), "{ended:?}");
    }
}
