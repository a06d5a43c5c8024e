//! The sandbox: a stand-in for OfficeRnD's identity host on loopback, which records the
//! requests that it receives.
//!
//! The demo of `cargo run` uses it, and so do the tests, which can also make it misbehave.

mod endpoint;
mod faults;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use self::endpoint::Endpoint;
pub use self::endpoint::{Application, Config};
use self::faults::send_raw;
pub use self::faults::{Answer, Then};

/// A request that the sandbox received.
#[derive(Clone, Debug)]
pub struct Call {
    /// Time at which its last byte was read.
    pub at: Instant,
    /// HTTP method.
    pub method: String,
    /// Path, including a query.
    pub path: String,
    /// Headers in the order of their first occurrence, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body, without the framing of chunks.
    pub body: Bytes,
    /// Status of the answer; `None` before the answer, and always after [`Answer::Raw`].
    pub status: Option<u16>,
}

impl Call {
    /// Returns the value of the first header `name`, which must be in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// Returns the decoded fields of the form in the body, in their order.
    pub fn form(&self) -> Vec<(String, String)> {
        url::form_urlencoded::parse(&self.body).into_owned().collect()
    }
}

/// A running sandbox. Dropping it closes the port and all connections.
pub struct Sandbox {
    addr: SocketAddr,
    state: Arc<State>,
    server: Mutex<JoinHandle<()>>,
}

struct State {
    book: Mutex<Book>,
}

/// State that changes with the requests.
struct Book {
    endpoint: Endpoint,
    calls: Vec<Call>,
    next: VecDeque<Answer>,
    always: Answer,
}

impl Sandbox {
    /// Starts a sandbox on a free port of loopback.
    ///
    /// # Errors
    ///
    /// If no port is free.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("the sandbox cannot find a free port")?;
        let addr = listener.local_addr().context("the sandbox has no address")?;
        let book =
            Book { endpoint: Endpoint::new(config), calls: Vec::new(), next: VecDeque::new(), always: Answer::Normal };
        let state = Arc::new(State { book: Mutex::new(book) });
        let server = Mutex::new(tokio::spawn(serve(listener, state.clone())));
        Ok(Self { addr, state, server })
    }

    /// Identity URL for a broker: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Returns all requests so far, in the order of their arrival.
    pub fn calls(&self) -> Vec<Call> {
        self.state.book().calls.clone()
    }

    /// Sets the applications that may obtain tokens, and deletes all others.
    pub fn set_applications(&self, applications: Vec<Application>) {
        self.state.book().endpoint.set_applications(applications);
    }

    /// Creates an application, as an operator does in OfficeRnD's console.
    pub fn create_application(&self, application: Application) {
        self.state.book().endpoint.create_application(application);
    }

    /// Deletes the application with this id, as OfficeRnD's support does. This revokes its tokens,
    /// and a request with its credential gets `invalid_client`.
    pub fn delete_application(&self, id: &str) {
        self.state.book().endpoint.delete_application(id);
    }

    /// Whether OfficeRnD's API would accept a token: it has not expired, and its application has
    /// not been deleted.
    pub fn accepts(&self, token: &str) -> bool {
        self.state.book().endpoint.accepts(token)
    }

    /// Returns the latest token of each client and scopes.
    pub fn tokens(&self) -> Vec<String> {
        self.state.book().endpoint.tokens()
    }

    /// Returns the client id of a token, if the token is the latest one for its client and
    /// scopes.
    pub fn owner(&self, token: &str) -> Option<String> {
        self.state.book().endpoint.owner(token)
    }

    /// Sets the answer to the next request; another call sets the answer to the request after
    /// that.
    pub fn answer_next(&self, answer: Answer) {
        self.state.book().next.push_back(answer);
    }

    /// Sets the answer to all further requests, except those with an answer from
    /// [`answer_next`](Self::answer_next).
    pub fn answer_always(&self, answer: Answer) {
        self.state.book().always = answer;
    }

    /// Closes the port and all connections, so that new connections are refused.
    pub fn close(&self) {
        self.server().abort();
    }

    /// Listens again on the same port after [`close`](Self::close).
    ///
    /// # Errors
    ///
    /// If another program uses the port, or if the old listener or a connection of another program still holds it after 10 s.
    pub async fn open(&self) -> anyhow::Result<()> {
        let mut tries = 0;
        let listener = loop {
            match TcpListener::bind(self.addr).await {
                Ok(listener) => break listener,
                Err(_) if tries < 500 => tries += 1,
                Err(error) => return Err(error).context("the sandbox cannot listen on its port again"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        *self.server() = tokio::spawn(serve(listener, self.state.clone()));
        Ok(())
    }

    fn server(&self) -> MutexGuard<'_, JoinHandle<()>> {
        self.server.lock().expect("nothing panics while it holds the task")
    }

    /// Resets the rate limit.
    pub fn forget_limit(&self) {
        self.state.book().endpoint.forget_limit();
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.close();
    }
}

impl State {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("nothing panics while it holds the book")
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    // The set ends the connections when this task is aborted.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            // Accepting on loopback fails if the process has too many open files. The client
            // then sees a refused connection, and no better answer is possible.
            Ok((stream, _)) = listener.accept() => drop(connections.spawn(serve_connection(stream, state.clone()))),
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve_connection(stream: TcpStream, state: Arc<State>) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    // A second handle on the socket, so that faults can send raw bytes past hyper.
    let stream = stream.into_std()?;
    let raw = TcpStream::from_std(stream.try_clone()?)?;
    let raw = Arc::new(tokio::sync::Mutex::new(raw));
    let service = service_fn(|request| respond(request, state.clone(), raw.clone()));
    http1::Builder::new().serve_connection(TokioIo::new(TcpStream::from_std(stream)?), service).await?;
    Ok(())
}

/// Answers a request. On an error, hyper closes the connection without an answer.
async fn respond(
    request: Request<Incoming>,
    state: Arc<State>,
    raw: Arc<tokio::sync::Mutex<TcpStream>>,
) -> anyhow::Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let (index, answer) = {
        let mut book = state.book();
        book.calls.push(Call {
            at: Instant::now(),
            method: head.method.to_string(),
            path: head.uri.to_string(),
            headers: text_headers(&head.headers),
            body: body.clone(),
            status: None,
        });
        (book.calls.len() - 1, book.next.pop_front().unwrap_or_else(|| book.always.clone()))
    };
    let response = match answer {
        Answer::Raw(bytes, then) => {
            send_raw(&mut *raw.lock().await, &bytes, then).await?;
            anyhow::bail!("the answer is complete");
        }
        Answer::Fixed(response) => response,
        Answer::Normal => state.book().endpoint.answer(&head.method, head.uri.path(), &head.headers, &body),
        Answer::Late(delay) => {
            let response = state.book().endpoint.answer(&head.method, head.uri.path(), &head.headers, &body);
            tokio::time::sleep(delay).await;
            response
        }
    };
    state.book().calls[index].status = Some(response.status().as_u16());
    Ok(response.map(Full::new))
}

fn text_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::clock::Clock;

    const FORM: &str = "application/x-www-form-urlencoded";
    const GOOD: &str = "client_id=app&client_secret=s3cret&grant_type=client_credentials&scope=a.read+b.read";

    fn config() -> Config {
        let scopes = ["a.read", "b.read", "c.read"].map(String::from).to_vec();
        Config {
            applications: vec![Application { id: "app".into(), secret: "s3cret".into(), scopes }],
            ..Config::default()
        }
    }

    /// Sends one request as bytes and returns the whole answer.
    async fn send(sandbox: &Sandbox, method: &str, path: &str, content_type: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(sandbox.addr).await.unwrap();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: sandbox\r\nX-One: 1\r\nContent-Type: {content_type}\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    fn json_of(answer: &str) -> serde_json::Value {
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    #[tokio::test]
    async fn valid_form_gets_a_token_and_is_recorded() {
        let sandbox = Sandbox::start(config()).await.unwrap();
        let answer = send(&sandbox, "POST", "/oauth/token", FORM, GOOD).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let json = json_of(&answer);
        let token = json["access_token"].as_str().unwrap();
        assert!(token.len() == 40 && token.bytes().all(|b| b.is_ascii_hexdigit()), "{token}");
        assert_eq!((&json["token_type"], &json["scope"]), (&json!("Bearer"), &json!("a.read b.read")));
        assert_eq!(json["expires_in"], 3599);

        let call = &sandbox.calls()[0];
        assert_eq!((call.method.as_str(), call.path.as_str(), call.status), ("POST", "/oauth/token", Some(200)));
        let names: Vec<_> = call.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["host", "x-one", "content-type", "content-length", "connection"]);
        assert_eq!(call.header("content-type"), Some(FORM));
        assert_eq!(call.body, GOOD.as_bytes());
        assert_eq!(call.form()[3], ("scope".into(), "a.read b.read".into()));
    }

    #[tokio::test]
    async fn invalid_requests_are_refused_as_by_officernd() {
        let sandbox = Sandbox::start(Config { calls_per_minute: 100, ..config() }).await.unwrap();
        let cases = [
            ("POST", "/oauth/token", "application/json", GOOD, "400", "invalid_request"),
            ("POST", "/oauth/token", FORM, &GOOD.replace("s3cret", "wrong"), "401", "invalid_client"),
            ("POST", "/oauth/token", FORM, &GOOD.replace("id=app", "id=other"), "401", "invalid_client"),
            ("POST", "/oauth/token", FORM, "grant_type=client_credentials", "401", "invalid_client"),
            (
                "POST",
                "/oauth/token",
                FORM,
                &GOOD.replace("client_credentials", "password"),
                "400",
                "unsupported_grant_type",
            ),
            ("POST", "/oauth/token", FORM, &GOOD.replace("b.read", "d.read"), "400", "invalid_scope"),
            ("GET", "/oauth/token", FORM, "", "405", "Not Allowed"),
            ("POST", "/other", FORM, GOOD, "404", "Not Found"),
        ];
        for (method, path, content_type, body, status, text) in cases {
            let answer = send(&sandbox, method, path, content_type, body).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(text), "{body}: {answer}");
        }
    }

    #[tokio::test]
    async fn sixth_call_of_a_minute_gets_429_in_plain_text_even_after_failures() {
        let sandbox = Sandbox::start(config()).await.unwrap();
        let wrong = GOOD.replace("s3cret", "wrong");
        for body in [GOOD, &wrong, &wrong, GOOD, GOOD] {
            assert!(!send(&sandbox, "POST", "/oauth/token", FORM, body).await.starts_with("HTTP/1.1 429"));
        }
        let answer = send(&sandbox, "POST", "/oauth/token", FORM, GOOD).await;
        assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("text/plain"), "{answer}");
        assert!(answer.ends_with("Too many requests, please try again later"), "{answer}");
        sandbox.forget_limit();
        assert!(send(&sandbox, "POST", "/oauth/token", FORM, GOOD).await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn deleted_application_loses_its_tokens_and_is_refused() {
        let clock = Clock::default();
        let sandbox = Sandbox::start(Config { clock: clock.clone(), ..config() }).await.unwrap();
        let other = Application { id: "other".into(), ..config().applications.remove(0) };
        sandbox.create_application(other.clone());
        let body_of_other = GOOD.replace("id=app", "id=other");
        let mut tokens = Vec::new();
        for body in [GOOD, &body_of_other] {
            let json = json_of(&send(&sandbox, "POST", "/oauth/token", FORM, body).await);
            tokens.push(json["access_token"].as_str().unwrap().to_owned());
        }
        let accepted = || tokens.iter().map(|token| sandbox.accepts(token)).collect::<Vec<_>>();
        assert_eq!(accepted(), [true, true]);
        assert!(!sandbox.accepts("never issued"));
        sandbox.delete_application("app");
        assert_eq!(accepted(), [false, true]);
        let answer = send(&sandbox, "POST", "/oauth/token", FORM, GOOD).await;
        assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("invalid_client"), "{answer}");
        clock.set_ahead(Duration::from_secs(3599));
        assert_eq!(accepted(), [false, true]);
        clock.set_ahead(Duration::from_secs(3601));
        assert_eq!(accepted(), [false, false]);
    }

    #[tokio::test]
    async fn repeated_request_gets_a_new_or_the_same_token_as_configured() {
        for reissue in [false, true] {
            let sandbox = Sandbox::start(Config { reissue, ..config() }).await.unwrap();
            let first = json_of(&send(&sandbox, "POST", "/oauth/token", FORM, GOOD).await);
            let second = json_of(&send(&sandbox, "POST", "/oauth/token", FORM, GOOD).await);
            assert_eq!(first["access_token"] == second["access_token"], reissue);
        }
    }

    #[tokio::test]
    async fn requested_faults_reach_the_client() {
        let sandbox = Sandbox::start(config()).await.unwrap();
        sandbox.answer_always(Answer::json(StatusCode::INTERNAL_SERVER_ERROR, &json!({})));
        sandbox.answer_next(Answer::Raw("HTTP/1.1 200 OK\r\nContent-Le".into(), Then::Close));
        sandbox.answer_next(Answer::close());
        sandbox.answer_next(Answer::Late(Duration::from_millis(50)));
        let send = || send(&sandbox, "POST", "/oauth/token", FORM, GOOD);
        assert_eq!(send().await, "HTTP/1.1 200 OK\r\nContent-Le");
        assert_eq!(send().await, "");
        let before = Instant::now();
        assert!(send().await.starts_with("HTTP/1.1 200"));
        assert!(before.elapsed() >= Duration::from_millis(50));
        assert!(send().await.starts_with("HTTP/1.1 500"));
        sandbox.answer_always(Answer::hang());
        tokio::time::timeout(Duration::from_millis(100), send()).await.unwrap_err();
        let statuses: Vec<_> = sandbox.calls().iter().map(|call| call.status).collect();
        assert_eq!(statuses, [None, None, Some(200), Some(500), None]);
    }
}
