//! Examples of docs/jobs.md whose job has a key of its own, which it makes as the page says.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tests::{MEMBERS, Setup, run_peer_with, set};

const RUN_EXAMPLES: &str = "run_examples.py";

/// Runs an example against a broker that has the public key, and expects it to wait and to give up
/// as the page says.
async fn check(title: &'static str, jwk: &Value, key_file: String) {
    // An assertion names the address of its broker, which the example reaches through this socket.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut setup = Setup::default();
    let mut policy = setup.policy();
    set(&mut policy[&setup.nightly.name], json!({ "secret_sha256": null, "keys": [jwk] }));
    setup.variables.push(("callers", policy.to_string()));
    setup.variables.push(("public_url", format!("https://localhost:{}", listener.local_addr().unwrap().port())));
    let broker = setup.start().await;
    let (url, name) = (format!("http://{}", broker.server.addr()), broker.setup.nightly.name.clone());
    let run = move || {
        let environment = [("BROKER_URL", &*url), ("CLIENT_ID", &name), ("KEY_FILE", &key_file), ("SCOPE", MEMBERS)];
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
    let jwk: Value = serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"));
    join_all(["signed.sh", "signed.py", "signed.mjs"].map(|title| check(title, &jwk, key_file.clone()))).await;
}
