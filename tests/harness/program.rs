//! The programs `broker` and `broker-operator`, started as a shell would.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use broker_host::KeyValue;
use serde_json::Value;
use tempfile::TempDir;

use crate::broker::search_store;
use crate::leak::{saw, search};
use crate::repository::root;
use crate::server::is_wasmtime_serve;

/// Limit for building and loading the component, long for any machine.
const START: Duration = Duration::from_secs(180);

/// A running `broker`. Dropping it kills the program.
pub struct Program {
    child: Child,
    lines: Receiver<String>,
    stderr: Arc<Mutex<String>>,
    stderr_reader: JoinHandle<()>,
    /// Folder of its store, if the store outlives it.
    state_dir: Option<PathBuf>,
    /// Its working directory, a new one: no developer's `.env` is read.
    _folder: TempDir,
}

/// Result of a program that has ended without being killed.
#[derive(Debug)]
pub struct Ended {
    /// Exit code.
    pub code: i32,
    /// Text on stdout.
    pub stdout: String,
    /// Text on stderr.
    pub stderr: String,
}

impl Program {
    /// Runs `broker` to its end in `folder`, with these arguments, this text on stdin, and only
    /// the variables of the folder's `.env`.
    pub fn run(arguments: &[&str], stdin: &str, folder: &Path) -> Ended {
        Self::run_program("broker", arguments, stdin, folder)
    }

    /// Runs `broker-operator` as [`run`](Self::run) runs `broker`.
    pub fn run_operator(arguments: &[&str], stdin: &str, folder: &Path) -> Ended {
        Self::run_program("broker-operator", arguments, stdin, folder)
    }

    fn run_program(name: &str, arguments: &[&str], stdin: &str, folder: &Path) -> Ended {
        let mut child = command(name, arguments, folder).stdin(Stdio::piped()).spawn().expect("it starts");
        // The program may end before it reads stdin; then this write fails.
        drop(child.stdin.take().expect("it is piped").write_all(stdin.as_bytes()));
        let output = child.wait_with_output().expect("it is a child of this process");
        let text = |bytes| String::from_utf8(bytes).expect("it writes UTF-8");
        let code = output.status.code().expect("no signal ends it");
        let ended = Ended { code, stdout: text(output.stdout), stderr: text(output.stderr) };
        search(&[ended.stdout.as_bytes(), ended.stderr.as_bytes()]);
        ended
    }

    /// Starts `broker` with these arguments and only these variables, named without
    /// `SPIN_VARIABLE_`.
    pub fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let variables = variables.iter().map(|(name, value)| (format!("SPIN_VARIABLE_{}", name.to_uppercase()), value));
        let mut command = command("broker", arguments, folder.path());
        let mut child = command.envs(variables).stdin(Stdio::null()).spawn().expect("broker starts");

        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        // This thread ends when the program does.
        let lines_read = stdout.lines().map_while(Result::ok).inspect(|line| saw(line));
        thread::spawn(move || lines_read.for_each(|line| drop(sender.send(line))));
        let stderr = Arc::new(Mutex::new(String::new()));
        let (mut pipe, text) = (child.stderr.take().expect("it is piped"), stderr.clone());
        let stderr_reader = thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = pipe.read(&mut bytes) {
                text.lock()
                    .expect("no thread panics while it holds the lock")
                    .push_str(&String::from_utf8_lossy(&bytes[..length]));
            }
        });
        let state_dir = arguments.iter().skip_while(|argument| **argument != "--state-dir").nth(1).map(PathBuf::from);
        Self { child, lines, stderr, stderr_reader, state_dir, _folder: folder }
    }

    /// Returns the lines on stdout up to the first for which `is_last` holds, or until the
    /// program ends.
    pub fn lines_until(&self, is_last: impl Fn(&str) -> bool) -> Vec<String> {
        let (begin, mut lines) = (Instant::now(), Vec::new());
        while !lines.last().is_some_and(|line: &String| is_last(line)) {
            match self.lines.recv_timeout(START.saturating_sub(begin.elapsed())) {
                Ok(line) => lines.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it prints no more than {lines:?} and {:?}", self.stderr()),
            }
        }
        lines
    }

    /// Returns the lines up to the one with the address, and the address.
    pub fn introduction(&self) -> (Vec<String>, Option<SocketAddr>) {
        let lines = self.lines_until(|line| line.starts_with("Broker:"));
        let place = lines.last().and_then(|line| line.split_once("http://"));
        let addr = place.and_then(|(_, rest)| rest.split([',', ' ']).next()?.parse().ok());
        (lines, addr)
    }

    /// Drops the lines that stdout has had so far.
    pub fn forget_lines(&self) {
        self.lines.try_iter().for_each(drop);
    }

    /// Reads the program's resident memory in bytes.
    pub fn resident(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?;
        Some(kib.parse::<u64>().ok()? * 1024)
    }

    /// Returns the text on stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr.lock().expect("no thread panics while it holds the lock").clone()
    }

    /// Sends SIGINT, as Ctrl-C does.
    pub fn interrupt(&self) {
        let kill = Command::new("kill").arg("-INT").arg(self.child.id().to_string()).status();
        assert!(kill.expect("kill is installed").success());
    }

    /// Waits until the program ends, at most `limit`, and returns its status. Then
    /// [`stderr`](Self::stderr) is complete.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let begin = Instant::now();
        loop {
            let status = self.child.try_wait().expect("it is a child of this process");
            if status.is_some() && self.stderr_reader.is_finished() || begin.elapsed() > limit {
                return status;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        search(&[self.stderr().as_bytes()]);
        if let Some(folder) = self.state_dir.as_ref().filter(|folder| folder.exists()) {
            search_store(KeyValue::sqlite(folder));
        }
    }
}

fn command(name: &str, arguments: &[&str], folder: &Path) -> Command {
    assert!(!is_wasmtime_serve(), "not on wasmtime serve: `broker` is a host of its own");
    let mut command = as_from_a_shell(Command::new(&built()[name]));
    command.args(arguments).current_dir(folder).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Removes the variables that an operator's shell may have for Spin, and those that Cargo gives
/// to tests. Some build scripts read the latter, and Cargo would build half of the dependencies
/// again.
pub(crate) fn as_from_a_shell(mut command: Command) -> Command {
    let unwanted = |name: &str| ["SPIN_", "CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|begin| name.starts_with(begin));
    for (name, _) in std::env::vars_os().filter(|(name, _)| unwanted(&name.to_string_lossy())) {
        command.env_remove(name);
    }
    command
}

/// Builds the programs once per process, in the target folder of this test, and returns their
/// paths by name.
fn built() -> &'static HashMap<String, PathBuf> {
    static PROGRAMS: OnceLock<HashMap<String, PathBuf>> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let test = std::env::current_exe().expect("this program has a path");
        // TARGET/PROFILE/deps/TEST
        let profile = test.ancestors().nth(2).expect("a test is three folders deep");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = as_from_a_shell(Command::new(cargo));
        // Without --package: selecting packages also selects features, and Cargo would build
        // most dependencies again.
        command.args([
            "build",
            "--bin",
            "broker",
            "--bin",
            "broker-operator",
            "--message-format",
            "json",
            "--target-dir",
        ]);
        command.arg(profile.parent().expect("a test is three folders deep"));
        // The profiles `release` and `bench` share a folder, and `release` is for the
        // component.
        if profile.ends_with("release") {
            command.args(["--profile", "bench"]);
        }
        let output = command.current_dir(root()).stderr(Stdio::inherit()).output().expect("cargo starts");
        assert!(output.status.success(), "the programs do not build");
        let messages = String::from_utf8(output.stdout).expect("JSON is UTF-8");
        let executables = messages.lines().filter_map(|line| {
            let message: Value = serde_json::from_str(line).ok()?;
            let path = message["executable"].as_str().map(PathBuf::from)?;
            Some((message["target"]["name"].as_str()?.to_owned(), path))
        });
        executables.collect()
    })
}
