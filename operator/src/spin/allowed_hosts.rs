//! The list `allowed_outbound_hosts`: parses its entries and matches requests with them.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use anyhow::{Context, bail, ensure};
use http::Uri;

use super::manifest::Manifest;
use super::variables::Values;

/// Hosts to which a component may send requests.
#[derive(Debug, Default)]
pub struct AllowedHosts(Vec<AllowedHost>);

#[derive(Debug, PartialEq, Eq)]
struct AllowedHost {
    /// `None` matches any scheme.
    scheme: Option<String>,
    host: HostPattern,
    /// `None` matches any port.
    ports: Option<Range<u32>>,
}

#[derive(Debug, PartialEq, Eq)]
enum HostPattern {
    Any,
    /// Suffix with its leading dot, so that it does not match the domain itself.
    Subdomain(String),
    Exact(Host),
}

/// A host as URLs write it. The ways to write an IPv4 address other than four decimal numbers, and
/// domains outside ASCII, are refused: their ASCII form begins with `xn--`.
#[derive(Debug, PartialEq, Eq)]
enum Host {
    /// In lower case.
    Domain(String),
    Ipv4(Ipv4Addr),
    Ipv6(Ipv6Addr),
}

impl AllowedHosts {
    /// Resolves the list of `manifest` with the present values of `variables`. As in Spin, the
    /// list does not change while the application runs. An entry that consists only of
    /// variables may be empty, and then allows nothing.
    ///
    /// # Errors
    ///
    /// If a variable has no value, or if an entry does not parse.
    pub fn resolve(manifest: &Manifest, variables: &dyn Values) -> anyhow::Result<Self> {
        let mut hosts = Self::default();
        for template in &manifest.allowed_outbound_hosts {
            let text = manifest.declarations.resolve(template, variables)?;
            if template.is_literal() || !matches!(text.as_str(), "" | "http://" | "https://") {
                hosts.push(&text)?;
            }
        }
        Ok(hosts)
    }

    fn push(&mut self, text: &str) -> anyhow::Result<()> {
        let host = AllowedHost::parse(text).with_context(|| format!("allowed_outbound_hosts: {text:?}"))?;
        self.0.push(host);
        Ok(())
    }

    /// Whether the list allows nothing but the hosts and ports of these origins.
    pub(crate) fn are_only(&self, origins: &[String]) -> bool {
        let known: Vec<_> = origins.iter().filter_map(|origin| AllowedHost::parse(origin).ok()).collect();
        self.0.iter().all(|allowed| known.contains(allowed))
    }

    /// Whether the component may send a request to this URL.
    pub fn allow(&self, uri: &Uri) -> bool {
        let scheme = uri.scheme_str().unwrap_or("https");
        let Some(Ok(host)) = uri.host().map(Host::parse) else {
            return false;
        };
        let Some(port) = uri.port_u16().or_else(|| default_port(scheme)) else {
            return false;
        };
        self.0.iter().any(|allowed| allowed.allows(scheme, &host, port))
    }
}

impl AllowedHost {
    /// Parses `scheme://host[:port]`. Each part may be `*` for any; the port may be a range
    /// `from..to` without its end.
    fn parse(text: &str) -> anyhow::Result<Self> {
        let (scheme, rest) =
            text.trim().split_once("://").context("the scheme is missing, expected scheme://host[:port]")?;
        ensure!(scheme == "*" || scheme.chars().all(char::is_alphabetic), "the scheme is wrong, expected letters or *");
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        ensure!(!authority.contains('/'), "a path or an address range is not supported");
        // The colons of an IPv6 address are within brackets, so the last colon outside
        // separates the port.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (authority, None),
        };
        Ok(Self {
            scheme: (scheme != "*").then(|| scheme.to_owned()),
            host: HostPattern::parse(host)?,
            ports: match port {
                Some("*") => None,
                Some(ports) => Some(parse_ports(ports)?),
                None => {
                    let port =
                        default_port(scheme).context("only http and https have a default port: add one, or :*")?;
                    Some(single(port))
                }
            },
        })
    }

    fn allows(&self, scheme: &str, host: &Host, port: u16) -> bool {
        self.scheme.as_deref().is_none_or(|allowed| allowed == scheme)
            && self.host.allows(host)
            && self.ports.as_ref().is_none_or(|ports| ports.contains(&port.into()))
    }
}

impl HostPattern {
    fn parse(text: &str) -> anyhow::Result<Self> {
        match text {
            "*" => return Ok(Self::Any),
            "self" | "self.alt" => bail!("the dev host does not support requests to the application itself"),
            _ => {}
        }
        let (subdomain, name) = match text.strip_prefix("*.") {
            Some(domain) => (true, domain),
            None => (false, text),
        };
        ensure!(!name.contains('*'), "* is in the wrong place, expected * as the whole host or *.domain");
        match Host::parse(name)? {
            Host::Domain(domain) if subdomain => Ok(Self::Subdomain(format!(".{domain}"))),
            _ if subdomain => bail!("only a domain has subdomains"),
            host => Ok(Self::Exact(host)),
        }
    }

    fn allows(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Any, _) => true,
            (Self::Subdomain(suffix), Host::Domain(domain)) => domain.ends_with(suffix),
            (Self::Subdomain(_), _) => false,
            (Self::Exact(exact), host) => exact == host,
        }
    }
}

impl Host {
    fn parse(text: &str) -> anyhow::Result<Self> {
        if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return Ok(Self::Ipv6(address.parse().with_context(|| format!("{text:?} is not an IPv6 address"))?));
        }
        let is_part = |part: &str| part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        let name = text.strip_suffix('.').unwrap_or(text);
        ensure!(name.split('.').all(|part| !part.is_empty() && is_part(part)), "{text:?} is not a host");
        // As in a URL, only an address ends in a number.
        if name.rsplit('.').next().is_some_and(|last| last.starts_with(|c: char| c.is_ascii_digit())) {
            return Ok(Self::Ipv4(text.parse().with_context(|| format!("{text:?} is not an IPv4 address"))?));
        }
        Ok(Self::Domain(text.to_ascii_lowercase()))
    }
}

fn parse_ports(text: &str) -> anyhow::Result<Range<u32>> {
    let number = |text: &str| text.parse::<u16>().with_context(|| format!("{text:?} is not a port"));
    Ok(match text.split_once("..") {
        Some((from, to)) => number(from)?.into()..number(to)?.into(),
        None => single(number(text)?),
    })
}

fn single(port: u16) -> Range<u32> {
    let port = u32::from(port);
    port..port + 1
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_is_allowed_only_with_scheme_host_and_port_of_an_entry() {
        let cases = [
            ("https://id.example", "https://id.example/oauth/token", true),
            ("https://id.example/", "https://id.example/oauth/token", true),
            ("https://id.example", "https://ID.example:443/", true),
            ("https://id.example", "http://id.example/", false),
            ("https://id.example", "https://id.example:8443/", false),
            ("https://id.example", "https://sub.id.example/", false),
            ("https://id.example", "https://id.example.evil.example/", false),
            ("https://id.example", "https://id.example@evil.example/", false),
            ("http://127.0.0.1:3001", "http://127.0.0.1:3001/x", true),
            ("http://127.0.0.1:3001", "http://localhost:3001/x", false),
            ("http://127.0.0.1:*", "http://127.0.0.1:9/x", true),
            ("http://[::1]:3001", "http://[::1]:3001/x", true),
            ("http://[::1]", "http://[::1]/x", true),
            ("http://[::1]", "http://[0:0::1]/x", true),
            ("*://*:*", "http://127.1/", false),
            ("*://id.example:80", "http://id.example/", true),
            ("*://*:*", "https://anything.example:1/", true),
            ("https://*.example", "https://a.b.example/", true),
            ("https://*.example", "https://example/", false),
            ("https://*.example", "https://badexample/", false),
            ("http://a.example:80..90", "http://a.example:89/", true),
            ("http://a.example:80..90", "http://a.example:90/", false),
        ];
        for (allowed, uri, expected) in cases {
            let mut hosts = AllowedHosts::default();
            hosts.push(allowed).unwrap();
            assert_eq!(hosts.allow(&uri.parse().unwrap()), expected, "{allowed} {uri}");
        }
        assert!(!AllowedHosts::default().allow(&"https://id.example/".parse().unwrap()));
    }

    #[test]
    fn invalid_or_unsupported_entry_is_an_error() {
        let cases = [
            "",
            "*",
            "id.example",
            "https://",
            "https://id.example/path",
            "http://10.0.0.0/8",
            "http://self",
            "ht!tp://a",
            "redis://a.example",
            "*://a.example",
            "http://a.example:x",
            "http://a.example:99999",
            "http://*.127.0.0.1",
            "http://127.1",
            "http://[::g]",
            "https://caf\u{e9}.example",
            "https://a..example",
            "https://a%2eexample",
            "http://a.*.example",
        ];
        for text in cases {
            AllowedHosts::default().push(text).expect_err(text);
        }
    }
}
