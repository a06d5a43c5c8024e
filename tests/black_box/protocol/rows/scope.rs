//! The parameter `scope` (RFC 6749 section 3.3).

use crate::protocol::table::*;

pub(super) static ROWS: &[Row] = &[
    // RFC 6749 section 3.3: the scope.
    row(
        "two scopes",
        "RFC 6749 3.3: a list of space-delimited strings",
        token_body(b"grant_type=client_credentials&scope=companies.read+members.read"),
        ALL_GRANTED,
    ),
    row(
        "two scopes the other way round",
        "RFC 6749 3.3: if the value contains multiple strings, their order does not matter",
        token_body(b"grant_type=client_credentials&scope=members.read%20companies.read"),
        ALL_GRANTED,
    ),
    row(
        "a scope repeated",
        "RFC 6749 3.3: each string adds an access range; the same one adds nothing",
        token_body(b"grant_type=client_credentials&scope=members.read+members.read+members.read"),
        GRANTED,
    ),
    row(
        "a scope with every letter escaped",
        "RFC 6749 appendix B: %XX is the octet",
        token_body(b"grant_type=client_credentials&scope=%6d%65%6D%62%65%72%73%2e%72%65%61%64"),
        GRANTED,
    ),
    row(
        "a scope in capitals",
        "RFC 6749 3.3: case-sensitive strings; 5.2: invalid_scope: unknown",
        token_body(b"grant_type=client_credentials&scope=MEMBERS.READ"),
        SCOPE_DENIED,
    ),
    row(
        "two scopes, one of them another caller's",
        "RFC 6749 5.2: invalid_scope: the requested scope exceeds the scope granted",
        token_body(b"grant_type=client_credentials&scope=members.read+doors.read"),
        SCOPE_DENIED,
    ),
    row(
        "a comma between scopes",
        "RFC 6749 3.3: a comma is a character of a scope-token, and of no known one",
        token_body(b"grant_type=client_credentials&scope=members.read,companies.read"),
        SCOPE_DENIED,
    ),
    row(
        "an asterisk for a scope",
        "RFC 6749 3.3: a scope-token like any other, and of no known meaning",
        token_body(b"grant_type=client_credentials&scope=*"),
        SCOPE_DENIED,
    ),
    row(
        "two spaces between scopes",
        "RFC 6749 3.3 asks the client for one space; more white space names no other scope, and OfficeRnD's answers have it too",
        token_body(b"grant_type=client_credentials&scope=members.read++companies.read"),
        ALL_GRANTED,
    ),
    row(
        "a space before the scope",
        "RFC 6749 3.3 asks the client for one space; more white space names no other scope, and OfficeRnD's answers have it too",
        token_body(b"grant_type=client_credentials&scope=+members.read"),
        GRANTED,
    ),
    row(
        "a space after the scope",
        "RFC 6749 3.3 asks the client for one space; more white space names no other scope, and OfficeRnD's answers have it too",
        token_body(b"grant_type=client_credentials&scope=members.read+"),
        GRANTED,
    ),
    row(
        "a space for a scope",
        "RFC 6749 3.3: a scope has at least one scope-token; a space is a value, so it is not omitted",
        token_body(b"grant_type=client_credentials&scope=+"),
        MALFORMED_SCOPE,
    ),
    row(
        "a tab between scopes",
        "RFC 6749 3.3 asks the client for one space; more white space names no other scope, and OfficeRnD's answers have it too",
        token_body(b"grant_type=client_credentials&scope=members.read%09companies.read"),
        ALL_GRANTED,
    ),
    row(
        "a line break after the scope",
        "RFC 6749 3.3 asks the client for one space; more white space names no other scope, and OfficeRnD's answers have it too",
        token_body(b"grant_type=client_credentials&scope=members.read%0A"),
        GRANTED,
    ),
    row(
        "quotes around the scope",
        "RFC 6749 3.3: %x22 is not in a scope-token",
        token_body(b"grant_type=client_credentials&scope=%22members.read%22"),
        MALFORMED_SCOPE,
    ),
    row(
        "a backslash in the scope",
        "RFC 6749 3.3: %x5C is not in a scope-token",
        token_body(b"grant_type=client_credentials&scope=members%5Cread"),
        MALFORMED_SCOPE,
    ),
    row(
        "a scope beyond ASCII",
        "RFC 6749 3.3: %x7E is the last character of a scope-token",
        token_body(b"grant_type=client_credentials&scope=members.r%C3%A9ad"),
        MALFORMED_SCOPE,
    ),
    row(
        "a no-break space between scopes",
        "RFC 6749 3.3: no character beyond ASCII is in a scope-token, or white space here",
        token_body(b"grant_type=client_credentials&scope=members.read%C2%A0companies.read"),
        MALFORMED_SCOPE,
    ),
    row(
        "a scope that is not UTF-8",
        "RFC 6749 appendix B: values are encoded with UTF-8; 5.2: invalid_scope: malformed",
        token_body(b"grant_type=client_credentials&scope=members.read%FF"),
        MALFORMED_SCOPE,
    ),
    row(
        "a scope with DEL",
        "RFC 6749 3.3: %x7E is the last character of a scope-token",
        token_body(b"grant_type=client_credentials&scope=members.read%7F"),
        MALFORMED_SCOPE,
    ),
    row(
        "512 scopes",
        "RFC 6749 3.3: the grammar has no limit, and the policy allows them",
        Wire {
            authorization: b"Basic [crowd:many]",
            body: b"grant_type=client_credentials&scope=<scopes 512>",
            ..TOKEN
        },
        Answer::Token(Source::Miss, "<scopes 512>"),
    ),
    row(
        "512 scopes, and one of them once more",
        "RFC 6749 3.3: the same string adds nothing",
        Wire {
            authorization: b"Basic [crowd:many]",
            body: b"grant_type=client_credentials&scope=<scopes 512>+s000",
            ..TOKEN
        },
        CROWD_GRANTED,
    ),
    row(
        "513 scopes",
        "RFC 6749 5.2: invalid_scope: the requested scope is invalid, or exceeds the scope granted",
        Wire {
            authorization: b"Basic [crowd:many]",
            body: b"grant_type=client_credentials&scope=<scopes 513>",
            ..TOKEN
        },
        MALFORMED_SCOPE,
    ),
];
