//! Requests, answers and bodies between `wasi:http` and the types of `http`.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use http::header::HeaderMap;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use wasip3::http::types::{self, ErrorCode, Fields, Scheme, Trailers};
use wasip3::wit_bindgen::{FutureReader, StreamReader, StreamResult, yield_async};
use wasip3::{wit_future, wit_stream};

use super::clock::sleep;
use super::host::Host;
use super::spawn::spawn;
use crate::broker::SendError;
use crate::endpoint::{self, BODY_LIMIT, Body, BodyError};

/// A body that takes longer to arrive is given up.
const BODY_PATIENCE: Duration = Duration::from_secs(4);

/// Room for a body that does not say how long it is. A longer one gets twice as much, again and again, and never more than the
/// limit and the byte that is over it.
const UNANNOUNCED_BODY_CAPACITY: usize = 256;

/// How a body ends: with trailers, or in the middle.
type End = Result<Option<Trailers>, ErrorCode>;

/// Everything but the body, as far as the core reads it, and how long that is.
pub(super) fn head(request: &types::Request) -> Option<(Request<Body>, Option<usize>)> {
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
pub(super) fn headers(fields: &Fields, names: &[HeaderName]) -> HeaderMap {
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

pub(super) async fn read_body(request: types::Request, length: Option<usize>) -> Body {
    let body = read(|end| types::Request::consume_body(request, end), length, BODY_LIMIT);
    let patience = async {
        // Mostly it is there as soon as the host has had a moment.
        for () in std::iter::repeat_n((), Host::YIELDS_BEFORE_TIMER) {
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
pub(super) fn read(
    consume: impl FnOnce(FutureReader<Result<(), ErrorCode>>) -> (StreamReader<u8>, FutureReader<End>),
    length: Option<usize>,
    limit: usize,
) -> impl Future<Output = Result<Vec<u8>, SendError>> {
    let (receipt, received) = wit_future::new(|| Ok(()));
    let (mut stream, end) = consume(received);
    async move {
        // Kept until this ends: a receipt that is dropped is given.
        let _receipt = &receipt;
        let mut whole = Vec::with_capacity(length.map_or(UNANNOUNCED_BODY_CAPACITY, |length| length.min(limit) + 1));
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
pub(super) fn outgoing(answer: Response<String>) -> Result<types::Response, ErrorCode> {
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
    spawn(async move {
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
pub(super) fn to_send(request: Request<String>) -> Option<(types::Request, FutureReader<Result<(), ErrorCode>>)> {
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
