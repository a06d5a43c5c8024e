//! Outbound HTTP of the component, limited to the hosts of `allowed_outbound_hosts`.

use std::sync::Arc;

use http_body_util::BodyExt;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks, default_send_request};

use super::shared::Shared;

/// Sends the requests that a component may send, each over a connection of its own. Connecting,
/// the first byte and each further byte may take 600 s each, unless the component asks for
/// less.
pub(crate) struct Outbound(pub(crate) Arc<Shared>);

impl WasiHttpHooks for Outbound {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        // Whether the component received the whole response body, which changes nothing here.
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Sent, Error>> + Send> {
        let shared = self.0.clone();
        Box::new(async move {
            shared.counters.add(|counts| counts.outbound += 1);
            if !shared.allowed_hosts.allow(request.uri()) {
                let uri = request.uri();
                let (scheme, authority) =
                    (uri.scheme_str().unwrap_or("https"), uri.authority().map_or("", |a| a.as_str()));
                shared.output.report(&format!(
                    "the component may not send requests to {scheme}://{authority}: allowed_outbound_hosts in spin.toml does not list it"
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
