//! Faults of the sandbox: answers that a test chooses instead of OfficeRnD's.

use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::endpoint::{JSON, TEXT, response};

/// Answer to a request. Only the first two count for the rate limit.
#[derive(Clone, Debug)]
pub enum Answer {
    /// OfficeRnD's answer.
    Normal,
    /// OfficeRnD's answer at the time of arrival, sent after this delay.
    Late(Duration),
    /// This response.
    Fixed(Response<Bytes>),
    /// These bytes on the connection, and then this end.
    Raw(Bytes, Then),
}

/// End of a connection after [`Answer::Raw`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The sandbox closes it.
    Close,
    /// The sandbox keeps it open and silent until the client closes it.
    Hang,
    /// The sandbox resets it.
    Reset,
    /// The sandbox repeats these bytes, each time after this delay, until the client closes it.
    Repeat(&'static [u8], Duration),
}

impl Answer {
    /// Returns an answer with this status and a JSON body.
    pub fn json(status: StatusCode, body: &serde_json::Value) -> Self {
        Self::Fixed(response(status, JSON, body.to_string()))
    }

    /// Returns an answer with this status and plain text.
    pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self::Fixed(response(status, TEXT, body))
    }

    /// Sends nothing and keeps the connection open.
    pub fn hang() -> Self {
        Self::Raw(Bytes::new(), Then::Hang)
    }

    /// Closes the connection instead of answering.
    pub fn close() -> Self {
        Self::Raw(Bytes::new(), Then::Close)
    }
}

/// Sends `bytes` past hyper, and ends the connection as `then` says.
pub(super) async fn send_raw(raw: &mut TcpStream, bytes: &[u8], then: Then) -> anyhow::Result<()> {
    raw.write_all(bytes).await?;
    match then {
        Then::Close => {}
        // Ends with its task, which hyper drops when the client closes the connection.
        Then::Hang => std::future::pending().await,
        Then::Reset => raw.set_zero_linger()?,
        Then::Repeat(bytes, pause) => loop {
            tokio::time::sleep(pause).await;
            raw.write_all(bytes).await?;
        },
    }
    Ok(())
}
