//! Revocation (RFC 7009).

use crate::protocol::table::*;

pub(super) static ROWS: &[Row] = &[
    // RFC 7009: revocation.
    row(
        "revocation of an unknown token",
        "RFC 7009 2.2: the server responds with 200 if the client submitted an invalid token",
        REVOKE,
        REVOKED,
    ),
    row(
        "revocation with credentials in the body",
        "RFC 7009 2.1: the client includes its credentials as described in RFC 6749 2.3",
        Wire { authorization: b"", body: b"token=unknown&client_id=nightly&client_secret=sesame", ..REVOKE },
        REVOKED,
    ),
    row(
        "revocation with an unknown hint",
        "RFC 7009 2.1: a server MAY ignore token_type_hint",
        Wire { body: b"token=unknown&token_type_hint=other", ..REVOKE },
        REVOKED,
    ),
    row(
        "revocation of a refresh token",
        "RFC 7009 2.2: no such token exists, so it is an invalid token: 200",
        Wire { body: b"token=unknown&token_type_hint=refresh_token", ..REVOKE },
        REVOKED,
    ),
    row(
        "revocation with an unknown parameter",
        "RFC 6749 3.2, by RFC 7009 2.1: unrecognized parameters are ignored",
        Wire { body: b"token=unknown&reason=a&reason=b", ..REVOKE },
        REVOKED,
    ),
    row(
        "revocation without a token",
        "RFC 7009 2.1: token is REQUIRED; 2.2.1: errors are those of RFC 6749 5.2",
        Wire { body: b"token_type_hint=access_token", ..REVOKE },
        NO_TOKEN,
    ),
    row(
        "revocation of an empty token",
        "RFC 6749 3.2, by RFC 7009 2.1: without a value is omitted, and token is REQUIRED",
        Wire { body: b"token=", ..REVOKE },
        NO_TOKEN,
    ),
    row(
        "revocation of two tokens",
        "RFC 6749 3.2, by RFC 7009 2.1: request parameters MUST NOT be included more than once",
        Wire { body: b"token=a&token=b", ..REVOKE },
        REPEATED,
    ),
    row(
        "revocation of a token in the query",
        "RFC 7009 2.1: parameters are in the HTTP request entity-body",
        Wire { line: "POST /oauth/revoke?token=unknown", body: b"", ..REVOKE },
        IN_QUERY,
    ),
    row(
        "revocation in JSON",
        "RFC 7009 2.1: the format is application/x-www-form-urlencoded",
        Wire { content_type: "application/json", body: br#"{"token":"unknown"}"#, ..REVOKE },
        NO_FORM,
    ),
    row(
        "revocation without credentials",
        "RFC 7009 2.1: the server first validates the client credentials; RFC 9110 15.5.2: 401 MUST have a challenge",
        Wire { authorization: b"", ..REVOKE },
        INVALID_CLIENT,
    ),
    row(
        "revocation with a wrong secret",
        "RFC 7009 2.1: the server first validates the client credentials, before it looks at the token",
        Wire { authorization: b"Basic [nightly:wrong]", body: b"token=<token>", ..REVOKE },
        INVALID_CLIENT,
    ),
    row(
        "revocation with another secret in the body",
        "RFC 6749 5.2, by RFC 7009 2.2.1: utilizes more than one mechanism for authenticating the client",
        Wire { body: b"token=unknown&client_id=nightly&client_secret=wrong", ..REVOKE },
        OTHER_SECRET,
    ),
    row(
        "GET of revocation",
        "RFC 7009 2.1: the client sends a POST; RFC 9110 15.5.6: 405 MUST have Allow",
        get("GET /oauth/revoke?token=unknown"),
        POST_ONLY,
    ),
    row(
        "HEAD of revocation",
        "RFC 9110 9.3.2: as GET, and the server MUST NOT send content",
        get("HEAD /oauth/revoke"),
        POST_ONLY,
    ),
    row(
        "OPTIONS of revocation, from a page",
        "RFC 7009 2.3: CORS is OPTIONAL; RFC 9110 15.5.6: 405 MUST have Allow",
        Wire { more: FROM_A_PAGE, ..get("OPTIONS /oauth/revoke") },
        POST_ONLY,
    ),
    row(
        "revocation of another caller's token",
        "RFC 7009 2.1 and 2.2: it was not issued to this client, to whom it is an invalid token: 200",
        Wire { authorization: b"Basic [crowd:many]", body: b"token=<token>", ..REVOKE },
        REVOKED,
    ),
    row(
        "the token that another caller would revoke",
        "RFC 7009 2.1: the server verifies whether the token was issued to the client making the request",
        TOKEN,
        GRANTED,
    ),
    row(
        "revocation of the caller's own token",
        "RFC 7009 2.2: the server responds with 200 if the token has been revoked successfully",
        Wire { body: b"token=<token>&token_type_hint=access_token", ..REVOKE },
        REVOKED,
    ),
    row(
        "revocation once more",
        "RFC 7009 2.2: invalid tokens do not cause an error response, and this one is invalid by now: 200",
        Wire { body: b"token=<token>", ..REVOKE },
        REVOKED,
    ),
    row(
        "a token after its revocation",
        "RFC 7009 2.1: the invalidation takes place immediately, and the token cannot be used again",
        TOKEN,
        Answer::Token(Source::Stale, MEMBERS),
    ),
    row(
        "revocation of its successor, at once",
        "RFC 7009 2.2.1: with 503 the token still exists, and Retry-After says how long the service is unavailable",
        Wire { body: b"token=<token>", ..REVOKE },
        Answer::Later,
    ),
    row(
        "the successor, which still exists",
        "RFC 7009 2.2.1: if the server responds with 503, the client must assume the token still exists",
        TOKEN,
        GRANTED,
    ),
];
