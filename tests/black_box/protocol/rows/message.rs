//! The HTTP message: media type, length of the body, request line and headers.

use crate::protocol::table::*;

pub(super) static ROWS: &[Row] = &[
    // RFC 6749 appendix B, RFC 9110 section 8.3: the media type.
    row(
        "the media type in capitals",
        "RFC 9110 8.3.1: type and subtype are case-insensitive",
        content_type("APPLICATION/X-WWW-FORM-URLENCODED"),
        GRANTED,
    ),
    row(
        "a charset",
        "RFC 9110 8.3.1: media-type = type \"/\" subtype parameters",
        content_type("application/x-www-form-urlencoded;charset=UTF-8"),
        GRANTED,
    ),
    row(
        "a charset in quotes, with white space",
        "RFC 9110 5.6.6: parameters = *( OWS \";\" OWS [ parameter ] ), a value may be a quoted-string",
        content_type("application/x-www-form-urlencoded \t; charset=\"utf-8\""),
        GRANTED,
    ),
    row(
        "a semicolon and no parameter",
        "RFC 9110 5.6.6: parameters = *( OWS \";\" OWS [ parameter ] )",
        content_type("application/x-www-form-urlencoded;"),
        GRANTED,
    ),
    row(
        "another charset",
        "RFC 6749 appendix B: the encoding is UTF-8; the media type has no parameter that changes it",
        content_type("application/x-www-form-urlencoded; charset=ISO-8859-1"),
        GRANTED,
    ),
    row(
        "JSON",
        "RFC 6749 4.4.2: application/x-www-form-urlencoded; 5.2: invalid_request: otherwise malformed",
        Wire {
            content_type: "application/json",
            body: br#"{"grant_type":"client_credentials","scope":"members.read"}"#,
            ..TOKEN
        },
        NO_FORM,
    ),
    row(
        "a form of the other kind",
        "RFC 6749 4.4.2: application/x-www-form-urlencoded",
        Wire {
            content_type: "multipart/form-data; boundary=x",
            body: b"--x\r\nContent-Disposition: form-data; name=\"grant_type\"\r\n\r\nclient_credentials\r\n--x--\r\n",
            ..TOKEN
        },
        NO_FORM,
    ),
    row(
        "a form that says it is text",
        "RFC 6749 4.4.2: application/x-www-form-urlencoded",
        content_type("text/plain"),
        NO_FORM,
    ),
    row(
        "a media type that only begins like it",
        "RFC 9110 8.3.1: the subtype is a token, and this is another one",
        content_type("application/x-www-form-urlencoded2"),
        NO_FORM,
    ),
    row(
        "two media types in one header",
        "RFC 9110 8.3: Content-Type = media-type, and not a list",
        content_type("application/x-www-form-urlencoded, application/json"),
        NO_FORM,
    ),
    row("no media type", "RFC 6749 4.4.2: application/x-www-form-urlencoded", content_type(""), NO_FORM),
    row(
        "an empty media type",
        "RFC 9110 8.3: Content-Type = media-type, which is not empty",
        Wire { content_type: "", more: &["Content-Type:"], ..TOKEN },
        NO_FORM,
    ),
    // RFC 9110 section 8.6 and RFC 9112 sections 6 and 7: the length of the body.
    row(
        "a body of 16 KiB",
        "RFC 9110 15.5.14: only content larger than the server is willing to process is refused",
        token_body(b"grant_type=client_credentials&scope=members.read&padding=<fill 16384>"),
        GRANTED,
    ),
    row(
        "a body of 16 KiB and one byte",
        "RFC 9110 15.5.14: 413: the content is larger than the server is willing to process",
        token_body(b"grant_type=client_credentials&scope=members.read&padding=<fill 16385>"),
        TOO_LARGE,
    ),
    row(
        "a body in chunks",
        "RFC 9112 7.1: a recipient MUST be able to parse and decode the chunked transfer coding",
        Wire {
            more: &["Transfer-Encoding: chunked"],
            body: b"b\r\ngrant_type=\r\n1E\r\nclient_credentials&scope=membe\r\n6\r\nrs.rea\r\n1\r\nd\r\n0\r\n\r\n",
            ..TOKEN
        },
        GRANTED,
    ),
    row(
        "a body in chunks with extensions",
        "RFC 9112 7.1.1: a recipient MUST ignore unrecognized chunk extensions",
        Wire {
            more: &["Transfer-Encoding: Chunked"],
            body: b"030;a=b;c=\"d\"\r\ngrant_type=client_credentials&scope=members.read\r\n0;e\r\n\r\n",
            ..TOKEN
        },
        GRANTED,
    ),
    row(
        "credentials after the body",
        "RFC 9110 6.5.1: a trailer MUST NOT be merged into the header section unless its field permits it",
        Wire {
            authorization: b"",
            more: &["Transfer-Encoding: chunked", "Trailer: Authorization"],
            body: b"30\r\ngrant_type=client_credentials&scope=members.read\r\n0\r\n\
                Authorization: Basic bmlnaHRseTpzZXNhbWU=\r\n\r\n",
            ..TOKEN
        },
        INVALID_CLIENT,
    ),
    row(
        "chunks and a length",
        "RFC 9112 6.3: Transfer-Encoding overrides Content-Length; a server MAY process it by only the former",
        Wire {
            more: &["Content-Length: 3", "Transfer-Encoding: chunked"],
            body: b"30\r\ngrant_type=client_credentials&scope=members.read\r\n0\r\n\r\n",
            ..TOKEN
        },
        GRANTED,
    ),
    row(
        "chunks, and a length that the first one has",
        "RFC 9112 6.3: Transfer-Encoding overrides Content-Length",
        Wire {
            more: &["Content-Length: 11", "Transfer-Encoding: chunked"],
            body: b"b\r\ngrant_type=\r\n25\r\nclient_credentials&scope=members.read\r\n0\r\n\r\n",
            ..TOKEN
        },
        GRANTED,
    ),
    row(
        "a transfer coding that does not end in chunked",
        "RFC 9112 6.3: the length cannot be determined: the server MUST respond with 400",
        more(&["Transfer-Encoding: gzip"]),
        BAD_HTTP,
    ),
    row(
        "two different lengths",
        "RFC 9112 6.3: an invalid Content-Length is unrecoverable: the server MUST respond with 400",
        more(&["Content-Length: 48", "Content-Length: 47"]),
        BAD_HTTP,
    ),
    row(
        "a Content-Length that is not a number",
        "RFC 9112 6.3: an invalid Content-Length is unrecoverable: the server MUST respond with 400",
        more(&["Content-Length: +48"]),
        BAD_HTTP,
    ),
    row(
        "no length",
        "RFC 9112 6.3: a request without either header has a body of length zero, so grant_type is missing",
        token_body(b""),
        NO_GRANT,
    ),
    row(
        "a client that waits to be told to continue",
        "RFC 9110 10.1.1: the server MUST send 100 or a final status to a client that expects it",
        more(&["Expect: 100-Continue"]),
        GRANTED,
    ),
    // RFC 9112 sections 2, 3 and 5: the message.
    row(
        "HTTP/1.0",
        "RFC 9112 9.3: answered, and without keep-alive the connection is closed",
        token_line("POST /oauth/token HTTP/1.0"),
        GRANTED,
    ),
    row(
        "HTTP/1.0 with a wrong secret",
        "RFC 6749 5.2: 401 and WWW-Authenticate, whatever the version",
        Wire { authorization: b"Basic [nightly:wrong]", ..token_line("POST /oauth/token HTTP/1.0") },
        INVALID_CLIENT,
    ),
    row(
        "HTTP/1.0 without Host",
        "RFC 9110 4.2.1: a URI with an empty host MUST be rejected as invalid",
        Wire { host: "", ..get("GET /.well-known/oauth-authorization-server HTTP/1.0") },
        BAD_HTTP,
    ),
    row(
        "HTTP/1.0 in chunks",
        "RFC 9112 6.1: the framing of an HTTP/1.0 message with Transfer-Encoding MUST be treated as faulty",
        Wire {
            more: &["Transfer-Encoding: chunked"],
            body: b"30\r\ngrant_type=client_credentials&scope=members.read\r\n0\r\n\r\n",
            ..token_line("POST /oauth/token HTTP/1.0")
        },
        BAD_HTTP,
    ),
    row(
        "an empty line before the request",
        "RFC 9112 2.2: a server SHOULD ignore at least one empty line before the request-line",
        token_line("\r\nPOST /oauth/token"),
        GRANTED,
    ),
    row(
        "HTTP/1.1 without Host",
        "RFC 9112 3.2: a server MUST respond with 400 to an HTTP/1.1 request that lacks Host",
        Wire { host: "", ..TOKEN },
        BAD_HTTP,
    ),
    row(
        "a Host that is not a host",
        "RFC 9112 3.2: a server MUST respond with 400 to a Host with an invalid field value",
        Wire { host: "broker example", ..TOKEN },
        BAD_HTTP,
    ),
    row(
        "white space before the colon of a header",
        "RFC 9112 5.1: a server MUST reject it with 400",
        more(&["X-Other : a"]),
        BAD_HTTP,
    ),
    row(
        "a header over two lines",
        "RFC 9112 5.2: a server MUST either reject obs-fold with 400 or replace it with spaces",
        more(&["X-Other: a\r\n b"]),
        BAD_HTTP,
    ),
    row(
        "a request target of 70,000 bytes",
        "RFC 9112 3: a server MUST respond with 414 to a target longer than any URI it wishes to parse",
        token_line("POST /oauth/token?<fill 70000>"),
        Answer::Server(&[414]),
    ),
    row(
        "a target in absolute form",
        "RFC 9112 3.2.2: a server MUST accept the absolute-form in requests",
        token_line("POST http://localhost/oauth/token"),
        GRANTED,
    ),
    row(
        "an offer of HTTP/2",
        "RFC 9110 7.8: a server MAY ignore a received Upgrade",
        more(&["Connection: close, Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"]),
        GRANTED,
    ),
    row(
        "a client that wants HTML, compressed",
        "RFC 9110 12.5.1 and RFC 6749 5.1: Accept may be disregarded, and the answer is application/json",
        more(&["Accept: text/html", "Accept-Encoding: gzip, br, identity;q=0", "Accept-Language: de"]),
        GRANTED,
    ),
    row(
        "a client that wants nothing cached",
        "RFC 9111 5.2.1: directives of a request are advice to caches of HTTP, and the broker keeps tokens and no answers",
        more(&["Cache-Control: no-cache", "Pragma: no-cache"]),
        GRANTED,
    ),
    row(
        "a page of another origin",
        "RFC 6749 5.1: the answer is the same; nothing lets a browser hand it to a page",
        more(FROM_A_PAGE),
        GRANTED,
    ),
];
