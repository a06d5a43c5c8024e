//! Load generator: sends requests to an HTTP server as fast as it answers, over several
//! connections, and measures the rate and the latencies.

mod connection;
mod figures;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::Full;
use tokio::task::JoinSet;

pub use figures::{Round, Summary};

/// How requests reach a server.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Number of requests at the same time.
    pub connections: usize,
    /// Whether a connection carries one request after another, or only one.
    pub kept_alive: bool,
}

/// How a caller authenticates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// HTTP Basic (RFC 7617).
    Basic,
    /// Credentials in the body (RFC 6749 section 2.3.1).
    Body,
}

/// A request that is sent again and again.
#[derive(Clone, Debug)]
pub struct Question {
    authorization: Option<HeaderValue>,
    /// Bodies, used in turn.
    bodies: Vec<Bytes>,
    /// Expected status; any other is an error.
    expected: StatusCode,
}

impl Question {
    /// Builds token requests for each of `scopes` in turn. If there are none, the request asks
    /// for all scopes of the caller.
    ///
    /// # Errors
    /// If the name or the secret cannot be part of a header.
    pub fn token(
        authentication: Authentication,
        caller: &str,
        secret: &str,
        scopes: &[String],
        expected: StatusCode,
    ) -> anyhow::Result<Self> {
        let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let authorization = match authentication {
            Authentication::Basic => {
                let credentials = STANDARD.encode(format!("{}:{}", encode(caller), encode(secret)));
                Some(HeaderValue::try_from(format!("Basic {credentials}")).context("the credentials")?)
            }
            Authentication::Body => None,
        };
        let body = |scope: Option<&String>| {
            let mut form = form_urlencoded::Serializer::new(String::new());
            form.append_pair("grant_type", "client_credentials");
            if authentication == Authentication::Body {
                form.append_pair("client_id", caller).append_pair("client_secret", secret);
            }
            form.extend_pairs(scope.map(|scope| ("scope", scope)));
            Bytes::from(form.finish())
        };
        let bodies =
            if scopes.is_empty() { vec![body(None)] } else { scopes.iter().map(|scope| body(Some(scope))).collect() };
        Ok(Self { authorization, bodies, expected })
    }

    fn request(&self, url: &Uri, number: usize) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.bodies[number % self.bodies.len()].clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = url.path_and_query().map_or_else(Uri::default, |path| Uri::from(path.clone()));
        let headers = request.headers_mut();
        let host = url.authority().map_or("", |authority| authority.as_str());
        headers.insert(HOST, HeaderValue::from_str(host).expect("an authority is visible ASCII"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.extend(self.authorization.clone().map(|value| (AUTHORIZATION, value)));
        request
    }
}

/// Sends requests to `url` for this long.
///
/// # Errors
/// If an answer is missing or has an unexpected status.
pub async fn ask(url: &Uri, question: &Question, shape: Shape, duration: Duration) -> anyhow::Result<Round> {
    let (url, question) = (Arc::new(url.clone()), Arc::new(question.clone()));
    let begin = Instant::now();
    let end = begin + duration;
    let mut connections = JoinSet::new();
    for first in 0..shape.connections {
        let (url, question) = (url.clone(), question.clone());
        // Each connection begins with another body, so that all bodies are used evenly.
        let numbers = (first..).step_by(shape.connections);
        connections.spawn(async move { converse(&url, &question, shape.kept_alive, numbers, end).await });
    }
    let mut latencies = Vec::new();
    while let Some(ended) = connections.join_next().await {
        latencies.extend(ended.context("a connection panicked")??);
    }
    Ok(Round::new(latencies, begin.elapsed()))
}

/// Sends requests to each URL in turns, so that other load of the machine meets all of them.
/// Before each round, a quarter of its duration is spent on warming up.
///
/// # Errors
/// As for [`ask`].
pub async fn ask_in_turns(
    asked: &[(Uri, Question)],
    shape: Shape,
    times: usize,
    duration: Duration,
) -> anyhow::Result<Vec<Vec<Round>>> {
    let mut rounds: Vec<_> = asked.iter().map(|_| Vec::new()).collect();
    for _ in 0..times {
        for ((url, question), rounds) in asked.iter().zip(&mut rounds) {
            ask(url, question, shape, duration / 4).await?;
            rounds.push(ask(url, question, shape, duration).await?);
        }
    }
    Ok(rounds)
}

/// Sends one request after another until `end`, and returns their latencies. A new connection
/// is part of its request's latency.
async fn converse(
    url: &Uri,
    question: &Question,
    kept_alive: bool,
    numbers: impl Iterator<Item = usize>,
    end: Instant,
) -> anyhow::Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    let mut open = None;
    for number in numbers {
        let begin = Instant::now();
        if begin >= end {
            break;
        }
        let mut connection = match open.take() {
            Some(connection) => connection,
            None => connection::open(url).await?,
        };
        let (status, body) = connection.exchange(question.request(url, number)).await?;
        latencies.push(begin.elapsed());
        if status != question.expected {
            bail!("{url} answers {status}: {}", String::from_utf8_lossy(&body));
        }
        open = Some(connection).filter(|connection| kept_alive && connection.is_open());
    }
    ensure!(!latencies.is_empty(), "the time was over before {url} was asked");
    Ok(latencies)
}
