//! HTTP between a test, as a caller, and the broker.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONNECTION, DATE, HOST};
use http::{HeaderName, HeaderValue, Request};
use http_body_util::BodyExt;
use hyper::body::Body;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::leak::{keep_secret, saw};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// One HTTP answer, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers of the component in their order, names in lower case. Left out are `date` and
    /// `connection`, which the host adds, and `x-request-id`, which differs in every answer.
    pub headers: Vec<(String, String)>,
    /// `x-request-id`, by which the log names the request; empty if missing.
    pub request_id: String,
    /// Body as text.
    pub body: String,
}

impl Answer {
    /// Returns the value of the header `name`, which must appear only once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(other, _)| other == name).map(|(_, value)| value.as_str());
        let value = values.next();
        assert_eq!(values.next(), None, "{name} appears twice: {self:?}");
        value
    }

    /// Parses the body as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Returns the `error` of RFC 6749 section 5.2.
    #[track_caller]
    pub fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_else(|| panic!("no error: {self:?}")).to_owned()
    }

    /// Returns the `access_token`, and fails unless the answer is a 200 with one.
    #[track_caller]
    pub fn token(&self) -> String {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()["access_token"].as_str().unwrap_or_else(|| panic!("no token: {self:?}")).to_owned()
    }

    /// Returns the `expires_in`, and fails unless the answer is a 200 with one.
    #[track_caller]
    pub fn expires_in(&self) -> u64 {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()["expires_in"].as_u64().unwrap_or_else(|| panic!("no expires_in: {self:?}"))
    }

    /// Returns the `scope`, and fails unless the answer is a 200 with one.
    #[track_caller]
    pub fn scope(&self) -> String {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()["scope"].as_str().unwrap_or_else(|| panic!("no scope: {self:?}")).to_owned()
    }

    /// Returns `Retry-After` in seconds, if the answer has one.
    #[track_caller]
    pub fn retry_after(&self) -> Option<u64> {
        self.header("retry-after")
            .map(|text| text.parse().unwrap_or_else(|_| panic!("Retry-After is not a number of seconds: {self:?}")))
    }
}

/// Sends a request to `addr` on a new connection and reads the answer. Dropping the future
/// closes the connection.
///
/// Adds `Host` if the request has none.
///
/// # Errors
/// If no complete answer arrives.
pub async fn exchange<B>(addr: SocketAddr, mut request: Request<B>) -> anyhow::Result<Answer>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    request.headers_mut().entry(HOST).or_insert(HeaderValue::try_from(addr.to_string())?);
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let conversation = async move {
        let response = sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = head.headers.iter().filter(|(name, _)| ![DATE, CONNECTION, X_REQUEST_ID].contains(name));
        anyhow::Ok(Answer {
            status: head.status.as_u16(),
            request_id: head.headers.get(X_REQUEST_ID).map(text).unwrap_or_default(),
            headers: headers.map(|(name, value)| (name.to_string(), text(value))).collect(),
            body: String::from_utf8(body.collect().await?.to_bytes().to_vec())?,
        })
    };
    // The connection ends with the conversation. An error of the connection does not matter
    // once the answer is complete.
    let (answer, _) = tokio::join!(conversation, connection);
    if let Ok(answer) = &answer {
        watch(answer);
    }
    answer
}

/// Searches an answer for secrets. The only secret that it may contain is its own access token,
/// which is kept as a secret from now on.
fn watch(answer: &Answer) {
    let mut answer = answer.clone();
    if let Ok(mut grant) = serde_json::from_str::<serde_json::Value>(&answer.body)
        && answer.status == 200
        && let Some(token) = grant.as_object_mut().and_then(|grant| grant.remove("access_token"))
    {
        token
            .as_str()
            .filter(|token| token.len() >= 32 && token.is_ascii())
            .into_iter()
            .for_each(|token| keep_secret("a token", token));
        answer.body = grant.to_string();
    }
    saw(&format!("{} {:?}\n{}", answer.status, answer.headers, answer.body));
}

/// Encodes fields as `application/x-www-form-urlencoded`.
pub fn form(fields: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

/// Returns the value of `Authorization` for HTTP Basic, with id and secret form-encoded (RFC
/// 6749 section 2.3.1).
pub fn basic(id: &str, secret: &str) -> String {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    format!("Basic {}", STANDARD.encode(format!("{}:{}", encode(id), encode(secret))))
}
