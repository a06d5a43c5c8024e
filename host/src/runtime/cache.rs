//! Compiled components on disk, so that a second start of the same component compiles nothing.
//!
//! An entry is found by what it was compiled from: the component's bytes, and the version and settings of wasmtime.
//! The entries are in Cargo's target folder that holds the component. A component outside of such a folder is
//! compiled each time, so that nothing is written where nobody expects it.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

/// By this file Cargo marks a target folder as one that holds nothing but what can be made again.
const MARK: &str = "CACHEDIR.TAG";

/// The folder of the entries, in the target folder.
const FOLDER: &str = "compiled";

/// Most entries that are kept, the newest ones. Today there are four: the component and three that the tests compare
/// with it, all of them with instructions counted or not.
const MOST_ENTRIES: usize = 8;

/// Whether a component was compiled or found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Compiled,
    Cached,
}

/// Returns the component with these `bytes`, which were read from `source`.
///
/// A cache that cannot be read or written is no error: the component is compiled. Processes that start at the same time
/// may each compile it.
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
        // The next start compiles again.
        drop(write(&entry, &compiled));
    }
    Ok((component, Origin::Compiled))
}

fn folder_of(source: &Path) -> Option<PathBuf> {
    let target = source.ancestors().skip(1).find(|folder| folder.join(MARK).is_file())?;
    Some(target.join(FOLDER))
}

/// The name of an entry. Wasmtime's hash covers its version and every setting that the compiled code depends on.
fn name_of(engine: &Engine, bytes: &[u8]) -> String {
    let mut settings = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut settings);
    let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{digest}-{:016x}.cwasm", settings.finish())
}

/// Returns `None` when the entry is missing, damaged, or of another wasmtime.
fn read(engine: &Engine, entry: &Path) -> Option<Component> {
    // SAFETY: wasmtime runs what is in the file as machine code, so the file must be what `serialize` returned and must
    // not change. Entries are written whole and never changed, under a name that only the same component and the same
    // wasmtime have. The folder is next to the component: whoever can write there can also replace the component, or
    // this very program.
    #[expect(unsafe_code, reason = "the only way to load a component that is compiled")]
    let component = unsafe { Component::deserialize_file(engine, entry) };
    component.ok()
}

/// Writes the entry under another name and renames it, so that no process ever reads half of it.
fn write(entry: &Path, compiled: &[u8]) -> io::Result<()> {
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    let folder = entry.parent().expect("an entry is in a folder");
    fs::create_dir_all(folder)?;
    let temporary = format!("{}-{}.tmp", std::process::id(), WRITTEN.fetch_add(1, Ordering::Relaxed));
    let temporary = folder.join(temporary);
    let written = File::create_new(&temporary).and_then(|mut file| {
        file.write_all(compiled)?;
        // Without it, a machine that loses power can leave an entry of the right name with a part missing.
        file.sync_all()
    });
    let renamed = written.and_then(|()| fs::rename(&temporary, entry));
    if renamed.is_err() {
        drop(fs::remove_file(&temporary));
    }
    renamed?;
    remove_oldest(folder)
}

/// Removes all but the newest entries. A process that is running one of them keeps it: its file is mapped.
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

    /// The smallest component: a header and no section.
    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    /// Another one: with a custom section named `n` whose content is `number`.
    fn numbered(number: u8) -> Vec<u8> {
        [EMPTY, &[0, 3, 1, b'n', number]].concat()
    }

    /// A folder that Cargo might have made, and a component in it.
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
    fn component_loaded_twice_is_compiled_once() {
        let (_folder, source) = target();
        assert_eq!(origin(&Engine::default(), &source, EMPTY), Origin::Compiled);
        assert_eq!(origin(&Engine::default(), &source, EMPTY), Origin::Cached);
    }

    #[test]
    fn other_bytes_or_other_settings_are_compiled_anew() {
        let (_folder, source) = target();
        assert_eq!(origin(&Engine::default(), &source, EMPTY), Origin::Compiled);
        assert_eq!(origin(&Engine::default(), &source, &numbered(1)), Origin::Compiled);
        let metered = Engine::new(wasmtime::Config::new().consume_fuel(true)).unwrap();
        assert_eq!(origin(&metered, &source, EMPTY), Origin::Compiled);
        assert_eq!(origin(&metered, &source, EMPTY), Origin::Cached);
        assert_eq!(origin(&Engine::default(), &source, EMPTY), Origin::Cached);
    }

    #[test]
    fn damaged_entry_is_replaced() {
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
    fn unwritable_cache_is_no_error() {
        let (folder, source) = target();
        // A file where the folder should be.
        fs::write(folder.path().join(FOLDER), "").unwrap();
        assert_eq!(origin(&Engine::default(), &source, EMPTY), Origin::Compiled);
        assert_eq!(origin(&Engine::default(), &source, EMPTY), Origin::Compiled);
    }

    #[test]
    fn component_outside_of_a_target_folder_leaves_no_entry() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("component.wasm");
        assert_eq!(origin(&Engine::default(), &source, EMPTY), Origin::Compiled);
        assert_eq!(origin(&Engine::default(), &source, EMPTY), Origin::Compiled);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn older_entries_are_removed() {
        let (folder, source) = target();
        let engine = Engine::default();
        for number in 0..=MOST_ENTRIES as u8 {
            assert_eq!(origin(&engine, &source, &numbered(number)), Origin::Compiled);
        }
        assert_eq!(entries(folder.path()).len(), MOST_ENTRIES);
        assert_eq!(origin(&engine, &source, &numbered(MOST_ENTRIES as u8)), Origin::Cached);
    }
}
