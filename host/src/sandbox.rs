//! An identity server on loopback that behaves as OfficeRnD's token endpoint does, and records what it was asked.
//!
//! For the demo of `cargo run`, and for the tests, which can also make it misbehave.

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// The path of the token endpoint.
const TOKEN_PATH: &str = "/oauth/token";

const JSON: &str = "application/json; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// The window of the rate limit.
const WINDOW: Duration = Duration::from_secs(60);

/// What the sandbox knows and how strict it is.
#[derive(Clone, Debug)]
pub struct Config {
    /// The applications that may obtain tokens.
    pub applications: Vec<Application>,
    /// Calls a client may make in any 60 s, failed ones included. Calls that are refused for it do not count.
    pub calls_per_minute: usize,
    /// How long a token lives.
    pub token_life: Duration,
    /// Whether a repeated request gets the token it got before, with less time left, as long as that token lives.
    pub reissue: bool,
}

impl Default for Config {
    /// No application; OfficeRnD's 5 calls a minute and 3600 s; a new token each time.
    fn default() -> Self {
        Self { applications: Vec::new(), calls_per_minute: 5, token_life: Duration::from_secs(3600), reissue: false }
    }
}

/// An OfficeRnD application.
#[derive(Clone, Debug)]
pub struct Application {
    /// `client_id`.
    pub id: String,
    /// `client_secret`.
    pub secret: String,
    /// The scopes it has been granted.
    pub scopes: Vec<String>,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Call {
    /// When its last byte had been read.
    pub at: Instant,
    /// The method.
    pub method: String,
    /// The path, with the query if there is one.
    pub path: String,
    /// The headers in the order of their first occurrence, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, without the framing of a chunked one.
    pub body: Bytes,
    /// The status of the answer; `None` while there is none, and for good after [`Answer::Raw`].
    pub status: Option<u16>,
}

impl Call {
    /// The value of the first header `name`, which is in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// The fields of the form in the body, decoded, in their order.
    pub fn form(&self) -> Vec<(String, String)> {
        url::form_urlencoded::parse(&self.body).into_owned().collect()
    }
}

/// How a request is answered. All but the first two leave the rate limit alone.
#[derive(Clone, Debug)]
pub enum Answer {
    /// As OfficeRnD would.
    Normal,
    /// As OfficeRnD would on arrival, but sent so much later.
    Late(Duration),
    /// With this.
    Fixed(Response<Bytes>),
    /// With these bytes on the connection, and then as said.
    Raw(Bytes, Then),
}

/// What happens to the connection after [`Answer::Raw`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It is closed.
    Close,
    /// It stays open, silent, until the client closes it.
    Hang,
    /// It is reset.
    Reset,
    /// These bytes follow, with this pause before each time, until the client closes it.
    Repeat(&'static [u8], Duration),
}

impl Answer {
    /// A JSON body with this status.
    pub fn json(status: StatusCode, body: &serde_json::Value) -> Self {
        Self::Fixed(response(status, JSON, body.to_string()))
    }

    /// A body of plain text with this status.
    pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self::Fixed(response(status, TEXT, body))
    }

    /// Nothing at all, for ever.
    pub fn hang() -> Self {
        Self::Raw(Bytes::new(), Then::Hang)
    }

    /// A closed connection instead of an answer.
    pub fn close() -> Self {
        Self::Raw(Bytes::new(), Then::Close)
    }
}

/// A running sandbox. Dropping it closes its port and all connections.
pub struct Sandbox {
    addr: SocketAddr,
    state: Arc<State>,
    server: Mutex<JoinHandle<()>>,
}

struct State {
    config: Config,
    book: Mutex<Book>,
}

/// What the sandbox remembers.
struct Book {
    applications: Vec<Application>,
    calls: Vec<Call>,
    next: VecDeque<Answer>,
    always: Answer,
    limiter: Limiter,
    /// By client id and scopes.
    tokens: HashMap<(String, String), Token>,
}

#[derive(Clone)]
struct Token {
    text: String,
    issued: Instant,
}

impl Sandbox {
    /// Starts a sandbox on a free port of loopback.
    ///
    /// # Errors
    ///
    /// When no port can be had.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("the sandbox finds no free port")?;
        let addr = listener.local_addr().context("the sandbox has no address")?;
        let book = Book {
            applications: config.applications.clone(),
            calls: Vec::new(),
            next: VecDeque::new(),
            always: Answer::Normal,
            limiter: Limiter::new(config.calls_per_minute),
            tokens: HashMap::new(),
        };
        let state = Arc::new(State { config, book: Mutex::new(book) });
        let server = Mutex::new(tokio::spawn(serve(listener, state.clone())));
        Ok(Self { addr, state, server })
    }

    /// Where it is, as the identity URL of a broker: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// All requests so far, in the order in which they arrived.
    pub fn calls(&self) -> Vec<Call> {
        self.state.book().calls.clone()
    }

    /// From now on these applications may obtain tokens, and no others. The same id may be there with several secrets.
    pub fn set_applications(&self, applications: Vec<Application>) {
        self.state.book().applications = applications;
    }

    /// The last token of each client and scopes.
    pub fn tokens(&self) -> Vec<String> {
        self.state.book().tokens.values().map(|token| token.text.clone()).collect()
    }

    /// The client id that this token was issued to, if it is the last one for its client and scopes.
    pub fn owner(&self, token: &str) -> Option<String> {
        let book = self.state.book();
        book.tokens.iter().find(|(_, known)| known.text == token).map(|((client, _), _)| client.clone())
    }

    /// Answers the next request so; called again, the one after it, and so on.
    pub fn answer_next(&self, answer: Answer) {
        self.state.book().next.push_back(answer);
    }

    /// Answers every request so from now on, except those that [`answer_next`](Self::answer_next) has an answer for.
    pub fn answer_always(&self, answer: Answer) {
        self.state.book().always = answer;
    }

    /// Closes its port and all connections, so that it refuses new ones.
    pub fn close(&self) {
        self.server().abort();
    }

    /// Listens again, on the same port, after [`close`](Self::close).
    ///
    /// # Errors
    ///
    /// When another program has taken the port meanwhile, or the old listener is not gone after a second.
    pub async fn open(&self) -> anyhow::Result<()> {
        let mut tries = 0;
        let listener = loop {
            match TcpListener::bind(self.addr).await {
                Ok(listener) => break listener,
                Err(_) if tries < 50 => tries += 1,
                Err(error) => return Err(error).context("the sandbox does not get its port back"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        *self.server() = tokio::spawn(serve(listener, self.state.clone()));
        Ok(())
    }

    fn server(&self) -> MutexGuard<'_, JoinHandle<()>> {
        self.server.lock().expect("nothing panics while it holds the task")
    }

    /// Forgets the calls that the rate limit counts.
    pub fn forget_limit(&self) {
        self.state.book().limiter.calls.clear();
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
    // The set ends its connections when this task is aborted.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            // Accepting on loopback fails when files run out; then the client sees a refusal, which is all there is
            // to do.
            Ok((stream, _)) = listener.accept() => drop(connections.spawn(serve_connection(stream, state.clone()))),
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve_connection(stream: TcpStream, state: Arc<State>) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    // A second handle on the socket: raw bytes go out beside hyper.
    let stream = stream.into_std()?;
    let raw = TcpStream::from_std(stream.try_clone()?)?;
    let raw = Arc::new(tokio::sync::Mutex::new(raw));
    let service = service_fn(|request| respond(request, state.clone(), raw.clone()));
    http1::Builder::new().serve_connection(TokioIo::new(TcpStream::from_std(stream)?), service).await?;
    Ok(())
}

/// Answers a request. An error makes hyper close the connection without a word of its own.
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
            let mut raw = raw.lock().await;
            raw.write_all(&bytes).await?;
            match then {
                Then::Close => {}
                // Ends with the task: hyper drops it when the client closes the connection.
                Then::Hang => std::future::pending().await,
                Then::Reset => raw.set_zero_linger()?,
                Then::Repeat(bytes, pause) => loop {
                    tokio::time::sleep(pause).await;
                    raw.write_all(bytes).await?;
                },
            }
            anyhow::bail!("the answer is complete");
        }
        Answer::Fixed(response) => response,
        Answer::Normal => state.answer(&head.method, head.uri.path(), &head.headers, &body),
        Answer::Late(delay) => {
            let response = state.answer(&head.method, head.uri.path(), &head.headers, &body);
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

impl State {
    /// OfficeRnD's answer.
    fn answer(&self, method: &Method, path: &str, headers: &HeaderMap, body: &[u8]) -> Response<Bytes> {
        if path != TOKEN_PATH {
            return response(StatusCode::NOT_FOUND, TEXT, "Not Found");
        }
        if method != Method::POST {
            let mut response = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "Method Not Allowed");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return response;
        }
        let fields: HashMap<String, String> = url::form_urlencoded::parse(body).into_owned().collect();
        let field = |name| fields.get(name).map_or("", String::as_str);
        let client = field("client_id");
        if !self.book().limiter.admits(client, Instant::now()) {
            let text = "Too many requests, please try again later";
            return response(StatusCode::TOO_MANY_REQUESTS, TEXT, text);
        }
        if !is_form(headers) {
            return refusal(StatusCode::BAD_REQUEST, "invalid_request", "The body must be a form");
        }
        if field("grant_type") != "client_credentials" {
            return refusal(StatusCode::BAD_REQUEST, "unsupported_grant_type", "Only client_credentials is supported");
        }
        let known =
            |application: &&Application| application.id == client && application.secret == field("client_secret");
        let Some(application) = self.book().applications.iter().find(known).cloned() else {
            return refusal(StatusCode::UNAUTHORIZED, "invalid_client", "Client authentication failed");
        };
        let scopes: Vec<&str> = field("scope").split_ascii_whitespace().collect();
        if scopes.iter().any(|scope| !application.scopes.iter().any(|granted| granted == scope)) {
            return refusal(
                StatusCode::BAD_REQUEST,
                "invalid_scope",
                "The application does not have a requested scope",
            );
        }
        // Without a scope: all that the application has.
        let scope = if scopes.is_empty() { application.scopes.join(" ") } else { scopes.join(" ") };
        self.token(client, &scope)
    }

    fn token(&self, client: &str, scope: &str) -> Response<Bytes> {
        let life = self.config.token_life;
        let key = (client.to_owned(), scope.to_owned());
        let mut book = self.book();
        let earlier =
            book.tokens.get(&key).filter(|token| self.config.reissue && token.issued.elapsed() < life).cloned();
        let token = earlier.unwrap_or_else(|| Token { text: random_token(), issued: Instant::now() });
        // Whole seconds, rounded down: 3599 at once, as OfficeRnD's own example has it.
        let expires_in = life.saturating_sub(token.issued.elapsed()).as_secs();
        let body = json!({
            "access_token": token.text,
            "token_type": "Bearer",
            "expires_in": expires_in,
            "scope": scope,
        });
        book.tokens.insert(key, token);
        response(StatusCode::OK, JSON, body.to_string())
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = media_type.split_once(';').map_or(media_type, |(media_type, _)| media_type);
    media_type.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

fn refusal(status: StatusCode, error: &str, description: &str) -> Response<Bytes> {
    response(status, JSON, json!({ "error": error, "error_description": description }).to_string())
}

fn response(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// 40 hex digits.
fn random_token() -> String {
    let mut bytes = [0; 20];
    getrandom::fill(&mut bytes).expect("the operating system has random bytes");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// So many calls a client in any [`WINDOW`].
struct Limiter {
    limit: usize,
    calls: HashMap<String, VecDeque<Instant>>,
}

impl Limiter {
    fn new(limit: usize) -> Self {
        Self { limit, calls: HashMap::new() }
    }

    /// Whether a call is admitted, which then counts.
    fn admits(&mut self, client: &str, now: Instant) -> bool {
        let calls = self.calls.entry(client.to_owned()).or_default();
        while calls.front().is_some_and(|first| now.duration_since(*first) >= WINDOW) {
            calls.pop_front();
        }
        let admitted = calls.len() < self.limit;
        if admitted {
            calls.push_back(now);
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    const FORM: &str = "application/x-www-form-urlencoded";
    const GOOD: &str = "client_id=app&client_secret=s3cret&grant_type=client_credentials&scope=a.read+b.read";

    fn config() -> Config {
        let scopes = ["a.read", "b.read", "c.read"].map(String::from).to_vec();
        Config {
            applications: vec![Application { id: "app".into(), secret: "s3cret".into(), scopes }],
            ..Config::default()
        }
    }

    /// Sends one request by hand and returns the whole answer.
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
    async fn a_form_with_good_credentials_gets_a_token() {
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
    async fn everything_else_is_refused_as_officernd_does() {
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
    async fn the_sixth_call_of_a_minute_is_refused_in_plain_text_whatever_became_of_the_five() {
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

    #[test]
    fn the_limit_rolls_and_refused_calls_do_not_extend_it() {
        let start = Instant::now();
        let mut limiter = Limiter::new(2);
        let mut admits = |client, seconds| limiter.admits(client, start + Duration::from_secs(seconds));
        assert!(admits("a", 0) && admits("a", 30));
        assert!(!admits("a", 31) && !admits("a", 59));
        assert!(admits("b", 59), "every client has a limit of its own");
        assert!(admits("a", 60) && !admits("a", 61));
        assert!(admits("a", 90));
    }

    #[tokio::test]
    async fn a_repeated_request_gets_a_new_token_or_the_old_one_as_configured() {
        for reissue in [false, true] {
            let sandbox = Sandbox::start(Config { reissue, ..config() }).await.unwrap();
            let first = json_of(&send(&sandbox, "POST", "/oauth/token", FORM, GOOD).await);
            let second = json_of(&send(&sandbox, "POST", "/oauth/token", FORM, GOOD).await);
            assert_eq!(first["access_token"] == second["access_token"], reissue);
        }
    }

    #[tokio::test]
    async fn it_misbehaves_when_told() {
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
