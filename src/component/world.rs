//! Implements the core's ports with WASI 0.3 and the host's own interfaces.

use std::rc::Rc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use wasip3::http::client;
use wasip3::http::types;
use wasip3::random::random::get_random_u64;

use super::clock;
use super::host::Host;
use super::http::{headers, read, to_send};
use super::log::{self, Stdout};
use crate::broker::{Ports, SendError};
use crate::time::Timestamp;
use crate::upstream;

/// The outside world of one instance.
#[derive(Clone)]
pub(super) struct World {
    pub(super) host: Rc<Host>,
    pub(super) stdout: Rc<Stdout>,
}

impl Ports for World {
    fn now(&self) -> Timestamp {
        clock::now()
    }

    fn uptime(&self) -> Duration {
        clock::uptime()
    }

    fn random(&self) -> u64 {
        get_random_u64()
    }

    async fn sleep(&self, duration: Duration) {
        clock::sleep(duration).await;
    }

    async fn variable(&self, name: &'static str) -> Result<Option<String>, String> {
        self.host.variable(name).await
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        self.host.get(key).await
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<(), String> {
        self.host.set(key, value).await
    }

    async fn send(&self, request: Request<String>, limit: usize) -> Result<Response<Vec<u8>>, SendError> {
        // `_transmitted` lives until the answer is read: Wasmtime 49.0 closes the connection
        // when it is dropped (bytecodealliance/wasmtime#14227), and a body that follows its
        // head would be lost.
        let (request, _transmitted) = to_send(request).ok_or(SendError::Unreachable)?;
        let response = client::send(request).await.map_err(|error| match error {
            types::ErrorCode::HttpRequestDenied => SendError::Denied,
            _ => SendError::Unreachable,
        })?;
        let mut answer = Response::new(Vec::new());
        *answer.status_mut() = StatusCode::from_u16(response.get_status_code()).map_err(|_| SendError::Unreachable)?;
        *answer.headers_mut() = headers(&response.get_headers(), &upstream::HEADERS);
        *answer.body_mut() = read(|end| types::Response::consume_body(response, end), None, limit).await?;
        Ok(answer)
    }

    fn degradation(&self) -> Option<&'static str> {
        self.host.degradation()
    }

    fn audit(&self, line: Vec<u8>) {
        self.stdout.write(line);
    }

    fn warn(&self, line: &str) {
        log::warn(line);
    }
}
