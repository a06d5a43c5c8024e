//! The host that runs a broker: the dev host in this process, or an unmodified `wasmtime
//! serve`, with the command of docs/hosts.md.

use std::env;
use std::io::{BufRead, BufReader, Read};
use std::iter;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use broker_host::{Counts, Output, Variables};
use officernd_token_broker::config::VARIABLES;

use crate::component::component_for_wasi;
use crate::peer::installed;
use crate::repository::read;

/// Environment variable that selects the host. `tests/whole_machine/wasmtime_serve.rs` sets it
/// when it runs `black_box`.
const SWITCH: &str = "BROKER_HOST";

/// Whether the tests run their brokers in `wasmtime serve`.
pub(crate) fn is_wasmtime_serve() -> bool {
    match env::var(SWITCH) {
        Ok(host) => {
            assert_eq!(host, "wasmtime-serve", "{SWITCH}: unknown host");
            true
        }
        Err(_) => false,
    }
}

/// First warning of an instance without a store.
const ALONE: &str = "officernd-token-broker: the host has no key-value store `default`: this instance keeps its own tokens \
                     and its own count of calls\n";

/// A running host of either kind.
pub enum Server {
    /// The dev host, in this process.
    Here(broker_host::Server),
    /// `wasmtime serve`. Dropping it kills the program.
    WasmtimeServe(WasmtimeServe),
}

/// A running `wasmtime serve`.
pub struct WasmtimeServe {
    child: Child,
    addr: SocketAddr,
    log: Log,
}

/// Text that the host and the component in it have written.
#[derive(Clone)]
pub(crate) enum Log {
    Captured(Output),
    Piped(Arc<Mutex<String>>),
}

impl Log {
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Captured(output) => output.text(),
            Self::Piped(text) => {
                // Lines that were written before an answer may still be in the pipe.
                thread::sleep(Duration::from_millis(50));
                text.lock().expect("no thread panics while it holds the lock").replace(ALONE, "")
            }
        }
    }
}

impl Server {
    /// Address on which it listens.
    pub fn addr(&self) -> SocketAddr {
        match self {
            Self::Here(server) => server.addr(),
            Self::WasmtimeServe(server) => server.addr,
        }
    }

    /// Returns all that the host and the component have written so far.
    pub fn output(&self) -> String {
        match self {
            Self::Here(server) => server.output(),
            Self::WasmtimeServe(server) => server.log.text(),
        }
    }

    /// Returns the dev host's counters. Fails on `wasmtime serve`, which does not count.
    #[track_caller]
    pub fn counts(&self) -> Counts {
        self.counts_if_any().expect("not on wasmtime serve: nothing is counted")
    }

    /// Returns the counters, if the host counts.
    pub(crate) fn counts_if_any(&self) -> Option<Counts> {
        match self {
            Self::Here(server) => Some(server.counts()),
            Self::WasmtimeServe(_) => None,
        }
    }

    /// Counts the instances that ended in a trap.
    pub fn traps(&self) -> u64 {
        match self {
            Self::Here(server) => server.counts().traps,
            Self::WasmtimeServe(server) => server.log.text().matches("worker failed").count() as u64,
        }
    }

    /// Ends all instances; the host keeps running.
    pub fn end_instances(&self) {
        match self {
            Self::Here(server) => server.end_instances(),
            Self::WasmtimeServe(_) => panic!("not on wasmtime serve: a test cannot end its instances"),
        }
    }

    /// Counts the instances that have warned that they have no store. On `wasmtime serve` it first
    /// waits up to 5 s for the first warning: an answer may arrive before it.
    pub fn instances_alone(&self) -> usize {
        let count = |text: &str| text.matches(ALONE).count();
        match self {
            Self::Here(server) => count(&server.output()),
            Self::WasmtimeServe(server) => match &server.log {
                Log::Captured(_) => 0,
                Log::Piped(text) => {
                    let written = || count(&text.lock().expect("no thread panics while it holds the lock"));
                    let tries = iter::repeat_with(|| {
                        thread::sleep(Duration::from_millis(50));
                        written()
                    });
                    tries.take(100).find(|&instances| instances > 0).unwrap_or_default()
                }
            },
        }
    }

    /// Stops the host.
    pub async fn stop(self) {
        if let Self::Here(server) = self {
            server.stop().await;
        }
    }
}

/// Returns the flags of the command in docs/hosts.md, without those that differ for each
/// broker: the address and the variables.
fn flags() -> Vec<String> {
    let page = read("docs/hosts.md");
    let (_, rest) = page.split_once("$ wasmtime serve ").expect("docs/hosts.md has the command");
    let command = rest.split("\n$").next().and_then(|rest| rest.split("```").next()).expect("a split has a first part");
    let command = command.replace("\\\n", " ");
    let mut words = command.split_whitespace().peekable();
    let mut flags = Vec::new();
    while let Some(word) = words.next() {
        match word {
            "--env" | "--addr" => drop(words.next()),
            _ if words.peek().is_none() => assert!(component_for_wasi().ends_with(word), "docs/hosts.md: {word}"),
            word => flags.push(word.to_owned()),
        }
    }
    flags
}

impl WasmtimeServe {
    pub(crate) fn start(variables: &Variables) -> Self {
        let component = component_for_wasi();
        let mut command = Command::new(installed().join(".venv/bin/wasmtime"));
        command.arg("serve").args(flags()).args(["--addr", "127.0.0.1:0"]);
        assert!(read("docs/hosts.md").contains("\n$ export TOKIO_WORKER_THREADS=1 "), "docs/hosts.md has no such line");
        command.env("TOKIO_WORKER_THREADS", "1");
        for name in VARIABLES.map(|variable| variable.name) {
            if let Some(value) = variables.lookup(name).expect("the provider works") {
                command.args(["--env", &name.to_uppercase()]).env(name.to_uppercase(), value);
            }
        }
        command.arg(component).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("tests/peers/install brings wasmtime");
        let text = Arc::new(Mutex::new(String::new()));
        let mut stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut first = String::new();
        while !first.contains("Serving HTTP on http://") {
            assert!(
                stderr.read_line(&mut first).is_ok_and(|length| length > 0),
                "wasmtime serve does not start: {first}"
            );
        }
        let addr = first.trim_end().rsplit("http://").next().and_then(|rest| rest.trim_end_matches('/').parse().ok());
        follow(child.stdout.take().expect("it is piped"), text.clone());
        follow(stderr, text.clone());
        Self { child, addr: addr.expect("it prints its address"), log: Log::Piped(text) }
    }

    pub(crate) fn log(&self) -> Log {
        self.log.clone()
    }
}

/// Collects whole lines in a thread, until the program ends.
fn follow(pipe: impl Read + Send + 'static, text: Arc<Mutex<String>>) {
    let lines = BufReader::new(pipe).lines().map_while(Result::ok);
    thread::spawn(move || {
        lines.for_each(|line| {
            text.lock().expect("no thread panics while it holds the lock").push_str(&format!("{line}\n"))
        });
    });
}

impl Drop for WasmtimeServe {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
