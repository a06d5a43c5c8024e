//! The token request of RFC 6749: ordinary requests, parameters and grants.

use crate::protocol::table::*;

pub(super) static ROWS: &[Row] = &[
    // RFC 6749 section 4.4: the ordinary request.
    row(
        "the request of the standard, with HTTP Basic",
        "RFC 6749 4.4.2: grant_type=client_credentials, scope, and the client authenticates",
        TOKEN,
        Answer::Token(Source::Miss, MEMBERS),
    ),
    row(
        "the same again",
        "RFC 6749 5.1: expires_in is the lifetime from the time the response was generated",
        TOKEN,
        GRANTED,
    ),
    row(
        "credentials in the body",
        "RFC 6749 2.3.1: the server MAY support including the client credentials in the request-body",
        POSTED,
        GRANTED,
    ),
    row(
        "no scope",
        "RFC 6749 3.3: if scope is omitted, the server MUST use a pre-defined default or fail",
        token_body(b"grant_type=client_credentials"),
        Answer::Token(Source::Miss, BOTH),
    ),
    // RFC 6749 section 3.2: parameters.
    row(
        "an empty scope",
        "RFC 6749 3.2: parameters sent without a value MUST be treated as if they were omitted",
        token_body(b"grant_type=client_credentials&scope="),
        ALL_GRANTED,
    ),
    row(
        "scope without an equals sign",
        "RFC 6749 3.2: parameters sent without a value MUST be treated as if they were omitted",
        token_body(b"grant_type=client_credentials&scope"),
        ALL_GRANTED,
    ),
    row(
        "an empty scope beside one that is not",
        "RFC 6749 3.2: a parameter without a value is omitted, so this one appears once",
        token_body(b"scope=&grant_type=client_credentials&scope=members.read"),
        GRANTED,
    ),
    row(
        "an empty client_id and client_secret beside Basic",
        "RFC 6749 3.2: without a value is omitted, so this is one way of authenticating",
        token_body(b"grant_type=client_credentials&scope=members.read&client_id=&client_secret="),
        GRANTED,
    ),
    row(
        "an empty grant_type",
        "RFC 6749 3.2 and 5.2: without a value is omitted, and invalid_request is a missing required parameter",
        token_body(b"grant_type=&scope=members.read"),
        NO_GRANT,
    ),
    row(
        "no grant_type",
        "RFC 6749 5.2: invalid_request: the request is missing a required parameter",
        token_body(b"scope=members.read"),
        NO_GRANT,
    ),
    row(
        "an empty body",
        "RFC 6749 5.2: invalid_request: the request is missing a required parameter",
        Wire { more: &["Content-Length: 0"], body: b"", ..TOKEN },
        NO_GRANT,
    ),
    row(
        "an unknown parameter",
        "RFC 6749 3.2: the server MUST ignore unrecognized request parameters",
        token_body(b"grant_type=client_credentials&audience=a&scope=members.read"),
        GRANTED,
    ),
    row(
        "an unknown parameter twice",
        "RFC 6749 3.2: the server MUST ignore unrecognized request parameters (RFC 8707 2 repeats its own)",
        token_body(b"grant_type=client_credentials&resource=a&resource=b&scope=members.read"),
        GRANTED,
    ),
    row(
        "an unknown parameter that is not UTF-8",
        "RFC 6749 3.2: the server MUST ignore unrecognized request parameters",
        token_body(b"grant_type=client_credentials&x=%FF\xFE&scope=members.read"),
        GRANTED,
    ),
    row(
        "grant_type twice",
        "RFC 6749 3.2: request parameters MUST NOT be included more than once",
        token_body(b"grant_type=client_credentials&grant_type=client_credentials"),
        REPEATED,
    ),
    row(
        "scope twice",
        "RFC 6749 3.2: request parameters MUST NOT be included more than once",
        token_body(b"grant_type=client_credentials&scope=members.read&scope=companies.read"),
        REPEATED,
    ),
    row(
        "scope twice, once escaped",
        "RFC 6749 3.2 and appendix B: a name is encoded like a value, and this one appears twice",
        token_body(b"grant_type=client_credentials&scope=members.read&s%63ope=members.read"),
        REPEATED,
    ),
    row(
        "client_id twice",
        "RFC 6749 3.2: request parameters MUST NOT be included more than once",
        Wire {
            body: b"grant_type=client_credentials&client_id=nightly&client_id=nightly&client_secret=sesame",
            ..POSTED
        },
        REPEATED,
    ),
    row(
        "client_secret twice",
        "RFC 6749 3.2: request parameters MUST NOT be included more than once",
        Wire {
            body: b"grant_type=client_credentials&client_id=nightly&client_secret=sesame&client_secret=x",
            ..POSTED
        },
        REPEATED,
    ),
    row(
        "the name of a parameter in capitals",
        "RFC 6749 1.9: all the protocol parameter names and values are case sensitive",
        token_body(b"GRANT_TYPE=client_credentials"),
        NO_GRANT,
    ),
    row(
        "the name of a parameter with an escape",
        "RFC 6749 appendix B: names and values are encoded the same way",
        token_body(b"grant%5Ftype=client%5fcredentials&scope=members.read"),
        GRANTED,
    ),
    row(
        "ampersands that separate nothing",
        "RFC 6749 appendix B: an empty text between two of them has neither name nor value",
        token_body(b"&&grant_type=client_credentials&&scope=members.read&"),
        GRANTED,
    ),
    row(
        "a semicolon between parameters",
        "RFC 6749 appendix B: the separator is an ampersand, so this is one value, and of no known grant",
        token_body(b"grant_type=client_credentials;scope=members.read"),
        OTHER_GRANT,
    ),
    row(
        "a byte order mark before the first parameter",
        "RFC 6749 1.9: names are as they are, and this is another one",
        token_body(b"\xEF\xBB\xBFgrant_type=client_credentials"),
        NO_GRANT,
    ),
    // RFC 6749 sections 4.4.2 and 5.2: the grant.
    row(
        "the grant in capitals",
        "RFC 6749 4.4.2 and 1.9: the value MUST be client_credentials, and case matters",
        token_body(b"grant_type=CLIENT_CREDENTIALS"),
        OTHER_GRANT,
    ),
    row(
        "the grant with a space after it",
        "RFC 6749 4.4.2: the value MUST be set to client_credentials",
        token_body(b"grant_type=client_credentials+"),
        OTHER_GRANT,
    ),
    row(
        "the grant with a line break after it",
        "RFC 6749 4.4.2: the value MUST be set to client_credentials",
        token_body(b"grant_type=client_credentials\n"),
        OTHER_GRANT,
    ),
    row(
        "the grant of a password",
        "RFC 6749 5.2: unsupported_grant_type: the grant type is not supported by the server",
        token_body(b"grant_type=password&username=a&password=b"),
        OTHER_GRANT,
    ),
    row(
        "the grant of a code",
        "RFC 6749 5.2: unsupported_grant_type: the grant type is not supported by the server",
        token_body(b"grant_type=authorization_code&code=a&redirect_uri=https%3A%2F%2Fapp.example"),
        OTHER_GRANT,
    ),
    row(
        "the grant of a refresh token",
        "RFC 6749 4.4.3: this grant has no refresh token; 5.2: unsupported_grant_type",
        token_body(b"grant_type=refresh_token&refresh_token=a"),
        OTHER_GRANT,
    ),
    row(
        "the grant of an extension",
        "RFC 6749 4.5: an extension grant is an absolute URI; 5.2: unsupported_grant_type",
        token_body(b"grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&subject_token=a"),
        OTHER_GRANT,
    ),
    row(
        "another grant from an unknown caller",
        "RFC 6749 3.2.1: confidential clients MUST authenticate before their request is judged",
        Wire { authorization: b"Basic [nobody:sesame]", body: b"grant_type=password", ..TOKEN },
        INVALID_CLIENT,
    ),
];
