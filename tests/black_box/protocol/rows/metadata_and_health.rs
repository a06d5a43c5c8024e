//! Metadata (RFC 8414), health and readiness.

use crate::protocol::table::*;

pub(super) static ROWS: &[Row] = &[
    // RFC 8414: metadata.
    row("metadata", "RFC 8414 3.1 and 3.2: GET, 200, application/json", METADATA, DESCRIBED),
    row(
        "metadata with a port in Host",
        "RFC 8414 3.3: issuer MUST be identical to the identifier the URL was made of",
        Wire { host: "localhost:8443", ..METADATA },
        Answer::Metadata("http://localhost:8443"),
    ),
    row(
        "metadata with an IPv6 address in Host",
        "RFC 9110 7.2: Host = uri-host [ \":\" port ], and RFC 3986 3.2.2 has IP-literal",
        Wire { host: "[::1]:3000", ..METADATA },
        Answer::Metadata("http://[::1]:3000"),
    ),
    row(
        "metadata with an IPv4 address in Host",
        "RFC 9110 7.2: Host = uri-host [ \":\" port ]",
        Wire { host: "127.0.0.1", ..METADATA },
        Answer::Metadata("http://127.0.0.1"),
    ),
    row(
        "metadata with user information in Host",
        "RFC 9110 7.2: Host = uri-host [ \":\" port ]; RFC 9112 3.2: 400 to an invalid field value",
        Wire { host: "user@broker.example", ..METADATA },
        invalid_request("the request does not name its host"),
    ),
    row(
        "metadata over http for another host than this one",
        "RFC 8414 2: the issuer is a URL that uses https; RFC 6749 3.2: TLS is required for the token endpoint",
        Wire { host: "broker.example", ..METADATA },
        Answer::Error(
            500,
            "server_error",
            "the request tells no https origin: behind a proxy that ends TLS, the variable public_url must be set",
        ),
    ),
    row(
        "metadata with an empty Host",
        "RFC 9110 4.2.1: a URI with an empty host MUST be rejected as invalid",
        Wire { host: "", more: &["Host:"], ..METADATA },
        BAD_HTTP,
    ),
    row(
        "metadata in absolute form",
        "RFC 9112 3.2.2: a server MUST accept the absolute-form in requests",
        get("GET http://localhost/.well-known/oauth-authorization-server"),
        DESCRIBED,
    ),
    row(
        "metadata with HTTP/1.0",
        "RFC 8414 3.1: GET, whatever the version",
        get("GET /.well-known/oauth-authorization-server HTTP/1.0"),
        DESCRIBED,
    ),
    row(
        "metadata with headers of a proxy",
        "RFC 8414 3.3: issuer is the one that the URL was made of, not one from another header",
        Wire {
            more: &[
                "X-Forwarded-Host: evil.example",
                "X-Forwarded-Proto: https",
                "Forwarded: host=evil.example;proto=https",
            ],
            ..METADATA
        },
        DESCRIBED,
    ),
    row(
        "metadata, from a page",
        "RFC 8414 3.2: 200; nothing lets a browser hand it to a page",
        Wire { more: FROM_A_PAGE, ..METADATA },
        DESCRIBED,
    ),
    row(
        "metadata with a query, for a part of it, and with wrong credentials",
        "RFC 9110 14.2: a server MAY ignore Range; RFC 8414 3.1: the request is a plain GET",
        Wire {
            authorization: b"Basic [nobody:wrong]",
            more: &["Range: bytes=0-3"],
            ..get("GET /.well-known/oauth-authorization-server?a=b")
        },
        DESCRIBED,
    ),
    row(
        "metadata at an escaped path",
        "RFC 9110 4.2.3: characters that are not reserved are equivalent to their percent-encoded octets",
        get("GET /%2Ewell%2dknown/oauth-authorization-server"),
        DESCRIBED,
    ),
    row(
        "metadata for HEAD",
        "RFC 9110 9.3.2: as GET, and the server MUST NOT send content",
        get("HEAD /.well-known/oauth-authorization-server"),
        DESCRIBED,
    ),
    row(
        "metadata for POST",
        "RFC 8414 3.1: it MUST be queried using GET; RFC 9110 15.5.6: 405 MUST have Allow",
        Wire { line: "POST /.well-known/oauth-authorization-server", ..TOKEN },
        READ_ONLY,
    ),
    row(
        "metadata for OPTIONS, from a page",
        "RFC 9110 9.1: methods but GET and HEAD are OPTIONAL; 15.5.6: 405 MUST have Allow",
        Wire { more: FROM_A_PAGE, ..get("OPTIONS /.well-known/oauth-authorization-server") },
        READ_ONLY,
    ),
    row(
        "metadata of an issuer with a path",
        "RFC 8414 3.1: the path of the issuer follows, and this issuer has none: RFC 9110 15.5.5",
        get("GET /.well-known/oauth-authorization-server/tenant"),
        NOT_FOUND,
    ),
    row(
        "metadata with a slash after it",
        "RFC 8414 3.1: the client MUST remove a terminating slash: RFC 9110 15.5.5",
        get("GET /.well-known/oauth-authorization-server/"),
        NOT_FOUND,
    ),
    row(
        "metadata of OpenID Connect",
        "RFC 8414 5: an application that uses another suffix is another application",
        get("GET /.well-known/openid-configuration"),
        NOT_FOUND,
    ),
    // RFC 9110: health.
    row("health", "RFC 9110 9.3.1: GET", HEALTH, HEALTHY),
    row(
        "health with a body",
        "RFC 9110 9.3.1: content in a GET has no generally defined semantics",
        Wire { content_type: "text/plain", body: b"GET / HTTP/1.1\r\n\r\n", ..HEALTH },
        HEALTHY,
    ),
    row(
        "health for HEAD",
        "RFC 9110 9.3.2: as GET, and the server MUST NOT send content",
        get("HEAD /healthz"),
        HEALTHY,
    ),
    row("health for POST", "RFC 9110 15.5.6: 405 MUST have Allow", Wire { line: "POST /healthz", ..TOKEN }, READ_ONLY),
    row(
        "health for OPTIONS, from a page",
        "RFC 9110 15.5.6: 405 MUST have Allow",
        Wire { more: FROM_A_PAGE, ..get("OPTIONS /healthz") },
        READ_ONLY,
    ),
    row("health with a slash after it", "RFC 9110 15.5.5: 404", get("GET /healthz/"), NOT_FOUND),
    row("readiness", "RFC 9110 9.3.1: GET", get("GET /readyz"), READY),
    row(
        "readiness for HEAD",
        "RFC 9110 9.3.2: as GET, and the server MUST NOT send content",
        get("HEAD /readyz"),
        READY,
    ),
    row("readiness for DELETE", "RFC 9110 15.5.6: 405 MUST have Allow", get("DELETE /readyz"), READ_ONLY),
];
