//! A Redis server for one test.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use broker_host::KeyValue;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::peer::installed;

/// A running Redis server, empty at first. Dropping it ends the server and deletes its data.
pub struct Redis {
    server: Child,
    port: u16,
    url: String,
    folder: TempDir,
}

impl Redis {
    /// Starts a server on a free port of loopback.
    ///
    /// # Errors
    /// If `redis-server` is missing or does not answer.
    pub async fn start() -> anyhow::Result<Self> {
        // Installs redis-server, as root on Debian.
        tokio::task::spawn_blocking(installed).await?;
        // Another program can take the free port before the server does. Then the server ends
        // at once, and another port is tried.
        for _ in 0..5 {
            let folder = tempfile::tempdir().context("no temporary folder")?;
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
            let server = run(port, folder.path())?;
            let mut redis = Self { server, port, url: format!("redis://127.0.0.1:{port}"), folder };
            if redis.answers().await? {
                return Ok(redis);
            }
        }
        bail!("redis-server does not start on any free port");
    }

    /// Waits until the server answers. Returns whether it runs.
    async fn answers(&mut self) -> anyhow::Result<bool> {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(20) {
            if self.server.try_wait()?.is_some() {
                return Ok(false);
            }
            if KeyValue::redis(&self.url)?.check().await.is_ok() {
                return Ok(true);
            }
            sleep(Duration::from_millis(20)).await;
        }
        bail!("redis-server does not answer");
    }

    /// Kills the server, so that its port refuses connections. Its data is lost.
    pub fn kill(&mut self) {
        self.server.kill().expect("the server runs");
        self.server.wait().expect("it has been killed");
    }

    /// Starts the server again after [`kill`](Self::kill).
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn start_again(&mut self) -> anyhow::Result<()> {
        self.server = run(self.port, self.folder.path())?;
        anyhow::ensure!(self.answers().await?, "another program has taken the port");
        Ok(())
    }

    /// Stops the server (`true`), so that connections stay open and no answer comes, or lets it
    /// go on.
    pub fn freeze(&self, frozen: bool) {
        let pid = Pid::from_child(&self.server);
        kill_process(pid, if frozen { Signal::STOP } else { Signal::CONT }).expect("the server runs");
    }

    /// Sends a command, and expects `OK`.
    pub fn command(&self, command: &str) {
        let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).expect("the server listens");
        write!(connection, "{command}\r\n").expect("it reads commands");
        let mut answer = String::new();
        BufReader::new(connection).read_line(&mut answer).expect("it answers");
        assert_eq!(answer, "+OK\r\n", "{command}");
    }

    /// URL of the server: `redis://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Opens a new connection, as another host would.
    pub fn key_value(&self) -> KeyValue {
        KeyValue::redis(&self.url).expect("the URL is valid")
    }
}

/// Runs a server that keeps nothing on disk.
fn run(port: u16, folder: &Path) -> anyhow::Result<Child> {
    Command::new("redis-server")
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"])
        .arg(port.to_string())
        .arg("--dir")
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .context("this test needs a Redis server: apt-get install redis-server")
}

impl Drop for Redis {
    fn drop(&mut self) {
        // The data is not needed any more, so the server may be killed.
        drop(self.server.kill());
        drop(self.server.wait());
    }
}
