//! Everything that can go wrong with a request. The table in [`endpoint`](crate::endpoint)
//! turns it into an answer.

use std::fmt;
use std::time::Duration;

use crate::config::Mistake;
use crate::config::caller::Unauthenticated;
use crate::scope::ScopeRefusal;

/// Why a request fails.
///
/// `Display` is for the log, and may contain names of the policy. A caller reads only the fixed
/// sentence of [`Error::description`].
#[derive(Clone, Debug)]
pub enum Error {
    /// The request violates RFC 6749. The fixed sentence is safe to return.
    InvalidRequest(&'static str),
    /// The caller is not authenticated. All reasons get the same answer.
    InvalidClient(Unauthenticated),
    /// A grant type other than `client_credentials`.
    UnsupportedGrantType,
    /// The caller cannot get the requested scopes.
    InvalidScope(ScopeRefusal),
    /// The caller may not read the metrics.
    MetricsNotPermitted,
    /// The body is larger than a token request can be.
    BodyTooLarge,
    /// No token, or no revocation, at the moment.
    Unavailable {
        /// Why the request cannot be served.
        cause: Cause,
        /// Time after which the broker will try again, so that a caller's retry makes sense.
        retry_after: Duration,
    },
    /// The variables contain mistakes.
    Configuration(Vec<Mistake>),
    /// The entry of the caller's application has a mistake.
    DisabledApplication,
    /// The metadata would send clients to `http` or to no valid origin, because `public_url` is not set.
    NoPublicUrl,
}

/// Why the broker cannot serve a request, although the request is valid.
///
/// The order of the variants is part of the ledger's record: add new ones at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// OfficeRnD answered 429.
    RateLimited,
    /// OfficeRnD answered 5xx or 408.
    ServerError,
    /// OfficeRnD did not answer within the limit.
    TimedOut,
    /// No connection to OfficeRnD, or one that broke.
    Unreachable,
    /// The call quota of this minute is used up.
    QuotaUsedUp,
    /// The fetch, of this request or of another one, has not ended in time.
    StillFetching,
    /// No token with enough remaining lifetime is available now: for example, OfficeRnD issues the
    /// same token again, although it expires soon.
    TokenExpiring,
    /// A caller revoked a token of this key less than a minute ago.
    RevokedRecently,
    /// The store does not accept a revocation.
    StoreUnavailable,
    /// OfficeRnD refuses the application's credential.
    CredentialRefused,
    /// OfficeRnD answered with a status that a token endpoint does not use.
    UnexpectedStatus,
    /// A success, but not the JSON of RFC 6749 section 5.1.
    UnreadableAnswer,
    /// The answer exceeds the limit.
    AnswerTooLong,
    /// A token type other than `Bearer`.
    UnknownTokenType,
    /// `expires_in` is missing, or not a positive number.
    NoLifetime,
    /// The access token is empty, or has characters that a header cannot carry.
    UnusableToken,
    /// More scopes than requested.
    BroaderScope,
    /// The variable provider fails, or has not answered in time.
    VariablesUnreadable,
    /// No call could bring another token for a revoked one now.
    RevocationPostponed,
    /// OfficeRnD answered 4xx, and did not say that it means the credential or the scopes.
    ClientError,
    /// The caller has used up its share of the call quota, and the policy has other callers.
    ShareUsedUp,
    /// The host did not let the component call OfficeRnD.
    OutboundDenied,
    /// The keys of an issuer are needed, and it does not answer.
    KeysUnavailable,
}

impl Error {
    /// An [`Error::Unavailable`].
    pub(crate) fn unavailable(cause: Cause, retry_after: Duration) -> Self {
        Self::Unavailable { cause, retry_after }
    }

    /// The sentence that a caller may read. It never says what the policy contains.
    pub fn description(&self) -> &'static str {
        match self {
            Self::InvalidRequest(sentence) => sentence,
            Self::InvalidClient(_) => "client authentication failed",
            Self::UnsupportedGrantType => "grant_type must be client_credentials",
            Self::InvalidScope(ScopeRefusal::Malformed) => "scope is malformed",
            Self::InvalidScope(ScopeRefusal::Unnamed) => "scope is missing: this client must name its scopes",
            Self::InvalidScope(_) => "the requested scope is not available to this client",
            Self::MetricsNotPermitted => "this client may not read the metrics",
            Self::BodyTooLarge => "the request body is too large",
            Self::Unavailable { cause, .. } if cause.is_temporary() => "the request cannot be served now, retry later",
            Self::Unavailable { .. } => "the identity provider did not issue a token",
            Self::Configuration(_) | Self::DisabledApplication => "the broker is not configured correctly",
            Self::NoPublicUrl => {
                "the request tells no https origin: behind a proxy that ends TLS, the variable public_url must be set"
            }
        }
    }

    /// The value of the audit field `reason`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidRequest(_) => "invalid_request",
            Self::InvalidClient(because) => because.reason(),
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::InvalidScope(because) => because.reason(),
            Self::MetricsNotPermitted => "metrics_not_permitted",
            Self::BodyTooLarge => "body_too_large",
            Self::Unavailable { cause, .. } => cause.reason(),
            Self::Configuration(_) => "configuration_invalid",
            Self::DisabledApplication => "application_disabled",
            Self::NoPublicUrl => "public_url_missing",
        }
    }
}

impl Cause {
    /// Whether the problem can pass without a person's action. Otherwise a person must fix
    /// something, and a retry does not help.
    pub fn is_temporary(self) -> bool {
        match self {
            Self::RateLimited | Self::ServerError | Self::TimedOut | Self::Unreachable => true,
            Self::QuotaUsedUp | Self::ShareUsedUp | Self::StillFetching | Self::TokenExpiring => true,
            Self::RevokedRecently | Self::StoreUnavailable | Self::VariablesUnreadable | Self::RevocationPostponed => {
                true
            }
            // A proxy's page, an empty body, a firewall: the next answer may be another.
            Self::ClientError | Self::UnreadableAnswer | Self::AnswerTooLong => true,
            // Spin denies every call of an instance whose first one met a failing provider of variables.
            Self::OutboundDenied | Self::KeysUnavailable => true,
            Self::CredentialRefused | Self::UnexpectedStatus => false,
            Self::UnknownTokenType | Self::NoLifetime | Self::UnusableToken | Self::BroaderScope => false,
        }
    }

    /// The value of the audit field `reason`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::RateLimited => "upstream_rate_limited",
            Self::ServerError => "upstream_server_error",
            Self::TimedOut => "upstream_timed_out",
            Self::Unreachable => "upstream_unreachable",
            Self::QuotaUsedUp => "budget_spent",
            Self::ShareUsedUp => "share_used_up",
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
            Self::VariablesUnreadable => "variables_unreadable",
            Self::RevocationPostponed => "revocation_postponed",
            Self::ClientError => "upstream_client_error",
            Self::OutboundDenied => "outbound_denied",
            Self::KeysUnavailable => "keys_unavailable",
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
            Self::InvalidRequest(sentence) => f.write_str(sentence),
            other => f.write_str(other.reason()),
        }
    }
}

impl std::error::Error for Error {}
