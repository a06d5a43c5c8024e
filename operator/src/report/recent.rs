//! A memory of the last keys, with a bound.

use std::collections::HashMap;
use std::hash::Hash;
use std::mem;

/// Keys with values. When the newer generation is full, the older one is forgotten, so the last `N` keys
/// are always known, and at most `2 * N`.
pub(super) struct Recent<K, V, const N: usize> {
    newer: HashMap<K, V>,
    older: HashMap<K, V>,
}

impl<K: Hash + Eq + Copy, V, const N: usize> Recent<K, V, N> {
    pub(super) fn new() -> Self {
        Self { newer: HashMap::with_capacity(N), older: HashMap::with_capacity(N) }
    }

    /// Sets a value, and makes its key the newest. Returns the old value.
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let old = self.newer.insert(key, value);
        if old.is_some() {
            return old;
        }
        let old = self.older.remove(&key);
        if self.newer.len() >= N {
            mem::swap(&mut self.newer, &mut self.older);
            self.newer.clear();
        }
        old
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.newer.get(key).or_else(|| self.older.get(key))
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        if self.newer.is_empty() && self.older.is_empty() {
            return None;
        }
        self.newer.remove(key).or_else(|| self.older.remove(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_keys_are_known_and_old_ones_forgotten() {
        let mut recent = Recent::<u32, u32, 10>::new();
        for key in 0..100 {
            assert_eq!(recent.insert(key, key + 1), None);
            // A key in use is never forgotten.
            assert_eq!(recent.insert(0, 1), Some(1));
            let last = key.saturating_sub(8)..=key;
            assert!(last.into_iter().all(|known| recent.get(&known) == Some(&(known + 1))));
            assert!(recent.newer.len() + recent.older.len() <= 20);
        }
        assert_eq!(recent.get(&50), None);
        assert_eq!((recent.remove(&99), recent.remove(&99)), (Some(100), None));
    }
}
