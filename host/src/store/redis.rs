//! The key-value store in Redis, with unchanged keys, as Spin keeps them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{AsyncCommands, AsyncIter, Client, Commands, RedisError};
use tokio::sync::OnceCell;

#[derive(Clone)]
pub(super) struct Redis {
    client: Client,
    connection: Arc<OnceCell<ConnectionManager>>,
}

/// Limits of one call, so that an unreachable server is an error and no call waits without end.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(2);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

impl Redis {
    pub(super) fn new(url: &str) -> anyhow::Result<Self> {
        let client = Client::open(url)
            .context("the key-value URL is invalid, expected redis://host:port or redis://host:port/database")?;
        Ok(Self { client, connection: Arc::default() })
    }

    pub(super) async fn ping(&self) -> anyhow::Result<()> {
        let address = &self.client.get_connection_info().addr;
        let ping = async { self.connection().await?.ping::<()>().await.map_err(failed) };
        ping.await.with_context(|| format!("cannot reach the Redis server at {address}"))
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

    /// Returns the shared connection, which reconnects automatically once it has been made.
    async fn connection(&self) -> anyhow::Result<ConnectionManager> {
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(CONNECTION_TIMEOUT)
            .set_response_timeout(RESPONSE_TIMEOUT)
            .set_number_of_retries(1);
        let connect = || self.client.get_connection_manager_with_config(config);
        self.connection.get_or_try_init(connect).await.cloned().map_err(failed)
    }
}

/// Puts the whole error into one text, because its source only repeats it.
fn failed(error: RedisError) -> anyhow::Error {
    anyhow!("Redis: {error}")
}
