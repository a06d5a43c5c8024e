//! The refusal record: OfficeRnD refuses a scope set, so no call is made for it for a while.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::pause::SCOPES_PAUSE;
use crate::error::{Cause, Error};
use crate::record::{decode_whole, encode};
use crate::scope::ScopeRefusal;
use crate::time::{Timestamp, is_pending};
use crate::upstream::Failure;

/// How long the broker remembers that the application does not have one of the scopes.
const NOT_GRANTED_LIFE: Duration = Duration::from_secs(5 * 60);

/// Refusal of a scope set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    until_ms: Timestamp,
    /// OfficeRnD named the scopes as the reason. Otherwise they may be the reason.
    is_named: bool,
}

impl Refusal {
    /// The refusal that follows from a failed call; `None` if the failure does not concern its
    /// scopes.
    pub fn after(failure: Failure, now: Timestamp) -> Option<Self> {
        match failure {
            Failure::ScopeNotGranted => Some(Self { until_ms: now + NOT_GRANTED_LIFE, is_named: true }),
            Failure::BadRequest => Some(Self { until_ms: now + SCOPES_PAUSE, is_named: false }),
            Failure::Unavailable(..) => None,
        }
    }

    /// Decodes a refusal; `None` if the bytes are unreadable.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        decode_whole(bytes)
    }

    /// The bytes for the store.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// The error of a request for these scopes; `None` if the refusal is over.
    pub fn error(&self, now: Timestamp) -> Option<Error> {
        let remaining = self.remaining(now)?;
        Some(match self.is_named {
            true => Error::InvalidScope(ScopeRefusal::NotGranted),
            false => Error::unavailable(Cause::ClientError, remaining),
        })
    }

    /// How long no call is made for these scopes; `None` if the refusal is over.
    pub fn remaining(&self, now: Timestamp) -> Option<Duration> {
        is_pending(self.until_ms, now, NOT_GRANTED_LIFE).then(|| self.until_ms.since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_lasts_5_minutes_if_officernd_named_the_scopes_and_1_otherwise() {
        let at = |seconds: u64| Timestamp::from_unix_ms(1_800_000_000_000 + seconds * 1000);
        for (failure, seconds, reason) in
            [(Failure::ScopeNotGranted, 300, "scope_not_granted"), (Failure::BadRequest, 60, "upstream_client_error")]
        {
            let refusal = Refusal::after(failure, at(0)).unwrap();
            let refusal = Refusal::decode(&refusal.encode()).unwrap();
            assert_eq!(refusal.error(at(seconds - 1)).unwrap().reason(), reason);
            assert!(refusal.error(at(seconds)).is_none());
        }
        assert_eq!(Refusal::after(Failure::Unavailable(Cause::ClientError, None), at(0)), None);
        assert_eq!(Refusal::decode(b"garbage"), None);
    }
}
