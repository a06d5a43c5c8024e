//! Load: mixed valid, denied and broken requests for any length of time, while OfficeRnD fails
//! in turns.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use broker_host::sandbox::{self, Answer as Upstream, Sandbox};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::answer::form;
use crate::broker::token_request;
use crate::crowd::most_in_a_minute;
use crate::leak::search;
use crate::program::Program;
use crate::setup::{Caller, MEMBERS, PAYMENTS, Setup};

/// Longest wait of a caller: the 12 s of the broker, and 2 s for a busy machine.
const LONGEST: Duration = Duration::from_secs(14);

/// How long OfficeRnD fails in one way, or up to twice as long until a call has met it. After a
/// first failure a broker pauses for longer than this, so its next call meets the next way.
const PHASE: Duration = Duration::from_secs(5);

/// How often the memory is read and the log searched for secrets.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// Share of the time in which the host may still grow, because it has not yet been busy.
const WARM_UP: f64 = 0.25;

/// Limit of the host's later memory, relative to the most that it had while it warmed up.
const GROWTH: f64 = 1.15;

/// Result of a load.
#[derive(Debug, Default)]
pub struct Load {
    /// Number of answers, by kind of request and status.
    pub answers: BTreeMap<(&'static str, u16), u64>,
    /// Everything that must not happen and did.
    pub wrong: Vec<String>,
    /// Longest wait for an answer.
    pub slowest: Duration,
    /// Calls that arrived at OfficeRnD, and the most in any minute.
    pub calls: (usize, usize),
    /// How many calls met each way in which OfficeRnD behaves. Refused connections are counted
    /// by the host.
    pub met: BTreeMap<&'static str, u64>,
    /// Resident memory of the host's process in bytes, read every second.
    pub resident: Vec<u64>,
    /// Memory of the instance that is never replaced: the most after the warm-up, and at the
    /// end.
    pub instance: (usize, usize),
}

impl Load {
    /// Counts the answered requests.
    pub fn requests(&self) -> u64 {
        self.answers.values().sum()
    }

    /// Returns the most memory during the warm-up, and after it.
    pub fn peaks(&self) -> (u64, u64) {
        let (before, after) = self.resident.split_at((self.resident.len() as f64 * WARM_UP) as usize);
        let peak = |sizes: &[u64]| sizes.iter().copied().max().unwrap_or_default();
        (peak(before), peak(after))
    }

    fn judge(&mut self) {
        let (before, after) = self.peaks();
        if after as f64 > before as f64 * GROWTH {
            self.wrong.push(format!("the host grew from {before} to {after} bytes"));
        }
        if self.instance.1 > self.instance.0 {
            self.wrong.push(format!("an instance grew from {} to {} bytes", self.instance.0, self.instance.1));
        }
        if self.calls.1 > 5 {
            self.wrong.push(format!("OfficeRnD got {} calls in a minute", self.calls.1));
        }
        for (way, ..) in timetable() {
            if self.met.get(way).is_none_or(|calls| *calls == 0) {
                self.wrong.push(format!("no call met an OfficeRnD that {way}"));
            }
        }
        if self.slowest > LONGEST {
            self.wrong.push(format!("an answer took {:?}", self.slowest));
        }
    }
}

/// Loads the program `broker` over this many connections, each of which sends its next request
/// when it has its answer. A few more requests go to a host whose single instance is never
/// replaced. In less than 30 s they do not meet every way in which OfficeRnD fails.
///
/// # Errors
/// If a program cannot start or a connection cannot be made.
pub async fn load(duration: Duration, connections: usize) -> anyhow::Result<Load> {
    let mut setup = Setup::in_one_instance();
    setup.sandbox.calls_per_minute = 1000;
    // Tokens of 90 s: the broker renews them all the time.
    setup.sandbox.token_life = Duration::from_secs(90);
    setup.variables.push(("min_remaining_seconds", "60".into()));
    let config = sandbox::Config { applications: vec![setup.application.clone()], ..setup.sandbox.clone() };
    let sandbox = Arc::new(Sandbox::start(config).await?);
    let single = Arc::new(setup.clone().start().await);

    let (identity, policy) = (sandbox.url(), setup.policy().to_string());
    let variables = [
        ("officernd_client_id", setup.application.id.as_str()),
        ("officernd_client_secret", &setup.application.secret),
        ("officernd_identity_url", &identity),
        ("callers", &policy),
        ("min_remaining_seconds", "60"),
    ];
    let program = tokio::task::block_in_place(|| Program::start(&["--listen", "127.0.0.1:0"], &variables));
    let addr = tokio::task::block_in_place(|| program.introduction().1).context("broker does not print its address")?;

    let end = Instant::now() + duration;
    let load = Arc::new(Mutex::new(Load::default()));
    let mut workers: Vec<_> =
        (0..connections).map(|_| tokio::spawn(Worker::new(addr, &setup, &load, Duration::ZERO).work(end))).collect();
    let pause = Duration::from_millis(10);
    workers.push(tokio::spawn(Worker::new(single.server.addr(), &setup, &load, pause).work(end)));
    // Each broker has five calls per minute, and phases without a failure use some. Only both
    // together meet all failures in half a minute.
    let arrived = sandbox.clone();
    let one = tokio::spawn(run_phases(sandbox.clone(), move || arrived.calls().len() as u64, 0, end));
    let sent = single.clone();
    let other = tokio::spawn(run_phases(single.sandbox.clone(), move || sent.server.counts().outbound, 4, end));

    let begin = Instant::now();
    let mut instance_warm = 0;
    while Instant::now() < end {
        sleep(SAMPLE_EVERY).await;
        let resident = program.resident().context("/proc has no resident memory of broker")?;
        tokio::task::block_in_place(|| {
            program.forget_lines();
            search(&[]);
        });
        load.lock().expect("no worker panics with it").resident.push(resident);
        if begin.elapsed() < duration.mul_f64(WARM_UP) {
            instance_warm = single.server.counts().memory_bytes;
        }
    }
    for worker in workers {
        worker.await?;
    }
    let met = [one.await??, other.await??];
    let mut load = std::mem::take(&mut *load.lock().expect("no worker panics with it"));
    for (way, calls) in met.into_iter().flatten() {
        *load.met.entry(way).or_default() += calls;
    }
    load.calls = (sandbox.calls().len(), most_in_a_minute(&sandbox.calls()));
    load.instance = (instance_warm, single.server.counts().memory_bytes);
    for line in program.stderr().lines().chain(single.server.output().lines()) {
        if line.starts_with("host: ") || line.contains("panicked") {
            load.wrong.push(line.to_owned());
        }
    }
    if single.server.counts().traps > 0 {
        load.wrong.push("the single instance trapped".into());
    }
    load.judge();
    Ok(load)
}

/// The phases of OfficeRnD: what it does, and for how long. Without an answer it refuses
/// connections.
///
/// In this order a broker soon calls again. It pauses for 5 s after a failure, and longer after
/// a second one in a row, unless an unreadable answer comes between. A call that hangs takes 10
/// s, and a pause of 10 s or more follows.
fn timetable() -> [(&'static str, Option<Upstream>, Duration); 7] {
    [
        ("answers 500", Some(Upstream::text(StatusCode::INTERNAL_SERVER_ERROR, "")), PHASE),
        ("answers HTML", Some(Upstream::text(StatusCode::OK, "<html>")), PHASE),
        ("hangs up", Some(Upstream::close()), PHASE),
        ("is well", Some(Upstream::Normal), PHASE),
        ("is gone", None, PHASE),
        ("hangs", Some(Upstream::hang()), PHASE),
        ("is well", Some(Upstream::Normal), 4 * PHASE),
    ]
}

/// Repeats the phases, beginning with one of them, and counts the calls that meet each.
async fn run_phases(
    sandbox: Arc<Sandbox>,
    calls: impl Fn() -> u64,
    first: usize,
    end: Instant,
) -> anyhow::Result<BTreeMap<&'static str, u64>> {
    let mut met = BTreeMap::new();
    for (way, answer, phase) in timetable().into_iter().cycle().skip(first) {
        let (begin, before) = (Instant::now(), calls());
        match &answer {
            Some(answer) => sandbox.answer_always(answer.clone()),
            None => sandbox.close(),
        }
        let is_over = || begin.elapsed() >= 2 * phase || begin.elapsed() >= phase && calls() > before;
        while !is_over() && Instant::now() < end {
            sleep(Duration::from_millis(50)).await;
        }
        *met.entry(way).or_default() += calls() - before;
        if answer.is_none() {
            sandbox.open().await?;
        }
        if Instant::now() >= end {
            break;
        }
    }
    Ok(met)
}

/// One connection, which sends one request after another.
struct Worker {
    addr: SocketAddr,
    nightly: Caller,
    door: Caller,
    load: Arc<Mutex<Load>>,
    /// Pause between two requests.
    pause: Duration,
    sender: Option<SendRequest<Full<Bytes>>>,
    token: String,
}

/// Statuses that a token request may get. A 502 or 503 must have `Retry-After`.
const TOKEN: &[u16] = &[200, 502, 503];

impl Worker {
    fn new(addr: SocketAddr, setup: &Setup, load: &Arc<Mutex<Load>>, pause: Duration) -> Self {
        let (nightly, door, load) = (setup.nightly.clone(), setup.door.clone(), load.clone());
        Self { addr, nightly, door, load, pause, sender: None, token: String::new() }
    }

    async fn work(mut self, end: Instant) {
        while Instant::now() < end {
            let (what, request, expected) = self.next_request();
            let begin = Instant::now();
            let outcome = if what == "breaks off" { self.break_off().await } else { self.ask(request, expected).await };
            self.note(what, begin.elapsed(), outcome);
            sleep(self.pause).await;
        }
    }

    fn note(&self, what: &'static str, took: Duration, outcome: anyhow::Result<u16>) {
        let mut load = self.load.lock().expect("no worker panics with it");
        load.slowest = load.slowest.max(took);
        match outcome {
            Ok(status) => *load.answers.entry((what, status)).or_default() += 1,
            Err(error) if load.wrong.len() < 20 => load.wrong.push(format!("{what}: {error:#}")),
            Err(_) => {}
        }
    }

    fn next_request(&self) -> (&'static str, Request<String>, &'static [u16]) {
        let mut die = [0];
        getrandom::fill(&mut die).expect("the operating system has random bytes");
        let caller = |name: &str, secret: &str| Caller { name: name.into(), secret: secret.into(), scopes: Vec::new() };
        let mut request = token_request(&self.nightly, Some(MEMBERS));
        match die[0] {
            0..140 => ("token", request, TOKEN),
            140..165 => ("another token", token_request(&self.door, None), TOKEN),
            165..190 => ("wrong secret", token_request(&caller(&self.nightly.name, "guess"), None), &[401]),
            190..205 => ("others' scope", token_request(&self.nightly, Some(PAYMENTS)), &[400]),
            205..220 => {
                *request.body_mut() = "grant_type=%ff&&&=".into();
                ("no form", request, &[400])
            }
            220..225 => {
                *request.body_mut() = "x".repeat(20 << 10);
                ("20 KiB", request, &[413])
            }
            225..235 => {
                *request.uri_mut() = "/oauth/tokens?token=1".parse().expect("a path");
                ("nowhere", request, &[404])
            }
            235..240 => {
                *request.method_mut() = Method::DELETE;
                ("DELETE", request, &[405])
            }
            240..246 => {
                *request.uri_mut() = "/oauth/revoke".parse().expect("a path");
                *request.body_mut() = form(&[("token", if self.token.is_empty() { "none" } else { &self.token })]);
                ("revocation", request, &[200, 503])
            }
            246..252 => {
                *request.method_mut() = Method::GET;
                *request.uri_mut() = "/readyz".parse().expect("a path");
                ("readiness", request.map(|_| String::new()), &[200, 503])
            }
            252..=255 => ("breaks off", request, &[]),
        }
    }

    async fn ask(&mut self, request: Request<String>, expected: &[u16]) -> anyhow::Result<u16> {
        let mut sender = match self.sender.take().filter(|sender| !sender.is_closed()) {
            Some(sender) => sender,
            None => {
                let stream = TcpStream::connect(self.addr).await?;
                stream.set_nodelay(true)?;
                let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
                tokio::spawn(connection);
                sender
            }
        };
        let is_token = expected == TOKEN;
        let mut request = request.map(|body| Full::new(Bytes::from(body)));
        request.headers_mut().insert("host", self.addr.to_string().parse()?);
        let answer = async {
            sender.ready().await?;
            let (head, body) = sender.send_request(request).await?.into_parts();
            anyhow::Ok((head, body.collect().await?.to_bytes()))
        };
        let (head, body) = timeout(2 * LONGEST, answer).await.context("no answer in time")??;
        let status = head.status.as_u16();
        ensure!(expected.contains(&status), "{status} {body:?}");
        if is_token && status == 200 {
            let grant: serde_json::Value = serde_json::from_slice(&body)?;
            self.token = grant["access_token"].as_str().context("a 200 without access_token")?.to_owned();
        } else if is_token {
            ensure!(head.headers.contains_key("retry-after"), "{status} without Retry-After");
        }
        // The broker refuses a body of 20 KiB unread, so no further request can follow on that
        // connection.
        if status != 413 {
            self.sender = Some(sender);
        }
        Ok(status)
    }

    /// Sends half a request and closes the connection.
    async fn break_off(&mut self) -> anyhow::Result<u16> {
        let mut stream = TcpStream::connect(self.addr).await?;
        stream.write_all(b"POST /oauth/token HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\ngrant_").await?;
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_result_with_any_violation_is_wrong() {
        let met: BTreeMap<_, _> = timetable().into_iter().map(|(way, ..)| (way, 1)).collect();
        let flat = || {
            let (resident, met) = (vec![100; 40], met.clone());
            Load { resident, met, instance: (100, 100), calls: (9, 5), ..Load::default() }
        };
        let count = |mut load: Load| {
            load.judge();
            load.wrong.len()
        };
        assert_eq!(count(flat()), 0);
        assert_eq!(count(Load { resident: (100..140).collect(), ..flat() }), 1);
        assert_eq!(count(Load { instance: (100, 101), ..flat() }), 1);
        assert_eq!(count(Load { calls: (9, 6), ..flat() }), 1);
        assert_eq!(count(Load { slowest: 2 * LONGEST, ..flat() }), 1);
        assert_eq!(count(Load { met: [("is well", 9), ("hangs", 0)].into(), ..flat() }), 5);
    }
}
