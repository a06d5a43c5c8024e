//! The component: its entry point, and what WASI 0.3 has of the core's ports. What differs between hosts, the variables and
//! the store, is the [`Host`] of one of the two files that name one: `spin.rs`, `wasi.rs`.
//!
//! It speaks `wasi:http` itself. The types of `http` would be had for less text, but a request's twenty headers would be
//! copied and parsed for the three that the core reads, and an answer copied twice (docs/performance.md).

use std::io::{self, Write};
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use futures_util::future::{Either, select};
use http::header::HeaderMap;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use wasip3::clocks::monotonic_clock::wait_for;
use wasip3::exports::http::handler::Guest;
use wasip3::http::client;
use wasip3::http::types::{self, ErrorCode, Fields, Scheme, Trailers};
use wasip3::random::random::get_random_u64;
use wasip3::wit_bindgen::{FutureReader, StreamReader, StreamResult, yield_async};
use wasip3::{wit_future, wit_stream};

use crate::broker::{Broker, Instance, Ports, SendError};
use crate::endpoint::{self, BODY_LIMIT, Body, BodyError};
use crate::later;
#[cfg(feature = "spin")]
use crate::spin::Host;
use crate::stdout::Stdout;
use crate::time::Timestamp;
use crate::upstream;
#[cfg(feature = "wasi")]
use crate::wasi::Host;

#[cfg(all(feature = "spin", feature = "wasi"))]
compile_error!("a component is for one kind of host: `wasi` is built with --no-default-features");

/// A body that takes longer to arrive is given up.
const BODY_PATIENCE: Duration = Duration::from_secs(4);

/// Room for a body that does not say how long it is. A longer one gets twice as much, again and again, and never more than the
/// limit and the byte that is over it.
const ROOM: usize = 256;

/// How a body ends: with trailers, or in the middle.
type End = Result<Option<Trailers>, ErrorCode>;

thread_local! {
    /// The broker of this component instance, which serves many requests, several at the same time.
    static BROKER: Rc<Broker<World>> = Rc::new(Broker {
        ports: World { host: Rc::default(), stdout: Rc::new(Stdout::open()) },
        instance: Rc::new(Instance::new(get_random_u64())),
    });
}

struct Component;

wasip3::http::service::export!(Component);

impl Guest for Component {
    async fn handle(request: types::Request) -> Result<types::Response, ErrorCode> {
        let broker = BROKER.with(Rc::clone);
        let arrived = broker.ports.now();
        let (mut incoming, length) = head(&request).ok_or(ErrorCode::HttpRequestUriInvalid)?;
        if incoming.method() == Method::POST {
            *incoming.body_mut() = read_body(request, length).await;
        }
        let handled = endpoint::handle(&broker, &incoming, arrived).await;
        if let Some(followup) = handled.followup {
            later::run(async {
                // The answer first.
                sleep(Duration::from_millis(1)).await;
                followup.await;
            });
        }
        outgoing(handled.response)
    }
}

/// Everything but the body, as far as the core reads it, and how long that is.
fn head(request: &types::Request) -> Option<(Request<Body>, Option<usize>)> {
    let mut head = Request::new(Ok(Vec::new()));
    *head.method_mut() = match request.get_method() {
        types::Method::Get => Method::GET,
        types::Method::Head => Method::HEAD,
        types::Method::Post => Method::POST,
        // No path has any other: it does not matter which it is.
        _ => Method::OPTIONS,
    };
    *head.uri_mut() = uri(request, head.method() != Method::POST)?;
    let fields = request.get_headers();
    *head.headers_mut() = headers(&fields, &endpoint::HEADERS);
    let length = if head.method() == Method::POST { content_length(&fields) } else { None };
    Some((head, length))
}

/// What the request is for; where it was sent to is of interest only for what is read.
fn uri(request: &types::Request, with_origin: bool) -> Option<Uri> {
    let path = request.get_path_with_query();
    let path = path.as_deref().map_or(Ok(PathAndQuery::from_static("/")), PathAndQuery::try_from).ok()?;
    if !with_origin {
        return Some(Uri::from(path));
    }
    let mut uri = Uri::builder().path_and_query(path);
    if let Some(authority) = request.get_authority() {
        let scheme = match request.get_scheme() {
            Some(Scheme::Https) => "https",
            _ => "http",
        };
        uri = uri.authority(authority).scheme(scheme);
    }
    uri.build().ok()
}

/// Those of the names. A value that cannot be one counts as absent: no host lets it through.
fn headers(fields: &Fields, names: &[HeaderName]) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(names.len());
    for name in names {
        for value in fields.get(name.as_str()).into_iter().filter_map(|value| HeaderValue::try_from(value).ok()) {
            headers.append(name, value);
        }
    }
    headers
}

/// How long the body is, if its head says so (RFC 9110 section 8.6).
fn content_length(fields: &Fields) -> Option<usize> {
    match &fields.get("content-length")[..] {
        [length] => str::from_utf8(length).ok()?.parse().ok(),
        _ => None,
    }
}

async fn read_body(request: types::Request, length: Option<usize>) -> Body {
    let body = read(|end| types::Request::consume_body(request, end), length, BODY_LIMIT);
    let patience = async {
        // Mostly it is there as soon as the host has had a moment.
        for () in std::iter::repeat_n((), Host::MOMENTS) {
            yield_async().await;
        }
        // Boxed because it is seldom needed.
        Box::pin(sleep(BODY_PATIENCE)).await;
    };
    match select(pin!(body), pin!(patience)).await {
        Either::Left((Ok(whole), _)) => Ok(whole),
        Either::Left((Err(SendError::TooLong), _)) => Err(BodyError::TooLarge),
        Either::Left((Err(SendError::Unreachable), _)) | Either::Right(_) => Err(BodyError::Incomplete),
    }
}

/// Reads a body to its end, and stops at the first byte over `limit`. No `async fn`, which would have its arguments twice.
fn read(
    consume: impl FnOnce(FutureReader<Result<(), ErrorCode>>) -> (StreamReader<u8>, FutureReader<End>),
    length: Option<usize>,
    limit: usize,
) -> impl Future<Output = Result<Vec<u8>, SendError>> {
    let (receipt, received) = wit_future::new(|| Ok(()));
    let (mut stream, end) = consume(received);
    async move {
        // Kept until this ends: a receipt that is dropped is given.
        let _receipt = &receipt;
        let mut whole = Vec::with_capacity(length.map_or(ROOM, |length| length.min(limit) + 1));
        loop {
            if whole.len() > limit {
                return Err(SendError::TooLong);
            }
            if whole.len() == whole.capacity() {
                whole.reserve_exact(whole.len().min(limit + 1 - whole.len()));
            }
            let (result, read) = stream.read(whole).await;
            whole = read;
            if result == StreamResult::Dropped {
                // Nothing broke off. To be told so would take a turn of the host, or two. Trailers, which HTTP/2 may have all
                // the same, stay with the host as long as the instance.
                if length == Some(whole.len()) {
                    return Ok(whole);
                }
                return end.await.map(|_| whole).map_err(|_| SendError::Unreachable);
            }
        }
    }
}

/// The answer as the host takes it. Its body goes out after it.
fn outgoing(answer: Response<String>) -> Result<types::Response, ErrorCode> {
    let (head, body) = answer.into_parts();
    let (contents, trailers) = write(body);
    let (response, _) = types::Response::new(fields(&head.headers)?, contents, trailers);
    // A new one has 200: that call of the host is saved.
    if head.status != StatusCode::OK {
        response.set_status_code(head.status.as_u16()).map_err(|()| ErrorCode::InternalError(None))?;
    }
    Ok(response)
}

fn fields(headers: &HeaderMap) -> Result<Fields, ErrorCode> {
    let list: Vec<_> =
        headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_owned())).collect();
    Fields::from_list(&list).map_err(|_| ErrorCode::InternalError(None))
}

/// A body, as the host reads it.
fn write(body: String) -> (Option<StreamReader<u8>>, FutureReader<End>) {
    // A writer that is dropped writes this: there are no trailers.
    let (no_trailers, trailers) = wit_future::new(|| Ok(None));
    if body.is_empty() {
        return (None, trailers);
    }
    let (mut writer, contents) = wit_stream::new();
    later::run(async move {
        // What is left when the host reads no further is nobody's.
        drop(writer.write_all(body.into_bytes()).await);
        drop(writer);
        // By now the host waits for them. Before, it would have to tell when it has taken them.
        drop(no_trailers);
    });
    (Some(contents), trailers)
}

/// A request whose body is sent as it is taken, and how its transmission ends; nothing when the host refuses a part of it. It is
/// a POST: the core sends no other.
fn to_send(request: Request<String>) -> Option<(types::Request, FutureReader<Result<(), ErrorCode>>)> {
    let (head, body) = request.into_parts();
    let (contents, trailers) = write(body);
    let (request, transmitted) = types::Request::new(fields(&head.headers).ok()?, contents, trailers, None);
    let scheme = if head.uri.scheme_str() == Some("https") { Scheme::Https } else { Scheme::Http };
    request.set_method(&types::Method::Post).ok()?;
    request.set_scheme(Some(&scheme)).ok()?;
    request.set_authority(head.uri.authority().map(Authority::as_str)).ok()?;
    request.set_path_with_query(head.uri.path_and_query().map(PathAndQuery::as_str)).ok()?;
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
    stdout: Rc<Stdout>,
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
        // (bytecodealliance/wasmtime#14227), and a body that comes after its head would be lost.
        let (request, _transmitted) = to_send(request).ok_or(SendError::Unreachable)?;
        let response = client::send(request).await.map_err(|_| SendError::Unreachable)?;
        let mut answer = Response::new(Vec::new());
        *answer.status_mut() = StatusCode::from_u16(response.get_status_code()).map_err(|_| SendError::Unreachable)?;
        *answer.headers_mut() = headers(&response.get_headers(), &upstream::HEADERS);
        *answer.body_mut() = read(|end| types::Response::consume_body(response, end), None, limit).await?;
        Ok(answer)
    }

    fn lack(&self) -> Option<&'static str> {
        self.host.lack()
    }

    fn audit(&self, line: Vec<u8>) {
        self.stdout.write(&line);
    }

    fn warn(&self, line: &str) {
        warn(line);
    }
}
