//! Costs of a request: executed instructions and calls of the host. The counts are exact and
//! must match `docs/performance.md`, so that no request becomes more expensive unnoticed.

use std::cell::Cell;
use std::fmt::Write as _;
use std::time::Duration;

use super::metrics;
use broker_host::sandbox::{Answer as Reply, Config, Sandbox};
use broker_host::{App, Counts, Manifest, Options, Output, Reuse};
use http::{Method, StatusCode};
use serde_json::json;
use tests::{
    Answer, Broker, Caller, Draft, GITHUB, MEMBERS, PrivateKey, RESOURCES, Server, Setup, TestIssuer, Watched,
    assertion_request, basic, digest_of, form, github_claims, random, read, root, secret, token_request,
    toolchain_note,
};

/// Limits: bytes of the component, and memory of an instance.
const SIZE_LIMIT: u64 = 752 << 10;
const MEMORY_LIMIT: usize = 2 << 20;

/// How far an instruction count may differ from the page.
const TOLERANCE: f64 = 0.03;

/// Cost of one request.
#[derive(Clone, Copy)]
struct Cost {
    instructions: u64,
    /// How often the component called the host while it answered.
    calls: Counts,
}

impl Cost {
    fn row(&self, what: &str) -> String {
        let Counts { clock, timers, writes, variables, outbound, .. } = self.calls;
        let store = self.calls.store_calls();
        format!(
            "| {what} | {} | {clock} | {timers} | {writes} | {variables} | {store} | {outbound} |",
            self.instructions
        )
    }
}

/// Measures one kind of request twenty times, and returns the fewest instructions and the most
/// frequent number of calls of the host: digits of times and numbers differ, sometimes memory is out
/// of date, and a random pause may be zero.
async fn measure<F: Future<Output = u16>>(server: &Server, status: u16, request: impl Fn() -> F) -> Cost {
    let mut measured: Vec<Counts> = Vec::new();
    assert_eq!(request().await, status);
    for _ in 0..20 {
        let before = server.counts();
        // The host adds up a request's instructions when the next one starts.
        assert_eq!(request().await, status);
        // The calls belong to this request, the instructions to the one before it.
        measured.push(since(before, server.counts()));
    }
    let alike = |calls: &Counts| measured.iter().filter(|other| host_calls(**other) == host_calls(*calls)).count();
    let instructions = measured.iter().map(|calls| calls.fuel).min().expect("there were twenty");
    let calls = *measured.iter().max_by_key(|calls| alike(calls)).expect("there were twenty");
    Cost { instructions, calls }
}

fn host_calls(calls: Counts) -> u64 {
    calls.clock + calls.timers + calls.writes + calls.variables + calls.outbound + calls.store_calls()
}

fn since(before: Counts, after: Counts) -> Counts {
    let mut calls = after;
    calls.fuel -= before.fuel;
    calls.clock -= before.clock;
    calls.timers -= before.timers;
    calls.writes -= before.writes;
    calls.variables -= before.variables;
    calls.outbound -= before.outbound;
    calls.open -= before.open;
    calls.get -= before.get;
    calls.set -= before.set;
    calls.delete -= before.delete;
    calls.exists -= before.exists;
    calls.get_keys -= before.get_keys;
    calls
}

/// Requests a token as the caller `nightly`, with the credentials in the body.
async fn in_body(broker: &Broker, scope: &str) -> Answer {
    let Caller { name, secret, .. } = &broker.setup.nightly;
    let fields =
        [("grant_type", "client_credentials"), ("scope", scope), ("client_id", name), ("client_secret", secret)];
    let request = http::Request::post("/oauth/token").header("content-type", "application/x-www-form-urlencoded");
    broker.send(request.body(form(&fields)).expect("the request is valid")).await
}

/// Measures the first request of an instance that is replaced after two.
async fn measure_first(broker: &Broker, scope: &str) -> Cost {
    let mut best: Option<Cost> = None;
    for _ in 0..3 {
        let before = broker.server.counts();
        broker.nightly(scope).await.token();
        let calls = since(before, broker.server.counts());
        broker.nightly(scope).await.token();
        let instructions = broker.server.counts().fuel - before.fuel;
        if best.is_none_or(|best| instructions < best.instructions) {
            best = Some(Cost { instructions, calls });
        }
    }
    best.expect("there were three")
}

fn metered() -> Setup {
    Setup { watched: Watched::Instructions, ..Setup::in_one_instance() }
}

/// Returns a policy with the caller `nightly` among `callers` of them.
fn policy_of(setup: &Setup, callers: usize) -> serde_json::Value {
    let mut policy = json!({ &setup.nightly.name: setup.policy()[&setup.nightly.name] });
    let digest = digest_of("another");
    for number in 1..callers {
        policy[format!("another-job-{number}")] = json!({ "secret_sha256": [digest], "scopes": [MEMBERS] });
    }
    policy
}

async fn with_callers(mut setup: Setup, callers: usize) -> Broker {
    setup.variables.push(("callers", policy_of(&setup, callers).to_string()));
    let broker = setup.start().await;
    broker.store_token(MEMBERS, Duration::from_secs(3600)).await;
    broker
}

/// Starts a broker in which the caller `nightly` uses the last of `applications` applications.
async fn with_applications(mut setup: Setup, applications: usize) -> Broker {
    let entry =
        |number| (format!("city-{number}"), json!({ "client_id": random("id"), "client_secret": secret("of-a-city") }));
    let entries: serde_json::Map<_, _> = (1..applications).map(entry).collect();
    let mut policy = policy_of(&setup, 1);
    policy[&setup.nightly.name]["application"] = format!("city-{}", applications - 1).into();
    setup.variables.push(("applications", serde_json::Value::Object(entries).to_string()));
    setup.variables.push(("callers", policy.to_string()));
    let broker = setup.start().await;
    let config = broker.config();
    let application = config.applications.iter().find(|known| known.name == format!("city-{}", applications - 1));
    let application = application.expect("the last application is configured");
    let token = secret("token-of-a-city");
    broker.store_token_of(application, &application.current, &token, MEMBERS, Duration::from_secs(3600)).await;
    broker
}

async fn floor(reuse: Reuse) -> Server {
    let manifest = Manifest::read(&root().join("tests/bench/floor/spin.toml")).expect("the floor has a manifest");
    let load = move || {
        broker_host::build(&manifest).expect("the floor builds");
        App::load_metered(manifest).expect("the floor loads")
    };
    let app = tokio::task::spawn_blocking(load).await.expect("nothing panics");
    let options = Options { reuse, output: Output::captured(), ..Options::default() };
    Server::Here(broker_host::start(&app, options).await.expect("the host starts"))
}

async fn ask_floor(server: &Server, caller: &Caller) -> u16 {
    let request = token_request(caller, Some(MEMBERS)).map(|body| http_body_util::Full::new(bytes::Bytes::from(body)));
    tests::exchange(server.addr(), request).await.expect("the floor answers").status
}

/// Compares rows with the table that begins with `header` on the page. In the first `numbers`
/// columns after the name, numbers may differ by [`TOLERANCE`].
fn compare(page: &str, header: &str, rows: &[String], numbers: usize) {
    let table =
        [header.to_owned(), "|---".repeat(header.matches('|').count() - 1) + "|"].into_iter().chain(rows.to_vec());
    let table = table.collect::<Vec<_>>().join("\n");
    println!("{table}");
    let text = read(page);
    let on_page = text.lines().skip_while(|line| *line != header).skip(2).take_while(|line| line.starts_with('|'));
    let on_page: Vec<_> = on_page.collect();
    let mut wrong = String::new();
    for (place, row) in rows.iter().enumerate() {
        let cells =
            |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().replace(',', "")).collect::<Vec<_>>();
        let (found, known) = (cells(row), cells(on_page.get(place).unwrap_or(&"")));
        let same = |place: usize| match (found[place].parse::<f64>(), known.get(place).map(|cell| cell.parse::<f64>()))
        {
            (Ok(found), Some(Ok(known))) if place <= numbers => {
                (found / known - 1.0).abs() <= TOLERANCE || found == known
            }
            _ => known.get(place) == Some(&found[place]),
        };
        if !(0..found.len()).all(same) {
            writeln!(wrong, "{row} differs from the page").expect("a string takes everything");
        }
    }
    if !wrong.is_empty() || on_page.len() != rows.len() {
        panic!("{}{wrong}{page} should have\n{table}", toolchain_note(&read("docs/testing.md")));
    }
}

#[tokio::test]
async fn request_costs_match_performance_md() {
    let mut rows = Vec::new();
    let mut note = |what: &str, cost: Cost| {
        rows.push(cost.row(what));
        cost
    };

    let floor = floor(metered().reuse).await;
    let broker = metered().start().await;
    let nightly = &broker.setup.nightly;
    let wrong = Caller { secret: secret("nightly-wrong"), ..nightly.clone() };
    broker.nightly(MEMBERS).await.token();
    note("the floor", measure(&floor, 200, || ask_floor(&floor, nightly)).await);
    note("health", measure(&broker.server, 200, async || broker.fetch(Method::GET, "/healthz").await.status).await);
    let hit = measure(&broker.server, 200, async || broker.token(nightly, Some(MEMBERS)).await.status).await;
    note("memory hit", hit);
    assert_eq!((hit.calls.writes, hit.calls.variables, hit.calls.store_calls(), hit.calls.outbound), (1, 0, 0, 0));
    note("memory hit, form", measure(&broker.server, 200, async || in_body(&broker, MEMBERS).await.status).await);
    note("denial", measure(&broker.server, 401, async || broker.token(&wrong, Some(MEMBERS)).await.status).await);

    let mut quiet = metered();
    quiet.variables.push(("audit", "exceptions".into()));
    let quiet = quiet.start().await;
    quiet.nightly(MEMBERS).await.token();
    let cost = measure(&quiet.server, 200, async || quiet.nightly(MEMBERS).await.status).await;
    note("memory hit, `audit = exceptions`", cost);
    assert_eq!(cost.calls.writes, 0);

    let mut growth = Vec::new();
    for callers in [100, 10_000] {
        let broker = with_callers(metered(), callers).await;
        let cost = measure(&broker.server, 200, async || broker.nightly(MEMBERS).await.status).await;
        note(&format!("memory hit, {callers} callers"), cost);
        growth.push(cost.instructions as f64 / hit.instructions as f64);
    }
    let mut setup = metered();
    let hundred = setup.with_scopes(100).join(" ");
    let broker = setup.start().await;
    broker.store_token(MEMBERS, Duration::from_secs(3600)).await;
    broker.store_token(&hundred, Duration::from_secs(3600)).await;
    let one = measure(&broker.server, 200, async || broker.nightly(MEMBERS).await.status).await;
    note("memory hit, one of 100 scopes", one);
    let all = measure(&broker.server, 200, async || broker.nightly(&hundred).await.status).await;
    note("memory hit, 100 scopes", all);
    let broker = with_applications(metered(), 50).await;
    note(
        "memory hit, 50 applications",
        measure(&broker.server, 200, async || broker.nightly(MEMBERS).await.status).await,
    );

    let mut setup = metered();
    let scopes = setup.with_scopes(100);
    let broker = setup.start().await;
    // From number 10 on, all names have the same length.
    let scopes = &scopes[10..];
    for scope in scopes {
        broker.store_token(scope, Duration::from_secs(3600)).await;
    }
    let next = Cell::new(0);
    let another = || &scopes[next.replace(next.get() + 1)];
    note("store hit", measure(&broker.server, 200, async || broker.nightly(another()).await.status).await);
    let mut setup = metered();
    setup.variables.push(("upstream_calls_per_minute", "100".into()));
    setup.sandbox.calls_per_minute = 100;
    let scopes = setup.with_scopes(100);
    let broker = setup.start().await;
    let scopes = &scopes[10..];
    next.set(0);
    let another = || &scopes[next.replace(next.get() + 1)];
    // With what it leaves to do after its answer.
    let fetch = async || {
        let status = broker.nightly(another()).await.status;
        broker.at_rest().await;
        status
    };
    note("cold fetch", measure(&broker.server, 200, fetch).await);
    let (setup, reader) = metrics::with_reader(metered());
    let broker = setup.start().await;
    broker.nightly(MEMBERS).await.token();
    broker.at_rest().await;
    let authorization = basic(&reader.name, &reader.secret);
    note(
        "metrics",
        measure(&broker.server, 200, async || metrics::read(&broker, &authorization, "").await.status).await,
    );

    let twice = Setup { reuse: Reuse { max_requests: 2, ..metered().reuse }, ..metered() };
    for callers in [1, 100, 10_000] {
        let broker = with_callers(twice.clone(), callers).await;
        note(
            &format!("a new instance's first, {callers} caller{}", if callers == 1 { "" } else { "s" }),
            measure_first(&broker, MEMBERS).await,
        );
    }
    let broker = with_applications(twice.clone(), 50).await;
    note("a new instance's first, 50 applications", measure_first(&broker, MEMBERS).await);

    let (broker, keys) = with_keys(metered()).await;
    for (algorithm, key) in &keys {
        let assertion = draft(&broker, algorithm).sign(key);
        let cost = measure(&broker.server, 200, async || by_assertion(&broker, &assertion).await.status).await;
        note(&format!("memory hit, {algorithm}"), cost);
        let forged = with_another_signature(&assertion);
        let refused = measure(&broker.server, 401, async || by_assertion(&broker, &forged).await.status).await;
        note(&format!("denial, {algorithm}"), refused);
        // The numbers of a signature change its cost by about 1 %.
        let ratio = refused.instructions as f64 / cost.instructions as f64;
        assert!(ratio < 1.0 + TOLERANCE, "a refused {algorithm} costs more than an accepted one: {ratio}");
    }

    let issuer = TestIssuer::new(GITHUB, PrivateKey::rsa(0));
    let broker = with_identity(metered(), &issuer).await;
    let token = issuer.token(json!(AUDIENCE), github_claims()).sign(&issuer.key);
    let cost = measure(&broker.server, 200, async || by_assertion(&broker, &token).await.status).await;
    note("memory hit, token of GitHub", cost);
    let forged = with_another_signature(&token);
    let refused = measure(&broker.server, 401, async || by_assertion(&broker, &forged).await.status).await;
    note("denial, token of GitHub", refused);
    assert!(refused.instructions <= cost.instructions, "a refused token costs more than an accepted one");
    let (broker, _keys, tokens) = with_fetched_keys(metered(), &issuer).await;
    next.set(0);
    let another = || &tokens[next.replace(next.get() + 1)];
    let cost = measure(&broker.server, 200, async || by_assertion(&broker, another()).await.status).await;
    note("memory hit, token of GitHub, keys fetched first", cost);

    rows.iter().for_each(|row| println!("{row}"));
    assert!(growth.iter().all(|growth| *growth <= 1.05), "with 100 and 10,000 callers: {growth:?}");
    compare(
        "docs/performance.md",
        "| request | instructions | clock | timers | log | variables | store | outbound |",
        &rows,
        1,
    );
}

/// Starts a broker whose caller `nightly` has a key for each algorithm, and stores its token.
async fn with_keys(mut setup: Setup) -> (Broker, Vec<(&'static str, PrivateKey)>) {
    let keys = [("ES256", PrivateKey::p256()), ("RS256", PrivateKey::rsa(0)), ("PS256", PrivateKey::rsa(1))].to_vec();
    let jwks: Vec<_> = keys.iter().map(|(name, key)| key.jwk(json!({ "kid": name, "alg": name }))).collect();
    let mut policy = setup.policy();
    policy[&setup.nightly.name]["keys"] = json!(jwks);
    setup.variables.push(("callers", policy.to_string()));
    setup.variables.push(("public_url", AUDIENCE.to_owned()));
    let broker = setup.start().await;
    broker.store_token(MEMBERS, Duration::from_secs(3600)).await;
    (broker, keys)
}

/// Starts a broker whose caller `nightly` has an identity at GitHub, and stores its token.
async fn with_identity(mut setup: Setup, issuer: &TestIssuer) -> Broker {
    let mut policy = setup.policy();
    let claims = json!({ "repository_id": "74", "ref": "refs/heads/main", "environment": "production" });
    policy[&setup.nightly.name]["identities"] = json!([{ "issuer": "github", "claims": claims }]);
    setup.variables.push(("callers", policy.to_string()));
    setup.variables.push(("issuers", json!({ "github": { "issuer": GITHUB, "jwks": issuer.jwks() } }).to_string()));
    setup.variables.push(("public_url", AUDIENCE.to_owned()));
    let broker = setup.start().await;
    broker.store_token(MEMBERS, Duration::from_secs(3600)).await;
    broker
}

/// Starts a broker whose caller `nightly` has an identity at as many issuers as it may have, and a
/// server of their keys. Returns a token of each issuer; with each one, keys have to be fetched.
async fn with_fetched_keys(mut setup: Setup, issuer: &TestIssuer) -> (Broker, Sandbox, Vec<String>) {
    let keys = Sandbox::start(Config::default()).await.expect("loopback has a free port");
    keys.answer_always(Reply::json(StatusCode::OK, &issuer.jwks()));
    let mut policy = setup.policy();
    let claims = json!({ "repository_id": "74", "ref": "refs/heads/main", "environment": "production" });
    let (mut issuers, mut identities, mut tokens) = (json!({}), Vec::new(), Vec::new());
    // Names of one length, because reading a request costs by the byte.
    for name in (10..42).map(|number| format!("github-{number}")) {
        let identifier = format!("{GITHUB}/{name}");
        issuers[&name] = json!({ "issuer": identifier, "jwks_uri": format!("{}/{name}", keys.url()) });
        identities.push(json!({ "issuer": name, "claims": claims }));
        let token = issuer.token(json!(AUDIENCE), github_claims()).claims(json!({ "iss": identifier }));
        tokens.push(token.sign(&issuer.key));
    }
    policy[&setup.nightly.name]["identities"] = json!(identities);
    setup.variables.push(("callers", policy.to_string()));
    setup.variables.push(("issuers", issuers.to_string()));
    setup.variables.push(("public_url", AUDIENCE.to_owned()));
    setup.variables.push(("keys_origin_1", keys.url()));
    let broker = setup.start().await;
    broker.store_token(MEMBERS, Duration::from_secs(3600)).await;
    (broker, keys, tokens)
}

const AUDIENCE: &str = "https://broker.example.com";

fn draft(broker: &Broker, algorithm: &str) -> Draft {
    Draft::of(&broker.setup.nightly.name, AUDIENCE, algorithm).header(json!({ "kid": algorithm }))
}

async fn by_assertion(broker: &Broker, assertion: &str) -> Answer {
    broker.send(assertion_request(assertion, &[("scope", MEMBERS)])).await
}

/// The same assertion with another signature of the same length.
fn with_another_signature(assertion: &str) -> String {
    let (parts, signature) = assertion.rsplit_once('.').expect("three parts");
    let other = if signature.starts_with('A') { 'B' } else { 'A' };
    format!("{parts}.{other}{}", &signature[1..])
}

#[tokio::test]
async fn unknown_caller_costs_as_much_as_a_wrong_signature() {
    let (broker, keys) = with_keys(metered()).await;
    for (algorithm, key) in &keys {
        let unknown = "x".repeat(broker.setup.nightly.name.len());
        for header in [json!({}), json!({ "kid": null })] {
            let draft = draft(&broker, algorithm).header(header.clone());
            let cost_of = async |assertion: String| {
                measure(&broker.server, 401, async || by_assertion(&broker, &assertion).await.status).await.instructions
            };
            let known = cost_of(with_another_signature(&draft.clone().sign(key))).await;
            let unnamed = cost_of(draft.claims(json!({ "iss": unknown, "sub": unknown })).sign(key)).await;
            let ratio = unnamed as f64 / known as f64;
            println!("{algorithm} {header}: {unnamed} and {known}");
            assert!((0.97..1.03).contains(&ratio), "{algorithm} {header}: instructions tell which callers exist");
        }
    }
}

#[tokio::test]
async fn signature_of_a_kind_that_no_caller_has_is_not_verified() {
    let (p256, rsa) = (PrivateKey::p256(), PrivateKey::rsa(0));
    let mut setup = metered();
    let mut policy = setup.policy();
    policy[&setup.nightly.name]["keys"] = json!([p256.jwk(json!({}))]);
    setup.variables.push(("callers", policy.to_string()));
    setup.variables.push(("public_url", AUDIENCE.to_owned()));
    let broker = setup.start().await;
    for (algorithm, key) in [("RS256", &rsa), ("PS256", &rsa)] {
        let assertion = draft(&broker, algorithm).sign(key);
        let cost = measure(&broker.server, 401, async || by_assertion(&broker, &assertion).await.status).await;
        assert!(cost.instructions < 300_000, "{algorithm}: {} instructions", cost.instructions);
    }
}

/// Returns the largest allocation that the component has logged after `before`.
fn allocated(server: &Server, before: usize) -> usize {
    let output = server.output();
    let told = output[before..].lines().filter_map(|line| line.strip_prefix("allocated ")?.strip_suffix(" bytes"));
    told.map(|bytes| bytes.parse().expect("it is a number")).max().expect("every request allocates")
}

/// Returns the bytes of an answer without the headers that the host adds.
fn bytes_of(answer: &Answer) -> usize {
    let header = |(name, value): &(String, String)| format!("{name}: {value}\r\n").len();
    "HTTP/1.1 200 OK\r\n".len()
        + answer.headers.iter().map(header).sum::<usize>()
        + format!("x-request-id: {}\r\n\r\n", answer.request_id).len()
        + answer.body.len()
}

#[tokio::test]
async fn memory_hit_allocates_at_most_its_answer_at_once() {
    for audit in ["all", "exceptions"] {
        let mut setup = Setup { watched: Watched::Allocations, ..Setup::in_one_instance() };
        setup.variables.push(("audit", audit.into()));
        let hundred = setup.with_scopes(100).join(" ");
        let broker = setup.start().await;
        for scope in [MEMBERS, &hundred] {
            let before = broker.server.output().len();
            let answer = broker.nightly(scope).await;
            answer.token();
            let first = allocated(&broker.server, before);
            assert!(
                first > bytes_of(&answer),
                "a fetch must allocate more than its answer, or the test measures nothing: {first}"
            );
            for is_form in [false, true] {
                let mut least = usize::MAX;
                let mut bytes = 0;
                // Three tries, because sometimes memory is out of date.
                for _ in 0..3 {
                    let before = broker.server.output().len();
                    let answer = if is_form { in_body(&broker, scope).await } else { broker.nightly(scope).await };
                    answer.token();
                    least = least.min(allocated(&broker.server, before));
                    bytes = bytes_of(&answer);
                }
                println!("{audit}, in the body {is_form}: {least} bytes at once, {bytes} in the answer");
                assert!(least <= bytes, "{audit}, in the body {is_form}: {least} bytes at once, {bytes} in the answer");
            }
        }
    }
}

#[tokio::test]
async fn component_size_and_memory_match_performance_md() {
    let reuse = Reuse { max_requests: 128, ..metered().reuse };
    let floor = floor(reuse).await;
    let broker = Setup { reuse, ..metered() }.start().await;
    let bytes = |path: &str| std::fs::metadata(root().join(path)).expect("it is built").len();
    let nightly = &broker.setup.nightly;
    let mut rows = Vec::new();
    ask_floor(&floor, nightly).await;
    broker.nightly(MEMBERS).await.token();
    let first = [floor.counts().memory_bytes, broker.server.counts().memory_bytes];
    for _ in 1..128 {
        ask_floor(&floor, nightly).await;
        broker.nightly(MEMBERS).await.token();
    }
    let last = [floor.counts(), broker.server.counts()];
    let names = [("the floor", "floor"), ("the broker", "officernd_token_broker")];
    for (place, (name, file)) in names.into_iter().enumerate() {
        let size = bytes(&format!("target/wasm32-wasip2/release/{file}.wasm"));
        assert!(size <= SIZE_LIMIT && last[place].memory_bytes <= MEMORY_LIMIT, "{name}: {size} bytes, {last:?}");
        assert_eq!((last[place].instances, last[place].requests), (1, 128));
        rows.push(format!("| {name} | {size} | {} | {} |", first[place], last[place].memory_bytes));
    }
    compare(
        "docs/performance.md",
        "| component | bytes of .wasm | memory after the first request | after the 128th |",
        &rows,
        3,
    );
}

#[tokio::test]
async fn unknown_caller_costs_as_much_as_a_wrong_secret() {
    let broker = metered().start().await;
    let nightly = &broker.setup.nightly;
    // One caller has three secrets, one of them expired. The others have one secret.
    let mut policy = broker.setup.policy();
    let digests = &mut policy[&nightly.name]["secret_sha256"];
    *digests = json!([digests[0], { "sha256": digest_of("expired"), "expires": "2020-01-01" }, digest_of("another")]);
    broker.variables.set("callers", policy.to_string());
    let as_caller = |name: &str, secret: &str| Caller { name: name.into(), secret: secret.into(), scopes: Vec::new() };
    let cost_of = async |name: &str, secret: &str| {
        let caller = as_caller(name, secret);
        measure(&broker.server, 401, async || broker.token(&caller, Some(MEMBERS)).await.status).await.instructions
    };
    // Names of one length, because reading a request costs by the byte.
    let unknown = |name: &str| "x".repeat(name.len());
    let costs = [
        ("a caller's name, a wrong secret", cost_of(&nightly.name, "nothing").await),
        ("a caller's name, a right secret that has expired", cost_of(&nightly.name, "expired").await),
        ("an unknown name", cost_of(&unknown(&nightly.name), "nothing").await),
    ];
    let check = |what: &str, one: u64, other: u64| {
        let ratio = one as f64 / other as f64;
        println!("{what}: {one} and {other}");
        assert!((0.995..1.005).contains(&ratio), "instructions tell which callers exist: {what}: {one} and {other}");
    };
    check("unknown and wrong secret", costs[2].1, costs[0].1);
    check("expired and wrong secret", costs[1].1, costs[0].1);
    let rows: Vec<_> = costs.iter().map(|(what, cost)| format!("| {what} | {cost} |")).collect();
    compare("docs/performance.md", "| presented | instructions |", &rows, 1);

    // The log names a caller and its application, so neither length may show.
    let (long_name, long_application) = ("l".repeat(128), "a".repeat(128));
    let entry = |application: &str| json!({ "secret_sha256": [digest_of("x")], "scopes": [MEMBERS], "application": application });
    policy["s"] = entry("b");
    policy[&long_name] = entry(&long_application);
    let application = json!({ "client_id": "id", "client_secret": secret("of-an-application") });
    broker.variables.set("applications", json!({ "b": application, &long_application: application }).to_string());
    // The allocator's work also depends on what else the memory has, so several policies count
    // together.
    let mut sums = [(0, 0); 2];
    for number in 0..4 {
        policy[format!("another-{number}")] = entry("b");
        broker.variables.set("callers", policy.to_string());
        broker.server.end_instances();
        assert_eq!(broker.token(&as_caller("s", "x"), Some(RESOURCES)).await.status, 400, "the new policy is in use");
        for ((unknowns, knowns), name) in sums.iter_mut().zip(["s", &long_name]) {
            *unknowns += cost_of(&unknown(name), "nothing").await;
            *knowns += cost_of(name, "nothing").await;
        }
    }
    check("a short name", sums[0].0, sums[0].1);
    check("a long name", sums[1].0, sums[1].1);
}
