//! The component, built once in a process for each kind of host.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use broker_host::Manifest;

use crate::repository::{read, root};

/// The manifest of a component that is built.
pub(crate) fn manifest() -> Manifest {
    static BUILT: OnceLock<()> = OnceLock::new();
    let manifest = Manifest::read(&root().join("spin.toml")).expect("spin.toml is for this host too");
    BUILT.get_or_init(|| broker_host::build(&manifest).expect("the component builds"));
    manifest
}

/// The same for the component that tells what it allocates (`tests/allocations`), in a folder of its own: what it consists of is
/// compiled in another way there, and is of the same name.
pub(crate) fn manifest_of_allocations() -> Manifest {
    let text = read("spin.toml");
    let folder = tempfile::tempdir().expect("there is room");
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
    std::fs::write(&path, text).expect("there is room");
    let manifest = Manifest::read(&path).expect("it is spin.toml but for the component");
    broker_host::build(&manifest).expect("the component builds");
    manifest
}

/// The component for Spin.
pub fn component_for_spin() -> PathBuf {
    drop(manifest());
    root().join("target/wasm32-wasip2/release/officernd_token_broker.wasm")
}

/// The component for other hosts.
pub fn component_for_wasi() -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        // The compiler's target comes with the build for Spin.
        drop(manifest());
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = crate::program::as_from_a_shell(Command::new(cargo));
        let status = command.arg("build-wasi").current_dir(root()).stdout(Stdio::null()).status();
        assert!(status.expect("there is a cargo").success(), "cargo build-wasi fails");
    });
    root().join("target/wasi/wasm32-wasip2/release/officernd_token_broker.wasm")
}
