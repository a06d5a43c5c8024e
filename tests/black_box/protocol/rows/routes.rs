//! Methods of the token endpoint, and unknown paths.

use crate::protocol::table::*;

pub(super) static ROWS: &[Row] = &[
    // RFC 9110 section 9: methods of the token endpoint.
    row(
        "GET of a token",
        "RFC 6749 3.2: the client MUST use POST; RFC 9110 15.5.6: 405 MUST have Allow",
        get("GET /oauth/token"),
        POST_ONLY,
    ),
    row(
        "GET with the request in the query",
        "RFC 6749 3.2: the client MUST use POST",
        get("GET /oauth/token?grant_type=client_credentials&client_id=nightly&client_secret=sesame"),
        POST_ONLY,
    ),
    row(
        "HEAD of a token",
        "RFC 9110 9.3.2: as GET, and the server MUST NOT send content",
        get("HEAD /oauth/token"),
        POST_ONLY,
    ),
    row(
        "OPTIONS of a token, from a page",
        "RFC 9110 9.1: methods but GET and HEAD are OPTIONAL; 15.5.6: 405 MUST have Allow",
        Wire { more: FROM_A_PAGE, ..get("OPTIONS /oauth/token") },
        POST_ONLY,
    ),
    row(
        "PUT of a token",
        "RFC 9110 15.5.6: 405: known, and not supported by the target; it MUST have Allow",
        token_line("PUT /oauth/token"),
        POST_ONLY,
    ),
    row(
        "DELETE of a token",
        "RFC 9110 15.5.6: 405: known, and not supported by the target; it MUST have Allow",
        get("DELETE /oauth/token"),
        POST_ONLY,
    ),
    row(
        "PATCH of a token",
        "RFC 9110 15.5.6: 405: known, and not supported by the target; it MUST have Allow",
        token_line("PATCH /oauth/token"),
        POST_ONLY,
    ),
    row(
        "TRACE of a token",
        "RFC 9110 9.3.8: only a server that supports TRACE reflects the request; 15.5.6: 405 MUST have Allow",
        Wire { content_type: "", body: b"", ..token_line("TRACE /oauth/token") },
        POST_ONLY,
    ),
    row(
        "a tunnel",
        "RFC 9110 9.3.6: CONNECT is for proxies; an origin server may refuse it as it likes",
        Wire { host: "other.example:443", ..get("CONNECT other.example:443") },
        Answer::Server(&[400, 403, 404, 405, 501]),
    ),
    row(
        "an unknown method",
        "RFC 9110 15.5.6: 405 and Allow, which tells more than the 501 that 9.1 says a server SHOULD give",
        token_line("BREW /oauth/token"),
        POST_ONLY,
    ),
    row(
        "POST in small letters",
        "RFC 9110 9.1: the method is case-sensitive, so this is another one",
        token_line("post /oauth/token"),
        POST_ONLY,
    ),
    // RFC 3986 section 6, RFC 9110 section 4.2.3: paths.
    row(
        "a path with an escaped letter",
        "RFC 9110 4.2.3: characters that are not reserved are equivalent to their percent-encoded octets",
        token_line("POST /oauth/%74oken"),
        GRANTED,
    ),
    row(
        "a path with an escaped slash",
        "RFC 3986 2.2: a reserved character and its escape are not equivalent; RFC 9110 15.5.5",
        token_line("POST /oauth%2Ftoken"),
        NOT_FOUND,
    ),
    row(
        "a path with a slash after it",
        "RFC 9110 4.2.3: another path is another resource; 15.5.5: 404",
        token_line("POST /oauth/token/"),
        NOT_FOUND,
    ),
    row(
        "a path with two slashes before it",
        "RFC 9110 4.2.3: another path is another resource; 15.5.5: 404",
        token_line("POST //oauth/token"),
        NOT_FOUND,
    ),
    row(
        "a path with two slashes within it",
        "RFC 9110 4.2.3: another path is another resource; 15.5.5: 404",
        token_line("POST /oauth//token"),
        NOT_FOUND,
    ),
    row(
        "a path in capitals",
        "RFC 9110 4.2.3: all but scheme and host is compared in a case-sensitive manner",
        token_line("POST /OAuth/Token"),
        NOT_FOUND,
    ),
    row(
        "a path with a parameter",
        "RFC 3986 3.3: the meaning of a semicolon is up to the server; RFC 9110 15.5.5: 404",
        token_line("POST /oauth/token;v=1"),
        NOT_FOUND,
    ),
    row(
        "a path that is not UTF-8 when it is decoded",
        "RFC 9110 15.5.5: 404: no current representation for the target",
        token_line("POST /oauth/token%FF"),
        NOT_FOUND,
    ),
    row("GET of nothing", "RFC 9110 15.5.5: 404: no current representation for the target", get("GET /"), NOT_FOUND),
    row("HEAD of nothing", "RFC 9110 9.3.2: as GET, and the server MUST NOT send content", get("HEAD /"), NOT_FOUND),
    row(
        "OPTIONS of nothing, from a page",
        "RFC 9110 15.5.5: 404: no current representation for the target",
        Wire { more: FROM_A_PAGE, ..get("OPTIONS /nothing") },
        NOT_FOUND,
    ),
];
