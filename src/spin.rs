//! The broker on Spin: the entry point, and the core's ports on Spin's interfaces. No other file names `spin_sdk`.

use std::cell::RefCell;
use std::io::{self, Write};
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use spin_sdk::http::{EmptyBody, FullBody, IntoResponse, OptionalBody};
use spin_sdk::http_service;
use spin_sdk::key_value::Store;
use spin_sdk::wasip3::http_compat::{IncomingBody, IncomingMessage};
use spin_sdk::wasip3::random::random::get_random_u64;

use crate::broker::{Broker, Instance, Ports, SendError};
use crate::endpoint::{self, BODY_LIMIT, Body, BodyError};
use crate::time::Timestamp;

/// A body that takes longer to arrive is given up.
const BODY_PATIENCE: Duration = Duration::from_secs(4);

thread_local! {
    /// The only static: the broker of this component instance, which serves many requests, several at the same time.
    static BROKER: Broker<Spin> = Broker {
        ports: Spin { store: Rc::default() },
        instance: Rc::new(Instance::new(get_random_u64())),
    };
}

#[http_service]
async fn handle(request: spin_sdk::http::Request) -> impl IntoResponse {
    let broker = BROKER.with(Broker::clone);
    let arrived = broker.ports.now();
    let (parts, body) = request.into_parts();
    let body = if parts.method == Method::POST { read_body(body).await } else { Ok(Vec::new()) };
    let handled = endpoint::handle(&broker, Request::from_parts(parts, body), arrived).await;
    if let Some(followup) = handled.followup {
        spin_sdk::wit_bindgen::spawn(followup);
    }
    handled.response.map(|body| match body.is_empty() {
        true => OptionalBody::Right(EmptyBody::new()),
        false => OptionalBody::Left(FullBody::new(Bytes::from(body))),
    })
}

async fn read_body(body: IncomingBody<impl IncomingMessage>) -> Body {
    match select(pin!(read(body, BODY_LIMIT)), pin!(spin_sdk::time::sleep(BODY_PATIENCE))).await {
        Either::Left((Ok(whole), _)) => Ok(whole),
        Either::Left((Err(SendError::TooLong), _)) => Err(BodyError::TooLarge),
        Either::Left((Err(SendError::Unreachable), _)) | Either::Right(_) => Err(BodyError::Incomplete),
    }
}

/// Reads a body to its end, and stops at the first byte over `limit`.
async fn read(mut body: IncomingBody<impl IncomingMessage>, limit: usize) -> Result<Vec<u8>, SendError> {
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(|_| SendError::Unreachable)?.into_data() {
            if whole.len() + data.len() > limit {
                return Err(SendError::TooLong);
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(whole)
}

/// Spin's interfaces as the core's ports.
#[derive(Clone)]
struct Spin {
    /// The open store, which is not opened again for every request.
    store: Rc<RefCell<Option<Rc<Store>>>>,
}

impl Spin {
    async fn store(&self) -> Result<Rc<Store>, spin_sdk::key_value::Error> {
        let open = self.store.borrow().clone();
        match open {
            Some(store) => Ok(store),
            None => {
                let store = Rc::new(Store::open_default().await?);
                self.store.replace(Some(store.clone()));
                Ok(store)
            }
        }
    }

    /// After a failure the next operation opens the store again.
    fn note<T>(&self, result: Result<T, spin_sdk::key_value::Error>) -> Result<T, String> {
        result.map_err(|error| {
            self.store.replace(None);
            error.to_string()
        })
    }
}

impl Ports for Spin {
    #[expect(clippy::disallowed_methods, reason = "this is the port that knows the time")]
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_unix_ms(since_epoch.as_millis().try_into().unwrap_or(u64::MAX))
    }

    fn random(&self) -> u64 {
        get_random_u64()
    }

    async fn sleep(&self, duration: Duration) {
        spin_sdk::time::sleep(duration).await;
    }

    async fn variable(&self, name: &'static str) -> Result<String, String> {
        match spin_sdk::variables::get(name).await {
            Err(spin_sdk::variables::Error::Undefined(_)) => Ok(String::new()),
            result => result.map_err(|error| error.to_string()),
        }
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        let result = async { self.store().await?.get(key).await }.await;
        self.note(result)
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<(), String> {
        let result = async { self.store().await?.set(key, value).await }.await;
        self.note(result)
    }

    async fn send(&self, request: Request<String>, limit: usize) -> Result<Response<Vec<u8>>, SendError> {
        let request = request.map(|body| FullBody::new(Bytes::from(body)));
        let response = spin_sdk::http::send(request).await.map_err(|_| SendError::Unreachable)?;
        let (parts, body) = response.into_parts();
        Ok(Response::from_parts(parts, read(body, limit).await?))
    }

    fn audit(&self, line: &str) {
        // One write, so that lines of several instances do not mix. A log that cannot be written stops nobody.
        let _ = io::stdout().write_all([line, "\n"].concat().as_bytes());
    }

    fn warn(&self, line: &str) {
        // A provider's or a store's words must not begin a line of their own.
        let line = line.replace(char::is_control, " ");
        let _ = io::stderr().write_all(["officernd-token-broker: ", &line, "\n"].concat().as_bytes());
    }
}
