//! Origins: the URLs in the variables, without a path.

use super::grammar::parse_within;
use crate::digest::{hex, sha256_of_fields};

/// Scheme, host and port. The scheme is `https`, or `http` for a loopback host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    text: String,
    id: String,
}

impl Origin {
    /// Parses an origin; a slash at its end is ignored. `None` for anything more or less than an
    /// origin, and for `http` on a host that is not loopback.
    pub fn parse(text: &str) -> Option<Self> {
        let origin = text.strip_suffix('/').unwrap_or(text);
        let uri: http::Uri = origin.parse().ok()?;
        let authority = uri.authority()?;
        let host = authority.host();
        let scheme = uri.scheme_str()?;
        let is_allowed = match scheme {
            "https" => true,
            "http" => matches!(host, "localhost" | "[::1]") || is_loopback_v4(host),
            _ => false,
        };
        // `Uri` also accepts user information, a path, a query, a fragment and any port. The
        // text must be exactly an origin, so that no credential is sent anywhere by accident.
        let is_origin =
            origin.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://")) == Some(authority.as_str());
        let port = authority.as_str().strip_prefix(host)?;
        let is_port = |text: &str| parse_within(text, 1, u16::MAX).is_some();
        let has_good_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        (is_allowed && is_origin && has_good_port && !host.is_empty()).then(|| {
            let (default_port, lower_case) =
                (if scheme == "https" { ":443" } else { ":80" }, origin.to_ascii_lowercase());
            let same = lower_case.strip_suffix(default_port).unwrap_or(&lower_case);
            let digest = sha256_of_fields([b"origin", same.as_bytes()]);
            Self { text: origin.to_owned(), id: hex(&digest[..8]) }
        })
    }

    /// The origin without a trailing slash.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Names the origin in the store: 16 hexadecimal digits of its SHA-256.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The token endpoint at this origin.
    pub fn token_endpoint(&self) -> http::Uri {
        format!("{}/oauth/token", self.text).parse().expect("an origin with a path is a URI")
    }
}

/// Parses a URL whose origin is one that a variable may have: without user and fragment.
pub(super) fn parse_url(text: &str) -> Option<http::Uri> {
    let uri: http::Uri = text.parse().ok()?;
    let origin = format!("{}://{}", uri.scheme_str()?, uri.authority()?);
    let path = text.strip_prefix(&origin).filter(|path| path.starts_with('/') && !path.contains('#'));
    (Origin::parse(&origin).is_some() && path.is_some()).then_some(uri)
}

/// 127.0.0.0/8. A part with a leading zero is refused, because some parsers read it as octal
/// and reach another host: `0127` is 87. The standard library's parser would be the largest
/// function of the component.
fn is_loopback_v4(host: &str) -> bool {
    let number = |part: &str| parse_within(part, 0, 255).filter(|_| part == "0" || !part.starts_with('0'));
    let parts: Vec<_> = host.split('.').map(number).collect();
    matches!(parts[..], [Some(127), Some(_), Some(_), Some(_)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_has_an_origin_and_a_path_and_nothing_that_is_dropped() {
        for text in [
            "https://issuer.example/keys",
            "https://issuer.example:8443/a/b?c=d",
            "https://issuer.example/",
            "http://127.0.0.1:9000/keys",
        ] {
            assert_eq!(parse_url(text).map(|uri| uri.to_string()).as_deref(), Some(text));
        }
        for text in [
            "",
            "/keys",
            "https://issuer.example",
            "http://issuer.example/keys",
            "ftp://issuer.example/keys",
            "https://user@issuer.example/keys",
            "https://issuer.example/keys#part",
            "https:///keys",
            "HTTPS://issuer.example/keys",
            " https://issuer.example/keys",
            "https://issuer.example/keys ",
        ] {
            assert_eq!(parse_url(text), None, "{text}");
        }
    }

    #[test]
    fn two_spellings_of_an_origin_have_one_id() {
        let id = |text: &str| Origin::parse(text).unwrap().id().to_owned();
        assert_eq!(id("https://identity.example:443/"), id("https://Identity.example"));
        assert_ne!(id("https://identity.example:8443"), id("https://identity.example"));
        assert_ne!(id("http://127.0.0.1:443"), id("http://127.0.0.1"));
    }

    #[test]
    fn origin_that_could_expose_the_credential_is_refused() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(Origin::parse(text).as_ref().map(Origin::as_str), expected, "{text:?}");
        };
        check("https://identity.officernd.com", Some("https://identity.officernd.com"));
        check("https://identity.officernd.com/", Some("https://identity.officernd.com"));
        check("https://identity.officernd.com:8443", Some("https://identity.officernd.com:8443"));
        check("http://127.0.0.1:9000", Some("http://127.0.0.1:9000"));
        check("http://127.1.2.3:9000", Some("http://127.1.2.3:9000"));
        check("http://localhost:9000/", Some("http://localhost:9000"));
        check("http://[::1]:9000", Some("http://[::1]:9000"));
        for text in [
            "",
            "identity.officernd.com",
            "http://identity.officernd.com",
            "http://127.0.0.1.evil.example",
            "http://127.evil.0.1",
            "http://127.0.0.256",
            "http://0127.0.0.1",
            "http://127.00.0.1",
            "http://128.0.0.1",
            "http://localhost.evil.example",
            "http://0.0.0.0",
            "ftp://127.0.0.1",
            "https://",
            "https:///",
            "https://host/path",
            "https://host/?query",
            "https://host//",
            "https://host#fragment",
            "https://host:99999",
            "https://host:",
            "https://user:password@host",
            "https://host evil",
            "//host",
        ] {
            check(text, None);
        }
    }
}
