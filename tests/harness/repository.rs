//! Paths and text of this repository's files.

use std::fs;
use std::path::Path;

/// Root folder of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package is in a workspace")
}

/// Reads a file by its path from the root.
///
/// # Panics
/// If the file cannot be read.
#[track_caller]
pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
