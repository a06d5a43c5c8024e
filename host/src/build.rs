//! Runs the build command of `spin.toml`.

use std::io::stderr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail, ensure};

use crate::spin::manifest::Manifest;

const TARGET: &str = "wasm32-wasip2";

/// Builds the component as `spin build` does, after adding the compiler's target when it is missing. Progress goes to
/// stderr. When nothing has changed it takes a fraction of a second, and processes may call it at the same time:
/// Cargo takes care of that. A manifest without a build command has nothing to do.
///
/// # Errors
///
/// When the target can neither be found nor added, or when the command fails.
pub fn build(manifest: &Manifest) -> anyhow::Result<()> {
    let Some(command) = &manifest.build_command else {
        return Ok(());
    };
    if command.contains(TARGET) {
        add_target(&manifest.folder)?;
    }
    say(&format!("Building the component: {command}"));
    let mut shell = Command::new("sh");
    // What cargo tells a program that it runs, build scripts look at: they would run anew for each way of coming here.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            shell.env_remove(&name);
        }
    }
    let status = shell
        .args(["-c", command])
        .current_dir(&manifest.folder)
        // The manifest says where the component ends up, so a target folder of the caller's own must not move it.
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("CARGO_BUILD_TARGET_DIR")
        // stdout is for what `broker` has to say.
        .stdout(stderr())
        .status()
        .context("cannot start sh")?;
    ensure!(status.success(), "the build command of spin.toml failed ({status}): {command}");
    Ok(())
}

/// Makes sure that the compiler in `folder` can compile for [`TARGET`].
fn add_target(folder: &Path) -> anyhow::Result<()> {
    // Asks the compiler and not rustup, which a distribution's Rust does without.
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", TARGET]).current_dir(folder);
    let answer = rustc.stderr(stderr()).output().context("cannot start rustc: is Rust installed?")?;
    ensure!(answer.status.success(), "rustc does not know the target {TARGET}: it must be version 1.82 or later");
    if Path::new(String::from_utf8_lossy(&answer.stdout).trim()).exists() {
        return Ok(());
    }
    say(&format!("Adding the target {TARGET}: rustup target add {TARGET}"));
    let added = Command::new("rustup").args(["target", "add", TARGET]).current_dir(folder).stdout(stderr()).status();
    match added {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!("rustup target add {TARGET} failed ({status})"),
        Err(error) => Err(error)
            .with_context(|| format!("Rust lacks the target {TARGET}, and rustup cannot be started to add it")),
    }
}

fn say(line: &str) {
    // Progress that nobody can read is no reason to stop.
    drop(std::io::Write::write_all(&mut stderr(), format!("{line}\n").as_bytes()));
}
