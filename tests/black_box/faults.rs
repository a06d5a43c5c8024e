//! Faults: everything around the broker fails, one thing at a time. docs/faults.md has the
//! answers that a caller must see.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use broker_host::sandbox::{Answer as Upstream, Config, Sandbox, Then};
use broker_host::{Fail, Faults, VariableFaults};
use bytes::Bytes;
use futures_util::future::join_all;
use http::header::{CONTENT_ENCODING, LOCATION, RETRY_AFTER};
use http::{HeaderName, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use tests::{
    Answer, Broker, COMPANIES, Caller, MEMBERS, PAYMENTS, Setup, crowd, exchange, most_in_a_minute, random, read,
    token_request,
};
use tokio::time::sleep;

/// Longest wait of a caller: the 12 s of a request, and 0.9 s for the machine.
const LONGEST: Duration = Duration::from_millis(12_900);

/// Longest wait that is slept. The clock of the host jumps over a longer one.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// How long an instance keeps its configuration.
const CONFIG_MEMORY: Duration = Duration::from_secs(10);

enum Fault {
    /// OfficeRnD gives this answer.
    OfficeRnd(Upstream),
    /// OfficeRnD refuses connections.
    Refused,
    /// The identity URL is this one, until it is corrected and the host restarted.
    Address(String),
    /// The store has these faults.
    Store(Faults),
    /// Every value in the store is changed, and memory has no copy.
    Values(fn(&mut Vec<u8>)),
    /// The variables are changed before the first request.
    Variables(fn(&Broker)),
    /// The variables are changed after they have been read.
    VariablesLater(fn(&Broker)),
}

/// A fault, and what was measured: one row of the page.
struct Row {
    fault: String,
    /// The answer to each of two requests during the fault.
    saw: String,
    /// Their `Retry-After`, in seconds.
    told: Option<u64>,
    calls: u64,
    /// The answer after that time, when the fault has ended.
    next: String,
    slowest: Duration,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fault, saw, told, calls, next, slowest } = self;
        let told = told.map_or("-".into(), |told| format!("{told} s"));
        write!(f, "| {fault} | {saw} | {told} | {calls} | {next} | {:.1} s |", slowest.as_secs_f64())
    }
}

/// Returns both scopes of `nightly`, in the order in which the broker requests them.
fn both() -> String {
    format!("{COMPANIES} {MEMBERS}")
}

fn in_words(answer: &Answer) -> String {
    match answer.status {
        200 if answer.scope() == both() => "200".into(),
        200 => format!("200, {} of 2 scopes", answer.scope().split(' ').count()),
        status if answer.body.is_empty() => format!("{status}, empty"),
        status => format!("{status} `{}`", answer.error()),
    }
}

async fn measure(what: &str, fault: Fault) -> Row {
    let mut setup = Setup::in_one_instance();
    setup.sandbox = Config { calls_per_minute: 1000, ..Config::default() };
    if let Fault::Address(url) = &fault {
        setup.variables.push(("officernd_identity_url", url.clone()));
    }
    let mut broker = setup.start().await;
    let ask = async |broker: &Broker| {
        let begin = Instant::now();
        let answer = broker.nightly(&both()).await;
        (answer, begin.elapsed())
    };
    match &fault {
        Fault::OfficeRnd(upstream) => broker.sandbox.answer_always(upstream.clone()),
        Fault::Refused => broker.sandbox.close(),
        Fault::Address(_) => {}
        Fault::Store(faults) => broker.set_store_faults(*faults),
        Fault::Values(change) => {
            ask(&broker).await.0.token();
            for (key, mut value) in broker.stored() {
                change(&mut value);
                broker.store(&key, value).await;
            }
            broker = broker.restart().await;
        }
        Fault::Variables(change) => change(&broker),
        Fault::VariablesLater(change) => {
            ask(&broker).await.0.token();
            change(&broker);
            sleep(CONFIG_MEMORY).await;
        }
    }
    let before = broker.touched().sent;
    let (first, took_first) = ask(&broker).await;
    let (second, took_second) = ask(&broker).await;
    let calls = broker.touched().sent - before;
    let slowest = took_first.max(took_second);
    assert!(slowest < LONGEST, "{what}: an answer after {slowest:?}");
    assert_eq!(in_words(&first), in_words(&second), "{what}");
    let log = broker.server.output();
    assert_eq!(broker.server.traps(), 0, "{what}: {log}");

    // The fault ends.
    match fault {
        Fault::OfficeRnd(_) => broker.sandbox.answer_always(Upstream::Normal),
        Fault::Refused => broker.sandbox.open().await.unwrap(),
        Fault::Address(_) => {
            broker.variables.set("officernd_identity_url", broker.sandbox.url());
            broker = broker.restart().await;
        }
        Fault::Store(_) => broker.set_store_faults(Faults::default()),
        Fault::Values(_) => {}
        Fault::Variables(_) | Fault::VariablesLater(_) => {
            broker.variables.fail(false);
            broker.variables.set_faults(VariableFaults::default());
            broker.variables.set("callers", broker.setup.policy().to_string());
        }
    }
    // A mistake in the variables gets a 500 or a 401, without `Retry-After`.
    let told = first.retry_after();
    let is_mistake = matches!(first.status, 401 | 500);
    let wait = told.map_or(if is_mistake { CONFIG_MEMORY } else { Duration::ZERO }, Duration::from_secs);
    if wait <= LONGEST_SLEEP {
        sleep(wait).await;
    } else {
        broker.setup.clock.set_ahead(wait);
    }
    let (next, took) = ask(&broker).await;
    assert!(took < LONGEST, "{what}: an answer after {took:?}");
    assert!(most_in_a_minute(&broker.calls()) <= 5, "{what}");
    assert_eq!(broker.server.traps(), 0, "{what}: {}", broker.server.output());
    Row { fault: what.into(), saw: in_words(&first), told, calls, next: in_words(&next), slowest }
}

/// What dies.
#[derive(Clone, Copy)]
enum Dying {
    Host,
    /// The instance, while its host keeps running.
    Instance,
}

/// Kills the host or the instance at each store operation of a fetch, and in its call to
/// OfficeRnD. The next request, to another host on the same store or to another instance of the
/// same host, must get a token or `Retry-After`.
async fn measure_deaths(who: Dying) -> Row {
    let whole = Setup::default().start().await;
    whole.nightly(&both()).await.token();
    whole.at_rest().await;
    let operations = whole.server.counts().store_calls();
    let deaths = join_all((1..=operations + 1).map(async |last| {
        let broker = Setup::default().start().await;
        // The fetch stops at the operation at which it is killed.
        broker.set_store_faults(Faults { delay: Duration::from_secs(60), spared: last - 1, ..Faults::default() });
        if last > operations {
            broker.sandbox.answer_next(Upstream::hang());
        }
        let dying = broker.beside(broker.setup.key_value.clone()).await;
        let request = token_request(&dying.setup.nightly, Some(&both())).map(|body| Full::new(Bytes::from(body)));
        let request = tokio::spawn(exchange(dying.server.addr(), request));
        let is_there = || match last <= operations {
            true => dying.server.counts().store_calls() >= last,
            false => !broker.calls().is_empty(),
        };
        tests::eventually("the operation at which it is killed", is_there).await;
        let next = match who {
            Dying::Host => {
                drop(dying);
                &broker
            }
            Dying::Instance => {
                dying.server.end_instances();
                &dying
            }
        };
        let saw = match request.await.unwrap() {
            Ok(answer) => in_words(&answer),
            Err(_) => "a closed connection".into(),
        };
        broker.set_store_faults(Faults::default());

        let begin = Instant::now();
        let mut answer = next.nightly(&both()).await;
        let took = begin.elapsed();
        assert!(took < LONGEST, "killed at {last}: an answer after {took:?}");
        let told = answer.retry_after();
        if let Some(told) = told {
            assert_eq!(in_words(&answer), "503 `temporarily_unavailable`", "killed at {last}");
            sleep(Duration::from_secs(told)).await;
            answer = next.nightly(&both()).await;
        }
        assert_eq!(in_words(&answer), "200", "killed at {last}");
        assert_eq!(next.server.traps(), 0, "killed at {last}: {}", next.server.output());
        (saw, broker.calls().len() as u64, took)
    }))
    .await;
    assert!(operations > 15, "{operations}");
    let mut saw: Vec<_> = deaths.iter().map(|death| death.0.clone()).collect();
    saw.sort();
    saw.dedup();
    let fault = match who {
        Dying::Host => "host killed at each store operation of a fetch, and in its call",
        Dying::Instance => "an instance killed at each of them, while its host lives",
    };
    Row {
        fault: fault.into(),
        saw: saw.join(" or "),
        told: None,
        calls: deaths.iter().map(|death| death.1).max().unwrap(),
        next: "200".into(),
        slowest: deaths.iter().map(|death| death.2).max().unwrap(),
    }
}

/// A TLS server with a self-signed certificate. Dropping it ends the server.
struct Impostor {
    server: Child,
    url: String,
    _folder: tempfile::TempDir,
}

impl Impostor {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let openssl = |arguments: &str| {
            let mut command = Command::new("openssl");
            command.args(arguments.split(' ')).current_dir(folder.path()).stdin(Stdio::null()).stderr(Stdio::null());
            command
        };
        let certificate = "req -x509 -newkey rsa:2048 -nodes -keyout key -out certificate -days 1 -subj /CN=localhost \
                           -addext subjectAltName=DNS:localhost";
        assert!(openssl(certificate).status().expect("openssl is installed").success());
        let mut server = openssl("s_server -accept 127.0.0.1:0 -key key -cert certificate -www")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(server.stdout.take().unwrap()).lines().map_while(Result::ok);
        let line = lines.find(|line| line.starts_with("ACCEPT")).expect("openssl prints its port");
        let port = line.rsplit(':').next().unwrap();
        Self { server, url: format!("https://localhost:{port}"), _folder: folder }
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        drop(self.server.kill());
        drop(self.server.wait());
    }
}

/// A complete answer of OfficeRnD with these headers.
fn answer<const N: usize>(status: u16, headers: [(HeaderName, String); N], body: impl Into<Bytes>) -> Fault {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response.headers_mut().extend(headers.map(|(name, value)| (name, value.parse().unwrap())));
    Fault::OfficeRnd(Upstream::Fixed(response))
}

fn bare(status: u16, body: impl Into<Bytes>) -> Fault {
    answer(status, [], body)
}

fn raw(bytes: impl Into<Bytes>, then: Then) -> Fault {
    Fault::OfficeRnd(Upstream::Raw(bytes.into(), then))
}

/// A token answer of OfficeRnD, changed in this way.
fn grant(change: impl Fn(&mut Value)) -> Fault {
    let (token, scope) = (random("upstream"), both());
    let mut grant = json!({ "access_token": token, "token_type": "Bearer", "expires_in": 3599, "scope": scope });
    change(&mut grant);
    // JSON has no such numbers, so they are written as strings first.
    bare(200, grant.to_string().replace("\"NaN\"", "NaN").replace("\"1e308\"", "1e308"))
}

fn with(field: &str, value: impl Into<Value>) -> Fault {
    let value = value.into();
    grant(|grant| grant[field] = value.clone())
}

fn without(field: &str) -> Fault {
    grant(|grant| drop(grant.as_object_mut().unwrap().remove(field)))
}

/// The policy with the field `scopes` of one caller misspelt.
fn with_scope_for_scopes(broker: &Broker, caller: &Caller) -> String {
    let mut policy = broker.setup.policy();
    let entry = policy[&caller.name].as_object_mut().unwrap();
    let scopes = entry.remove("scopes").unwrap();
    entry.insert("scope".to_owned(), scopes);
    policy.to_string()
}

fn store(fail: Fail, delay: u64) -> Fault {
    Fault::Store(Faults { fail, delay: Duration::from_millis(delay), ..Faults::default() })
}

/// `{"access_token":"gzip"}`, compressed.
const GZIP: &[u8] =
    b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xabVJLNN-.\x8e/\xc9\xcfN\xcdS\xb2RJ\xaf\xca,P\xaa\x05\x00R\xa4\x05\xb8\x17\x00\x00\x00";

/// Returns the rows of the page, split into cells.
fn written(page: &str) -> Vec<Vec<&str>> {
    let section = page.split("\n## ").find(|section| section.starts_with("Faults")).expect("the section about faults");
    let rows = section.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| fault "));
    rows.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// Whether `told` matches the page: `-`, `17 s` or `5 to 6 s`.
fn is_as_written(told: Option<u64>, written: &str) -> bool {
    let seconds: Vec<u64> = written.split(' ').filter_map(|word| word.parse().ok()).collect();
    match told {
        None => written == "-",
        Some(told) => seconds.first() <= Some(&told) && Some(&told) <= seconds.last(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_get_the_answers_of_faults_md() {
    // Eighty brokers start at once.
    let _alone = crowd().await;
    // Build and load the component first, so that this takes no time from the date below.
    drop(Setup::default().start().await);
    let impostor = Impostor::start();
    let elsewhere = Sandbox::start(Config::default()).await.unwrap();
    let location = |status| answer(status, [(LOCATION, format!("{}/oauth/token", elsewhere.url()))], "");
    let limited = |retry_after: &str| answer(429, [(RETRY_AFTER, retry_after.to_owned())], "Too many requests");
    let plain = elsewhere.url().replace("http:", "https:");
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n";
    let endless =
        Then::Repeat(Box::leak(format!("400\r\n{:1024}\r\n", "").into_bytes().into_boxed_slice()), Duration::ZERO);
    let headers: String = (0..10_000).map(|number| format!("x-{number}: {number}\r\n")).collect();
    let in_20_seconds = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(20));
    let doubled = r#"{"access_token":"a","access_token":"b","token_type":"Bearer","expires_in":3599}"#;
    let reordered = format!("{MEMBERS} {COMPANIES}");
    let broader = format!("{} {PAYMENTS}", both());
    let faults = [
        ("connection refused", Fault::Refused),
        ("reset before the headers", raw("", Then::Reset)),
        ("reset in the headers", raw("HTTP/1.1 200 OK\r\nconte", Then::Reset)),
        ("reset in the body", raw(format!("{head}{{\"access"), Then::Reset)),
        ("accepts and never answers", Fault::OfficeRnd(Upstream::hang())),
        ("headers, a byte a second", raw("HTTP/1.1 200 OK\r\nx: ", Then::Repeat(b"x", Duration::from_secs(1)))),
        ("body, a byte a second", raw(head, Then::Repeat(b" ", Duration::from_secs(1)))),
        ("body never ends", raw("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", endless)),
        ("body of 10 MiB", bare(200, vec![b' '; 10 << 20])),
        ("10,000 headers", raw(format!("HTTP/1.1 200 OK\r\n{headers}content-length: 0\r\n\r\n"), Then::Close)),
        ("invalid HTTP", raw("HTTP/7 maybe\r\n\r\n", Then::Close)),
        ("TLS refused", Fault::Address(plain)),
        ("wrong certificate", Fault::Address(impostor.url.clone())),
        ("gzip without asking", answer(200, [(CONTENT_ENCODING, "gzip".into())], GZIP)),
        (
            "201",
            answer(
                201,
                [],
                json!({ "access_token": random("upstream"), "token_type": "Bearer", "expires_in": 3599 }).to_string(),
            ),
        ),
        ("204", bare(204, "")),
        ("200, empty", bare(200, "")),
        ("200, `{}`", bare(200, "{}")),
        ("200 with `error`", bare(200, r#"{"error":"invalid_client"}"#)),
        ("200, HTML", bare(200, "<html><body>Please log in</body></html>")),
        ("200, JSON of wrong types", with("access_token", json!(["a"]))),
        ("`expires_in` absent", without("expires_in")),
        ("`expires_in` \"3599\"", with("expires_in", "3599")),
        ("`expires_in` 0", with("expires_in", 0)),
        ("`expires_in` -1", with("expires_in", -1)),
        ("`expires_in` 1e308", with("expires_in", "1e308")),
        ("`expires_in` NaN", with("expires_in", "NaN")),
        ("`token_type` absent", without("token_type")),
        ("`token_type` mac", with("token_type", "mac")),
        ("`access_token` empty", with("access_token", "")),
        ("`access_token` with control characters", with("access_token", "a\r\nx-evil: 1")),
        ("`access_token` of 100 KiB", with("access_token", "a".repeat(100 << 10))),
        ("duplicate JSON keys", bare(200, doubled)),
        ("`scope` absent", without("scope")),
        ("`scope` reordered", with("scope", reordered)),
        ("`scope` narrower", with("scope", MEMBERS)),
        ("`scope` broader", with("scope", broader)),
        ("301 to another host", location(301)),
        ("307 to another host", location(307)),
        ("400 with a message", bare(400, json!({ "message": "a scope is not known" }).to_string())),
        ("403 with HTML", bare(403, "<html>")),
        ("401 without a body", bare(401, "")),
        ("429 with seconds", limited("17")),
        ("429 with a date, in 20 s", limited(&in_20_seconds)),
        ("429 with a time in seconds since 1970", limited("1790000000")),
        ("429 with nonsense", limited("soon")),
        ("429 with nothing", bare(429, "Too many requests")),
        ("500", bare(500, "")),
        ("503", bare(503, "")),
        ("store: every call fails", store(Fail::Always, 0)),
        ("store: every second call fails", store(Fail::EverySecond, 0)),
        ("store: 2 s slow", store(Fail::Never, 2000)),
        ("store: half a second slow, then fails", store(Fail::Always, 500)),
        ("store: corrupt values", Fault::Values(|value| value.iter_mut().for_each(|byte| *byte ^= 0x55))),
        ("store: values cut off", Fault::Values(|value| value.truncate(value.len() / 2))),
        // The first byte is the version, and a later version may be longer.
        (
            "store: values of a later version",
            Fault::Values(|value| {
                value.iter_mut().take(1).for_each(|byte| *byte = byte.wrapping_add(1));
                value.push(0);
            }),
        ),
        ("variables: the provider fails from the start", Fault::Variables(|broker| broker.variables.fail(true))),
        ("variables: the provider fails later", Fault::VariablesLater(|broker| broker.variables.fail(true))),
        (
            "variables: the policy becomes nonsense",
            Fault::VariablesLater(|broker| broker.variables.set("callers", "{")),
        ),
        (
            "variables: 210 ms for each read",
            Fault::Variables(|broker| {
                let delay = Duration::from_millis(210);
                broker.variables.set_faults(VariableFaults { delay, ..VariableFaults::default() });
            }),
        ),
        (
            "variables: `scope` for `scopes` in another caller",
            Fault::Variables(|broker| {
                broker.variables.set("callers", with_scope_for_scopes(broker, &broker.setup.door))
            }),
        ),
        (
            "variables: `scope` for `scopes` in this caller",
            Fault::Variables(|broker| {
                broker.variables.set("callers", with_scope_for_scopes(broker, &broker.setup.nightly))
            }),
        ),
    ];
    let (mut rows, of_hosts, of_instances) = tokio::join!(
        join_all(faults.into_iter().map(|(what, fault)| measure(what, fault))),
        measure_deaths(Dying::Host),
        measure_deaths(Dying::Instance),
    );
    rows.extend([of_hosts, of_instances]);
    assert_eq!(elsewhere.calls().len(), 0, "the credential went elsewhere");

    println!("| fault | the caller saw | told | calls | the next request | slowest |");
    rows.iter().for_each(|row| println!("{row}"));
    let page = read("docs/faults.md");
    let written = written(&page);
    assert_eq!(written.len(), rows.len(), "docs/faults.md has other rows");
    for (row, cells) in rows.iter().zip(written) {
        let calls = row.calls.to_string();
        let same = [&row.fault, &row.saw, &calls, &row.next] == [cells[0], cells[1], cells[3], cells[4]];
        assert!(same && is_as_written(row.told, cells[2]), "docs/faults.md has {cells:?}, and this is {row}");
    }
}
