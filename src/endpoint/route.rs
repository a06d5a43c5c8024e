//! The paths that the broker serves, and their methods.

use percent_encoding::percent_decode_str;

/// Path of the metrics.
const METRICS: &str = "/metrics";

/// The paths that the broker serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Token,
    Revocation,
    Metadata,
    Health,
    Readiness,
    Metrics,
    Unknown,
}

impl Route {
    pub(super) fn of(path: &str) -> Self {
        if !path.contains('%') {
            return Self::of_decoded(path);
        }
        // RFC 3986 section 6.2.2.2: `%6F` equals `o`, but an encoded slash does not equal a
        // slash.
        let decoded = percent_decode_str(path).decode_utf8_lossy();
        let slashes = |text: &str| text.bytes().filter(|byte| *byte == b'/').count();
        if slashes(&decoded) == slashes(path) { Self::of_decoded(&decoded) } else { Self::Unknown }
    }

    fn of_decoded(path: &str) -> Self {
        match path {
            "/oauth/token" => Self::Token,
            "/oauth/revoke" => Self::Revocation,
            "/.well-known/oauth-authorization-server" => Self::Metadata,
            "/healthz" => Self::Health,
            "/readyz" => Self::Readiness,
            METRICS => Self::Metrics,
            _ => Self::Unknown,
        }
    }

    /// The path for the log, which never contains a caller's text.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Token => "/oauth/token",
            Self::Revocation => "/oauth/revoke",
            Self::Metadata => "/.well-known/oauth-authorization-server",
            Self::Health => "/healthz",
            Self::Readiness => "/readyz",
            Self::Metrics => METRICS,
            Self::Unknown => "unknown",
        }
    }

    /// The permitted methods, as the header `Allow` lists them (RFC 9110 section 10.2.1).
    pub(super) fn allow(self) -> &'static str {
        match self {
            Self::Token | Self::Revocation => "POST",
            Self::Metadata | Self::Health | Self::Readiness | Self::Metrics | Self::Unknown => "GET, HEAD",
        }
    }
}
