//! An HTTP/1.1 connection, with or without TLS.

use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustix::net::sockopt::set_tcp_quickack;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Future that moves the bytes. It is polled while a request waits for its answer.
    driver: Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>,
}

/// Connects to the host of `url`.
pub(crate) async fn open(url: &Uri) -> anyhow::Result<Connection> {
    let host = url.host().context("the URL has no host")?;
    let is_https = match url.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => bail!("the URL must begin with http:// or https://"),
    };
    let port = url.port_u16().unwrap_or(if is_https { 443 } else { 80 });
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port))
        .await
        .with_context(|| format!("cannot connect to {host}:{port}"))?;
    stream.set_nodelay(true)?;
    // Reset instead of a normal close: a closed connection would keep its port for a minute,
    // and there are only 28,000 ports.
    stream.set_zero_linger()?;
    let stream = Prompt(stream);
    if is_https {
        let name = ServerName::try_from(host.to_owned()).context("the URL's host is no name for TLS")?;
        let stream = tls().connect(name, stream).await.with_context(|| format!("TLS with {host}"))?;
        handshake(stream).await
    } else {
        handshake(stream).await
    }
}

fn tls() -> &'static TlsConnector {
    static TLS: OnceLock<TlsConnector> = OnceLock::new();
    TLS.get_or_init(|| {
        let roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        TlsConnector::from(Arc::new(config))
    })
}

async fn handshake(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> anyhow::Result<Connection> {
    let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
    Ok(Connection { sender, driver: Box::pin(driver) })
}

impl Connection {
    /// Sends a request and reads the answer to its end.
    pub(crate) async fn exchange(&mut self, request: Request<Full<Bytes>>) -> anyhow::Result<(StatusCode, Bytes)> {
        let sender = &mut self.sender;
        let mut exchange = pin!(async move {
            sender.ready().await?;
            let (head, body) = sender.send_request(request).await?.into_parts();
            anyhow::Ok((head.status, body.collect().await?.to_bytes()))
        });
        tokio::select! {
            biased;
            answer = exchange.as_mut() => answer,
            // The last bytes of an answer can arrive together with the end of the connection.
            ended = &mut self.driver => match ended {
                Ok(()) => exchange.await,
                Err(error) => Err(anyhow!(error).context("the connection broke")),
            },
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }
}

/// A stream that acknowledges every read at once. A server without `TCP_NODELAY`, such as Spin
/// 4.1, waits for the acknowledgement of the first half of an answer before it sends the
/// second.
struct Prompt(TcpStream);

impl AsyncRead for Prompt {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // The kernel turns delayed acknowledgement on again, so it is turned off at every read.
        set_tcp_quickack(&self.0, true)?;
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Prompt {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
