//! How a caller authenticates (RFC 6749 section 2.3, RFC 7617, RFC 9110 section 11).

use crate::protocol::table::*;

pub(super) static ROWS: &[Row] = &[
    // RFC 6749 section 2.3.1, RFC 7617, RFC 9110 section 11: HTTP Basic.
    row(
        "the scheme in small letters",
        "RFC 9110 11.1: the scheme is case-insensitive (RFC 7617 2 too)",
        authorization(b"basic [nightly:sesame]"),
        GRANTED,
    ),
    row(
        "the scheme in capitals",
        "RFC 9110 11.1: the scheme is case-insensitive (RFC 7617 2 too)",
        authorization(b"BASIC [nightly:sesame]"),
        GRANTED,
    ),
    row(
        "several spaces after the scheme",
        "RFC 9110 11.4: credentials = auth-scheme 1*SP token68",
        authorization(b"Basic    [nightly:sesame]"),
        GRANTED,
    ),
    row(
        "a tab after the scheme",
        "RFC 9110 11.4: credentials = auth-scheme 1*SP token68, and a tab is no SP",
        authorization(b"Basic\t[nightly:sesame]"),
        INVALID_CLIENT,
    ),
    row(
        "white space around the value",
        "RFC 9112 5.1: white space around a field value is excluded from it",
        authorization(b" \t Basic [nightly:sesame] \t"),
        GRANTED,
    ),
    row(
        "no white space before the value, and names of headers in capitals",
        "RFC 9110 5.1: field names are case-insensitive; RFC 9112 5: white space before the value is optional",
        Wire {
            authorization: b"",
            content_type: "",
            more: &["AUTHORIZATION:Basic bmlnaHRseTpzZXNhbWU=", "CONTENT-TYPE:application/x-www-form-urlencoded"],
            ..TOKEN
        },
        GRANTED,
    ),
    row(
        "escapes and pluses in id and secret",
        "RFC 6749 2.3.1: id and secret are form-encoded each (appendix B), then joined for Basic",
        Wire {
            authorization: b"Basic [front%3Adoor+100%25:a%3Ab%2Bc+d%2541%C3%A9]",
            body: b"grant_type=client_credentials",
            ..TOKEN
        },
        Answer::Token(Source::Miss, DOORS),
    ),
    row(
        "a secret with a plain colon and plain UTF-8",
        "RFC 7617 2: the first colon is the one that separates; 2.1: charset=\"UTF-8\"",
        Wire {
            authorization: b"Basic [front%3Adoor%20100%25:a:b%2bc%20d%2541\xC3\xA9]",
            body: b"grant_type=client_credentials",
            ..TOKEN
        },
        DOOR_GRANTED,
    ),
    row(
        "an id with a plain colon",
        "RFC 7617 2: a user-id with a colon cannot be encoded: the first colon separates",
        authorization(b"Basic [front:door+100%25:a%3Ab%2Bc+d%2541%C3%A9]"),
        INVALID_CLIENT,
    ),
    row(
        "a plain plus in the secret",
        "RFC 6749 appendix B: + is a space",
        authorization(b"Basic [front%3Adoor+100%25:a%3Ab+c+d%2541%C3%A9]"),
        INVALID_CLIENT,
    ),
    row(
        "an escape decoded only once",
        "RFC 6749 2.3.1: one encoding, so %41 of the secret goes out as %2541",
        authorization(b"Basic [front%3Adoor+100%25:a%3Ab%2Bc+d%41%C3%A9]"),
        INVALID_CLIENT,
    ),
    row(
        "a secret in Latin-1",
        "RFC 7617 2.1: charset=\"UTF-8\", and this is not",
        authorization(b"Basic [front%3Adoor+100%25:a%3Ab%2Bc+d%2541\xE9]"),
        INVALID_CLIENT,
    ),
    row(
        "an escaped secret in Latin-1",
        "RFC 6749 appendix B: values are encoded with UTF-8 before they are escaped",
        authorization(b"Basic [front%3Adoor+100%25:a%3Ab%2Bc+d%2541%E9]"),
        INVALID_CLIENT,
    ),
    row(
        "no padding",
        "RFC 4648 3.2, by RFC 7617 2: padding MUST be there",
        authorization(b"Basic bmlnaHRseTpzZXNhbWU"),
        INVALID_CLIENT,
    ),
    row(
        "too much padding",
        "RFC 4648 4, by RFC 7617 2: two octets are followed by one =",
        authorization(b"Basic bmlnaHRseTpzZXNhbWU=="),
        INVALID_CLIENT,
    ),
    row(
        "a space within base64",
        "RFC 4648 3.3, by RFC 7617 2: characters outside the alphabet MUST be rejected",
        authorization(b"Basic bmlnaHRs eTpzZXNhbWU="),
        INVALID_CLIENT,
    ),
    row(
        "credentials in plain text",
        "RFC 7617 2: the credentials are base64",
        authorization(b"Basic nightly:sesame"),
        INVALID_CLIENT,
    ),
    row(
        "no colon",
        "RFC 7617 2: user-pass = user-id \":\" password",
        authorization(b"Basic [nightly]"),
        INVALID_CLIENT,
    ),
    row(
        "an empty secret",
        "RFC 6749 5.2: invalid_client: client authentication failed",
        authorization(b"Basic [nightly:]"),
        INVALID_CLIENT,
    ),
    row(
        "an empty id",
        "RFC 6749 5.2: invalid_client: unknown client",
        authorization(b"Basic [:sesame]"),
        INVALID_CLIENT,
    ),
    row(
        "nothing but a colon",
        "RFC 6749 5.2: invalid_client: unknown client",
        authorization(b"Basic [:]"),
        INVALID_CLIENT,
    ),
    row(
        "a wrong secret",
        "RFC 6749 5.2: a client that used the Authorization header MUST get 401 and WWW-Authenticate of that scheme",
        authorization(b"Basic [nightly:wrong]"),
        INVALID_CLIENT,
    ),
    row(
        "an unknown caller",
        "RFC 6749 5.2: invalid_client: unknown client",
        authorization(b"Basic [nobody:sesame]"),
        INVALID_CLIENT,
    ),
    row(
        "an id in capitals",
        "RFC 6749 1.9: all the protocol parameter names and values are case sensitive",
        authorization(b"Basic [Nightly:sesame]"),
        INVALID_CLIENT,
    ),
    row(
        "a secret with a line break after it",
        "RFC 7617 2: user-id and password MUST NOT contain control characters",
        authorization(b"Basic [nightly:sesame\n]"),
        INVALID_CLIENT,
    ),
    row("the scheme alone", "RFC 7617 2: the scheme has credentials", authorization(b"Basic"), INVALID_CLIENT),
    row(
        "an empty Authorization header",
        "RFC 9110 11.6.2: Authorization = credentials, and there are none",
        Wire { authorization: b"", more: &["Authorization:"], ..TOKEN },
        INVALID_CLIENT,
    ),
    row(
        "an Authorization header that is not text",
        "RFC 9110 5.5: such octets are opaque data, and no base64",
        authorization(b"Basic \xFF\xFE"),
        INVALID_CLIENT,
    ),
    row(
        "a bearer token",
        "RFC 6749 5.2: invalid_client: unsupported authentication method; RFC 9110 15.5.2: with a challenge that applies",
        authorization(b"Bearer bmlnaHRseTpzZXNhbWU="),
        INVALID_CLIENT,
    ),
    row(
        "digest authentication",
        "RFC 6749 5.2: invalid_client: unsupported authentication method; RFC 9110 15.5.2: with a challenge that applies",
        authorization(b"Digest username=\"nightly\", realm=\"officernd-token-broker\", uri=\"/oauth/token\""),
        INVALID_CLIENT,
    ),
    row(
        "two credentials in one header",
        "RFC 9110 11.6.2: Authorization = credentials, and not a list",
        authorization(b"Basic [nightly:sesame], Basic [nightly:sesame]"),
        INVALID_CLIENT,
    ),
    row(
        "two Authorization headers",
        "RFC 6749 5.2: invalid_request: includes multiple credentials",
        more(&["Authorization: Basic bmlnaHRseTpzZXNhbWU="]),
        TWO_HEADERS,
    ),
    // RFC 6749 section 2.3: exactly one way of authenticating, and only the two supported ones.
    row(
        "no credentials",
        "RFC 6749 5.2: invalid_client: no client authentication included; RFC 9110 15.5.2: 401 MUST have a challenge",
        Wire { authorization: b"", ..TOKEN },
        INVALID_CLIENT,
    ),
    row(
        "client_id without client_secret",
        "RFC 6749 2.3.1: client_secret may only be omitted if it is the empty string",
        Wire { body: b"grant_type=client_credentials&client_id=nightly", ..POSTED },
        INVALID_CLIENT,
    ),
    row(
        "client_id and an empty client_secret",
        "RFC 6749 3.2: without a value is omitted, so no client authentication is included",
        Wire { body: b"grant_type=client_credentials&client_id=nightly&client_secret=", ..POSTED },
        INVALID_CLIENT,
    ),
    row(
        "client_secret without client_id",
        "RFC 6749 2.3.1: client_id is REQUIRED",
        Wire { body: b"grant_type=client_credentials&client_secret=sesame", ..POSTED },
        INVALID_CLIENT,
    ),
    row(
        "a wrong client_secret",
        "RFC 6749 5.2: invalid_client: client authentication failed",
        Wire { body: b"grant_type=client_credentials&client_id=nightly&client_secret=wrong", ..POSTED },
        INVALID_CLIENT,
    ),
    row(
        "credentials in the body with escapes",
        "RFC 6749 appendix B: decoded once, as every parameter",
        Wire {
            body: b"grant_type=client_credentials&client_id=front%3Adoor+100%25&client_secret=a:b%2Bc%20d%2541%c3%a9",
            ..POSTED
        },
        DOOR_GRANTED,
    ),
    row(
        "credentials in the body, encoded twice",
        "RFC 6749 appendix B: decoded once, as every parameter",
        Wire { body: b"grant_type=client_credentials&client_id=nightly&client_secret=%2573esame", ..POSTED },
        INVALID_CLIENT,
    ),
    row(
        "client_id beside Basic, the same",
        "RFC 6749 3.2.1: a client MAY use client_id to identify itself; it is no second authentication",
        token_body(b"grant_type=client_credentials&scope=members.read&client_id=nightly"),
        GRANTED,
    ),
    row(
        "client_id beside Basic, another",
        "RFC 6749 5.2: invalid_request: the request is otherwise malformed",
        token_body(b"grant_type=client_credentials&scope=members.read&client_id=crowd"),
        OTHER_ID,
    ),
    row(
        "client_id and client_secret beside Basic, the same",
        "RFC 6749 2.3 forbids it to the client; some libraries do it, and the two do not contradict each other",
        token_body(b"grant_type=client_credentials&client_id=nightly&client_secret=sesame"),
        ALL_GRANTED,
    ),
    row(
        "client_secret beside Basic, the same",
        "RFC 6749 2.3 forbids it to the client; some libraries do it, and the two do not contradict each other",
        token_body(b"grant_type=client_credentials&client_secret=sesame"),
        ALL_GRANTED,
    ),
    row(
        "client_secret beside Basic, another",
        "RFC 6749 5.2: invalid_request: utilizes more than one mechanism for authenticating the client",
        token_body(b"grant_type=client_credentials&client_id=nightly&client_secret=wrong"),
        OTHER_SECRET,
    ),
    row(
        "a wrong secret beside Basic, the same",
        "RFC 6749 5.2: invalid_client: client authentication failed",
        Wire {
            body: b"grant_type=client_credentials&client_id=nightly&client_secret=wrong",
            ..authorization(b"Basic [nightly:wrong]")
        },
        INVALID_CLIENT,
    ),
    row(
        "an empty Authorization header beside credentials in the body",
        "RFC 9110 11.6.2: Authorization = credentials, and there are none",
        Wire { more: &["Authorization:"], ..POSTED },
        GRANTED,
    ),
    row(
        "credentials in the body beside a bearer token",
        "RFC 6749 5.2: invalid_request: utilizes more than one mechanism for authenticating the client",
        Wire { authorization: b"Bearer a", ..POSTED },
        TWO_WAYS,
    ),
    row(
        "an unreadable assertion for a secret",
        "RFC 7521 4.2.1: the value of the \"error\" parameter MUST be the \"invalid_client\" error code",
        Wire {
            body: b"grant_type=client_credentials&client_id=nightly&client_assertion=a.b.c&client_assertion_type=\
                urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer",
            ..POSTED
        },
        INVALID_CLIENT,
    ),
    row(
        "an assertion beside Basic",
        "RFC 6749 2.3: the client MUST NOT use more than one authentication method in each request",
        token_body(b"grant_type=client_credentials&scope=members.read&client_assertion=a.b.c"),
        TWO_WAYS,
    ),
    // RFC 6749 section 2.3.1: no parameters in the query.
    row(
        "credentials in the query",
        "RFC 6749 2.3.1: the parameters MUST NOT be included in the request URI",
        Wire {
            authorization: b"",
            body: b"grant_type=client_credentials",
            ..token_line("POST /oauth/token?client_id=nightly&client_secret=sesame")
        },
        IN_QUERY,
    ),
    row(
        "the secret in the query, with an escaped name",
        "RFC 6749 2.3.1: the parameters MUST NOT be included in the request URI",
        token_line("POST /oauth/token?x=1&client%5Fsecret=sesame"),
        IN_QUERY,
    ),
    row(
        "the whole request in the query",
        "RFC 6749 4.4.2: parameters are in the HTTP request entity-body",
        Wire { body: b"", ..token_line("POST /oauth/token?grant_type=client_credentials") },
        IN_QUERY,
    ),
    row(
        "a query of other things",
        "RFC 6749 3.2: the endpoint URI MAY include a query component; unrecognized parameters MUST be ignored",
        token_line("POST /oauth/token?tenant=a&tenant=b"),
        GRANTED,
    ),
    row(
        "an empty query",
        "RFC 6749 3.2: the endpoint URI MAY include a query component",
        token_line("POST /oauth/token?"),
        GRANTED,
    ),
    row(
        "a parameter without a value in the query",
        "RFC 6749 3.2: parameters sent without a value MUST be treated as if they were omitted from the request",
        token_line("POST /oauth/token?scope=&client_id"),
        GRANTED,
    ),
];
