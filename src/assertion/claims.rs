//! Header and claims of an assertion, with the types that the standards give them.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};

use super::reason::Reason;
use crate::json::for_each_entry;
use crate::signature::KID_BYTES;
use crate::time::Timestamp;

/// The members of a JWS header that are read (RFC 7515 section 4.1). Keys in a header, or the
/// address of keys, are for a verifier that trusts the sender: `jwk`, `jku`, `x5c` and `x5u` are
/// not among them.
#[derive(serde::Deserialize)]
pub(super) struct Header {
    pub(super) alg: String,
    #[serde(default, deserialize_with = "present")]
    pub(super) kid: Option<String>,
    #[serde(default, deserialize_with = "present")]
    typ: Option<String>,
    #[serde(default, deserialize_with = "present")]
    crit: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    cty: Option<IgnoredAny>,
}

/// The claims of every assertion (RFC 7523 section 3).
#[derive(serde::Deserialize)]
pub(super) struct Claims {
    pub(super) iss: String,
    pub(super) sub: String,
    pub(super) aud: Audience,
    pub(super) exp: NumericDate,
    #[serde(default, deserialize_with = "present")]
    pub(super) nbf: Option<NumericDate>,
    #[serde(default, deserialize_with = "present")]
    pub(super) iat: Option<NumericDate>,
}

impl Header {
    /// Whether the type is one that only tokens of issuers have.
    ///
    /// # Errors
    /// [`Reason::Type`] for any other type and for a nested JWT; [`Reason::Unreadable`] for an
    /// extension that must be understood (RFC 7515 section 4.1.11), and for a key id that is too
    /// long.
    pub(super) fn check(&self) -> Result<bool, Reason> {
        if self.crit.is_some() || self.kid.as_ref().is_some_and(|kid| kid.len() > KID_BYTES) {
            return Err(Reason::Unreadable);
        }
        let typ = self.typ.as_deref().unwrap_or("JWT").to_ascii_lowercase();
        // RFC 7515 section 4.1.9.
        match typ.strip_prefix("application/").unwrap_or(&typ) {
            _ if self.cty.is_some() => Err(Reason::Type),
            "jwt" | "client-authentication+jwt" => Ok(false),
            "jose" | "at+jwt" => Ok(true),
            _ => Err(Reason::Type),
        }
    }
}

/// The claim `aud`: a text, or a list of texts (RFC 7519 section 4.1.3). `None` unless it is
/// exactly one.
pub(super) struct Audience(pub(super) Option<String>);

impl<'de> Deserialize<'de> for Audience {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrList;

        impl<'de> Visitor<'de> for TextOrList {
            type Value = Audience;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text or a list of texts")
            }

            fn visit_str<E>(self, text: &str) -> Result<Audience, E> {
                Ok(Audience(Some(text.to_owned())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Audience, A::Error> {
                let mut only = list.next_element()?;
                while list.next_element::<String>()?.is_some() {
                    only = None;
                }
                Ok(Audience(only))
            }
        }

        deserializer.deserialize_any(TextOrList)
    }
}

/// Seconds since the Unix epoch, perhaps with a fraction (RFC 7519 section 2), in whole
/// milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NumericDate(Timestamp);

/// The first second that no date has: in the year 5138. So no arithmetic with times overflows.
const DATES_END: f64 = 1e11;

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        if !(0.0..DATES_END).contains(&seconds) {
            return Err(de::Error::custom("no date"));
        }
        Ok(Self(Timestamp::from_unix_ms((seconds * 1000.0) as u64)))
    }
}

impl From<NumericDate> for Timestamp {
    fn from(date: NumericDate) -> Self {
        date.0
    }
}

/// Reads a value that may be absent but not `null`. By default, serde would take `null` for
/// absent, and a wrong type must never count as absent (CVE-2026-25537).
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Whether a text is a JSON object with at most `most` names at its top, no two alike (RFC 7519
/// section 4, RFC 7515 section 4).
pub(super) fn has_unique_names(object: &str, most: usize) -> bool {
    let mut names: Vec<String> = Vec::new();
    let mut are_unique = true;
    let mut note = |name: &str| {
        // Nothing is compared after the first repetition: the text may have a thousand names.
        are_unique = are_unique && names.len() < most && !names.iter().any(|known| known == name);
        if are_unique {
            names.push(name.to_owned());
        }
        false
    };
    for_each_entry(object, &mut note, &mut |_, _| {}).is_ok() && are_unique
}
