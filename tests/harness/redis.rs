//! A Redis server for one test.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use broker_host::KeyValue;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::peer::installed;

/// A running Redis server, empty at first. Dropping it ends the server and deletes its data.
pub struct Redis {
    server: Child,
    url: String,
    _folder: TempDir,
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
            if let Some(redis) = Self::try_start().await? {
                return Ok(redis);
            }
        }
        bail!("redis-server does not start on any free port");
    }

    async fn try_start() -> anyhow::Result<Option<Self>> {
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let server = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"])
            .arg(port.to_string())
            .arg("--dir")
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("this test needs a Redis server: apt-get install redis-server")?;
        let mut redis = Self { server, url: format!("redis://127.0.0.1:{port}"), _folder: folder };
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(20) {
            if redis.server.try_wait()?.is_some() {
                return Ok(None);
            }
            if KeyValue::redis(&redis.url)?.check().await.is_ok() {
                return Ok(Some(redis));
            }
            sleep(Duration::from_millis(20)).await;
        }
        bail!("redis-server does not answer");
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

impl Drop for Redis {
    fn drop(&mut self) {
        // The data is not needed any more, so the server may be killed.
        drop(self.server.kill());
        drop(self.server.wait());
    }
}
