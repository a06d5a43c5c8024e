//! The component's way out: HTTP to the hosts of `allowed_outbound_hosts`, and to nothing else.

use std::sync::Arc;

use http_body_util::BodyExt;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks, default_send_request};

use super::shared::HostState;

/// Sends what a component may send, over a connection of its own, with 600 s for each of connecting, the first byte
/// and the next byte unless the component asks for less.
pub(crate) struct Outbound(pub(crate) Arc<HostState>);

impl WasiHttpHooks for Outbound {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        // How the component fared with the response's body: there is nothing to do about it.
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Sent, Error>> + Send> {
        let host = self.0.clone();
        Box::new(async move {
            host.counters.add(|counts| counts.outbound += 1);
            if !host.allowed_hosts.allow(request.uri()) {
                let uri = request.uri();
                let (scheme, authority) =
                    (uri.scheme_str().unwrap_or("https"), uri.authority().map_or("", |a| a.as_str()));
                host.output.report(&format!(
                    "the component may not call {scheme}://{authority}: allowed_outbound_hosts in spin.toml does not list it"
                ));
                return Err(Error::HttpRequestDenied);
            }
            let (response, connection) = default_send_request(request, options).await?;
            Ok((response.map(BodyExt::boxed_unsync), Box::new(connection) as Connection))
        })
    }
}

type Connection = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Sent = (http::Response<WasiBody>, Connection);
