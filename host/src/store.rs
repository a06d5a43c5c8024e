//! The key-value store and its backends.

mod memory;
mod redis;
mod sqlite;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::bail;

use self::memory::Memory;
use self::redis::Redis;
use self::sqlite::Sqlite;

/// A key-value backend. Clones are the same store, so it outlives a server when the caller keeps one.
#[derive(Clone)]
pub struct KeyValue {
    backend: Backend,
    /// And how many calls they have met.
    faults: Arc<Mutex<(Faults, u64)>>,
}

#[derive(Clone)]
enum Backend {
    Memory(Memory),
    Sqlite(Sqlite),
    Redis(Redis),
}

/// What goes wrong whenever a component calls the store.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Which calls fail, with the error `other`.
    pub fail: Fail,
    /// How long each call takes longer.
    pub delay: Duration,
    /// How many calls go well before that.
    pub spared: u64,
}

/// Which calls fail.
#[derive(Clone, Copy, Debug, Default)]
pub enum Fail {
    /// None.
    #[default]
    Never,
    /// All.
    Always,
    /// The next one does not, the one after that does, and so on.
    EverySecond,
}

impl KeyValue {
    /// A store in memory, empty.
    pub fn memory() -> Self {
        Self::new(Backend::Memory(Memory::default()))
    }

    /// A store in the file `sqlite_key_value.db` in `folder`, which is created when it is missing. The layout is
    /// Spin's, so Spin and this host can use one file.
    ///
    /// # Errors
    ///
    /// When the folder or the file cannot be created or opened.
    pub fn sqlite(folder: &Path) -> anyhow::Result<Self> {
        Ok(Self::new(Backend::Sqlite(Sqlite::open(folder)?)))
    }

    /// A store in the Redis server at `url` (`redis://host:port/database`). As with Spin, the label of the store is
    /// no part of the key. The connection is made when it is first needed; [`check`](Self::check) makes it at once.
    ///
    /// # Errors
    ///
    /// When `url` is not such a URL.
    pub fn redis(url: &str) -> anyhow::Result<Self> {
        Ok(Self::new(Backend::Redis(Redis::new(url)?)))
    }

    fn new(backend: Backend) -> Self {
        Self { backend, faults: Arc::default() }
    }

    /// Lets calls of components fail from now on, on all clones. The methods below are not affected.
    pub fn set_faults(&self, faults: Faults) {
        *self.faults() = (faults, 0);
    }

    /// Fails when the store cannot be reached.
    ///
    /// # Errors
    ///
    /// As said, after a few seconds at most.
    pub async fn check(&self) -> anyhow::Result<()> {
        match &self.backend {
            Backend::Memory(_) | Backend::Sqlite(_) => Ok(()),
            Backend::Redis(redis) => redis.ping().await,
        }
    }

    /// The value of `key` in the store `label`.
    ///
    /// # Errors
    ///
    /// When the backend fails; so it is for the methods below.
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
    /// See [`get`](Self::get).
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

    /// Removes `key`, if it is there.
    ///
    /// # Errors
    ///
    /// See [`get`](Self::get).
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

    /// Whether `key` is there.
    ///
    /// # Errors
    ///
    /// See [`get`](Self::get).
    pub async fn exists(&self, label: &str, key: &str) -> anyhow::Result<bool> {
        Ok(self.get(label, key).await?.is_some())
    }

    /// All keys of the store `label`, in no order that could be relied on.
    ///
    /// # Errors
    ///
    /// See [`get`](Self::get).
    pub async fn keys(&self, label: &str) -> anyhow::Result<Vec<String>> {
        match &self.backend {
            Backend::Memory(memory) => Ok(memory.keys(label)),
            Backend::Sqlite(sqlite) => sqlite.keys(label).await,
            Backend::Redis(redis) => redis.keys().await,
        }
    }

    /// Everything in the store `label`, for whoever cannot await: it blocks, and needs nothing of the runtime that the
    /// other methods use.
    ///
    /// # Errors
    ///
    /// See [`get`](Self::get).
    pub fn entries(&self, label: &str) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
        match &self.backend {
            Backend::Memory(memory) => Ok(memory.entries_of(label)),
            Backend::Sqlite(sqlite) => sqlite.entries(label),
            Backend::Redis(redis) => redis.entries(),
        }
    }

    /// Lets one call of a component suffer from the faults.
    pub(crate) async fn disturb(&self) -> anyhow::Result<()> {
        let (delay, fails) = {
            let mut faults = self.faults();
            faults.1 += 1;
            if faults.1 <= faults.0.spared {
                return Ok(());
            }
            let fails = match faults.0.fail {
                Fail::Never => false,
                Fail::Always => true,
                Fail::EverySecond => faults.1.is_multiple_of(2),
            };
            (faults.0.delay, fails)
        };
        // A timer has a granularity of a millisecond: even a delay of zero would cost one.
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if fails {
            bail!("the key-value store is out of order");
        }
        Ok(())
    }

    fn faults(&self) -> MutexGuard<'_, (Faults, u64)> {
        self.faults.lock().expect("nothing panics while it holds the faults")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What every backend must do, on an empty store that no one else uses.
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
    async fn memory_keeps_what_was_written() {
        check(&KeyValue::memory()).await.unwrap();
    }

    #[tokio::test]
    async fn sqlite_keeps_what_was_written_and_is_read_by_another_process() {
        let folder = std::env::temp_dir().join(format!("host-key-value-{}", std::process::id()));
        let one = KeyValue::sqlite(&folder).unwrap();
        // A second connection to the same file is what another process has.
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
    async fn redis_that_cannot_be_reached_is_an_error() {
        // Port 1 of loopback: nothing listens there.
        let store = KeyValue::redis("redis://127.0.0.1:1").unwrap();
        let error = format!("{:#}", store.check().await.unwrap_err());
        assert!(error.contains("127.0.0.1:1"), "{error}");
        store.get("default", "a").await.unwrap_err();
        assert!(KeyValue::redis("http://127.0.0.1").is_err());
    }

    #[tokio::test]
    async fn faults_fail_the_calls_they_are_said_to() {
        let store = KeyValue::memory();
        for (fail, expected) in [
            (Fail::Never, [true, true, true, true]),
            (Fail::EverySecond, [true, false, true, false]),
            (Fail::Always, [false, false, false, false]),
        ] {
            for spared in [0, 2] {
                store.set_faults(Faults { fail, spared, ..Faults::default() });
                for expected in std::iter::repeat_n(true, spared as usize).chain(expected) {
                    assert_eq!(store.disturb().await.is_ok(), expected, "{fail:?}");
                }
            }
        }
    }
}
