//! The HTTP side of a server: accepts connections, completes requests as Spin does, and passes
//! them to instances.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use broker_operator::spin::Route;
use http::header::{CONNECTION, HOST};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;
use wasmtime_wasi_http::WasiBody;
use wasmtime_wasi_http::handler::{InstantiationError, ProxyHandler};

use super::phase::{Phase, reached};
use super::workers::{Instances, Occupied};
use crate::runtime::shared::Shared;

pub(super) async fn accept(listener: TcpListener, front: Arc<Front>, phase: watch::Receiver<Phase>) {
    let mut draining = pin!(reached(phase.clone(), Phase::Draining));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut draining => return,
        };
        match accepted {
            Ok((stream, client)) => drop(tokio::spawn(front.clone().serve(stream, client, phase.clone()))),
            Err(error) => {
                // Mostly because too many files are open. An immediate retry would fail too and
                // keep a processor busy.
                front.shared.output.report(&format!("cannot accept a connection: {error}"));
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Takes requests from hyper and passes them to instances.
pub(super) struct Front {
    pub(super) routes: Vec<Route>,
    pub(super) handler: ProxyHandler<Instances>,
    pub(super) shared: Arc<Shared>,
}

impl Front {
    async fn serve(self: Arc<Self>, stream: TcpStream, client: SocketAddr, phase: watch::Receiver<Phase>) {
        // Otherwise an answer in two writes could wait 40 ms for the client's delayed
        // acknowledgement.
        drop(stream.set_nodelay(true));
        let server = auto::Builder::new(TokioExecutor::new());
        let service = service_fn(|request| {
            let front = self.clone();
            async move { anyhow::Ok(front.answer(request, client).await) }
        });
        let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
        // The result is ignored: it is an error if the client disconnects or does not speak
        // HTTP, and the host can do nothing about either.
        tokio::select! {
            _ = connection.as_mut() => return,
            () = reached(phase.clone(), Phase::Draining) => connection.as_mut().graceful_shutdown(),
        }
        tokio::select! {
            _ = connection => {}
            () = reached(phase, Phase::Ended) => {}
        }
    }

    async fn answer(&self, mut request: Request<Incoming>, client: SocketAddr) -> Response<WasiBody> {
        let path = request.uri().path().to_owned();
        let Some((route, below)) = self.routes.iter().find_map(|route| Some((route, route.matches(&path)?))) else {
            return plain(StatusCode::NOT_FOUND, "");
        };
        if let Err(error) = complete_uri(&mut request) {
            return plain(StatusCode::BAD_REQUEST, &format!("{error:#}\n"));
        }
        complete_headers(&mut request, route, below, client);

        self.shared.counters.add(|counts| counts.requests += 1);
        let method = request.method().clone();
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        match self.handle(request).await {
            Ok(response) => response,
            // When the server ends, its connections end too. The client must not get an answer
            // about the ended instance before that.
            Err(_) if *self.handler.state().phase.borrow() == Phase::Ended => std::future::pending().await,
            Err(error) => {
                self.shared.output.report(&format!("{method} {path} gets status 500: {error:#}"));
                plain(StatusCode::INTERNAL_SERVER_ERROR, "")
            }
        }
    }

    async fn handle(&self, mut request: Request<WasiBody>) -> wasmtime::Result<Response<WasiBody>> {
        loop {
            let error = match self.handler.handle((), request).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            let error: InstantiationError<()> = error.downcast()?;
            if !error.error.is::<Occupied>() {
                return Err(error.into());
            }
            // The single instance is busy, and the handler returned the request: try again.
            request = error.request.into_inner().expect("nothing locks the request but this");
            sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Gives the request the absolute URI that a component sees, from `Host` or, with HTTP/2,
/// `:authority`.
///
/// On failure the dev host answers with status 400, which is easier to understand than the
/// closed connection of Spin.
fn complete_uri<B>(request: &mut Request<B>) -> anyhow::Result<()> {
    let host = match request.headers().get(HOST) {
        Some(host) => Some(Authority::try_from(host.as_bytes()).context("the Host header is not a host name")?),
        None => None,
    };
    let mut parts = request.uri().clone().into_parts();
    let authority = match (host, parts.authority) {
        (None, None) => bail!("the request has no Host header"),
        (Some(host), Some(authority)) if host != authority => bail!("the Host header contradicts the URI"),
        (Some(authority), _) | (None, Some(authority)) => authority,
    };
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(authority);
    *request.uri_mut() = Uri::from_parts(parts).context("the request has no path")?;
    Ok(())
}

/// Adds the headers in which Spin describes a request. As with Spin, a header of the same name
/// from the client stays, before the added one.
fn complete_headers<B>(request: &mut Request<B>, route: &Route, below: &str, client: SocketAddr) {
    let uri = request.uri().to_string();
    let headers: &mut HeaderMap = request.headers_mut();
    headers.remove(CONNECTION);
    let (raw_route, prefix) = match route {
        Route::Exact(path) => (path.clone(), path),
        Route::Tree(path) => (format!("{path}/..."), path),
    };
    let values = [
        ("spin-path-info", below),
        ("spin-full-url", &uri),
        ("spin-matched-route", &raw_route),
        ("spin-base-path", "/"),
        ("spin-raw-component-route", &raw_route),
        ("spin-component-route", prefix),
        ("spin-client-addr", &client.to_string()),
    ];
    for (name, value) in values {
        // Paths and URIs have been parsed, so they fit into a header. A route that does not fit
        // gets no header.
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.append(name, value);
        }
    }
}

fn plain(status: StatusCode, text: &str) -> Response<WasiBody> {
    let body = Full::new(Bytes::copy_from_slice(text.as_bytes())).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_uri_is_completed_from_the_host_or_refused() {
        let cases = [
            (Some("a.example"), "/x?y=1", Ok("http://a.example/x?y=1")),
            (Some("a.example:3000"), "/", Ok("http://a.example:3000/")),
            (None, "http://a.example/x", Ok("http://a.example/x")),
            (Some("a.example"), "http://a.example/x", Ok("http://a.example/x")),
            (Some("b.example"), "http://a.example/x", Err("contradicts")),
            (None, "/x", Err("no Host")),
            (Some("a b"), "/x", Err("is not a host name")),
        ];
        for (host, uri, expected) in cases {
            let mut request = Request::builder().uri(uri);
            if let Some(host) = host {
                request = request.header(HOST, host);
            }
            let mut request = request.body(()).unwrap();
            let result =
                complete_uri(&mut request).map(|()| request.uri().to_string()).map_err(|error| error.to_string());
            match (result, expected) {
                (Ok(uri), Ok(expected)) => assert_eq!(uri, expected),
                (Err(error), Err(expected)) => assert!(error.contains(expected), "{error}"),
                (result, _) => panic!("{host:?} {uri}: {result:?}"),
            }
        }
    }
}
