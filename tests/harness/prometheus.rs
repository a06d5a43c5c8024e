//! A Prometheus server that scrapes a broker with the files of `deploy/prometheus`.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::answer::{exchange, form};
use crate::peer::installed;
use crate::repository::read;

/// A running Prometheus server, empty at first. Dropping it ends the server and deletes its data.
pub struct Prometheus {
    server: Child,
    addr: SocketAddr,
    folder: TempDir,
}

impl Prometheus {
    /// Starts a server that scrapes this broker each second, as the caller `prometheus` with this
    /// secret.
    ///
    /// # Errors
    /// If `prometheus` is missing, refuses the files, or does not become ready.
    pub async fn start(broker: SocketAddr, secret: &str) -> anyhow::Result<Self> {
        // Installs prometheus, as root on Debian.
        tokio::task::spawn_blocking(installed).await?;
        let folder = tempfile::tempdir().context("no temporary folder")?;
        configure(folder.path(), broker, secret)?;
        let server = Command::new("prometheus")
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--web.listen-address=127.0.0.1:0"])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.path().join("log"))?)
            .spawn()
            .context("this test needs a Prometheus server: apt-get install prometheus")?;
        let mut prometheus = Self { server, addr: SocketAddr::from(([127, 0, 0, 1], 0)), folder };
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(20) {
            let log = prometheus.log();
            ensure!(prometheus.server.try_wait()?.is_none(), "prometheus has ended:\n{log}");
            let listens = log.lines().find_map(|line| line.split_once("\"Listening on\" address="));
            if let (Some((_, addr)), true) = (listens, log.contains("Server is ready to receive web requests")) {
                prometheus.addr = addr.trim().parse()?;
                return Ok(prometheus);
            }
            sleep(Duration::from_millis(20)).await;
        }
        bail!("prometheus does not become ready:\n{}", prometheus.log());
    }

    /// Returns all that the server has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).expect("the server has a log")
    }

    /// Asks the HTTP API, and returns the field `data`. Fails on an error and on a warning.
    pub async fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let request = Request::get(format!("/api/v1/{path}?{}", form(parameters)));
        let request = request.body(Full::<Bytes>::default()).expect("the request is valid");
        let mut answer = exchange(self.addr, request).await.expect("the server answers").json();
        assert_eq!(answer["status"], "success", "{path} {parameters:?}: {answer}");
        assert_eq!(answer["warnings"], Value::Null, "{path} {parameters:?}: {answer}");
        answer["data"].take()
    }

    /// Returns the numbers that answer an expression now, one for each series.
    pub async fn query(&self, expression: &str) -> Vec<f64> {
        let data = self.ask("query", &[("query", expression)]).await;
        let series = data["result"].as_array().unwrap_or_else(|| panic!("{expression}: {data}"));
        let number = |series: &Value| series["value"][1].as_str().and_then(|number| number.parse().ok());
        series.iter().map(|series| number(series).unwrap_or_else(|| panic!("{expression}: {series}"))).collect()
    }
}

/// Writes the files of `deploy/prometheus` into `folder`. Only four things differ for a test: the
/// scheme, the target, the place of the secret, and how often Prometheus scrapes.
fn configure(folder: &Path, broker: SocketAddr, secret: &str) -> anyhow::Result<()> {
    let mut config = read("deploy/prometheus/prometheus.yml");
    for (in_file, in_test) in [
        ("scheme: https\n", "scheme: http\n"),
        ("[broker.example.com]", &format!("[\"{broker}\"]")),
        ("/etc/prometheus/officernd-token-broker-secret\n", "secret\n"),
    ] {
        ensure!(config.matches(in_file).count() == 1, "prometheus.yml must have {in_file:?} once");
        config = config.replace(in_file, in_test);
    }
    config.insert_str(0, "global: { scrape_interval: 1s, evaluation_interval: 1s }\n");
    fs::write(folder.join("prometheus.yml"), config)?;
    fs::write(folder.join("alerts.yml"), read("deploy/prometheus/alerts.yml"))?;
    fs::write(folder.join("secret"), secret)?;
    Ok(())
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // The data is not needed any more, so the server may be killed.
        drop(self.server.kill());
        drop(self.server.wait());
    }
}
