//! The compiler that the measured costs belong to.

use std::process::Command;

/// Returns a note if the present compiler is not the one that docs/testing.md names under
/// "Toolchain of the costs", and an empty text if it is. A failing cost test prints this note,
/// because costs change with the compiler although no source has changed.
///
/// # Panics
/// When `page` names no compiler, or `rustc` does not run.
pub fn toolchain_note(page: &str) -> String {
    let named = page.split_once("belong to\n**Rust ").and_then(|(_, rest)| rest.split_once("**"));
    let (of_costs, _) = named.expect("docs/testing.md says: belong to **Rust VERSION**");
    let output = Command::new("rustc").arg("--version").output().expect("rustc is installed");
    let present = String::from_utf8_lossy(&output.stdout);
    let is_same = |version: &str| version == of_costs || version.starts_with(&format!("{of_costs}."));
    if present.split_whitespace().nth(1).is_some_and(is_same) {
        return String::new();
    }
    format!("the costs on the page belong to Rust {of_costs}, and this is {}\n", present.trim())
}
