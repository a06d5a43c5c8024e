//! How the sandbox misbehaves when a test asks for it.

use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::endpoint::{JSON, TEXT, response};

/// How a request is answered. All but the first two leave the rate limit alone.
#[derive(Clone, Debug)]
pub enum Answer {
    /// As OfficeRnD would.
    Normal,
    /// As OfficeRnD would on arrival, but sent so much later.
    Late(Duration),
    /// With this.
    Fixed(Response<Bytes>),
    /// With these bytes on the connection, and then as said.
    Raw(Bytes, Then),
}

/// What happens to the connection after [`Answer::Raw`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It is closed.
    Close,
    /// It stays open, silent, until the client closes it.
    Hang,
    /// It is reset.
    Reset,
    /// These bytes follow, with this pause before each time, until the client closes it.
    Repeat(&'static [u8], Duration),
}

impl Answer {
    /// A JSON body with this status.
    pub fn json(status: StatusCode, body: &serde_json::Value) -> Self {
        Self::Fixed(response(status, JSON, body.to_string()))
    }

    /// A body of plain text with this status.
    pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self::Fixed(response(status, TEXT, body))
    }

    /// Nothing at all, for ever.
    pub fn hang() -> Self {
        Self::Raw(Bytes::new(), Then::Hang)
    }

    /// A closed connection instead of an answer.
    pub fn close() -> Self {
        Self::Raw(Bytes::new(), Then::Close)
    }
}

/// Sends `bytes` beside hyper, and treats the connection as `then` says.
pub(super) async fn send_raw(raw: &mut TcpStream, bytes: &[u8], then: Then) -> anyhow::Result<()> {
    raw.write_all(bytes).await?;
    match then {
        Then::Close => {}
        // Ends with the task: hyper drops it when the client closes the connection.
        Then::Hang => std::future::pending().await,
        Then::Reset => raw.set_zero_linger()?,
        Then::Repeat(bytes, pause) => loop {
            tokio::time::sleep(pause).await;
            raw.write_all(bytes).await?;
        },
    }
    Ok(())
}
