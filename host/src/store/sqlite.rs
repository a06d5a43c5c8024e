//! The key-value store in an SQLite file, with Spin's own layout.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use rusqlite::{Connection, OptionalExtension, params};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::{block_in_place, spawn_blocking};

#[derive(Clone)]
pub(super) struct Sqlite(Arc<Mutex<Connection>>);

/// Name of the file in its folder, as Spin has it.
const FILE: &str = "sqlite_key_value.db";

/// Longest wait for another process that is writing; after it, the call fails.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

const LAYOUT: &str = "CREATE TABLE IF NOT EXISTS spin_key_value (
    store TEXT NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (store, key)
)";

impl Sqlite {
    pub(super) fn open(folder: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot create the folder {}", folder.display()))?;
        let path = folder.join(FILE);
        let open = || -> rusqlite::Result<Connection> {
            let connection = Connection::open(&path)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.execute(LAYOUT, [])?;
            Ok(connection)
        };
        let connection = open().with_context(|| format!("cannot use the key-value store {}", path.display()))?;
        Ok(Self(Arc::new(Mutex::new(connection))))
    }

    pub(super) async fn get(&self, label: &str, key: &str) -> anyhow::Result<Option<Vec<u8>>> {
        let row = [label.to_owned(), key.to_owned()];
        self.run(move |connection| {
            connection
                .prepare_cached("SELECT value FROM spin_key_value WHERE store = ?1 AND key = ?2")?
                .query_row(row, |row| row.get(0))
                .optional()
        })
        .await
    }

    pub(super) async fn set(&self, label: &str, key: &str, value: Vec<u8>) -> anyhow::Result<()> {
        let (label, key) = (label.to_owned(), key.to_owned());
        self.run(move |connection| {
            connection
                .prepare_cached(
                    "INSERT INTO spin_key_value (store, key, value) VALUES (?1, ?2, ?3)
                     ON CONFLICT (store, key) DO UPDATE SET value = ?3",
                )?
                .execute(params![label, key, value])
                .map(drop)
        })
        .await
    }

    pub(super) async fn delete(&self, label: &str, key: &str) -> anyhow::Result<()> {
        let row = [label.to_owned(), key.to_owned()];
        self.run(move |connection| {
            connection
                .prepare_cached("DELETE FROM spin_key_value WHERE store = ?1 AND key = ?2")?
                .execute(row)
                .map(drop)
        })
        .await
    }

    pub(super) async fn keys(&self, label: &str) -> anyhow::Result<Vec<String>> {
        let label = label.to_owned();
        self.run(move |connection| {
            connection
                .prepare_cached("SELECT key FROM spin_key_value WHERE store = ?1")?
                .query_map([label], |row| row.get(0))?
                .collect()
        })
        .await
    }

    /// Blocks until the connection is free. Other calls hold it only for one statement.
    pub(super) fn entries(&self, label: &str) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
        let connection = self.0.lock().expect("no statement panics");
        let read = || {
            connection
                .prepare_cached("SELECT key, value FROM spin_key_value WHERE store = ?1")?
                .query_map([label], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<rusqlite::Result<_>>()
        };
        read().context("the key-value store failed")
    }

    /// Runs `work`, one statement at a time. As with Spin, it runs on this thread, and the
    /// runtime moves its other work to another thread. A runtime with a single thread runs it
    /// on a blocking thread instead.
    async fn run<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<R> + Send + 'static,
    ) -> anyhow::Result<R> {
        let connection = self.0.clone();
        let run = move || work(&connection.lock().expect("no statement panics"));
        let result = match Handle::current().runtime_flavor() {
            RuntimeFlavor::MultiThread => block_in_place(run),
            _ => spawn_blocking(run).await?,
        };
        result.context("the key-value store failed")
    }
}
