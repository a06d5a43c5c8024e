//! One HTTP exchange: the bytes of a row's request, and the parsed answer.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::table::{Wire, crowd_scopes};

/// Answer as received.
pub(super) struct Got {
    pub(super) status: u16,
    /// Headers without `date` and `connection`, which the host adds. Names in lower case,
    /// sorted.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Wire {
    /// Returns the bytes up to the body, and the body.
    fn encode(&self, token: &str) -> (Vec<u8>, Vec<u8>) {
        let body = fill_in(self.body, token);
        let mut head = fill_in(self.line.as_bytes(), token);
        let is_old = self.line.ends_with(" HTTP/1.0");
        head.extend_from_slice(if is_old { b"\r\n" } else { b" HTTP/1.1\r\n" });
        let mut add = |name: &str, value: &[u8]| {
            if !value.is_empty() {
                head.extend_from_slice(&[name.as_bytes(), b": ", value, b"\r\n"].concat());
            }
        };
        add("Host", self.host.as_bytes());
        add("Authorization", &encode_brackets(self.authorization));
        add("Content-Type", self.content_type.as_bytes());
        let says = |what: &str| self.more.iter().any(|line| line.contains(what));
        if !says("Content-Length:") && !says("Transfer-Encoding:") && !body.is_empty() {
            add("Content-Length", body.len().to_string().as_bytes());
        }
        // HTTP/1.0 closes the connection without `Connection: close`.
        if !is_old && !says("Connection:") {
            add("Connection", b"close");
        }
        for line in self.more {
            head.extend_from_slice(&[line.as_bytes(), b"\r\n"].concat());
        }
        head.extend_from_slice(b"\r\n");
        (head, body)
    }
}

/// Replaces each text in square brackets, brackets included, by its base64.
fn encode_brackets(text: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    let mut rest = text;
    while let Some(begin) = rest.iter().position(|byte| *byte == b'[') {
        let length = rest[begin..].iter().position(|byte| *byte == b']').expect("brackets come in pairs");
        encoded.extend_from_slice(&rest[..begin]);
        encoded.extend_from_slice(STANDARD.encode(&rest[begin + 1..begin + length]).as_bytes());
        rest = &rest[begin + length + 1..];
    }
    [&encoded, rest].concat()
}

/// Replaces `<token>`, `<scopes N>` or `<fill N>`, of which a text has at most one.
fn fill_in(text: &[u8], token: &str) -> Vec<u8> {
    let Some(begin) = text.iter().position(|byte| *byte == b'<') else { return text.to_vec() };
    let length = text[begin..].iter().position(|byte| *byte == b'>').expect("brackets come in pairs");
    let (before, name, after) = (&text[..begin], &text[begin + 1..begin + length], &text[begin + length + 1..]);
    let name = std::str::from_utf8(name).expect("a name is ASCII");
    let count = |text: &str| text.parse::<usize>().expect("a number");
    let value = match name.split_once(' ') {
        None => token.to_owned(),
        Some(("scopes", number)) => crowd_scopes(count(number)).replace(' ', "+"),
        Some((_, number)) => "x".repeat(count(number) - before.len() - after.len()),
    };
    [before, value.as_bytes(), after].concat()
}

/// Sends a request and reads the answer until the server closes.
pub(super) async fn exchange(addr: SocketAddr, request: &Wire, token: &str) -> Result<Got, String> {
    let conversation = async {
        let (head, body) = request.encode(token);
        let mut stream = TcpStream::connect(addr).await.map_err(|error| error.to_string())?;
        let mut answer = Vec::new();
        stream.write_all(&head).await.map_err(|error| error.to_string())?;
        if request.more.iter().any(|line| line.starts_with("Expect:")) {
            let mut buffer = [0; 1024];
            let length = stream.read(&mut buffer).await.map_err(|error| error.to_string())?;
            answer.extend_from_slice(&buffer[..length]);
        }
        // A server that refuses a request by its head may close before it has the body, and
        // reset the connection. The bytes received so far must be a complete answer.
        let _ = stream.write_all(&body).await;
        let _ = stream.read_to_end(&mut answer).await;
        parse(&answer).ok_or_else(|| format!("no whole answer: {:?}", String::from_utf8_lossy(&answer)))
    };
    tokio::time::timeout(Duration::from_secs(20), conversation)
        .await
        .unwrap_or_else(|_| Err("no answer in 20 s".into()))
}

/// Parses an answer and skips informational ones (RFC 9110 section 15.2).
fn parse(answer: &[u8]) -> Option<Got> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let body = &answer[end + 4..];
    let mut lines = head.split("\r\n");
    let mut status_line = lines.next()?.split(' ');
    status_line.next().filter(|version| version.starts_with("HTTP/1."))?;
    let status = status_line.next()?.parse().ok()?;
    if (100..200).contains(&status) {
        return parse(body);
    }
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let name = name.to_ascii_lowercase();
        if name != "date" && name != "connection" {
            headers.push((name, value.trim().to_owned()));
        }
    }
    headers.sort();
    // `x-request-id` differs in every answer, and answers of the host have none.
    headers.retain(|(name, value)| {
        let is_id = value.len() == 32 && value.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        name != "x-request-id" || !is_id
    });
    Some(Got { status, headers, body: body.to_vec() })
}
