//! Reads a client assertion: a JWT with which a caller authenticates (RFC 7523 section 2.2).
//!
//! Nothing here trusts an assertion, and nothing verifies its signature. In this order, the broker
//! 1. parses it, which looks at nothing but its text,
//! 2. checks type, audience and times, which tell nothing about the policy,
//! 3. finds the keys that may have signed it, and verifies its [`signature`](crate::signature).

mod claims;
mod reason;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::json::{Json, for_each_entry};
use crate::secret::PresentedSecret;
use crate::signature::Algorithm;
use crate::time::Timestamp;

pub use reason::Reason;

use claims::{Claims, Header, has_unique_names};

/// Longest assertion in bytes. The rest of a request's body, which has at most 16 KiB, is left
/// for the other parameters.
pub const ASSERTION_BYTES: usize = 12_288;

/// Longest header of an assertion in bytes of JSON.
const HEADER_BYTES: usize = 1024;

/// Most members of a header, and most claims. Bounds the search for repeated names.
const MOST_NAMES: usize = 100;

/// Largest difference between the clocks of the broker and of an issuer. FAPI 2.0 section 5.3.2.1
/// requires at least 10 s, and at most 60 s.
pub const ISSUER_CLOCK_SKEW: Duration = Duration::from_secs(30);

/// An assertion that is well-formed, and not yet trusted.
pub struct Assertion {
    /// The whole text; a signature is over its first two parts and the dot between them.
    text: PresentedSecret,
    signed_bytes: usize,
    signature: Vec<u8>,
    algorithm: Algorithm,
    kid: Option<String>,
    is_identity_type: bool,
    /// JSON of the claims.
    payload: String,
    issuer: String,
    subject: String,
    /// `None` if the assertion has no audience, or several.
    audience: Option<String>,
    expires_at: Timestamp,
    /// The later of `nbf` and `iat`.
    valid_from: Option<Timestamp>,
}

impl Assertion {
    /// Parses a JWS in compact serialization (RFC 7515 section 7.1) whose payload has the claims
    /// of a client assertion (RFC 7523 section 3).
    ///
    /// # Errors
    /// [`Reason::Type`] and [`Reason::Algorithm`] if the header says so; otherwise
    /// [`Reason::Unreadable`].
    pub fn parse(text: &PresentedSecret) -> Result<Self, Reason> {
        let (header, payload, signature) = split(text.expose()).ok_or(Reason::Unreadable)?;
        let signed_bytes = header.len() + 1 + payload.len();
        // Before it is decoded and searched for repeated names.
        let header = Some(header).filter(|header| header.len() <= HEADER_BYTES.div_ceil(3) * 4);
        let header = header.and_then(decode_object).filter(|header| header.len() <= HEADER_BYTES);
        let header = header.ok_or(Reason::Unreadable)?;
        let header: Header = serde_json::from_str(&header).map_err(|_| Reason::Unreadable)?;
        let is_identity_type = header.check()?;
        let algorithm = Algorithm::of_name(&header.alg).ok_or(Reason::Algorithm)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| Reason::Unreadable)?;
        let payload = decode_object(payload).ok_or(Reason::Unreadable)?;
        let claims: Claims = serde_json::from_str(&payload).map_err(|_| Reason::Unreadable)?;
        Ok(Self {
            text: text.clone(),
            signed_bytes,
            signature,
            algorithm,
            kid: header.kid,
            is_identity_type,
            issuer: claims.iss,
            subject: claims.sub,
            audience: claims.aud.0,
            expires_at: claims.exp.into(),
            valid_from: claims.nbf.max(claims.iat).map(Into::into),
            payload,
        })
    }

    /// Algorithm that the header names. The key decides; the header only has to agree.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Id of the key, at most 255 bytes. It is only compared with those of the keys that may sign.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The claim `iss`.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The claim `sub`.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The bytes that the signature is over.
    pub fn signed(&self) -> &[u8] {
        &self.text.expose().as_bytes()[..self.signed_bytes]
    }

    /// The signature, of any length but empty.
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// Checks that the header's `typ` is that of a client assertion, or absent (rfc7523bis
    /// section 4). Tokens of issuers may also have `JOSE` or `at+jwt`.
    ///
    /// # Errors
    /// [`Reason::Type`] for a type that only a token of an issuer may have.
    pub fn check_own_key_type(&self) -> Result<(), Reason> {
        if self.is_identity_type { Err(Reason::Type) } else { Ok(()) }
    }

    /// Checks that the assertion is for `audience` and for nothing else (rfc7523bis section 4). A
    /// list of one is as good as its text.
    ///
    /// # Errors
    /// [`Reason::WrongAudience`].
    pub fn check_audience(&self, audience: &str) -> Result<(), Reason> {
        if self.audience.as_deref() == Some(audience) { Ok(()) } else { Err(Reason::WrongAudience) }
    }

    /// Checks the times (RFC 7523 section 3), each with 30 s for clocks that differ. `max_life`
    /// counts from `now`, because some issuers set `iat` back.
    ///
    /// # Errors
    /// [`Reason::Expired`], [`Reason::Early`] or [`Reason::Long`].
    pub fn check_times(&self, now: Timestamp, max_life: Duration) -> Result<(), Reason> {
        if now >= self.expires_at + ISSUER_CLOCK_SKEW {
            return Err(Reason::Expired);
        }
        if self.valid_from.is_some_and(|from| from > now + ISSUER_CLOCK_SKEW) {
            return Err(Reason::Early);
        }
        if self.expires_at > now + max_life + ISSUER_CLOCK_SKEW { Err(Reason::Long) } else { Ok(()) }
    }

    /// The claims that are text and for which `is_wanted` returns true. The values of all others stay
    /// unread. Call it only when the signature is good: it parses the payload again, and a claim of
    /// another type may be large.
    pub fn text_claims(&self, mut is_wanted: impl FnMut(&str) -> bool) -> TextClaims {
        let mut claims = Vec::new();
        let mut take = |name: &str, value: Json<'_, '_>| {
            claims.extend(value.text().map(|text| (name.to_owned(), text.to_string())));
        };
        match for_each_entry(&self.payload, &mut is_wanted, &mut take) {
            Ok(()) => TextClaims(claims),
            // A wanted claim has a number that is too large, or half a surrogate pair.
            Err(_) => TextClaims(Vec::new()),
        }
    }
}

/// Claims of a verified assertion whose values are text. A claim of another type matches nothing,
/// so it is not there.
pub struct TextClaims(Vec<(String, String)>);

impl TextClaims {
    /// The value of a claim.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl fmt::Debug for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// The three parts of a JWS in compact serialization, none of them empty. More dots end up in the
/// last part, which is then no base64url; a list of parts could be made long (CVE-2025-22868).
fn split(text: &str) -> Option<(&str, &str, &str)> {
    let (header, rest) = text.split_once('.').filter(|_| text.len() <= ASSERTION_BYTES)?;
    let (payload, signature) = rest.split_once('.')?;
    (!signature.is_empty()).then_some((header, payload, signature))
}

/// Decodes a JSON object without repeated names from base64url without padding, whose last bits
/// must be zero (RFC 7515 section 2): otherwise two texts would mean the same.
fn decode_object(part: &str) -> Option<String> {
    let object = String::from_utf8(URL_SAFE_NO_PAD.decode(part).ok()?).ok()?;
    has_unique_names(&object, MOST_NAMES).then_some(object)
}
