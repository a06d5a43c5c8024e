//! The folder of a release: the program `broker` runs the component in it, without the sources.

use std::fs;
use std::process::Command;

use serde_json::Value;
use tests::{Program, component_for_spin, component_for_wasi, installed, root};

#[test]
fn folder_of_a_release_runs_the_component_that_its_manifest_means() {
    // For `jq`, which release/describe needs.
    installed();
    let folder = tempfile::tempdir().unwrap();
    let component = folder.path().join("officernd-token-broker-spin.wasm");
    fs::copy(component_for_spin(), &component).unwrap();
    fs::copy(component_for_wasi(), folder.path().join("officernd-token-broker-wasi.wasm")).unwrap();
    let mut describe = Command::new(root().join("release/describe"));
    let described = describe.arg("--url=https://downloads.example.com/v1").arg(folder.path()).output().unwrap();
    assert!(described.status.success(), "{}", String::from_utf8_lossy(&described.stderr));

    let manifest = folder.path().join("spin.toml");
    let arguments = ["--listen", "127.0.0.1:0", "--manifest", manifest.to_str().unwrap()];
    let program = Program::start(&arguments, &[]);
    let lines = program.lines_until(|line| line.starts_with("curl "));
    let curl = lines.last().filter(|line| line.starts_with("curl ")).unwrap_or_else(|| panic!("{}", program.stderr()));
    let answer = Command::new("sh").args(["-c", curl]).output().unwrap().stdout;
    let answer: Value = serde_json::from_slice(&answer).unwrap_or_else(|_| panic!("{answer:?} {}", program.stderr()));
    assert_eq!(answer["token_type"], "Bearer");
    assert!(!program.stderr().contains("Building"), "{}", program.stderr());

    let refused = |what: &str, expected: &str| {
        let ended = Program::run(&arguments, "", folder.path());
        assert!(ended.code == 1 && ended.stderr.contains(expected), "{what}: {ended:?}");
    };
    fs::copy(component_for_wasi(), &component).unwrap();
    refused("another component", "expected");
    fs::remove_file(&component).unwrap();
    refused("no component", "does not download");
}
