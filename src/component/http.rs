//! Converts requests, answers and bodies between `wasi:http` and the crate `http`.

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

/// Longest time for a request body to arrive.
const BODY_PATIENCE: Duration = Duration::from_secs(4);

/// First buffer for a body of unknown length. The buffer doubles as the body grows, up to one
/// byte over the limit.
const UNANNOUNCED_BODY_CAPACITY: usize = 256;

/// How a body ends: complete, perhaps with trailers, or broken off.
type End = Result<Option<Trailers>, ErrorCode>;

/// Request line and headers, as far as the core reads them, and the announced length of the
/// body.
pub(super) fn head(request: &types::Request) -> Option<(Request<Body>, Option<usize>)> {
    let mut head = Request::new(Ok(Vec::new()));
    *head.method_mut() = match request.get_method() {
        types::Method::Get => Method::GET,
        types::Method::Head => Method::HEAD,
        types::Method::Post => Method::POST,
        // No path accepts another method, so any stand-in gets the same answer.
        _ => Method::OPTIONS,
    };
    *head.uri_mut() = uri(request, head.method() != Method::POST)?;
    let fields = request.get_headers();
    *head.headers_mut() = headers(&fields, endpoint::headers_read(head.method()));
    let length = if head.method() == Method::POST { content_length(&fields) } else { None };
    Some((head, length))
}

/// The URI. Only the metadata endpoint needs the origin, so a POST omits it.
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

/// Copies the headers of these names. A malformed value counts as absent; no host lets one
/// through.
pub(super) fn headers(fields: &Fields, names: &[HeaderName]) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(names.len());
    for name in names {
        for value in fields.get(name.as_str()).into_iter().filter_map(|value| HeaderValue::try_from(value).ok()) {
            headers.append(name, value);
        }
    }
    headers
}

/// The announced length of the body (RFC 9110 section 8.6).
fn content_length(fields: &Fields) -> Option<usize> {
    match &fields.get("content-length")[..] {
        [length] => str::from_utf8(length).ok()?.parse().ok(),
        _ => None,
    }
}

pub(super) async fn read_body(request: types::Request, length: Option<usize>) -> Body {
    let body = read(|end| types::Request::consume_body(request, end), length, BODY_LIMIT);
    let patience = async {
        // Usually the body arrives during these yields, and no timer is needed.
        for () in std::iter::repeat_n((), Host::YIELDS_BEFORE_TIMER) {
            yield_async().await;
        }
        // Boxed: most bodies arrive before the timer is set, so its state should not enlarge
        // every future.
        Box::pin(sleep(BODY_PATIENCE)).await;
    };
    match select(pin!(body), pin!(patience)).await {
        Either::Left((Ok(whole), _)) => Ok(whole),
        Either::Left((Err(SendError::TooLong), _)) => Err(BodyError::TooLarge),
        Either::Left((Err(SendError::Unreachable | SendError::Denied), _)) | Either::Right(_) => {
            Err(BodyError::Incomplete)
        }
    }
}

/// Reads a whole body, and stops at the first byte over `limit`. Not an `async fn`, because
/// that would store its arguments twice.
pub(super) fn read(
    consume: impl FnOnce(FutureReader<Result<(), ErrorCode>>) -> (StreamReader<u8>, FutureReader<End>),
    length: Option<usize>,
    limit: usize,
) -> impl Future<Output = Result<Vec<u8>, SendError>> {
    let (receipt, received) = wit_future::new(|| Ok(()));
    let (mut stream, end) = consume(received);
    async move {
        // Hold the receipt until the body is read: dropping the writer sends its default,
        // `Ok(())`, which acknowledges the body.
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
                // The body is complete. Waiting for the host to confirm it would cost one or
                // two more turns of the host. Trailers, which HTTP/2 may still send, stay with
                // the host for as long as the instance lives.
                if length == Some(whole.len()) {
                    return Ok(whole);
                }
                return end.await.map(|_| whole).map_err(|_| SendError::Unreachable);
            }
        }
    }
}

/// Hands the answer to the host; its body follows afterwards.
pub(super) fn outgoing(answer: Response<String>) -> Result<types::Response, ErrorCode> {
    let (head, body) = answer.into_parts();
    let (contents, trailers) = write(body);
    let (response, _) = types::Response::new(fields(&head.headers)?, contents, trailers);
    // A new response has status 200, so this saves a host call.
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

/// The stream from which the host reads a body.
fn write(body: String) -> (Option<StreamReader<u8>>, FutureReader<End>) {
    // Dropping the writer sends its default: no trailers.
    let (no_trailers, trailers) = wit_future::new(|| Ok(None));
    if body.is_empty() {
        return (None, trailers);
    }
    let (mut writer, contents) = wit_stream::new();
    spawn(async move {
        // If the host stops reading, the rest is discarded.
        drop(writer.write_all(body.into_bytes()).await);
        drop(writer);
        // By now the host waits for the trailers. Earlier, it would have to report that it has
        // taken them.
        drop(no_trailers);
    });
    (Some(contents), trailers)
}

/// A request whose body is sent while the host takes it, and the result of its transmission.
/// `None` if the host refuses a part of it. The core sends GET and POST.
pub(super) fn to_send(request: Request<String>) -> Option<(types::Request, FutureReader<Result<(), ErrorCode>>)> {
    let (head, body) = request.into_parts();
    let (contents, trailers) = write(body);
    let (request, transmitted) = types::Request::new(fields(&head.headers).ok()?, contents, trailers, None);
    let scheme = if head.uri.scheme_str() == Some("https") { Scheme::Https } else { Scheme::Http };
    // A new request has the method GET.
    if head.method == Method::POST {
        request.set_method(&types::Method::Post).ok()?;
    }
    request.set_scheme(Some(&scheme)).ok()?;
    request.set_authority(head.uri.authority().map(Authority::as_str)).ok()?;
    request.set_path_with_query(head.uri.path_and_query().map(PathAndQuery::as_str)).ok()?;
    Some((request, transmitted))
}
