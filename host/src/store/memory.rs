//! The key-value store in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

#[derive(Clone, Default)]
pub(super) struct Memory(Arc<Mutex<Entries>>);

/// Values by label and key.
type Entries = BTreeMap<(String, String), Vec<u8>>;

impl Memory {
    pub(super) fn get(&self, label: &str, key: &str) -> Option<Vec<u8>> {
        self.entries().get(&(label.into(), key.into())).cloned()
    }

    pub(super) fn set(&self, label: &str, key: &str, value: Vec<u8>) {
        self.entries().insert((label.into(), key.into()), value);
    }

    pub(super) fn delete(&self, label: &str, key: &str) {
        self.entries().remove(&(label.into(), key.into()));
    }

    pub(super) fn keys(&self, label: &str) -> Vec<String> {
        self.entries().keys().filter(|(of, _)| of == label).map(|(_, key)| key.clone()).collect()
    }

    pub(super) fn entries_of(&self, label: &str) -> Vec<(String, Vec<u8>)> {
        let entries = self.entries();
        let of_label = entries.iter().filter(|((of, _), _)| of == label);
        of_label.map(|((_, key), value)| (key.clone(), value.clone())).collect()
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().expect("nothing panics while it holds the entries")
    }
}
