//! The program `broker`, as a shell starts it.

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

/// How long it may take to build the component and to load it, on any machine.
const START: Duration = Duration::from_secs(180);

/// A started `broker`. It is killed when this is dropped.
pub struct Program {
    child: Child,
    lines: Receiver<String>,
    stderr: Arc<Mutex<String>>,
    stderr_reader: JoinHandle<()>,
    /// Where it keeps its store, if that lasts.
    state_dir: Option<PathBuf>,
    /// Where it runs: no `.env` of anybody's is there.
    _folder: TempDir,
}

/// What a `broker` that has ended by itself leaves.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code.
    pub code: i32,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl Program {
    /// Runs it to its end with these arguments and this on stdin, in `folder`, with no variables but those of its `.env`.
    pub fn run(arguments: &[&str], stdin: &str, folder: &Path) -> Ended {
        let mut child = command(arguments, folder).stdin(Stdio::piped()).spawn().expect("broker starts");
        // It may end without having read anything.
        drop(child.stdin.take().expect("it is piped").write_all(stdin.as_bytes()));
        let output = child.wait_with_output().expect("it is our child");
        let text = |bytes| String::from_utf8(bytes).expect("it writes Unicode");
        let code = output.status.code().expect("nobody kills it");
        let ended = Ended { code, stdout: text(output.stdout), stderr: text(output.stderr) };
        search(&[ended.stdout.as_bytes(), ended.stderr.as_bytes()]);
        ended
    }

    /// Starts it with these arguments and no variables but these, `SPIN_VARIABLE_` not written.
    pub fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let variables = variables.iter().map(|(name, value)| (format!("SPIN_VARIABLE_{}", name.to_uppercase()), value));
        let mut command = command(arguments, folder.path());
        let mut child = command.envs(variables).stdin(Stdio::null()).spawn().expect("broker starts");

        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        // Ends with the program.
        let lines_read = stdout.lines().map_while(Result::ok).inspect(|line| saw(line));
        thread::spawn(move || lines_read.for_each(|line| drop(sender.send(line))));
        let stderr = Arc::new(Mutex::new(String::new()));
        let (mut pipe, text) = (child.stderr.take().expect("it is piped"), stderr.clone());
        let stderr_reader = thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = pipe.read(&mut bytes) {
                text.lock().expect("nobody panics with it").push_str(&String::from_utf8_lossy(&bytes[..length]));
            }
        });
        let state_dir = arguments.iter().skip_while(|argument| **argument != "--state-dir").nth(1).map(PathBuf::from);
        Self { child, lines, stderr, stderr_reader, state_dir, _folder: folder }
    }

    /// The lines on stdout up to the first that `is_last`, or until the program ends.
    pub fn lines_until(&self, is_last: impl Fn(&str) -> bool) -> Vec<String> {
        let (begin, mut lines) = (Instant::now(), Vec::new());
        while !lines.last().is_some_and(|line: &String| is_last(line)) {
            match self.lines.recv_timeout(START.saturating_sub(begin.elapsed())) {
                Ok(line) => lines.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it says no more than {lines:?} and {:?}", self.stderr()),
            }
        }
        lines
    }

    /// What it says up to where it listens, and that.
    pub fn introduction(&self) -> (Vec<String>, Option<SocketAddr>) {
        let lines = self.lines_until(|line| line.starts_with("Broker:"));
        let place = lines.last().and_then(|line| line.split_once("http://"));
        let addr = place.and_then(|(_, rest)| rest.split([',', ' ']).next()?.parse().ok());
        (lines, addr)
    }

    /// Lets go of the lines on stdout so far.
    pub fn forget_lines(&self) {
        self.lines.try_iter().for_each(drop);
    }

    /// How many bytes of it are in memory.
    pub fn resident(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?;
        Some(kib.parse::<u64>().ok()? * 1024)
    }

    /// What it has written to stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr.lock().expect("nobody panics with it").clone()
    }

    /// What Ctrl-C does.
    pub fn interrupt(&self) {
        let kill = Command::new("kill").arg("-INT").arg(self.child.id().to_string()).status();
        assert!(kill.expect("there is a kill").success());
    }

    /// Its status, if it ends within `limit`. Then [`stderr`](Self::stderr) has all that it wrote.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let begin = Instant::now();
        loop {
            let status = self.child.try_wait().expect("it is our child");
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

fn command(arguments: &[&str], folder: &Path) -> Command {
    assert!(!is_wasmtime_serve(), "not on wasmtime serve: the program is a host of its own");
    let mut command = as_from_a_shell(Command::new(built()));
    command.args(arguments).current_dir(folder).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Without the variables that an operator's shell may have for Spin, and without those that Cargo gives to tests: build scripts
/// look at some, and would have half of the dependencies built anew.
pub(crate) fn as_from_a_shell(mut command: Command) -> Command {
    let unwanted = |name: &str| ["SPIN_", "CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|begin| name.starts_with(begin));
    for (name, _) in std::env::vars_os().filter(|(name, _)| unwanted(&name.to_string_lossy())) {
        command.env_remove(name);
    }
    command
}

/// The program, built once in a process, beside this one.
fn built() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let test = std::env::current_exe().expect("this program has a path");
        // TARGET/PROFILE/deps/TEST
        let profile = test.ancestors().nth(2).expect("a test is three folders deep");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = as_from_a_shell(Command::new(cargo));
        // Without --package: a choice of packages is a choice of features, and most dependencies would be built anew.
        command.args(["build", "--bin", "broker", "--message-format", "json", "--target-dir"]);
        command.arg(profile.parent().expect("a test is three folders deep"));
        // The profiles `release` and `bench` share a folder, and `release` is for the component.
        if profile.ends_with("release") {
            command.args(["--profile", "bench"]);
        }
        let output = command.current_dir(root()).stderr(Stdio::inherit()).output().expect("there is a cargo");
        assert!(output.status.success(), "broker does not build");
        let messages = String::from_utf8(output.stdout).expect("JSON is Unicode");
        let executable = messages.lines().rev().find_map(|line| {
            let message: Value = serde_json::from_str(line).ok()?;
            message["executable"].as_str().map(PathBuf::from)
        });
        executable.expect("cargo says where broker is")
    })
}
