//! The key-value store in Redis, with unchanged keys, as Spin keeps them.
//!
//! As in Spin, no call of a component has a time limit. When the connection breaks, the calls on
//! it fail, and later ones wait for the next connection. The crate tries to connect at once, then
//! after 1 to 2 s, then five times after 1 to 2 min each. So a Redis that was gone for longer than
//! 2 s is used again only minutes later.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use redis::aio::ConnectionManager;
use redis::{AsyncCommands, AsyncConnectionConfig, AsyncIter, Client, Commands, RedisError};
use tokio::sync::OnceCell;

#[derive(Clone)]
pub(super) struct Redis {
    client: Client,
    connection: Arc<OnceCell<ConnectionManager>>,
}

/// Limits for the calls that no component makes, so that the program can say that it cannot reach
/// the server.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(2);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

impl Redis {
    pub(super) fn new(url: &str) -> anyhow::Result<Self> {
        let client = Client::open(url)
            .context("the key-value URL is invalid, expected redis://host:port or redis://host:port/database")?;
        Ok(Self { client, connection: Arc::default() })
    }

    /// Checks over a connection of its own that the server can be reached.
    pub(super) async fn check(&self) -> anyhow::Result<()> {
        let limits = AsyncConnectionConfig::new()
            .set_connection_timeout(CONNECTION_TIMEOUT)
            .set_response_timeout(RESPONSE_TIMEOUT);
        let ping =
            async { self.client.get_multiplexed_async_connection_with_config(&limits).await?.ping::<()>().await };
        let address = &self.client.get_connection_info().addr;
        ping.await.map_err(failed).with_context(|| format!("cannot reach the Redis server at {address}"))
    }

    /// Does what Spin does when a component opens the store: connects if that has not happened
    /// yet, and sends a ping whose failure it ignores.
    pub(super) async fn open(&self) -> anyhow::Result<()> {
        drop(self.connection().await?.ping::<()>().await);
        Ok(())
    }

    pub(super) async fn get(&self, key: &str) -> anyhow::Result<Option<Vec<u8>>> {
        self.connection().await?.get(key).await.map_err(failed)
    }

    pub(super) async fn set(&self, key: &str, value: Vec<u8>) -> anyhow::Result<()> {
        self.connection().await?.set(key, value).await.map_err(failed)
    }

    pub(super) async fn delete(&self, key: &str) -> anyhow::Result<()> {
        self.connection().await?.del(key).await.map_err(failed)
    }

    pub(super) async fn keys(&self) -> anyhow::Result<Vec<String>> {
        let mut connection = self.connection().await?;
        let mut found: AsyncIter<'_, String> = connection.scan().await.map_err(failed)?;
        let mut keys = Vec::new();
        while let Some(key) = found.next_item().await {
            keys.push(key.map_err(failed)?);
        }
        Ok(keys)
    }

    /// Opens a connection of its own, because the shared one works only inside the runtime.
    pub(super) fn entries(&self) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
        let read = || {
            let mut connection = self.client.get_connection_with_timeout(CONNECTION_TIMEOUT)?;
            connection.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
            let keys: Vec<String> = connection.scan()?.collect::<Result<_, _>>()?;
            let mut entries = Vec::new();
            for key in keys {
                let value: Option<Vec<u8>> = connection.get(&key)?;
                entries.extend(value.map(|value| (key, value)));
            }
            Ok(entries)
        };
        read().map_err(failed)
    }

    /// Returns the shared connection, with Spin's settings, which are the crate's defaults.
    async fn connection(&self) -> anyhow::Result<ConnectionManager> {
        self.connection.get_or_try_init(|| self.client.get_connection_manager()).await.cloned().map_err(failed)
    }
}

/// Puts the whole error into one text, because its source only repeats it.
fn failed(error: RedisError) -> anyhow::Error {
    anyhow!("Redis: {error}")
}
