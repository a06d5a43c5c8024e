//! Compiled components on disk, so that the second start of a component does not compile it
//! again.
//!
//! The key of an entry is made of the component's bytes and of wasmtime's version and settings.
//! Entries are in the Cargo target folder that holds the component. A component outside of such
//! a folder is compiled at each start, because its folder is not a place for files that a
//! program leaves behind.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

/// File with which Cargo marks a target folder: everything in it can be made again.
const MARK: &str = "CACHEDIR.TAG";

/// Folder of the entries, in the target folder.
const FOLDER: &str = "compiled";

/// Most entries that one folder keeps. The component and the benchmark's floors need six, with
/// and without their instructions counted.
const MOST_ENTRIES: usize = 8;

/// Whether a component was compiled now or found in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Compiled,
    Cached,
}

/// Returns the component with these `bytes`, which were read from `source`.
///
/// If the cache cannot be read or written, the component is compiled, and that is not an error.
/// Processes that start at the same time may each compile it.
pub(super) fn load(engine: &Engine, source: &Path, bytes: &[u8]) -> wasmtime::Result<(Component, Origin)> {
    let Some(folder) = folder_of(source) else {
        return Ok((Component::from_binary(engine, bytes)?, Origin::Compiled));
    };
    let entry = folder.join(name_of(engine, bytes));
    if let Some(component) = read(engine, &entry) {
        return Ok((component, Origin::Cached));
    }
    let component = Component::from_binary(engine, bytes)?;
    if let Ok(compiled) = component.serialize() {
        // If this fails, the next start compiles again.
        drop(write(&entry, &compiled));
    }
    Ok((component, Origin::Compiled))
}

fn folder_of(source: &Path) -> Option<PathBuf> {
    let target = source.ancestors().skip(1).find(|folder| folder.join(MARK).is_file())?;
    Some(target.join(FOLDER))
}

/// Returns the file name of an entry. Wasmtime's hash covers its version and all settings that
/// the compiled code depends on.
fn name_of(engine: &Engine, bytes: &[u8]) -> String {
    let mut settings = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut settings);
    let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{digest}-{:016x}.cwasm", settings.finish())
}

/// Reads an entry; `None` if it is missing, damaged, or from another wasmtime.
fn read(engine: &Engine, entry: &Path) -> Option<Component> {
    // SAFETY: wasmtime runs the file as machine code, so the file must be what `serialize`
    // returned, and must not change. An entry is written whole and never changed, and only the
    // same component and the same wasmtime have its name. The folder belongs to the target
    // folder: a user who can write there can already replace the component and this program.
    #[expect(unsafe_code, reason = "wasmtime has no safe function that loads compiled code")]
    let component = unsafe { Component::deserialize_file(engine, entry) };
    component.ok()
}

/// Writes the entry under another name and renames it, so that no process reads half of it.
fn write(entry: &Path, compiled: &[u8]) -> io::Result<()> {
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    let folder = entry.parent().expect("an entry is in a folder");
    fs::create_dir_all(folder)?;
    let temporary = format!("{}-{}.tmp", std::process::id(), WRITTEN.fetch_add(1, Ordering::Relaxed));
    let temporary = folder.join(temporary);
    let written = File::create_new(&temporary).and_then(|mut file| {
        file.write_all(compiled)?;
        // Otherwise a power failure could leave an entry under its final name with a part
        // missing.
        file.sync_all()
    });
    let renamed = written.and_then(|()| fs::rename(&temporary, entry));
    if renamed.is_err() {
        drop(fs::remove_file(&temporary));
    }
    renamed?;
    remove_oldest(folder)
}

/// Removes all but the newest entries. A process that runs a removed one keeps it, because the
/// file is mapped.
fn remove_oldest(folder: &Path) -> io::Result<()> {
    let mut files: Vec<(SystemTime, PathBuf)> = Vec::new();
    for file in fs::read_dir(folder)? {
        let file = file?;
        files.push((file.metadata()?.modified()?, file.path()));
    }
    files.sort_unstable();
    let surplus = files.len().saturating_sub(MOST_ENTRIES);
    files.iter().take(surplus).try_for_each(|(_, path)| fs::remove_file(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Smallest component: a header without sections.
    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    /// Another small component: its custom section `n` contains `number`.
    fn numbered(number: u8) -> Vec<u8> {
        [EMPTY, &[0, 3, 1, b'n', number]].concat()
    }

    /// A folder marked as a Cargo target folder, and the path of a component in it.
    fn target() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(MARK), "").unwrap();
        let source = folder.path().join("wasm32-wasip2/release/component.wasm");
        (folder, source)
    }

    fn entries(folder: &Path) -> Vec<PathBuf> {
        fs::read_dir(folder.join(FOLDER)).unwrap().map(|file| file.unwrap().path()).collect()
    }

    fn origin(engine: &Engine, source: &Path, bytes: &[u8]) -> Origin {
        load(engine, source, bytes).unwrap().1
    }

    #[test]
    fn component_loaded_again_is_not_compiled_again() {
        let (_folder, source) = target();
        assert_eq!(origin(&Engine::default(), &source, EMPTY), Origin::Compiled);
        assert_eq!(origin(&Engine::default(), &source, EMPTY), Origin::Cached);
    }

    #[test]
    fn component_with_other_bytes_or_settings_is_compiled() {
        let (_folder, source) = target();
        assert_eq!(origin(&Engine::default(), &source, EMPTY), Origin::Compiled);
        assert_eq!(origin(&Engine::default(), &source, &numbered(1)), Origin::Compiled);
        let metered = Engine::new(wasmtime::Config::new().consume_fuel(true)).unwrap();
        assert_eq!(origin(&metered, &source, EMPTY), Origin::Compiled);
        assert_eq!(origin(&metered, &source, EMPTY), Origin::Cached);
        assert_eq!(origin(&Engine::default(), &source, EMPTY), Origin::Cached);
    }

    #[test]
    fn damaged_entry_is_compiled_again_and_replaced() {
        let (folder, source) = target();
        let engine = Engine::default();
        origin(&engine, &source, EMPTY);
        let [entry] = &entries(folder.path())[..] else { panic!("one entry") };
        let whole = fs::read(entry).unwrap();
        for damaged in [&b""[..], b"no component", &whole[..whole.len() / 2]] {
            fs::write(entry, damaged).unwrap();
            assert_eq!(origin(&engine, &source, EMPTY), Origin::Compiled);
            assert_eq!(fs::read(entry).unwrap(), whole);
            assert_eq!(origin(&engine, &source, EMPTY), Origin::Cached);
        }
    }

    #[test]
    fn component_with_an_unwritable_cache_is_compiled() {
        let (folder, source) = target();
        // A file in the place of the folder.
        fs::write(folder.path().join(FOLDER), "").unwrap();
        assert_eq!(origin(&Engine::default(), &source, EMPTY), Origin::Compiled);
        assert_eq!(origin(&Engine::default(), &source, EMPTY), Origin::Compiled);
    }

    #[test]
    fn component_outside_a_target_folder_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("component.wasm");
        assert_eq!(origin(&Engine::default(), &source, EMPTY), Origin::Compiled);
        assert_eq!(origin(&Engine::default(), &source, EMPTY), Origin::Compiled);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn full_folder_loses_its_oldest_entry() {
        let (folder, source) = target();
        let engine = Engine::default();
        for number in 0..=MOST_ENTRIES as u8 {
            assert_eq!(origin(&engine, &source, &numbered(number)), Origin::Compiled);
        }
        assert_eq!(entries(folder.path()).len(), MOST_ENTRIES);
        assert_eq!(origin(&engine, &source, &numbered(MOST_ENTRIES as u8)), Origin::Cached);
    }
}
