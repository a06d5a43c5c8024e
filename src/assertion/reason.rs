//! Why an assertion does not authenticate a caller.

/// Why an assertion does not authenticate a caller. Only the log tells the reasons apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Not a signed JWT with the claims that RFC 7523 section 3 requires.
    Unreadable,
    /// Another kind of JWT, by its `typ` or `cty`.
    Type,
    /// Signed with an algorithm other than RS256, PS256 and ES256, or than that of the key.
    Algorithm,
    /// None of the caller's keys has this id, or this algorithm.
    UnknownKey,
    /// The key that signed it is past its own expiry.
    ExpiredKey,
    /// The signature is not by the caller's key.
    WrongSignature,
    /// Made for another audience, or for several.
    WrongAudience,
    /// The time of `exp` has passed.
    Expired,
    /// The time of `nbf` or of `iat` has not come.
    Early,
    /// The time of `exp` is further away than permitted.
    Long,
}

impl Reason {
    /// The value of the audit field `reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "assertion_unreadable",
            Self::Type => "assertion_type",
            Self::Algorithm => "assertion_algorithm",
            Self::UnknownKey => "unknown_key",
            Self::ExpiredKey => "expired_key",
            Self::WrongSignature => "wrong_signature",
            Self::WrongAudience => "wrong_audience",
            Self::Expired => "assertion_expired",
            Self::Early => "assertion_early",
            Self::Long => "assertion_long",
        }
    }
}
