//! Fetches documents of issuers with the limits of the component, on the operator's machine. The program
//! `curl` does it: with a TLS library of our own, `cargo operator` would compile for a fifth longer, and
//! would know neither the machine's certificates nor its proxy.

use std::io::{self, Read as _};
use std::process::{Command, Stdio};

use http::{StatusCode, Uri};
use officernd_token_broker::jwks::{self, ANSWER_LIMIT};
use officernd_token_broker::key_record::FETCH_LIMIT;
use officernd_token_broker::key_set::KeySet;

/// Fetches the keys at an address as the component does.
///
/// # Errors
///
/// Why there are no usable keys, as the end of a sentence.
pub(crate) fn keys(uri: &Uri) -> Result<KeySet, String> {
    let (status, body) = document(uri)?;
    jwks::read_answer(status, &body).map_err(str::to_owned)
}

/// Fetches a document, and follows no redirect.
///
/// # Errors
///
/// Why there is no answer, as the end of a sentence.
pub(crate) fn document(uri: &Uri) -> Result<(StatusCode, Vec<u8>), String> {
    let (output, problem) = run(&mut curl(uri)).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "the program curl is missing, expected it to be installed".to_owned(),
        _ => format!("cannot run curl: {error}"),
    })?;
    if output.len() > ANSWER_LIMIT + STATUS_LENGTH {
        return Err(format!("the answer is longer than {} KiB", ANSWER_LIMIT / 1024));
    }
    if let Some(problem) = problem {
        return Err(problem);
    }
    let (body, status) = output.split_at(output.len().saturating_sub(STATUS_LENGTH));
    let status = StatusCode::from_bytes(status).map_err(|_| "the answer has no status")?;
    Ok((status, body.to_vec()))
}

/// Digits of a status, which curl writes after the body.
const STATUS_LENGTH: usize = 3;

/// The exit code of curl for a request that takes longer than `--max-time`.
const TIMED_OUT: i32 = 28;

fn curl(uri: &Uri) -> Command {
    let mut curl = Command::new("curl");
    // First, or it has no effect: `.curlrc` could print headers or follow redirects.
    curl.arg("--disable").args(["--silent", "--show-error", "--globoff", "--proto", "=http,https"]);
    curl.arg("--max-time").arg(FETCH_LIMIT.as_secs().to_string()).args(["--write-out", "%{http_code}"]);
    let (head, _) = jwks::request(uri).into_parts();
    for (name, value) in &head.headers {
        curl.arg("--header").arg(format!("{name}: {}", value.to_str().unwrap_or_default()));
    }
    curl.arg("--url").arg(uri.to_string());
    curl.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    curl
}

/// Runs curl until it ends or has written more than it may. Returns its output, and what it says if it fails.
fn run(curl: &mut Command) -> io::Result<(Vec<u8>, Option<String>)> {
    let mut child = curl.spawn()?;
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take((ANSWER_LIMIT + STATUS_LENGTH + 1) as u64).read_to_end(&mut output)?;
    }
    // The pipe is closed by now, which ends a curl that has more to write.
    let ended = child.wait_with_output()?;
    if ended.status.success() {
        return Ok((output, None));
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    Ok((
        output,
        Some(match ended.status.code() {
            Some(TIMED_OUT) => format!("no answer within {} s", FETCH_LIMIT.as_secs()),
            _ => said.trim().trim_start_matches("curl: ").to_owned(),
        }),
    ))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// The point of RFC 7515 appendix A.3.
    pub(crate) const SET: &str = r#"{"keys":[{"kid":"1","kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

    /// A server that gives each request for `path` an answer, and 404 to others. Returns its origin.
    pub(crate) fn serve(answer: impl Fn(&str, &str) -> Option<String> + Send + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let here = origin.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = [0; 4096];
                let length = stream.read(&mut request).unwrap();
                let request = String::from_utf8_lossy(&request[..length]).into_owned();
                let path = request.split(' ').nth(1).unwrap_or_default();
                let text = answer(&here, path).unwrap_or_else(|| reply("404 Not Found", ""));
                // The client may leave before the end of a long answer.
                drop(stream.write_all(text.as_bytes()));
            }
        });
        origin
    }

    pub(crate) fn reply(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
    }

    #[test]
    fn keys_are_fetched_with_the_limits_of_the_component() {
        let origin = serve(|here, path| {
            Some(match path {
                "/keys" => reply("200 OK", SET),
                "/full" => reply("200 OK", &format!("{SET}{}", " ".repeat(ANSWER_LIMIT - SET.len()))),
                "/long" => reply("200 OK", &format!("{SET}{}", " ".repeat(ANSWER_LIMIT - SET.len() + 1))),
                "/html" => reply("200 OK", "<html>"),
                "/moved" => reply("302 Found", "").replace("\r\n\r\n", &format!("\r\nLocation: {here}/keys\r\n\r\n")),
                _ => return None,
            })
        });
        let check = |path: &str, expected: Result<usize, &str>| {
            let found = keys(&format!("{origin}{path}").parse().unwrap()).map(|keys| keys.count());
            assert_eq!(found, expected.map_err(str::to_owned), "{path}");
        };
        check("/keys", Ok(1));
        check("/full", Ok(1));
        check("/long", Err("the answer is longer than 64 KiB"));
        check("/html", Err("the answer is not a JWK Set"));
        check("/moved", Err("the status is not 200"));
        check("/none", Err("the status is not 200"));
        check("/[1-3]", Err("the status is not 200"));
        let unreachable = keys(&Uri::from_static("http://127.0.0.1:1/")).unwrap_err();
        assert!(unreachable.contains("Failed to connect"), "{unreachable}");
    }
}
