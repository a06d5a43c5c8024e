//! Runs the build command of `spin.toml`.

use std::io::stderr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail, ensure};
use broker_operator::spin::Manifest;

const TARGET: &str = "wasm32-wasip2";

/// Builds the component as `spin build` does, and first adds the compiler's target if it is
/// missing.
///
/// Progress goes to stderr. An unchanged component takes a fraction of a second. Several
/// processes may build at the same time, because Cargo locks the target folder. Without a build
/// command in the manifest, nothing is built.
///
/// # Errors
///
/// If the target can be neither found nor added, or if the command fails.
pub fn build(manifest: &Manifest) -> anyhow::Result<()> {
    let Some(command) = &manifest.build_command else {
        return Ok(());
    };
    if command.contains(TARGET) {
        add_target(&manifest.folder)?;
    }
    say(&format!("Building the component: {command}"));
    let mut shell = Command::new("sh");
    // `cargo run` sets these variables for the program that it runs, and build scripts read
    // them. If they were passed on, the build scripts would run again whenever `broker` is
    // started in another way.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            shell.env_remove(&name);
        }
    }
    let status = shell
        .args(["-c", command])
        .current_dir(&manifest.folder)
        // The manifest names the component's file, so the build must not write to another
        // target folder.
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("CARGO_BUILD_TARGET_DIR")
        // stdout is only for the lines that `broker` prints itself.
        .stdout(stderr())
        .status()
        .context("cannot start sh")?;
    ensure!(status.success(), "the build command of spin.toml failed ({status}): {command}");
    Ok(())
}

/// Adds [`TARGET`] if the compiler that `folder` uses does not have it.
fn add_target(folder: &Path) -> anyhow::Result<()> {
    // Asks the compiler, because the Rust of a Linux distribution comes without rustup.
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", TARGET]).current_dir(folder);
    let answer = rustc.stderr(stderr()).output().context("cannot start rustc: is Rust installed?")?;
    ensure!(answer.status.success(), "rustc does not know the target {TARGET}, expected Rust 1.82 or later");
    if Path::new(String::from_utf8_lossy(&answer.stdout).trim()).exists() {
        return Ok(());
    }
    say(&format!("Adding the target {TARGET}: rustup target add {TARGET}"));
    let added = Command::new("rustup").args(["target", "add", TARGET]).current_dir(folder).stdout(stderr()).status();
    match added {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!("rustup target add {TARGET} failed ({status})"),
        Err(error) => Err(error)
            .with_context(|| format!("the Rust target {TARGET} is missing, and rustup cannot be started to add it")),
    }
}

fn say(line: &str) {
    // A closed stderr must not stop the build.
    drop(std::io::Write::write_all(&mut stderr(), format!("{line}\n").as_bytes()));
}
