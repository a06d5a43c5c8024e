//! The ledger record: recent calls, pauses and refused credentials, and the decisions that
//! follow from them.

use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::calls::{Call, CallEnd, CallResult, CallerTag, CountedCall, Need, Quota, Reservation, WINDOW};
use super::counts::Counts;
use super::pause::{FAILURE_PAUSE, LONGEST_PAUSE, Pause, RATE_LIMIT_PAUSE, REFUSED_PAUSE, SCOPES_PAUSE, pause_after};
use crate::config::Origin;
use crate::config::application::{Application, Credential, Fingerprint};
use crate::error::{Cause, Error};
use crate::mutation::{self, Rule};
use crate::record::{decode_whole, encode};
use crate::scope::ScopeRefusal;
use crate::time::{CLOCK_SKEW, Timestamp};
use crate::upstream::{CALL_LIMIT, Failure};

/// Store key of the ledger of calls to an identity host, 23 bytes.
pub fn ledger_key(identity: &Origin) -> String {
    ["ledger.", identity.id()].concat()
}

/// `Retry-After` after a call that the host has denied: by then another instance may answer.
const DENIED_RETRY: Duration = Duration::from_secs(5);

/// How long a credential's failure is remembered after its pause. Its next failure then pauses
/// longer, and a refused credential is not tried again while the other one works.
const FAILURE_MEMORY: Duration = Duration::from_secs(7 * 24 * 3600);

/// What all instances know about OfficeRnD. Only holders of the lease write it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    version: u32,
    /// The calls of the last [`WINDOW`], the oldest first; of changes that the store lacks, all.
    pub(super) calls: Vec<Call>,
    /// Last pause of all credentials, whether or not it has ended.
    pub(super) pause: Option<Pause>,
    /// Last pause of each failed credential, by fingerprint.
    pub(super) pauses_by_credential: Vec<(String, Pause)>,
    /// Numbers of the calls that have left `calls`.
    pub(super) counts: Counts,
    /// Reservations that are over, and that the store's copy of this ledger may still contain.
    #[serde(skip)]
    pub(super) over: Vec<Call>,
    /// When a call showed that the pauses of all credentials, or of one, are over. Another copy may
    /// still contain them.
    #[serde(skip)]
    pub(super) ended: Vec<(Option<String>, Timestamp)>,
}

/// Version of the record. The broker treats records of other versions as absent.
const LEDGER_VERSION: u32 = 4;

/// Most calls that are remembered as changes that the store lacks: those of an outage of hours.
const MOST_UNSAVED_CALLS: usize = 1000;

impl Ledger {
    /// Decodes a ledger; `None` if the bytes are unreadable or of another version.
    // Two places decode a ledger, and a copy of this in each takes some KB.
    #[inline(never)]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        decode_whole(bytes).filter(|ledger: &Self| ledger.version == LEDGER_VERSION)
    }

    /// The bytes for the store.
    pub fn encode(&self) -> Vec<u8> {
        encode(&Self { version: LEDGER_VERSION, ..self.clone() })
    }

    /// The credential to use: the current one. Once OfficeRnD has refused it, the next one,
    /// unless that is paused by a refusal as well.
    pub fn credential_in_use<'a>(&self, application: &'a Application, now: Timestamp) -> &'a Rc<Credential> {
        let refusal = |credential: &Credential| {
            self.pause_for(&credential.fingerprint).filter(|pause| pause.cause == Cause::CredentialRefused)
        };
        let current = &application.current;
        match &application.next {
            Some(next) if refusal(current).is_some() && !refusal(next).is_some_and(|pause| pause.is_active(now)) => {
                next
            }
            _ => current,
        }
    }

    /// Whether OfficeRnD has just refused the application's credential in use.
    pub fn has_refused(&self, application: &Application, now: Timestamp) -> bool {
        let pause = self.pause_for(&self.credential_in_use(application, now).fingerprint);
        pause.is_some_and(|pause| pause.cause == Cause::CredentialRefused && pause.is_active(now))
    }

    /// Whether a call may be made now.
    ///
    /// # Errors
    /// Why not, and the time after which it may be made.
    pub fn admit(&self, now: Timestamp, quota: Quota, need: Need, credential: &Fingerprint) -> Result<(), Error> {
        if !mutation::holds(Rule::Ledger) {
            return Ok(());
        }
        let calls: Vec<_> = self.calls(now).collect();
        let share_wait = quota.wait_for_share(&calls, now);
        // A caller that returns when told must find a call available.
        let quota_wait = quota.wait_for_all(&calls, now, need).max(share_wait);
        let pauses = [self.pause_for(credential), self.pause];
        let pause = pauses.into_iter().flatten().find(|pause| pause.is_active(now));
        match pause {
            Some(pause) => {
                Err(Error::unavailable(pause.cause, pause.until_ms.since(now).min(LONGEST_PAUSE).max(quota_wait)))
            }
            None if quota_wait.is_zero() => Ok(()),
            None => {
                let cause = if share_wait.is_zero() { Cause::QuotaUsedUp } else { Cause::ShareUsedUp };
                Err(Error::unavailable(cause, quota_wait))
            }
        }
    }

    /// The calls that still count, oldest first.
    fn calls(&self, now: Timestamp) -> impl Iterator<Item = CountedCall> {
        let (latest, window) = (now + CALL_LIMIT, window());
        let calls = self.calls.iter().filter(move |call| call.counts(now, window));
        calls.map(move |call| CountedCall { at_ms: call.at_ms().min(latest), caller: call.caller })
    }

    /// Number of calls that still count against the quota.
    pub fn recent_calls(&self, now: Timestamp) -> usize {
        self.calls(now).count()
    }

    /// Records a call before it is made. Until it is settled, it counts as made at the latest
    /// time at which it could still reach OfficeRnD, so the call of a holder that dies counts.
    pub fn reserve(&mut self, now: Timestamp, caller: CallerTag, application: &str, random: u32) -> Reservation {
        if self.calls.len() >= MOST_UNSAVED_CALLS {
            self.calls.remove(0);
        }
        let calls = &self.calls;
        self.over.retain(|call| call.at_ms() + WINDOW > now || calls.iter().any(|other| other.is_same(call)));
        self.ended.retain(|(_, at)| *at + WINDOW > now);
        let application = self.counts.begin(application, now);
        let call = Call { latest_ms: now + CALL_LIMIT, caller, random, application, end: None };
        self.insert(call);
        Reservation { call, began: now }
    }

    /// Removes a reserved call that is not made. Its record may be in the store, although the store reported
    /// a failure.
    pub fn cancel(&mut self, reservation: Reservation) {
        self.take(&reservation.call);
        self.over.push(reservation.call);
    }

    /// Whether this ledger, which has changes that the store lacks, has any.
    pub fn has_changes(&self) -> bool {
        let Self { calls, pause, pauses_by_credential, over, ended, version: _, counts: _ } = self;
        !(calls.is_empty() && pauses_by_credential.is_empty() && over.is_empty() && ended.is_empty() && pause.is_none())
    }

    /// Records that a reserved call succeeded, which ends the pauses of OfficeRnD and of the
    /// credential.
    pub fn settle_success(&mut self, reservation: Reservation, now: Timestamp, credential: &Fingerprint) {
        self.settle(reservation, now, CallResult::Granted);
        self.end_pauses(now, credential);
    }

    fn end_pauses(&mut self, now: Timestamp, credential: &Fingerprint) {
        self.end_pause(None, now);
        self.end_pause(Some(credential.to_hex()), now);
    }

    /// Records that a reserved call failed, and returns the error for the requests that wait
    /// for it. `random` spreads the pauses of a fleet.
    ///
    /// All applications share one OfficeRnD and one call quota, so a temporary problem pauses
    /// every credential. A mistake about one application pauses only its credential.
    pub fn settle_failure(
        &mut self,
        reservation: Reservation,
        now: Timestamp,
        failure: Failure,
        credential: &Fingerprint,
        random: u64,
    ) -> Error {
        let (cause, asked_for) = match failure {
            // OfficeRnD judges scopes only after it has accepted the credential.
            Failure::ScopeNotGranted => {
                self.settle(reservation, now, CallResult::ScopeNotGranted);
                self.end_pauses(now, credential);
                return Error::InvalidScope(ScopeRefusal::NotGranted);
            }
            // Only its scopes are paused, by a record of their own.
            Failure::BadRequest => {
                self.settle(reservation, now, CallResult::Failed(Cause::ClientError));
                return Error::unavailable(Cause::ClientError, SCOPES_PAUSE);
            }
            // No call was made, and other hosts may make one.
            Failure::Unavailable(cause @ Cause::OutboundDenied, _) => {
                self.cancel(reservation);
                return Error::unavailable(cause, DENIED_RETRY);
            }
            Failure::Unavailable(Cause::RateLimited, wait) => {
                (Cause::RateLimited, Some(wait.unwrap_or(RATE_LIMIT_PAUSE)))
            }
            Failure::Unavailable(cause, wait) => (cause, wait),
        };
        self.settle(reservation, now, CallResult::Failed(cause));
        let (previous, range) = match cause {
            Cause::CredentialRefused => (self.pause_for(credential), REFUSED_PAUSE),
            _ if cause.is_temporary() => (self.pause, FAILURE_PAUSE),
            _ => (self.pause_for(credential), FAILURE_PAUSE),
        };
        let in_a_row = previous.map_or(1, |pause| pause.in_a_row.saturating_add(1));
        let length = match asked_for {
            Some(asked_for) => asked_for.clamp(Duration::from_secs(1), LONGEST_PAUSE),
            None => pause_after(range, in_a_row, random),
        };
        let pause = Pause { until_ms: now + length, cause, in_a_row };
        if cause.is_temporary() {
            self.pause = Some(pause);
        } else {
            self.end_pause(None, now);
            self.pauses_by_credential.retain(|(other, _)| *other != credential.to_hex());
            self.pauses_by_credential.push((credential.to_hex(), pause));
        }
        Error::unavailable(cause, length)
    }

    /// Whether a call was recorded by a clock that is ahead by more than [`CLOCK_SKEW`].
    pub fn is_from_the_future(&self, now: Timestamp) -> bool {
        self.calls.last().is_some_and(|call| call.at_ms() > now + CALL_LIMIT + CLOCK_SKEW)
    }

    pub(super) fn insert(&mut self, call: Call) {
        let place = self.calls.partition_point(|other| other.at_ms() <= call.at_ms());
        self.calls.insert(place, call);
    }

    fn pause_for(&self, credential: &Fingerprint) -> Option<Pause> {
        let name = credential.to_hex();
        self.pauses_by_credential.iter().find(|(other, _)| *other == name).map(|(_, pause)| *pause)
    }

    /// Replaces a reservation: the call has ended, so it reached OfficeRnD no later than now.
    fn settle(&mut self, Reservation { call, began }: Reservation, now: Timestamp, result: CallResult) {
        self.remove(call);
        let took_ms = now.since(began).as_millis().try_into().unwrap_or(u16::MAX);
        self.insert(Call { end: Some(CallEnd { at_ms: now.min(call.latest_ms), took_ms, result }), ..call });
        self.pauses_by_credential.retain(|(_, pause)| pause.until_ms + FAILURE_MEMORY > now);
    }
}

/// Time for which a call counts against the quota.
pub(super) fn window() -> Duration {
    if mutation::holds(Rule::ClockSkew) { WINDOW } else { WINDOW - CLOCK_SKEW }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::application::Pair;
    use crate::gate::calls::ApplicationTag;
    use crate::secret::ClientSecret;

    const QUOTA: Quota = Quota { calls: 5, shared_by: None };
    const TAG: CallerTag = CallerTag(1);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix_ms(1_800_000_000_000 + seconds * 1000)
    }

    fn credential(secret: &str) -> Fingerprint {
        let identity = Origin::parse("https://identity.example").unwrap();
        Fingerprint::of(&identity, "id", &ClientSecret::new(secret))
    }

    fn reserved(seconds: u64) -> Reservation {
        let application = ApplicationTag::of("default");
        let call = Call { latest_ms: at(seconds), caller: TAG, random: 0, application, end: None };
        Reservation { call, began: at(seconds) }
    }

    /// A ledger of calls that took no time.
    fn after_calls(seconds: &[u64]) -> Ledger {
        let mut ledger = Ledger::default();
        for (place, &second) in seconds.iter().enumerate() {
            // Two calls of one second have different names.
            let random = seconds[..place].iter().filter(|other| **other == second).count() as u32;
            let reservation = ledger.reserve(at(second), TAG, "default", random);
            ledger.settle_success(reservation, at(second), &credential("s"));
        }
        ledger
    }

    /// How long the ledger says to wait, in seconds; zero if a call may be made.
    fn wait(ledger: &Ledger, now: u64, need: Need, secret: &str) -> u64 {
        match ledger.admit(at(now), QUOTA, need, &credential(secret)) {
            Ok(()) => 0,
            Err(Error::Unavailable { retry_after, .. }) => crate::time::retry_after_seconds(retry_after),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn caller_that_has_used_up_its_share_gets_a_reason_of_its_own() {
        let ledger = after_calls(&[0, 1, 2]);
        let refusal = |caller| {
            let quota = Quota { shared_by: Some(CallerTag(caller)), ..QUOTA };
            ledger.admit(at(3), quota, Need::Now, &credential("s")).map_err(|error| error.reason())
        };
        assert_eq!(refusal(1), Err("share_used_up"));
        assert_eq!(refusal(2), Ok(()));
    }

    #[test]
    fn unsettled_call_counts_until_it_can_no_longer_arrive() {
        let mut ledger = Ledger::default();
        let reservation = ledger.reserve(at(0), TAG, "default", 0);
        assert_eq!(ledger.calls(at(72)).count(), 1, "its holder may have died");
        assert_eq!(ledger.calls(at(73)).count(), 0);
        ledger.settle_success(reservation, at(3), &credential("s"));
        assert_eq!(ledger.calls(at(67)).count(), 1);
        assert_eq!(ledger.calls(at(68)).count(), 0);
    }

    #[test]
    fn ledger_from_a_wrong_clock_blocks_nothing() {
        let ledger = after_calls(&[100_000; 5]);
        assert_eq!(wait(&ledger, 0, Need::Now, "s"), 0);
        assert_eq!(wait(&ledger, 100_000 - 35, Need::Now, "s"), 73, "but a clock may be a little ahead");
        let mut ledger = Ledger::default();
        let failure = Failure::Unavailable(Cause::RateLimited, None);
        let _ = ledger.settle_failure(reserved(100_000), at(100_000), failure, &credential("s"), 0);
        assert_eq!(wait(&ledger, 0, Need::Now, "s"), 0);
    }

    #[test]
    fn temporary_failure_pauses_all_credentials_longer_each_time() {
        let mut ledger = Ledger::default();
        let mut now = 0;
        for expected in [5, 10, 20, 40, 60, 60] {
            let reservation = ledger.reserve(at(now), TAG, "default", 0);
            let failure = Failure::Unavailable(Cause::ServerError, None);
            let _ = ledger.settle_failure(reservation, at(now), failure, &credential("s"), 0);
            let told = wait(&ledger, now, Need::Now, "another");
            assert!(told >= expected, "{told} s is less than the pause");
            now += 100;
            assert_eq!(wait(&ledger, now, Need::Now, "another"), 0, "after {expected} s");
        }
        ledger.settle_success(reserved(now), at(now), &credential("s"));
        let _ = ledger.settle_failure(
            reserved(now),
            at(now),
            Failure::Unavailable(Cause::TimedOut, None),
            &credential("s"),
            0,
        );
        assert_eq!(wait(&ledger, now, Need::Now, "s"), 5, "a success starts the count again");
    }

    #[test]
    fn retry_after_of_officernd_is_followed_up_to_5_minutes() {
        let check = |asked_for: Option<u64>, expected: u64| {
            let mut ledger = Ledger::default();
            let failure = Failure::Unavailable(Cause::RateLimited, asked_for.map(Duration::from_secs));
            let _ = ledger.settle_failure(reserved(0), at(0), failure, &credential("s"), 255);
            assert_eq!(wait(&ledger, 0, Need::Now, "s"), expected, "{asked_for:?}");
        };
        check(None, 60);
        check(Some(0), 1);
        check(Some(7), 7);
        check(Some(300), 300);
        check(Some(1_790_000_000), 300);
    }

    #[test]
    fn refused_credential_pauses_only_itself() {
        let mut ledger = Ledger::default();
        let mut now = 0;
        for expected in [30, 60, 120, 240, 300, 300] {
            let failure = Failure::Unavailable(Cause::CredentialRefused, None);
            let _ = ledger.settle_failure(reserved(now), at(now), failure, &credential("old"), 0);
            assert_eq!(wait(&ledger, now, Need::Now, "old"), expected);
            assert_eq!(wait(&ledger, now, Need::Now, "new"), 0, "a new secret opens it at once");
            now += 1000;
        }
        let ledger = Ledger::decode(&ledger.encode()).unwrap();
        assert_eq!(ledger.pauses_by_credential.len(), 1);
        assert!(Ledger::decode(&[1, 2, 3]).is_none());
        assert!(Ledger::decode(b"").is_none());
    }

    #[test]
    fn unreadable_answer_pauses_only_its_credential() {
        let mut ledger = Ledger::default();
        let failure = Failure::Unavailable(Cause::BroaderScope, None);
        for (now, expected) in [(0, 5), (100, 10)] {
            let _ = ledger.settle_failure(reserved(now), at(now), failure, &credential("a"), 0);
            assert_eq!(wait(&ledger, now, Need::Now, "a"), expected);
            assert_eq!(wait(&ledger, now, Need::Now, "b"), 0);
        }
    }

    #[test]
    fn next_secret_is_used_once_the_current_one_is_refused() {
        let identity = Origin::parse("https://identity.example").unwrap();
        let pair = |client_secret| Pair { client_id: "id", client_secret };
        let alone = Application::new("default", pair("old"), pair(""), &identity);
        let rotating = Application::new("default", pair("old"), pair("new"), &identity);
        let fail = |ledger: &mut Ledger, now: u64, secret: &str, cause| {
            let failure = Failure::Unavailable(cause, None);
            let _ = ledger.settle_failure(reserved(now), at(now), failure, &credential(secret), 0);
        };
        let check = |ledger: &Ledger, now: u64, expected: &str| {
            assert_eq!(ledger.credential_in_use(&alone, at(now)).client_secret.expose(), "old");
            assert_eq!(ledger.credential_in_use(&rotating, at(now)).client_secret.expose(), expected, "at {now}");
        };
        let mut ledger = Ledger::default();
        check(&ledger, 0, "old");
        fail(&mut ledger, 0, "old", Cause::UnexpectedStatus);
        check(&ledger, 0, "old");
        fail(&mut ledger, 1, "old", Cause::CredentialRefused);
        check(&ledger, 1, "new");
        assert!(ledger.has_refused(&alone, at(1)) && !ledger.has_refused(&rotating, at(1)));
        // The working credential is remembered for longer than a pause lasts.
        ledger.settle_success(reserved(2), at(2), &credential("new"));
        check(&ledger, 6 * 24 * 3600, "new");
        // Both are refused: each is tried again after its own pause.
        fail(&mut ledger, 100, "new", Cause::CredentialRefused);
        check(&ledger, 101, "old");
        assert!(ledger.has_refused(&alone, at(20)));
        check(&ledger, 130, "new");
        // The current one works again.
        ledger.settle_success(reserved(200), at(200), &credential("old"));
        check(&ledger, 200, "old");
    }

    #[test]
    fn unsaved_calls_and_pauses_are_merged_once() {
        let mut known = after_calls(&[0, 1]);
        let mut unsaved = after_calls(&[1, 2, 3]);
        let failure = Failure::Unavailable(Cause::ServerError, None);
        let _ = unsaved.settle_failure(reserved(20), at(4), failure, &credential("s"), 0);
        for _ in 0..2 {
            known.absorb(&unsaved, at(4));
            assert_eq!(known.calls(at(5)).count(), 5, "{known:?}");
            assert_eq!(wait(&known, 5, Need::Now, "s"), 60, "neither the budget nor the pause is forgotten");
        }
    }
}
