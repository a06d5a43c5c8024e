//! Examples of docs/jobs.md whose job has a key of its own, which it makes as the page says.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tests::{CLUSTER, MEMBERS, PrivateKey, Program, Setup, TestIssuer, kubernetes_claims, run_peer_with, set};

const RUN_EXAMPLES: &str = "run_examples.py";

/// Address at which an example reaches its broker.
fn address(listener: &TcpListener) -> String {
    format!("https://localhost:{}", listener.local_addr().unwrap().port())
}

/// Runs an example against a broker that has the public key, and expects it to wait and to give up
/// as the page says.
async fn check(title: &'static str, jwk: &Value, key_file: String) {
    let mut setup = Setup::default();
    let mut policy = setup.policy();
    set(&mut policy[&setup.nightly.name], json!({ "secret_sha256": null, "keys": [jwk] }));
    setup.variables.push(("callers", policy.to_string()));
    run(title, setup, TcpListener::bind("127.0.0.1:0").unwrap(), ("KEY_FILE", key_file)).await;
}

/// Runs an example that reads `credential`, a variable and its value. An assertion names the address
/// of its broker, which the example reaches through `listener`.
async fn run(title: &'static str, mut setup: Setup, listener: TcpListener, credential: (&'static str, String)) {
    setup.variables.push(("public_url", address(&listener)));
    let broker = setup.start().await;
    let (url, name) = (format!("http://{}", broker.server.addr()), broker.setup.nightly.name.clone());
    let run = move || {
        let (variable, value) = credential;
        let environment = [("BROKER_URL", &*url), ("CLIENT_ID", &name), (variable, &*value), ("SCOPE", MEMBERS)];
        run_peer_with(&[".venv/bin/python", RUN_EXAMPLES, title], &environment, OwnedFd::from(listener).into())
    };
    let printed = tokio::task::spawn_blocking(run).await.unwrap_or_else(|error| panic!("{error}"));
    assert!(printed.contains(&format!("ok {title}: pause bound")), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn examples_with_a_key_in_jobs_md_wait_out_a_pause_and_no_longer_than_the_page_says() {
    let folder = tempfile::tempdir().unwrap();
    let key_file = folder.path().join("job.pem").to_str().expect("the path is UTF-8").to_owned();
    let command = [".venv/bin/python", RUN_EXAMPLES, "--make-key"];
    let printed = run_peer_with(&command, &[("KEY_FILE", &key_file)], Stdio::null());
    let mode = std::fs::metadata(&key_file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "the page says that only the owner can read the key");
    std::fs::write(folder.path().join("public.pem"), printed).unwrap();
    let ended =
        Program::run_operator(&["caller", "new", "a", "--scope", "b", "--key", "public.pem"], "", folder.path());
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let policy: Value = serde_json::from_str(&ended.stdout).unwrap();
    let jwk = policy["a"]["keys"][0].clone();
    join_all(["signed.sh", "signed.py", "signed.mjs"].map(|title| check(title, &jwk, key_file.clone()))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn example_with_a_token_of_the_platform_in_jobs_md_waits_and_gives_up_as_the_page_says() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let issuer = TestIssuer::new(CLUSTER, PrivateKey::rsa(0));
    let token = issuer.token(json!([address(&listener)]), kubernetes_claims("jobs", "nightly-sync")).sign(&issuer.key);
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token").to_str().expect("the path is UTF-8").to_owned();
    std::fs::write(&token_file, token).unwrap();
    let mut setup = Setup::default();
    let mut policy = setup.policy();
    let claims = json!({ "sub": "system:serviceaccount:jobs:nightly-sync" });
    let identities = json!([{ "issuer": "cluster", "claims": claims }]);
    set(&mut policy[&setup.nightly.name], json!({ "secret_sha256": null, "identities": identities }));
    setup.variables.push(("callers", policy.to_string()));
    let issuers = json!({ "cluster": { "issuer": CLUSTER, "jwks": issuer.jwks() } });
    setup.variables.push(("issuers", issuers.to_string()));
    run("platform.sh", setup, listener, ("TOKEN_FILE", token_file)).await;
}
