//! Servers and clients of other projects, in `tests/peers`.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use serde_json::Value;

use crate::repository::root;
use crate::setup::{Caller, Setup};

/// Installs the peers once per process and returns their folder.
pub fn installed() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = root().join("tests/peers");
        let install = Command::new(folder.join("install")).status().expect("bash is installed");
        assert!(install.success(), "tests/peers/install fails: it needs npm and python3 with venv");
        folder
    })
}

/// An OAuth 2.0 server in OfficeRnD's place, or an outside issuer. Dropping it ends the server.
pub struct PeerServer {
    child: Child,
    stdin: ChildStdin,
    url: String,
    requests: Arc<Mutex<Vec<Value>>>,
}

impl PeerServer {
    /// Starts a server that knows the application of `setup` with its scopes, and the scopes
    /// `not_granted`, which the application does not have.
    pub fn start(setup: &Setup, not_granted: &str) -> Self {
        let mut command = Command::new("node");
        command
            .arg(installed().join("server.mjs"))
            .env("CLIENT_ID", &setup.application.id)
            .env("CLIENT_SECRET", &setup.application.secret)
            .env("SCOPES", setup.application.scopes.join(" "))
            .env("OTHER_SCOPES", not_granted);
        Self::spawn(command)
    }

    /// Starts an outside issuer, whose one job has this id and secret, and whose tokens are for
    /// `audience`. Its requests are those for its keys.
    pub fn issuer([id, secret]: [&str; 2], audience: &str) -> Self {
        let mut command = Command::new("node");
        command
            .arg(installed().join("issuer.mjs"))
            .env("CLIENT_ID", id)
            .env("CLIENT_SECRET", secret)
            .env("AUDIENCE", audience);
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("node is installed");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines().map_while(Result::ok);
        let first: Value =
            serde_json::from_str(&lines.next().expect("the server prints its address")).expect("a line is JSON");
        let url = first["url"].as_str().expect("the line has a url").to_owned();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        // This thread ends when the server does.
        thread::spawn(move || {
            for line in lines {
                let request = serde_json::from_str(&line).expect("a line is JSON");
                seen.lock().expect("no thread panics while it holds the lock").push(request);
            }
        });
        let stdin = child.stdin.take().expect("it is piped");
        Self { child, stdin, url, requests }
    }

    /// Writes a line to the server.
    pub fn say(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").expect("the server reads");
    }

    /// URL of the server.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the requests that it got, as the server describes them.
    pub fn requests(&self) -> Vec<Value> {
        self.requests.lock().expect("no thread panics while it holds the lock").clone()
    }
}

impl Drop for PeerServer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs a client or another program of the peers as a caller of a broker, and returns what it
/// prints. Fails with that text unless the program succeeds.
pub fn run_peer(command: &[&str], broker_url: &str, caller: &Caller, scope: &str) -> String {
    let environment =
        [("BROKER_URL", broker_url), ("CLIENT_ID", &caller.name), ("CLIENT_SECRET", &caller.secret), ("SCOPE", scope)];
    run_peer_with(command, &environment, Stdio::null())
}

/// Runs a program of the peers with an environment and a standard input, and returns what it
/// prints. Fails with that text unless the program succeeds.
pub fn run_peer_with(command: &[&str], environment: &[(&str, &str)], stdin: Stdio) -> String {
    let (program, arguments) = command.split_first().expect("a program");
    let output = Command::new(if program.contains('/') { installed().join(program) } else { program.into() })
        .args(arguments)
        .current_dir(installed())
        .envs(environment.iter().copied())
        .stdin(stdin)
        .output()
        .unwrap_or_else(|error| panic!("{program} does not start: {error}"));
    let printed = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}:\n{printed}");
    printed
}
