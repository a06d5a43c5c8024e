//! What can go wrong with a request. [`endpoint`](crate::endpoint) has the one table that turns it into an answer.

use std::fmt;
use std::time::Duration;

use crate::config::Mistake;
use crate::config::caller::Unauthenticated;
use crate::scope::ScopeRefusal;

/// Why a request gets no token.
///
/// `Display` is for the log: it may name what the policy says. A caller is told the fixed sentence of
/// [`Error::description`] and nothing else.
#[derive(Clone, Debug)]
pub enum Error {
    /// The request is not one that RFC 6749 knows. The sentence is fixed and may be told.
    InvalidRequest(&'static str),
    /// The caller is not established. Outside, the reasons are indistinguishable.
    InvalidClient(Unauthenticated),
    /// Another grant than `client_credentials`.
    UnsupportedGrantType,
    /// The requested scope is not to be had.
    InvalidScope(ScopeRefusal),
    /// The body is larger than a token request can be.
    BodyTooLarge,
    /// OfficeRnD issues no token now.
    Unavailable {
        /// Why.
        cause: Cause,
        /// When the broker itself will ask again, and it makes sense to ask the broker.
        retry_after: Duration,
    },
    /// The variables do not make a configuration.
    Configuration(Vec<Mistake>),
    /// The variables could not be read; the text is the provider's and only for the log.
    Variables(String),
}

/// Why OfficeRnD issues no token now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// It answered 429.
    RateLimited,
    /// It answered 5xx, or 408.
    ServerError,
    /// No answer within the limit.
    TimedOut,
    /// No connection, or one that broke.
    Unreachable,
    /// The calls of this minute are spent.
    QuotaUsedUp,
    /// Another request is asking, and this one has waited long enough.
    StillFetching,
    /// OfficeRnD re-issues a token that is about to expire.
    TokenExpiring,
    /// A caller revoked the same token less than a minute ago.
    RevokedRecently,
    /// The store does not take a revocation.
    StoreUnavailable,
    /// It refuses our client id and secret.
    CredentialRefused,
    /// The status is none that a token endpoint answers with.
    UnexpectedStatus,
    /// A success that is not the JSON of RFC 6749 section 5.1.
    UnreadableAnswer,
    /// The answer is longer than the limit.
    AnswerTooLong,
    /// A token type other than `Bearer`.
    UnknownTokenType,
    /// No `expires_in`, or one that is no positive number.
    NoLifetime,
    /// An access token that is empty or has characters that no header can carry.
    UnusableToken,
    /// More scope than was asked for.
    BroaderScope,
}

impl Error {
    /// No token now, and when to come back.
    pub(crate) fn unavailable(cause: Cause, retry_after: Duration) -> Self {
        Self::Unavailable { cause, retry_after }
    }

    /// The sentence a caller may read: it tells that the request was refused, never what the policy says.
    pub fn description(&self) -> &'static str {
        match self {
            Self::InvalidRequest(sentence) => sentence,
            Self::InvalidClient(_) => "client authentication failed",
            Self::UnsupportedGrantType => "grant_type must be client_credentials",
            Self::InvalidScope(ScopeRefusal::Malformed) => "scope is malformed",
            Self::InvalidScope(ScopeRefusal::Unnamed) => {
                "scope is missing: this client has to name the scopes it wants"
            }
            Self::InvalidScope(_) => "the requested scope is not available to this client",
            Self::BodyTooLarge => "the request body is too large",
            Self::Unavailable { cause, .. } if cause.is_temporary() => "this cannot be done right now, retry later",
            Self::Unavailable { .. } => "the identity provider did not issue a token",
            Self::Configuration(_) | Self::Variables(_) => "the broker is not configured correctly",
        }
    }

    /// The stable word for the log.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidRequest(_) => "invalid_request",
            Self::InvalidClient(because) => because.reason(),
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::InvalidScope(because) => because.reason(),
            Self::BodyTooLarge => "body_too_large",
            Self::Unavailable { cause, .. } => cause.reason(),
            Self::Configuration(_) => "configuration_invalid",
            Self::Variables(_) => "variables_unreadable",
        }
    }
}

impl Cause {
    /// Whether OfficeRnD will be well again by itself. The rest is a mistake of somebody, and asking again does not help.
    pub fn is_temporary(self) -> bool {
        match self {
            Self::RateLimited | Self::ServerError | Self::TimedOut | Self::Unreachable => true,
            Self::QuotaUsedUp | Self::StillFetching | Self::TokenExpiring => true,
            Self::RevokedRecently | Self::StoreUnavailable => true,
            Self::CredentialRefused | Self::UnexpectedStatus | Self::UnreadableAnswer | Self::AnswerTooLong => false,
            Self::UnknownTokenType | Self::NoLifetime | Self::UnusableToken | Self::BroaderScope => false,
        }
    }

    /// The stable word for the log.
    pub fn reason(self) -> &'static str {
        match self {
            Self::RateLimited => "upstream_rate_limited",
            Self::ServerError => "upstream_server_error",
            Self::TimedOut => "upstream_timed_out",
            Self::Unreachable => "upstream_unreachable",
            Self::QuotaUsedUp => "budget_spent",
            Self::StillFetching => "still_fetching",
            Self::TokenExpiring => "token_expiring",
            Self::RevokedRecently => "revoked_lately",
            Self::StoreUnavailable => "store_unavailable",
            Self::CredentialRefused => "credential_refused",
            Self::UnexpectedStatus => "upstream_unexpected_status",
            Self::UnreadableAnswer => "upstream_unreadable_answer",
            Self::AnswerTooLong => "upstream_answer_too_long",
            Self::UnknownTokenType => "upstream_unknown_token_type",
            Self::NoLifetime => "upstream_no_lifetime",
            Self::UnusableToken => "upstream_unusable_token",
            Self::BroaderScope => "upstream_broader_scope",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration(mistakes) => {
                f.write_str("the configuration is invalid")?;
                mistakes.iter().try_for_each(|mistake| write!(f, "; {mistake}"))
            }
            Self::Variables(text) => write!(f, "the variables cannot be read: {text}"),
            Self::InvalidRequest(sentence) => f.write_str(sentence),
            other => f.write_str(other.reason()),
        }
    }
}

impl std::error::Error for Error {}
