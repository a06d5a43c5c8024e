//! Fetches documents of issuers with the limits of the component, on the operator's machine.

use http::{Request, StatusCode, Uri};
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
    let config = ureq::Agent::config_builder();
    let config = config.timeout_global(Some(FETCH_LIMIT)).max_redirects(0).http_status_as_error(false);
    let agent = ureq::Agent::new_with_config(config.build());
    let (head, _) = jwks::request(uri).into_parts();
    let mut answer = agent.run(Request::from_parts(head, ())).map_err(|error| problem(&error))?;
    // One byte more than permitted: ureq's limit also refuses an answer that ends at it.
    let body = answer.body_mut().with_config().limit(ANSWER_LIMIT as u64 + 1).read_to_vec();
    match body {
        Ok(body) if body.len() <= ANSWER_LIMIT => Ok((answer.status(), body)),
        Ok(_) | Err(ureq::Error::BodyExceedsLimit(_)) => {
            Err(format!("the answer is longer than {} KiB", ANSWER_LIMIT / 1024))
        }
        Err(error) => Err(problem(&error)),
    }
}

fn problem(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(_) => format!("no answer within {} s", FETCH_LIMIT.as_secs()),
        error => error.to_string(),
    }
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
        assert!(keys(&Uri::from_static("http://127.0.0.1:1/")).unwrap_err().contains("refused"));
    }
}
