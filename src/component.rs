//! The component: its entry point, and what WASI 0.3 has of the core's ports. What differs between hosts, the variables and
//! the store, is the [`Host`] of one of the two files that name one: `spin.rs`, `wasi.rs`.

use std::io::{self, Write};
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::uri::{Authority, PathAndQuery};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Either as OneOf, Empty, Full};
use wasip3::clocks::monotonic_clock::wait_for;
use wasip3::exports::http::handler::Guest;
use wasip3::http::client;
use wasip3::http::types::{self, ErrorCode};
use wasip3::http_compat::{
    BodyWriter, IncomingBody, IncomingMessage, http_from_wasi_request, http_from_wasi_response, http_into_wasi_response,
};
use wasip3::random::random::get_random_u64;
use wasip3::wit_bindgen::FutureReader;

use crate::broker::{Broker, Instance, Ports, SendError};
use crate::endpoint::{self, BODY_LIMIT, Body, BodyError};
#[cfg(feature = "spin")]
use crate::spin::Host;
use crate::time::Timestamp;
#[cfg(feature = "wasi")]
use crate::wasi::Host;

#[cfg(all(feature = "spin", feature = "wasi"))]
compile_error!("a component is for one kind of host: `wasi` is built with --no-default-features");

/// A body that takes longer to arrive is given up.
const BODY_PATIENCE: Duration = Duration::from_secs(4);

thread_local! {
    /// The only static: the broker of this component instance, which serves many requests, several at the same time.
    static BROKER: Broker<World> = Broker {
        ports: World { host: Rc::default() },
        instance: Rc::new(Instance::new(get_random_u64())),
    };
}

struct Component;

wasip3::http::service::export!(Component);

impl Guest for Component {
    async fn handle(request: types::Request) -> Result<types::Response, ErrorCode> {
        let broker = BROKER.with(Broker::clone);
        let arrived = broker.ports.now();
        let (parts, body) = http_from_wasi_request(request)?.into_parts();
        let body = if parts.method == Method::POST { read_body(body).await } else { Ok(Vec::new()) };
        let handled = endpoint::handle(&broker, Request::from_parts(parts, body), arrived).await;
        if let Some(followup) = handled.followup {
            wasip3::spawn(followup);
        }
        http_into_wasi_response(handled.response.map(|body| match body.is_empty() {
            true => OneOf::Right(Empty::new()),
            false => OneOf::Left(Full::new(Bytes::from(body))),
        }))
    }
}

async fn read_body(body: IncomingBody<impl IncomingMessage>) -> Body {
    match select(pin!(read(body, BODY_LIMIT)), pin!(sleep(BODY_PATIENCE))).await {
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

/// A request, whose body is sent as it is taken, and how its transmission ends.
fn outgoing(request: Request<String>) -> Option<(types::Request, FutureReader<Result<(), ErrorCode>>)> {
    let (parts, body) = request.into_parts();
    let (writer, contents, trailers) = BodyWriter::new();
    let (request, transmitted) = types::Request::new(parts.headers.try_into().ok()?, Some(contents), trailers, None);
    request.set_method(&parts.method.into()).ok()?;
    request.set_scheme(parts.uri.scheme().map(Into::into).as_ref()).ok()?;
    request.set_authority(parts.uri.authority().map(Authority::as_str)).ok()?;
    request.set_path_with_query(parts.uri.path_and_query().map(PathAndQuery::as_str)).ok()?;
    wasip3::spawn(async move {
        // Who does not take it all says so in the answer, or by none.
        let _ = writer.send_http_body(&mut Full::new(Bytes::from(body))).await;
    });
    Some((request, transmitted))
}

async fn sleep(duration: Duration) {
    wait_for(duration.as_nanos().try_into().unwrap_or(u64::MAX)).await;
}

/// Tells the operator: on stderr, in one line.
pub(crate) fn warn(line: &str) {
    // A provider's or a store's words must not begin a line of their own.
    let line = line.replace(char::is_control, " ");
    let _ = io::stderr().write_all(["officernd-token-broker: ", &line, "\n"].concat().as_bytes());
}

/// WASI 0.3 and a host's own interfaces as the core's ports.
#[derive(Clone)]
struct World {
    host: Rc<Host>,
}

impl Ports for World {
    #[expect(clippy::disallowed_methods, reason = "this is the port that knows the time")]
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_unix_ms(since_epoch.as_millis().try_into().unwrap_or(u64::MAX))
    }

    fn random(&self) -> u64 {
        get_random_u64()
    }

    async fn sleep(&self, duration: Duration) {
        sleep(duration).await;
    }

    async fn variable(&self, name: &'static str) -> Result<String, String> {
        self.host.variable(name).await
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        self.host.get(key).await
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<(), String> {
        self.host.set(key, value).await
    }

    async fn send(&self, request: Request<String>, limit: usize) -> Result<Response<Vec<u8>>, SendError> {
        // `_transmitted` lives until the answer is read: Wasmtime 49.0 closes the connection when it is dropped
        // (bytecodealliance/wasmtime#14227), so wasip3's own conversion, which drops it, loses a body that comes after its head.
        let (request, _transmitted) = outgoing(request).ok_or(SendError::Unreachable)?;
        let response = client::send(request).await.and_then(http_from_wasi_response);
        let (parts, body) = response.map_err(|_| SendError::Unreachable)?.into_parts();
        Ok(Response::from_parts(parts, read(body, limit).await?))
    }

    fn lack(&self) -> Option<&'static str> {
        self.host.lack()
    }

    fn audit(&self, line: &str) {
        // One write, so that lines of several instances do not mix. A log that cannot be written stops nobody.
        let _ = io::stdout().write_all([line, "\n"].concat().as_bytes());
    }

    fn warn(&self, line: &str) {
        warn(line);
    }
}
