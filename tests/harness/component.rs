//! Builds of the component, each made once per process.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use broker_host::Manifest;

use crate::repository::{read, root};

/// Builds the component for Spin and returns its manifest.
pub(crate) fn manifest() -> Manifest {
    static BUILT: OnceLock<()> = OnceLock::new();
    let manifest = Manifest::read(&root().join("spin.toml")).expect("the dev host reads spin.toml");
    BUILT.get_or_init(|| broker_host::build(&manifest).expect("the component builds"));
    manifest
}

/// Builds the component that logs its allocations (`tests/allocations`) and returns its
/// manifest. Its target folder is its own: the core is compiled differently there, into a file
/// of the same name.
pub(crate) fn manifest_of_allocations() -> Manifest {
    let text = read("spin.toml");
    let folder = tempfile::tempdir().expect("the disk has room");
    let root = root().display();
    let text = text
        .replace(
            "target/wasm32-wasip2/release/officernd_token_broker.wasm",
            "target/allocations/wasm32-wasip2/release/allocations.wasm",
        )
        .replace("--package officernd-token-broker", "--package allocations --target-dir target/allocations")
        .replace("source = \"", &format!("source = \"{root}/"))
        .replace("command = \"", &format!("command = \"cd '{root}' && "));
    assert!(text.contains("--package allocations ") && text.contains("/allocations.wasm\""), "{text}");
    let path = folder.path().join("spin.toml");
    std::fs::write(&path, text).expect("the disk has room");
    let manifest = Manifest::read(&path).expect("it differs from spin.toml only in the component");
    broker_host::build(&manifest).expect("the component builds");
    manifest
}

/// Builds the component for Spin and returns its path.
pub fn component_for_spin() -> PathBuf {
    drop(manifest());
    root().join("target/wasm32-wasip2/release/officernd_token_broker.wasm")
}

/// Builds the component for other hosts and returns its path.
pub fn component_for_wasi() -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        // The build for Spin also adds the compiler's target.
        drop(manifest());
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = crate::program::as_from_a_shell(Command::new(cargo));
        let status = command.arg("build-wasi").current_dir(root()).stdout(Stdio::null()).status();
        assert!(status.expect("cargo starts").success(), "cargo build-wasi fails");
    });
    root().join("target/wasi/wasm32-wasip2/release/officernd_token_broker.wasm")
}
