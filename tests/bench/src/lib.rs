//! Asks an HTTP server as fast as it answers, over so many connections, and says how fast that was.

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

/// How a server is asked.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Requests at the same time.
    pub connections: usize,
    /// Whether a connection takes one request after the other, or each has one of its own.
    pub kept_alive: bool,
}

/// How a caller says who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// HTTP Basic (RFC 7617).
    Basic,
    /// In the body (RFC 6749 section 2.3.1).
    Body,
}

/// What a server is asked, again and again.
#[derive(Clone, Debug)]
pub struct Question {
    authorization: Option<HeaderValue>,
    /// One after the other.
    bodies: Vec<Bytes>,
    /// Another one is an error.
    expected: StatusCode,
}

impl Question {
    /// For a token of each of `scopes` in turn, or of everything that the caller may have where there are none.
    ///
    /// # Errors
    /// When the name or the secret cannot be in a header.
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

/// Asks `url` for so long.
///
/// # Errors
/// At the first answer with another status than the expected one, or none.
pub async fn ask(url: &Uri, question: &Question, shape: Shape, duration: Duration) -> anyhow::Result<Round> {
    let (url, question) = (Arc::new(url.clone()), Arc::new(question.clone()));
    let begin = Instant::now();
    let end = begin + duration;
    let mut connections = JoinSet::new();
    for first in 0..shape.connections {
        let (url, question) = (url.clone(), question.clone());
        // Each begins elsewhere among the bodies, and all of them together go through them evenly.
        let numbers = (first..).step_by(shape.connections);
        connections.spawn(async move { converse(&url, &question, shape.kept_alive, numbers, end).await });
    }
    let mut latencies = Vec::new();
    while let Some(ended) = connections.join_next().await {
        latencies.extend(ended.context("a connection panicked")??);
    }
    Ok(Round::new(latencies, begin.elapsed()))
}

/// Asks each in turns, so many times for so long: whatever else the machine does meets all of them. A quarter of that time before
/// each round does not count: by then the instances have started.
///
/// # Errors
/// As [`ask`].
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

/// One request after the other until `end`; how long each took, its connection included where it has one of its own.
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
