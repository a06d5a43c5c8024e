//! HTTP as a caller speaks it.

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

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Every header of the component in its order, names in lower case: without `date` and `connection`, which are the host's,
    /// and `x-request-id`, which no two answers share.
    pub headers: Vec<(String, String)>,
    /// What the log calls the request; empty if it does not say.
    pub request_id: String,
    /// The body.
    pub body: String,
}

impl Answer {
    /// The value of the header `name`, which must not be there twice.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(other, _)| other == name).map(|(_, value)| value.as_str());
        let value = values.next();
        assert_eq!(values.next(), None, "{name} is there twice: {self:?}");
        value
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The `error` of RFC 6749 section 5.2.
    #[track_caller]
    pub fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_else(|| panic!("no error: {self:?}")).to_owned()
    }

    /// The access token of an answer that has one.
    #[track_caller]
    pub fn token(&self) -> String {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()["access_token"].as_str().unwrap_or_else(|| panic!("no token: {self:?}")).to_owned()
    }

    /// The `expires_in` of an answer that has a token.
    #[track_caller]
    pub fn expires_in(&self) -> u64 {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()["expires_in"].as_u64().unwrap_or_else(|| panic!("no expires_in: {self:?}"))
    }

    /// The `scope` of an answer that has a token.
    #[track_caller]
    pub fn scope(&self) -> String {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()["scope"].as_str().unwrap_or_else(|| panic!("no scope: {self:?}")).to_owned()
    }

    /// `Retry-After` in seconds, if it is there.
    #[track_caller]
    pub fn retry_after(&self) -> Option<u64> {
        self.header("retry-after").map(|text| text.parse().unwrap_or_else(|_| panic!("no seconds: {self:?}")))
    }
}

/// Sends a request to `addr` on a connection of its own, and reads the answer. Dropping the future closes the connection.
///
/// `Host` is added when it is missing.
///
/// # Errors
/// When there is no whole answer.
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
    // The connection ends when the conversation is over; how is of no interest once there is an answer.
    let (answer, _) = tokio::join!(conversation, connection);
    if let Ok(answer) = &answer {
        watch(answer);
    }
    answer
}

/// An answer may have one secret: the token that it is about.
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

/// A form, encoded.
pub fn form(fields: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

/// The value of `Authorization` for HTTP Basic, id and secret form-encoded as RFC 6749 section 2.3.1 wants it.
pub fn basic(id: &str, secret: &str) -> String {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    format!("Basic {}", STANDARD.encode(format!("{}:{}", encode(id), encode(secret))))
}
