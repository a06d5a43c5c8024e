//! Between hyper and the instances.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
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
use crate::runtime::shared::HostState;
use crate::spin::manifest::Route;

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
                // Mostly: too many open files. Trying again at once would only burn the processor.
                front.host.output.report(&format!("cannot accept a connection: {error}"));
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Between hyper and the instances.
pub(super) struct Front {
    pub(super) routes: Vec<Route>,
    pub(super) handler: ProxyHandler<Instances>,
    pub(super) host: Arc<HostState>,
}

impl Front {
    async fn serve(self: Arc<Self>, stream: TcpStream, client: SocketAddr, phase: watch::Receiver<Phase>) {
        // Without it, an answer that leaves in two writes can wait 40 ms for the client's delayed acknowledgement.
        drop(stream.set_nodelay(true));
        let server = auto::Builder::new(TokioExecutor::new());
        let service = service_fn(|request| {
            let front = self.clone();
            async move { anyhow::Ok(front.answer(request, client).await) }
        });
        let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
        // A client that breaks off or speaks no HTTP is its own affair: the result is of no interest.
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

        self.host.counters.add(|counts| counts.requests += 1);
        let method = request.method().clone();
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        match self.handle(request).await {
            Ok(response) => response,
            // Whoever ends the server ends the connection too, and nobody is told in between what became of an instance.
            Err(_) if *self.handler.state().phase.borrow() == Phase::Ended => std::future::pending().await,
            Err(error) => {
                self.host.output.report(&format!("{method} {path} is answered with 500: {error:#}"));
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
            // The one instance has no room at this moment, and the handler gave the request back.
            request = error.request.into_inner().expect("nothing locks the request but this");
            sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Gives the request the absolute URI that a component sees, from `Host` or, with HTTP/2, `:authority`.
///
/// Spin closes the connection where this fails; an answer is easier to understand.
fn complete_uri<B>(request: &mut Request<B>) -> anyhow::Result<()> {
    let host = match request.headers().get(HOST) {
        Some(host) => Some(Authority::try_from(host.as_bytes()).context("the Host header is no host")?),
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

/// Adds what Spin tells a component about a request. As with Spin, a client's own header of that name stays before
/// it.
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
        // Paths and URIs have been parsed: nothing in them is forbidden in a header, and a route that is gets none.
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
    fn the_uri_is_made_of_host_and_path_or_refused() {
        let cases = [
            (Some("a.example"), "/x?y=1", Ok("http://a.example/x?y=1")),
            (Some("a.example:3000"), "/", Ok("http://a.example:3000/")),
            (None, "http://a.example/x", Ok("http://a.example/x")),
            (Some("a.example"), "http://a.example/x", Ok("http://a.example/x")),
            (Some("b.example"), "http://a.example/x", Err("contradicts")),
            (None, "/x", Err("no Host")),
            (Some("a b"), "/x", Err("is no host")),
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
