//! The measured hosts, in a process of their own. Their output goes to a file, as Spin's does,
//! and the load generator is not part of their figures.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write, stderr};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use broker_host::sandbox::{self, Answer, Sandbox};
use broker_host::{App, Faults, KeyValue, Manifest, Options, Reuse, Variables};
use http::Uri;
use officernd_token_broker::config::{Config, VARIABLES};
use officernd_token_broker::scope::Scopes;
use officernd_token_broker::seal::NONCE_LENGTH;
use officernd_token_broker::secret::AccessToken;
use officernd_token_broker::time::Timestamp;
use officernd_token_broker::token::{Key, Token};
use serde_json::json;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// Name of the caller and of the application, and their common secret. None of them needs to be
/// hidden.
pub(crate) const CALLER: &str = "nightly-sync";
pub(crate) const SECRET: &str = "wfYuMUzF4UqcJ0cZ8VVcdbY4QmVRr0ZUO2XxJ4oB1Lw";

/// Scope of the token in the store.
pub(crate) const MEMBERS: &str = "flex.community.members.read";

/// Time that the sandbox takes to answer.
pub(crate) const UPSTREAM: Duration = Duration::from_millis(100);

/// Delays of each store operation, in milliseconds.
pub(crate) const STORE_DELAYS_MS: [u64; 4] = [0, 1, 10, 50];

/// Returns the name of the host whose store has this delay.
pub(crate) fn slow_store(delay_ms: u64) -> String {
    format!("store {delay_ms} ms away")
}

/// End of the names of hosts whose store is on Redis; the others' is SQLite or, if it is slow, memory.
pub(crate) const ON_REDIS: &str = ", Redis";

/// Argument with which this program runs the hosts.
pub(crate) const SERVE: &str = "serve-for-the-benchmark";

/// Returns the scope sets with a token in the store. There are so many that, with 16
/// connections, no instance gets a request for one of them twice. Their number is a prime, so
/// that each connection asks for all of them.
pub(crate) fn stored() -> Vec<String> {
    (0..257).map(|number| format!("flex.space.resource{number}.read")).collect()
}

/// Returns scope sets without a token.
pub(crate) fn unfetched() -> Vec<String> {
    (0..25).map(|number| format!("flex.billing.resource{number}.read")).collect()
}

/// The running hosts and their addresses. Dropping it ends them.
pub(crate) struct Hosts {
    addresses: BTreeMap<String, SocketAddr>,
    process: Child,
    _folder: TempDir,
}

impl Hosts {
    /// Starts them. With the URL of a Redis server, there are hosts with that store too.
    pub(crate) fn start(redis: Option<&str>) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut process = Command::new(std::env::current_exe()?)
            .arg(SERVE)
            .arg(folder.path())
            .args(redis)
            .stdin(Stdio::piped())
            .stdout(File::create(folder.path().join("log"))?)
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = process.stderr.take().context("it was asked for")?;
        let mut lines = BufReader::new(stderr).lines();
        let addresses = loop {
            let line = lines.next().context("the hosts did not start")??;
            match serde_json::from_str(&line) {
                Ok(addresses) => break addresses,
                Err(_) => writeln!(std::io::stderr(), "{line}")?,
            }
        };
        std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| drop(writeln!(std::io::stderr(), "{line}")))
        });
        Ok(Self { addresses, process, _folder: folder })
    }

    /// Returns the token endpoint of this host.
    pub(crate) fn url(&self, name: &str) -> anyhow::Result<Uri> {
        let address = self.addresses.get(name).with_context(|| format!("there is no host {name}"))?;
        Ok(format!("http://{address}/oauth/token").parse()?)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        // The process may have ended already.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Runs the hosts until the process is killed or its parent ends.
pub(crate) async fn serve(folder: &Path, redis: Option<&str>) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let load = |manifest: &str| {
        let manifest = Manifest::read(&root.join(manifest))?;
        broker_host::build(&manifest)?;
        App::load(manifest)
    };
    let (floor, broker) = (load("floor/spin.toml")?, load("../../spin.toml")?);
    let floor_with_store = load("floor-with-store/spin.toml")?;

    let application = sandbox::Application { id: CALLER.into(), secret: SECRET.into(), scopes: unfetched() };
    let config =
        sandbox::Config { applications: vec![application], calls_per_minute: 1000, ..sandbox::Config::default() };
    let sandbox = Sandbox::start(config).await?;
    sandbox.answer_always(Answer::Late(UPSTREAM));

    let once = Reuse { max_requests: 1, ..Reuse::default() };
    let kept = Reuse { max_requests: usize::MAX, ..Reuse::default() };
    let reused = Reuse::default();
    let on_redis = redis.into_iter().flat_map(|_| {
        [
            ("floor with a store", &floor_with_store, "all", 0),
            ("exceptions", &broker, "exceptions", 1),
            ("all", &broker, "all", 1),
        ]
        .map(|(name, app, audit, callers)| (format!("{name}{ON_REDIS}"), app, audit, callers, reused, 0))
    });
    let slow_stores = STORE_DELAYS_MS.map(|ms| (slow_store(ms), &broker, "exceptions", 1, reused, ms));
    let mut servers = Vec::new();
    for (name, app, audit, callers, reuse, delay_ms) in [
        ("floor".to_owned(), &floor, "all", 0, reused, 0),
        ("floor with a store".to_owned(), &floor_with_store, "all", 0, reused, 0),
        ("all".to_owned(), &broker, "all", 1, reused, 0),
        ("exceptions".to_owned(), &broker, "exceptions", 1, reused, 0),
        ("10,000 callers".to_owned(), &broker, "exceptions", 10_000, reused, 0),
        ("floor, kept".to_owned(), &floor, "all", 0, kept, 0),
        ("all, kept".to_owned(), &broker, "all", 1, kept, 0),
        ("exceptions, kept".to_owned(), &broker, "exceptions", 1, kept, 0),
        ("floor, once".to_owned(), &floor, "all", 0, once, 0),
        ("floor with a store, once".to_owned(), &floor_with_store, "all", 0, once, 0),
        ("1 caller, once".to_owned(), &broker, "exceptions", 1, once, 0),
        ("10,000 callers, once".to_owned(), &broker, "exceptions", 10_000, once, 0),
    ]
    .into_iter()
    .chain(slow_stores)
    .chain(on_redis)
    {
        let values = values(&sandbox.url(), audit, callers);
        // A write to a disk takes as long as the disk likes, so a store that is so far away is in memory.
        let is_slow = name.starts_with("store ");
        let key_value = match redis {
            _ if is_slow => KeyValue::memory(),
            Some(url) if name.ends_with(ON_REDIS) => KeyValue::redis(url)?,
            _ => KeyValue::sqlite(&folder.join(&name))?,
        };
        // A record for the floor with a store, which reads this key. It is about as long as a
        // token's record.
        key_value.set("default", &format!("token/0/{}", "0".repeat(64)), vec![0; 180]).await?;
        if callers > 0 {
            store_tokens(&key_value, &values).await?;
        }
        key_value.set_faults(Faults { delay: Duration::from_millis(delay_ms), ..Faults::default() });
        let options = Options { variables: Variables::from_iter(values), key_value, reuse, ..Options::default() };
        let server = broker_host::start(app, options).await?;
        servers.push((name, server));
    }
    let mut addresses: BTreeMap<_, _> =
        servers.iter().map(|(name, server)| (name.as_str(), server.addr().to_string())).collect();
    addresses.insert("officernd", sandbox.url().trim_start_matches("http://").to_owned());
    writeln!(stderr(), "{}", serde_json::to_string(&addresses)?)?;
    // Stdin ends when the parent process does.
    tokio::task::spawn_blocking(|| std::io::stdin().lines().for_each(drop)).await?;
    Ok(())
}

fn values(identity_url: &str, audit: &str, callers: usize) -> BTreeMap<&'static str, String> {
    let digest = |secret: &str| Sha256::digest(secret).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let scopes = [MEMBERS, "flex.space.*.read", "flex.billing.*.read"];
    let mut policy = serde_json::Map::new();
    policy.insert(CALLER.to_owned(), json!({ "secret_sha256": [digest(SECRET)], "scopes": scopes }));
    for number in 1..callers {
        let entry = json!({ "secret_sha256": [digest(&format!("secret {number}"))], "scopes": [MEMBERS] });
        policy.insert(format!("another-job-{number}"), entry);
    }
    BTreeMap::from([
        ("officernd_client_id", CALLER.to_owned()),
        ("officernd_client_secret", SECRET.to_owned()),
        ("officernd_identity_url", identity_url.to_owned()),
        ("upstream_calls_per_minute", "100".to_owned()),
        ("audit", audit.to_owned()),
        ("callers", serde_json::Value::Object(policy).to_string()),
    ])
}

/// Puts tokens into a store, as if the broker with these variables had fetched them.
async fn store_tokens(key_value: &KeyValue, values: &BTreeMap<&str, String>) -> anyhow::Result<()> {
    let default = |name: &str| VARIABLES.iter().find(|known| known.name == name).and_then(|known| known.default);
    let lookup = |name: &str| values.get(name).map(String::as_str).or(default(name)).unwrap_or_default();
    let config = Config::parse(lookup).map_err(|mistakes| anyhow!("{mistakes:?}"))?;
    let application = config.applications.first().context("there is always one")?;
    let credential = &application.current;
    let now = Timestamp::from_unix_ms(std::time::UNIX_EPOCH.elapsed()?.as_millis().try_into()?);
    for text in stored().iter().map(String::as_str).chain([MEMBERS]) {
        let scopes = Scopes::parse(text).map_err(|error| anyhow!("{text}: {error:?}"))?;
        let key = Key::of(application, credential, &scopes);
        let token = Token {
            access_token: AccessToken::new("0123456789abcdef0123456789abcdef01234567"),
            requested: scopes.clone(),
            scopes,
            expires_at: now + Duration::from_secs(3600),
            fetched_at: now,
            stalled: false,
            revoked_at: None,
        };
        let mut nonce = [0; NONCE_LENGTH];
        getrandom::fill(&mut nonce)?;
        key_value.set("default", &key.of_token(), token.seal(key, &credential.seal, nonce)).await?;
    }
    ensure!(!key_value.keys("default").await?.is_empty(), "the store keeps nothing");
    Ok(())
}
