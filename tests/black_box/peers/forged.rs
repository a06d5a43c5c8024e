//! Assertions that JOSE libraries of other projects sign and forge: jose (npm) and joserfc (PyPI).
//! They are a caller's own, or tokens of issuers.

use std::io::Seek as _;

use serde_json::{Value, json};
use tests::{
    CLUSTER, GITHUB, MEMBERS, assertion_request, github_claims, keep_secret, kubernetes_claims, seconds_since_epoch,
    set, token_request,
};

use super::signed::{AUDIENCE, World};
use crate::assertions::{last_line, without_id};

/// What is signed, the library that refuses to make it, the draft for `tests/peers/forge.mjs`, and
/// the reason in the log. Without a reason the caller gets a token.
type Row = (&'static str, &'static str, Value, Option<&'static str>);

/// A JOSE library, and the program that forges with it.
type Library = (&'static str, &'static [&'static str]);

const JOSE: Library = ("jose", &["node", "forge.mjs"]);
const JOSERFC: Library = ("joserfc", &[".venv/bin/python", "forge.py"]);

/// Drafts of assertions of one caller: a good one for each algorithm, and others that differ from it.
struct Drafts {
    now: u64,
    /// Who says what about whom, by algorithm.
    claims: [(&'static str, Value); 3],
}

impl Drafts {
    /// Drafts of what the caller `nightly` says about itself.
    fn of_own_keys(name: &str) -> Self {
        let claims = ["ES256", "RS256", "PS256"].map(|algorithm| (algorithm, json!({ "iss": name, "sub": name })));
        Self { now: seconds_since_epoch(), claims }
    }

    /// Drafts of what two issuers say about the caller `nightly`.
    fn of_issuers() -> Self {
        let of = |issuer: &str, mut claims: Value| {
            set(&mut claims, json!({ "iss": issuer }));
            claims
        };
        let cluster = of(CLUSTER, kubernetes_claims("jobs", "nightly-sync"));
        let github = of(GITHUB, github_claims());
        let claims = [("ES256", cluster.clone()), ("RS256", github), ("PS256", cluster)];
        Self { now: seconds_since_epoch(), claims }
    }

    /// With an algorithm that no key has, the claims are those for ES256.
    fn good(&self, algorithm: &str) -> Value {
        let (_, claims) = self.claims.iter().find(|(known, _)| *known == algorithm).unwrap_or(&self.claims[0]);
        let mut payload = claims.clone();
        let now = self.now;
        set(&mut payload, json!({ "aud": AUDIENCE, "iat": now, "exp": now + 60, "jti": tests::random("jti") }));
        let header = json!({ "alg": algorithm, "kid": algorithm });
        json!({ "make": "sign", "key": algorithm, "header": header, "payload": payload })
    }

    fn header(&self, members: Value) -> Value {
        let mut draft = self.good("ES256");
        set(&mut draft["header"], members);
        draft
    }

    fn claims(&self, members: Value) -> Value {
        self.claims_with("ES256", members)
    }

    fn claims_with(&self, algorithm: &str, members: Value) -> Value {
        let mut draft = self.good(algorithm);
        set(&mut draft["payload"], members);
        draft
    }

    /// The claims as text, after a change of the text.
    fn text(&self, change: impl Fn(String) -> String) -> Value {
        let mut draft = self.good("ES256");
        draft["payload"] = change(draft["payload"].to_string()).into();
        draft
    }

    /// Another way to make it, with another key and header.
    fn made(&self, make: &str, key: Value, header: Value) -> Value {
        let mut draft = self.good(header["alg"].as_str().expect("a name"));
        set(&mut draft, json!({ "make": make, "header": header }));
        draft["key"] = key;
        draft
    }
}

/// Rows for each rule that all assertions share.
fn rows(drafts: &Drafts) -> Vec<Row> {
    let all = [accepted(drafts), forged_headers(drafts), forged_keys(drafts), forged_claims(drafts)];
    all.into_iter().flatten().collect()
}

fn accepted(drafts: &Drafts) -> Vec<Row> {
    let mut without_kid = ["ES256", "RS256", "PS256"].map(|algorithm| drafts.good(algorithm));
    without_kid.iter_mut().for_each(|draft| set(&mut draft["header"], json!({ "kid": null })));
    let [es256, rs256, ps256] = without_kid;
    vec![
        ("ES256", "", drafts.good("ES256"), None),
        ("RS256", "", drafts.good("RS256"), None),
        ("PS256", "", drafts.good("PS256"), None),
        ("ES256 without kid", "", es256, None),
        ("RS256 without kid", "", rs256, None),
        ("PS256 without kid", "", ps256, None),
        ("typ JWT", "", drafts.header(json!({ "typ": "JWT" })), None),
        ("typ of RFC 7523bis", "", drafts.header(json!({ "typ": "client-authentication+jwt" })), None),
        ("its whole media type", "", drafts.header(json!({ "typ": "application/client-authentication+jwt" })), None),
        ("an audience in a list", "", drafts.claims(json!({ "aud": [AUDIENCE] })), None),
        ("a time with a fraction", "", drafts.claims(json!({ "exp": drafts.now as f64 + 59.5 })), None),
        ("more claims", "", drafts.claims(json!({ "nonce": { "a": [1, null] } })), None),
        ("white space", "", drafts.text(|text| text.replace(',', " ,\r\n\t")), None),
    ]
}

fn forged_headers(drafts: &Drafts) -> Vec<Row> {
    let unreadable = Some("assertion_unreadable");
    let jwe = json!({ "alg": "RSA-OAEP-256", "enc": "A256GCM" });
    vec![
        ("unsecured", "", drafts.made("none", Value::Null, json!({ "alg": "none" })), unreadable),
        ("encrypted", "", drafts.made("encrypt", json!("RS256"), jwe), Some("assertion_algorithm")),
        ("JSON serialization", "", drafts.made("json", json!("ES256"), json!({ "alg": "ES256" })), unreadable),
        ("crit", "", drafts.header(json!({ "crit": ["kid"] })), unreadable),
        ("b64 false", "jose", drafts.header(json!({ "b64": false, "crit": ["b64"] })), unreadable),
        ("kid that is no text", "joserfc", drafts.header(json!({ "kid": 1 })), unreadable),
        ("kid of 256 bytes", "", drafts.header(json!({ "kid": "k".repeat(256) })), unreadable),
        ("kid that is a path", "", drafts.header(json!({ "kid": "../../dev/null" })), Some("unknown_key")),
        ("kid that is SQL", "", drafts.header(json!({ "kid": "' OR '1'='1" })), Some("unknown_key")),
        ("nested", "", drafts.header(json!({ "cty": "JWT" })), Some("assertion_type")),
        ("typ of a DPoP proof", "", drafts.header(json!({ "typ": "dpop+jwt" })), Some("assertion_type")),
    ]
}

fn forged_keys(drafts: &Drafts) -> Vec<Row> {
    let stranger = |header: Value| drafts.made("sign", Value::Null, header);
    let of_another = |algorithm: &str, key: &str, kid: &str| {
        drafts.made("sign", json!(key), json!({ "alg": algorithm, "kid": kid }))
    };
    let mac = |kid: &str| drafts.made("mac", json!(kid), json!({ "alg": "HS256", "kid": kid }));
    let (algorithm, unknown, wrong) = (Some("assertion_algorithm"), Some("unknown_key"), Some("wrong_signature"));
    let jwk = json!({ "kty": "oct", "k": "c2VjcmV0" });
    vec![
        ("a MAC with the RSA key", "joserfc", mac("RS256"), algorithm),
        ("a MAC with the EC key", "joserfc", mac("ES256"), algorithm),
        ("RS512", "", of_another("RS512", "RS256", "RS256"), algorithm),
        ("PS384", "", of_another("PS384", "PS256", "PS256"), algorithm),
        ("ES384", "", stranger(json!({ "alg": "ES384", "kid": "ES256" })), algorithm),
        ("Ed25519", "", stranger(json!({ "alg": "Ed25519", "kid": "ES256" })), algorithm),
        ("PS256 with the key of RS256", "", of_another("PS256", "RS256", "RS256"), unknown),
        ("RS256 with the key of PS256", "", of_another("RS256", "PS256", "PS256"), unknown),
        ("RS256 with the id of ES256", "", of_another("RS256", "RS256", "ES256"), unknown),
        ("ES256 of a stranger", "", stranger(json!({ "alg": "ES256", "kid": "ES256" })), wrong),
        ("RS256 of a stranger", "", stranger(json!({ "alg": "RS256", "kid": "RS256" })), wrong),
        ("PS256 of a stranger without kid", "", stranger(json!({ "alg": "PS256" })), wrong),
        ("a key in the header", "", stranger(json!({ "alg": "ES256", "kid": "ES256", "jwk": jwk })), wrong),
        (
            "addresses of keys",
            "",
            stranger(json!({ "alg": "ES256", "jku": "http://127.0.0.1:9/", "x5u": "http://127.0.0.1:9/" })),
            wrong,
        ),
    ]
}

fn forged_claims(drafts: &Drafts) -> Vec<Row> {
    let now = drafts.now;
    let row = |what, claims, reason| (what, "", drafts.claims(claims), Some(reason));
    let unreadable = "assertion_unreadable";
    vec![
        row("no iss", json!({ "iss": null }), unreadable),
        row("no sub", json!({ "sub": null }), unreadable),
        row("no aud", json!({ "aud": null }), unreadable),
        row("no exp", json!({ "exp": null }), unreadable),
        row("exp that is text", json!({ "exp": (now + 60).to_string() }), unreadable),
        row("nbf that is text", json!({ "nbf": "0" }), unreadable),
        row("iat that is text", json!({ "iat": "0" }), unreadable),
        row("sub that is a list", json!({ "sub": [drafts.claims[0].1["sub"]] }), unreadable),
        ("a name twice", "", drafts.text(|text| text.replacen('{', r#"{"sub":"x","#, 1)), Some(unreadable)),
        ("claims that are a list", "", drafts.text(|text| format!("[{text}]")), Some(unreadable)),
        ("claims that are text", "", drafts.text(|_| "x".repeat(100)), Some(unreadable)),
        row("the endpoint as audience", json!({ "aud": format!("{AUDIENCE}/oauth/token") }), "wrong_audience"),
        row("a slash more", json!({ "aud": format!("{AUDIENCE}/") }), "wrong_audience"),
        row("two audiences", json!({ "aud": [AUDIENCE, "https://other.example.com"] }), "wrong_audience"),
        row("no audience in the list", json!({ "aud": [] }), "wrong_audience"),
        row("expired", json!({ "exp": now - 31 }), "assertion_expired"),
        row("a day long", json!({ "exp": now + 86_400 }), "assertion_long"),
        row("not yet valid", json!({ "nbf": now + 90 }), "assertion_early"),
        row("issued later", json!({ "iat": now + 90 }), "assertion_early"),
        row("another issuer", json!({ "iss": "https://issuer.example.com" }), "unknown_issuer"),
    ]
}

/// Rows for the rules of an assertion that a caller signs with its own key.
fn rows_of_own_keys(drafts: &Drafts) -> Vec<Row> {
    let typ = |typ: &str| drafts.header(json!({ "typ": typ }));
    let stranger = drafts.claims(json!({ "iss": "x", "sub": "x" }));
    vec![
        ("typ of an access token", "", typ("at+jwt"), Some("assertion_type")),
        ("typ JOSE", "", typ("JOSE"), Some("assertion_type")),
        ("a caller that is not there", "", stranger, Some("unknown_caller")),
    ]
}

/// Rows for the rules of a token of an issuer.
fn rows_of_issuers(drafts: &Drafts, name: &str) -> Vec<Row> {
    let cluster = |what, claims, reason| (what, "", drafts.claims(claims), Some(reason));
    let github = |what, claims, reason| (what, "", drafts.claims_with("RS256", claims), Some(reason));
    let account = |name: &str| json!({ "sub": format!("system:serviceaccount:jobs:{name}") });
    let (key, identity) = ("unknown_key", "wrong_identity");
    vec![
        ("typ of an access token", "", drafts.header(json!({ "typ": "at+jwt" })), None),
        ("typ JOSE", "", drafts.header(json!({ "typ": "JOSE" })), None),
        cluster("a slash more in the issuer", json!({ "iss": format!("{CLUSTER}/") }), "unknown_issuer"),
        cluster("the issuer in capitals", json!({ "iss": CLUSTER.to_uppercase() }), "unknown_issuer"),
        cluster("the beginning of the issuer", json!({ "iss": &CLUSTER[..CLUSTER.len() - 1] }), "unknown_issuer"),
        cluster("a longer life than the issuer's", json!({ "exp": drafts.now + 700 }), "assertion_long"),
        cluster("the name of the other issuer", json!({ "iss": GITHUB }), key),
        github("the name of the other issuer, RSA", json!({ "iss": CLUSTER }), key),
        cluster("the caller for its own issuer", json!({ "iss": name, "sub": name }), key),
        cluster("the issuer about itself", json!({ "sub": CLUSTER }), identity),
        cluster("the caller's name as subject", json!({ "sub": name }), identity),
        cluster("another account", account("default"), identity),
        cluster("a longer account", account("nightly-sync2"), identity),
        cluster("the account in capitals", account("Nightly-Sync"), identity),
        cluster("a star", account("*"), identity),
        github("another repository", json!({ "repository_id": "75" }), identity),
        github("a repository that is a number", json!({ "repository_id": 74 }), identity),
        github("a repository in a list", json!({ "repository_id": ["74"] }), identity),
        github("no repository", json!({ "repository_id": null }), identity),
        github("a longer branch", json!({ "ref": "refs/heads/main2" }), identity),
        github("the branch with a line more", json!({ "ref": "refs/heads/main\nrefs/heads/x" }), identity),
        github("no environment", json!({ "environment": null }), identity),
        github("an event of strangers", json!({ "event_name": "pull_request_target" }), "event_refused"),
        github("an event after one of strangers", json!({ "event_name": "workflow_run" }), "event_refused"),
    ]
}

/// A caller without secret and keys that is a job of two issuers. One has an RSA key, the other the
/// two other keys.
async fn world_of_issuers() -> World {
    World::start_with(|setup, keys| {
        let mut policy = setup.policy();
        let identities = json!([
            { "issuer": "cluster", "claims": { "sub": "system:serviceaccount:jobs:nightly-sync" } },
            { "issuer": "github", "claims": { "repository_id": "74", "environment": "production", "ref": "refs/heads/main" } },
        ]);
        set(&mut policy[&setup.nightly.name], json!({ "secret_sha256": null, "identities": identities }));
        let [es256, rs256, ps256] = [0, 1, 2].map(|index| &keys[index]);
        let issuers = json!({
            "cluster": { "issuer": CLUSTER, "jwks": { "keys": [es256, ps256] }, "max_lifetime_seconds": 600 },
            "github": { "issuer": GITHUB, "jwks": { "keys": [rs256] } },
        });
        setup.variables.push(("callers", policy.to_string()));
        setup.variables.push(("issuers", issuers.to_string()));
    })
    .await
}

/// Lets a library make each row, and checks what the broker answers and logs.
async fn check(world: &World, rows: Vec<Row>, (library, command): Library) {
    let broker = &world.broker;
    let drafts: Vec<_> = rows.iter().map(|(_, _, draft, _)| draft).collect();
    let mut stdin = tempfile::tempfile().unwrap();
    serde_json::to_writer(&stdin, &drafts).unwrap();
    stdin.rewind().unwrap();
    let printed = world.run(command, stdin.into()).await;
    let made: Vec<Value> =
        printed.lines().find_map(|line| serde_json::from_str(line).ok()).unwrap_or_else(|| panic!("{printed}"));
    assert_eq!(made.len(), rows.len());

    // The policy has no secret of this caller.
    let wrong_secret = broker.send(token_request(&broker.setup.nightly, Some(MEMBERS))).await;
    assert_eq!(wrong_secret.status, 401);
    for ((what, refused_by, _, reason), made) in rows.iter().zip(&made) {
        let what = format!("{library}: {what}");
        let assertion = made.as_str();
        assert_eq!(assertion.is_none(), *refused_by == library, "{what}: {made}");
        let Some(assertion) = assertion else { continue };
        keep_secret("assertion", assertion);
        let answer = broker.send(assertion_request(assertion, &[("scope", MEMBERS)])).await;
        assert_eq!(last_line(broker)["reason"].as_str(), *reason, "{what}: {assertion}");
        match reason {
            None => assert_eq!(answer.status, 200, "{what}"),
            Some(_) => assert_eq!(without_id(&answer), without_id(&wrong_secret), "{what}"),
        }
    }
}

async fn check_own_keys(library: Library) {
    let world = World::start().await;
    let drafts = Drafts::of_own_keys(&world.broker.setup.nightly.name);
    check(&world, [rows(&drafts), rows_of_own_keys(&drafts)].concat(), library).await;
}

async fn check_issuers(library: Library) {
    let world = world_of_issuers().await;
    let drafts = Drafts::of_issuers();
    let rows = [rows(&drafts), rows_of_issuers(&drafts, &world.broker.setup.nightly.name)].concat();
    check(&world, rows, library).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forgeries_by_jose_get_the_answer_of_a_wrong_secret() {
    check_own_keys(JOSE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forgeries_by_joserfc_get_the_answer_of_a_wrong_secret() {
    check_own_keys(JOSERFC).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn issuers_tokens_forged_by_jose_get_the_answer_of_a_wrong_secret() {
    check_issuers(JOSE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn issuers_tokens_forged_by_joserfc_get_the_answer_of_a_wrong_secret() {
    check_issuers(JOSERFC).await;
}
