//! The key-value store that instances share: in memory, in SQLite or in Redis, with faults on
//! request.

mod faults;
mod memory;
mod redis;
mod sqlite;

use std::path::Path;

use self::faults::Present;
pub(crate) use self::faults::{Call, Running};
pub use self::faults::{Fail, Faults};
use self::memory::Memory;
use self::redis::Redis;
use self::sqlite::Sqlite;

/// A key-value store. Clones share its contents, so a test that keeps a clone keeps the
/// contents after the server has ended.
#[derive(Clone)]
pub struct KeyValue {
    backend: Backend,
    faults: Present,
}

#[derive(Clone)]
enum Backend {
    Memory(Memory),
    Sqlite(Sqlite),
    Redis(Redis),
}

impl KeyValue {
    /// Creates an empty store in memory.
    pub fn memory() -> Self {
        Self::new(Backend::Memory(Memory::default()))
    }

    /// Opens the store in the file `sqlite_key_value.db` in `folder`, and creates what is
    /// missing. Spin can use the same file, because the layout is the same.
    ///
    /// # Errors
    ///
    /// If the folder or the file cannot be created or opened.
    pub fn sqlite(folder: &Path) -> anyhow::Result<Self> {
        Ok(Self::new(Backend::Sqlite(Sqlite::open(folder)?)))
    }

    /// Uses the Redis server at `url` (`redis://host:port/database`) as the store. As with
    /// Spin, the label of the store is not part of the key. The first call connects, and no call
    /// has a time limit; [`check`](Self::check) tells at once whether the server is there.
    ///
    /// # Errors
    ///
    /// If `url` is not such a URL.
    pub fn redis(url: &str) -> anyhow::Result<Self> {
        Ok(Self::new(Backend::Redis(Redis::new(url)?)))
    }

    fn new(backend: Backend) -> Self {
        Self { backend, faults: Present::default() }
    }

    /// Sets the faults of the calls that components make, on all clones. The methods below
    /// never suffer from faults.
    pub fn set_faults(&self, faults: Faults) {
        self.faults.set(faults);
    }

    /// Checks that the store can be reached.
    ///
    /// # Errors
    ///
    /// If it cannot be reached, after at most a few seconds.
    pub async fn check(&self) -> anyhow::Result<()> {
        match &self.backend {
            Backend::Memory(_) | Backend::Sqlite(_) => Ok(()),
            Backend::Redis(redis) => redis.check().await,
        }
    }

    /// Does what happens in Spin when a component opens a store.
    ///
    /// # Errors
    ///
    /// If the backend fails.
    pub(crate) async fn open(&self) -> anyhow::Result<()> {
        match &self.backend {
            Backend::Memory(_) | Backend::Sqlite(_) => Ok(()),
            Backend::Redis(redis) => redis.open().await,
        }
    }

    /// Returns the value of `key` in the store `label`.
    ///
    /// # Errors
    ///
    /// If the backend fails.
    pub async fn get(&self, label: &str, key: &str) -> anyhow::Result<Option<Vec<u8>>> {
        match &self.backend {
            Backend::Memory(memory) => Ok(memory.get(label, key)),
            Backend::Sqlite(sqlite) => sqlite.get(label, key).await,
            Backend::Redis(redis) => redis.get(key).await,
        }
    }

    /// Writes `value` under `key`.
    ///
    /// # Errors
    ///
    /// If the backend fails.
    pub async fn set(&self, label: &str, key: &str, value: Vec<u8>) -> anyhow::Result<()> {
        match &self.backend {
            Backend::Memory(memory) => {
                memory.set(label, key, value);
                Ok(())
            }
            Backend::Sqlite(sqlite) => sqlite.set(label, key, value).await,
            Backend::Redis(redis) => redis.set(key, value).await,
        }
    }

    /// Removes `key` if it exists.
    ///
    /// # Errors
    ///
    /// If the backend fails.
    pub async fn delete(&self, label: &str, key: &str) -> anyhow::Result<()> {
        match &self.backend {
            Backend::Memory(memory) => {
                memory.delete(label, key);
                Ok(())
            }
            Backend::Sqlite(sqlite) => sqlite.delete(label, key).await,
            Backend::Redis(redis) => redis.delete(key).await,
        }
    }

    /// Returns whether `key` exists.
    ///
    /// # Errors
    ///
    /// If the backend fails.
    pub async fn exists(&self, label: &str, key: &str) -> anyhow::Result<bool> {
        Ok(self.get(label, key).await?.is_some())
    }

    /// Returns all keys of the store `label`, in any order.
    ///
    /// # Errors
    ///
    /// If the backend fails.
    pub async fn keys(&self, label: &str) -> anyhow::Result<Vec<String>> {
        match &self.backend {
            Backend::Memory(memory) => Ok(memory.keys(label)),
            Backend::Sqlite(sqlite) => sqlite.keys(label).await,
            Backend::Redis(redis) => redis.keys().await,
        }
    }

    /// Returns everything in the store `label`. Blocks, and works without the runtime that the
    /// other methods need, so a caller that cannot await may use it.
    ///
    /// # Errors
    ///
    /// If the backend fails.
    pub fn entries(&self, label: &str) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
        match &self.backend {
            Backend::Memory(memory) => Ok(memory.entries_of(label)),
            Backend::Sqlite(sqlite) => sqlite.entries(label),
            Backend::Redis(redis) => redis.entries(),
        }
    }

    /// Applies the faults to one call of a component, which runs until the result is dropped.
    pub(crate) async fn begin(&self, call: Call<'_>) -> anyhow::Result<Running> {
        self.faults.apply(call).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks what every backend must do, on an empty store that nothing else uses.
    async fn check(store: &KeyValue) -> anyhow::Result<()> {
        assert_eq!(store.get("default", "a").await?, None);
        assert!(!store.exists("default", "a").await?);
        store.delete("default", "a").await?;

        store.set("default", "a", b"one".to_vec()).await?;
        store.set("default", "b:\u{e9}", vec![0, 255]).await?;
        store.set("default", "a", b"two".to_vec()).await?;
        assert_eq!(store.get("default", "a").await?, Some(b"two".to_vec()));
        assert_eq!(store.get("default", "b:\u{e9}").await?, Some(vec![0, 255]));
        assert!(store.exists("default", "a").await?);

        let mut keys = store.keys("default").await?;
        keys.sort();
        assert_eq!(keys, ["a", "b:\u{e9}"]);
        let mut entries = store.entries("default")?;
        entries.sort();
        assert_eq!(entries, [("a".into(), b"two".to_vec()), ("b:\u{e9}".into(), vec![0, 255])]);
        assert!(store.entries("other")?.is_empty());
        store.delete("default", "a").await?;
        assert_eq!(store.get("default", "a").await?, None);
        assert_eq!(store.keys("default").await?, ["b:\u{e9}"]);
        store.delete("default", "b:\u{e9}").await
    }

    #[tokio::test]
    async fn memory_store_returns_written_values() {
        check(&KeyValue::memory()).await.unwrap();
    }

    #[tokio::test]
    async fn sqlite_store_returns_written_values_also_to_another_process() {
        let folder = std::env::temp_dir().join(format!("host-key-value-{}", std::process::id()));
        let one = KeyValue::sqlite(&folder).unwrap();
        // Another process would have a second connection to the same file, as this is.
        let two = KeyValue::sqlite(&folder).unwrap();
        check(&one).await.unwrap();
        one.set("default", "k", b"v".to_vec()).await.unwrap();
        assert_eq!(two.get("default", "k").await.unwrap(), Some(b"v".to_vec()));
        assert_eq!(two.get("other", "k").await.unwrap(), None);
        let mut writes = tokio::task::JoinSet::new();
        for i in 0..50 {
            let store = if i % 2 == 0 { one.clone() } else { two.clone() };
            writes.spawn(async move { store.set("default", &format!("k{i}"), b"v".to_vec()).await });
        }
        for written in writes.join_all().await {
            written.unwrap();
        }
        assert_eq!(one.keys("default").await.unwrap().len(), 51);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[tokio::test]
    async fn unreachable_redis_is_an_error_at_the_start_and_a_wait_afterwards() {
        // No program listens on port 1 of loopback.
        let store = KeyValue::redis("redis://127.0.0.1:1").unwrap();
        let error = format!("{:#}", store.check().await.unwrap_err());
        assert!(error.contains("127.0.0.1:1"), "{error}");
        // As in Spin, a call waits until the server is there.
        let get = tokio::time::timeout(std::time::Duration::from_millis(200), store.get("default", "a"));
        assert!(get.await.is_err(), "a call that has not waited");
        assert!(KeyValue::redis("http://127.0.0.1").is_err());
    }
}
