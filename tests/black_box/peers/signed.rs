//! Clients of other projects that authenticate by assertions, with keys that openssl has made.

use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{Broker, MEMBERS, Setup, run_peer_with, set};

/// Folder of Debian's packages for Go: the only way to Go's libraries without the network.
const GO_PATH: &str = "/usr/share/gocode";

/// The broker's `public_url`, and so the audience of its assertions.
pub const AUDIENCE: &str = "https://broker.example.com";

/// A broker that knows a key for each algorithm, whose `kid` is the name of the algorithm.
pub struct World {
    pub broker: Broker,
    /// The private keys.
    folder: TempDir,
}

impl World {
    /// The keys are those of the caller `nightly`, which has no secret.
    pub async fn start() -> Self {
        Self::start_with(|setup, keys| {
            let mut policy = setup.policy();
            set(&mut policy[&setup.nightly.name], json!({ "secret_sha256": null, "keys": keys }));
            setup.variables.push(("callers", policy.to_string()));
        })
        .await
    }

    /// `prepare` gets the list of the public keys: for ES256, RS256 and PS256.
    pub async fn start_with(prepare: impl FnOnce(&mut Setup, &Value)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let printed = run_peer_with(&["./make_keys", path(folder.path())], &[], Stdio::null());
        let keys: Value = serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"));
        let mut setup = Setup::in_one_instance();
        prepare(&mut setup, &keys);
        setup.variables.push(("public_url", AUDIENCE.to_owned()));
        Self { broker: setup.start().await, folder }
    }

    /// Runs one of the peers' programs, which block, and returns what it prints.
    pub async fn run(&self, command: &'static [&'static str], stdin: Stdio) -> String {
        let url = format!("http://{}", self.broker.server.addr());
        let (name, keys) = (self.broker.setup.nightly.name.clone(), path(self.folder.path()).to_owned());
        let run = move || {
            let environment = [
                ("BROKER_URL", url.as_str()),
                ("AUDIENCE", AUDIENCE),
                ("CLIENT_ID", &name),
                ("KEYS", &keys),
                ("SCOPE", MEMBERS),
                ("GO111MODULE", "off"),
                ("GOPATH", GO_PATH),
            ];
            run_peer_with(command, &environment, stdin)
        };
        tokio::task::spawn_blocking(run).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Runs a client, and expects it to pass a check with each algorithm.
    async fn check(&self, command: &'static [&'static str], checks: &[&str]) {
        let printed = self.run(command, Stdio::null()).await;
        for algorithm in ["ES256", "RS256", "PS256"] {
            for check in checks {
                let expected = format!("ok {}", check.replace("ALG", algorithm));
                assert!(printed.lines().any(|line| line == expected), "{expected} is not in:\n{printed}");
            }
        }
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("the path is UTF-8")
}

#[tokio::test(flavor = "multi_thread")]
async fn openid_client_and_oauth4webapi_get_tokens_with_assertions() {
    let checks = ["openid-client ALG", "openid-client ALG with kid", "oauth4webapi ALG", "oauth4webapi ALG with kid"];
    World::start().await.check(&["node", "signed.mjs"], &checks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn authlib_and_requests_oauth2client_get_tokens_with_assertions() {
    let checks = ["authlib ALG", "authlib ALG with kid", "requests_oauth2client ALG with kid"];
    World::start().await.check(&[".venv/bin/python", "signed.py"], &checks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_gets_tokens_with_assertions_that_openssl_signs() {
    World::start().await.check(&["./signed.sh"], &["ALG", "ALG for the endpoint is refused"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn go_gets_tokens_with_assertions() {
    // It must run only with `CI` set, because not every machine has Go.
    if std::env::var_os("CI").is_some() || Path::new(GO_PATH).join("src/golang.org/x/oauth2").is_dir() {
        World::start().await.check(&["go", "run", "signed.go"], &["ALG", "ALG for the endpoint is refused"]).await;
    }
}
