//! Counts the instructions from a request to its answer in the core, compiled for this machine.
//! Callgrind counts. The exit status is 1 if a count differs by more than 3 % from
//! `docs/performance.md`.
//!
//! The ports answer at once, so the count contains only the core's own work and the making of the
//! request.

#[path = "../tests/harness/toolchain.rs"]
#[expect(unreachable_pub, reason = "the harness of the tests exports its function")]
mod toolchain;

use std::cell::{Cell, RefCell};
use std::hint::black_box;
use std::process::{Command, ExitCode};
use std::rc::Rc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::FutureExt;
use http::{Request, Response, StatusCode};
use officernd_token_broker::broker::{Broker, Instance, Ports, SendError};
use officernd_token_broker::config::Variable;
use officernd_token_broker::endpoint::{self, Body};
use officernd_token_broker::time::Timestamp;

const CASES: [&str; 4] = ["memory hit", "memory hit, form", "denial", "a new instance's first"];

/// Largest difference between a count and the page, as a share.
const TOLERANCE: f64 = 0.03;

/// Requests of a short and of a long run. The difference of the two counts leaves out the start of
/// the program.
const REQUESTS_SHORT_RUN: u64 = 200;
const REQUESTS_LONG_RUN: u64 = 1200;

const SECRET: &str = "wfYuMUzF4UqcJ0cZ8VVcdbY4QmVRr0ZUO2XxJ4oB1Lw";
const CALLERS: &str = r#"{"nightly-sync": {"scopes": ["flex.community.members.read", "flex.community.companies.read"],
    "secret_sha256": ["65ebb80ecdb5c9ab29aff2248a221fe7a77d8eb2d8b7a18c5e31b89c93c2e261"]}}"#;
const ANSWER: &str = r#"{"access_token":"0123456789abcdef0123456789abcdef01234567","token_type":"Bearer","expires_in":3599,
    "scope":"flex.community.members.read"}"#;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().collect();
    if let [_, case, count] = &arguments[..] {
        play(case, count.parse().expect("a number of requests"));
        return ExitCode::SUCCESS;
    }
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/performance.md")).expect("the page");
    let known = |case: &str| {
        let row = page.lines().find_map(|line| line.strip_prefix(&format!("| {case}, native | ")))?;
        row.trim_end_matches([' ', '|']).replace(',', "").parse::<f64>().ok()
    };
    let mut code = ExitCode::SUCCESS;
    for case in CASES {
        let cost = (count(case, REQUESTS_LONG_RUN) - count(case, REQUESTS_SHORT_RUN))
            / (REQUESTS_LONG_RUN - REQUESTS_SHORT_RUN);
        write(&format!("| {case}, native | {cost} |"));
        if known(case).is_none_or(|known| (cost as f64 / known - 1.0).abs() > TOLERANCE) {
            write("docs/performance.md has another number: fix the code, or the page");
            code = ExitCode::FAILURE;
        }
    }
    if code == ExitCode::FAILURE {
        write(&toolchain::toolchain_note(include_str!("../docs/testing.md")));
    }
    code
}

/// Instructions of a whole run of the program.
fn count(case: &str, requests: u64) -> u64 {
    let program = std::env::current_exe().expect("this program has a file");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([case, &requests.to_string()])
        .output()
        .expect("valgrind must be installed: apt-get install valgrind");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let collected = said.lines().find_map(|line| line.split_once("Collected :"));
    collected.and_then(|(_, count)| count.trim().parse().ok()).unwrap_or_else(|| panic!("no count: {said}"))
}

#[expect(clippy::print_stdout, reason = "this is what the program is for")]
fn write(line: &str) {
    println!("{line}");
}

fn play(case: &str, requests: u64) {
    let authorization = |secret: &str| format!("Basic {}", STANDARD.encode(format!("nightly-sync:{secret}")));
    let form = "grant_type=client_credentials&scope=flex.community.members.read";
    let (authorization, form, status) = match case {
        "memory hit" | "a new instance's first" => (Some(authorization(SECRET)), form.to_owned(), StatusCode::OK),
        "memory hit, form" => (None, format!("{form}&client_id=nightly-sync&client_secret={SECRET}"), StatusCode::OK),
        "denial" => (Some(authorization("wrong")), form.to_owned(), StatusCode::UNAUTHORIZED),
        _ => panic!("there is no case {case}"),
    };
    let ports = World::default();
    let instance = Rc::new(Instance::new(7));
    for _ in 0..requests {
        let instance = if case == "a new instance's first" { Rc::new(Instance::new(7)) } else { Rc::clone(&instance) };
        let broker = Broker { ports: ports.clone(), instance };
        let mut request = Request::post("http://broker.example/oauth/token")
            .header("content-type", "application/x-www-form-urlencoded")
            .header("content-length", form.len());
        if let Some(authorization) = &authorization {
            request = request.header("authorization", authorization);
        }
        let request: Request<Body> = request.body(Ok(form.clone().into_bytes())).expect("it is a request");
        let handled = endpoint::handle(&broker, &request, ports.now()).now_or_never().expect("no port waits");
        assert_eq!(handled.response.status(), status);
        black_box(handled.response);
    }
}

/// Keys and values of the store.
type Entries = Vec<(String, Vec<u8>)>;

/// Ports that answer at once.
#[derive(Clone, Default)]
struct World {
    store: Rc<RefCell<Entries>>,
    random: Rc<Cell<u64>>,
}

impl Ports for World {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_ms(1_800_000_000_000)
    }

    fn uptime(&self) -> Duration {
        Duration::ZERO
    }

    fn random(&self) -> u64 {
        self.random.replace(self.random.get() + 1)
    }

    async fn sleep(&self, _: Duration) {}

    async fn variable(&self, name: &'static str) -> Result<Option<String>, String> {
        let value = match name {
            "officernd_client_id" => "an-application",
            "officernd_client_secret" => SECRET,
            "callers" => CALLERS,
            _ => Variable::default_of(name),
        };
        Ok(Some(value.to_owned()))
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        Ok(self.store.borrow().iter().find(|(known, _)| known == key).map(|(_, value)| value.clone()))
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<(), String> {
        let mut store = self.store.borrow_mut();
        store.retain(|(known, _)| known != key);
        store.push((key.to_owned(), value.to_owned()));
        Ok(())
    }

    async fn send(&self, _: Request<String>, _: usize) -> Result<Response<Vec<u8>>, SendError> {
        Ok(Response::new(ANSWER.as_bytes().to_vec()))
    }

    fn audit(&self, line: Vec<u8>) {
        black_box(line);
    }

    fn warn(&self, line: &str) {
        panic!("{line}");
    }
}
