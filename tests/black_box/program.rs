//! The program `broker`: its output, its variables, and how it ends.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use broker_host::sandbox::{Config, Sandbox};
use bytes::Bytes;
use http_body_util::Full;
use serde_json::Value;
use tests::{Answer, Caller, MEMBERS, Program, Setup, exchange, find_leaks, token_request};

/// Limit for the end after Ctrl-C.
const STOP: Duration = Duration::from_secs(5);

fn is_curl(line: &str) -> bool {
    line.starts_with("curl ")
}

#[test]
fn broker_without_variables_prints_a_curl_line_that_gets_a_token() {
    let mut program = Program::start(&["--listen", "127.0.0.1:0"], &[]);
    let lines = program.lines_until(is_curl);
    let curl = lines.last().filter(|line| is_curl(line)).unwrap_or_else(|| panic!("{lines:?} {}", program.stderr()));
    assert!(!lines.iter().any(|line| line.contains("127.0.0.1:0")), "the real port is missing: {lines:?}");
    assert!(lines.iter().any(|line| line.contains("andbox")), "the output does not mention the sandbox: {lines:?}");
    for _ in 0..2 {
        // Run by a shell, as a reader would paste it.
        let output = Command::new("sh").args(["-c", curl]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let answer: Value = serde_json::from_str(&text)
            .unwrap_or_else(|_| panic!("{text} {}", String::from_utf8_lossy(&output.stderr)));
        assert!(answer["access_token"].as_str().is_some_and(|token| token.len() == 40), "{answer}");
        assert_eq!(answer["token_type"], "Bearer");
        assert!(answer["expires_in"].as_u64().is_some_and(|seconds| (3500..=3600).contains(&seconds)), "{answer}");
        assert!(answer["scope"].as_str().is_some_and(|scope| !scope.is_empty()), "{answer}");
    }
    program.interrupt();
    let status = program.wait(STOP);
    assert_eq!(status.and_then(|status| status.code()), Some(0), "{status:?} {}", program.stderr());
}

#[test]
fn broker_with_some_variables_names_the_missing_ones_and_stops() {
    let check = |variables: &[(&str, &str)], missing: &[&str]| {
        let mut program = Program::start(&["--listen", "127.0.0.1:0"], variables);
        let lines = program.lines_until(|_| false);
        let status = program.wait(Duration::from_secs(60)).expect("broker ends");
        let stderr = program.stderr();
        assert!(!status.success(), "{variables:?}: {stderr}");
        for name in missing {
            assert!(stderr.contains(&format!("SPIN_VARIABLE_{}", name.to_uppercase())), "{name}: {stderr}");
        }
        assert!(!stderr.contains("hunter2"), "{stderr}");
        assert_eq!(lines, [""; 0], "it must not start the demo");
    };
    check(&[("officernd_client_id", "id")], &["officernd_client_secret", "callers"]);
    check(&[("officernd_client_secret", "hunter2")], &["officernd_client_id", "callers"]);
    check(&[("callers", "{}")], &["officernd_client_id", "officernd_client_secret"]);
    check(&[("officernd_client_id", "id"), ("officernd_client_secret", "hunter2")], &["callers"]);
    check(&[("officernd_identity_url", "http://127.0.0.1:1")], &["officernd_client_id"]);
}

/// A program `broker` in front of this test's own sandbox.
struct Front {
    program: Program,
    addr: SocketAddr,
}

impl Front {
    fn start(variables: &[(&str, &str)], folder: &str) -> Self {
        let program = Program::start(&["--listen", "127.0.0.1:0", "--state-dir", folder], variables);
        let (lines, addr) = program.introduction();
        let addr = addr.unwrap_or_else(|| panic!("no address is printed: {lines:?} {}", program.stderr()));
        assert!(
            !lines.iter().any(|line| is_curl(line) || line.starts_with("Sandbox")),
            "it must not start the demo: {lines:?}"
        );
        Self { program, addr }
    }

    async fn token(&self, caller: &Caller) -> Answer {
        let request = token_request(caller, Some(MEMBERS)).map(|body| Full::new(Bytes::from(body)));
        exchange(self.addr, request).await.unwrap()
    }

    fn stop(mut self) -> String {
        self.program.interrupt();
        let status = self.program.wait(STOP);
        let stderr = self.program.stderr();
        assert_eq!(status.and_then(|status| status.code()), Some(0), "{status:?} {stderr}");
        let lines = self.program.lines_until(|_| false);
        format!("{}\n{stderr}", lines.join("\n"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn broker_with_variables_calls_their_officernd_and_keeps_tokens_in_state_dir() {
    let setup = Setup::default();
    let config = Config { applications: vec![setup.application.clone()], ..Config::default() };
    let sandbox = Sandbox::start(config).await.unwrap();
    let policy = setup.policy().to_string();
    let url = sandbox.url();
    let variables = [
        ("officernd_client_id", setup.application.id.as_str()),
        ("officernd_client_secret", &setup.application.secret),
        ("officernd_identity_url", &url),
        ("callers", &policy),
    ];
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("state");
    let folder = folder.to_str().unwrap();

    let front = tokio::task::block_in_place(|| Front::start(&variables, folder));
    let first = front.token(&setup.nightly).await;
    let mut log = tokio::task::block_in_place(|| front.stop());
    let front = tokio::task::block_in_place(|| Front::start(&variables, folder));
    let second = front.token(&setup.nightly).await;
    log += &tokio::task::block_in_place(|| front.stop());

    assert_eq!(first.token(), second.token());
    assert_eq!(sandbox.calls().len(), 1);
    assert_eq!(log.matches(&format!("\"caller\":\"{}\"", setup.nightly.name)).count(), 2, "{log}");
    let mut secrets = setup.secrets();
    secrets.push(tests::Secret::new("the token", first.token()));
    assert_eq!(find_leaks(log.as_bytes(), &secrets), [""; 0], "{log}");
}
