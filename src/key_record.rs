//! What is known of an issuer's keys that are fetched: how old they are, and when they may be
//! fetched again. No I/O.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::digest::{hex, sha256_of_fields};
use crate::key_set::KeySet;
use crate::mutation::{self, Rule};
use crate::record::{decode_whole, encode};
use crate::seal::{NONCE_LENGTH, Seal};
use crate::signature::{Algorithm, PublicKey};
use crate::time::{FUTURE_LIMIT, Timestamp};

/// Age up to which keys are used as they are; from then on they are fetched again after an answer.
const FRESH: Duration = Duration::from_secs(10 * 60);

/// Age from which keys are fetched again before the answer, so that a key which the issuer has
/// withdrawn is refused. If that fails, the keys are used for longer.
pub const AGED: Duration = Duration::from_secs(3600);

/// Age from which keys are not used at all.
const LONGEST_AGE: Duration = Duration::from_secs(24 * 3600);

/// Time between the beginnings of two tries, which doubles after failures. It bounds what a
/// stranger causes who invents key ids.
const PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Longest duration of a fetch: connecting, sending, and reading the answer.
pub const FETCH_LIMIT: Duration = Duration::from_secs(5);

/// How long other instances wait for the end of a try. Later, whoever made it is gone.
const PENDING_LIMIT: Duration = Duration::from_secs(6);

/// The keys of an issuer, and the tries to fetch them. A try is written down before it is made, so
/// that instances do not all make it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    keys: KeySet,
    /// When the fetch began that brought the keys.
    fetched_at: Option<Timestamp>,
    /// When the last try began.
    tried_at: Option<Timestamp>,
    /// Number of tries that have failed since the last success.
    failures: u32,
    /// The last try has not ended yet. If its instance or its request was dropped, it never will, and
    /// counts for the pause but not as a failure: a stranger who disconnects must not make the pause
    /// longer.
    is_pending: bool,
}

/// What to do about an assertion of the issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Verify it with the key; if `is_due`, fetch the keys again after the answer.
    Use {
        /// Whether the keys are old enough for another fetch.
        is_due: bool,
    },
    /// Fetch the keys first.
    Fetch,
    /// Wait for the fetch of another instance.
    Wait,
    /// The issuer has no such key.
    Refuse,
    /// No key can be had before this time has passed.
    Unavailable(Duration),
}

impl KeyRecord {
    /// The key with this id and algorithm, unless the keys are too old.
    pub fn find(&self, kid: &str, algorithm: Algorithm, now: Timestamp) -> Option<&PublicKey> {
        self.age(now)?;
        self.keys.find(Some(kid), algorithm)
    }

    /// What to do about an assertion whose key is or is not at hand.
    pub fn step(&self, has_key: bool, now: Timestamp) -> Step {
        let age = self.age(now).filter(|_| has_key);
        let left = self.pause_left(now).filter(|_| mutation::holds(Rule::KeyPause));
        match age {
            Some(age) if age < FRESH => Step::Use { is_due: false },
            Some(age) if age < AGED || !mutation::holds(Rule::KeyRenewal) => Step::Use { is_due: left.is_none() },
            _ if left.is_none() => Step::Fetch,
            _ if self.is_pending(now) => Step::Wait,
            Some(_) => Step::Use { is_due: false },
            None if self.failures == 0 && !self.is_pending => Step::Refuse,
            None => Step::Unavailable(left.unwrap_or_default()),
        }
    }

    /// Whether the last try failed, and the keys are no longer as they should be, or there are none.
    pub fn is_in_trouble(&self, now: Timestamp) -> bool {
        let has_failed = (self.failures > 0 || self.is_pending) && !self.is_pending(now);
        has_failed && self.age(now).is_none_or(|age| age >= AGED)
    }

    /// Begins a try.
    pub fn begin(&mut self, now: Timestamp) {
        self.tried_at = Some(now);
        self.is_pending = true;
    }

    /// Notes that the request of the try leaves now. Writing the try down may have taken a second.
    pub fn send(&mut self, now: Timestamp) {
        self.tried_at = Some(now);
    }

    /// Ends the try that began last, with the keys that it brought.
    pub fn end(&mut self, keys: Option<KeySet>) {
        self.is_pending = false;
        match keys {
            Some(keys) => {
                self.keys = keys;
                self.fetched_at = self.tried_at;
                self.failures = 0;
            }
            None => self.failures = self.failures.saturating_add(1),
        }
    }

    /// Takes over what another record of the same issuer knows later. What this one knows from the
    /// future, it learned by a wrong clock.
    pub fn merge(&mut self, other: Self, now: Timestamp) {
        if other.fetched_at > self.fetched_at.filter(|at| is_past(*at, now)) {
            self.keys = other.keys;
            self.fetched_at = other.fetched_at;
        }
        if other.tried_at > self.tried_at.filter(|at| is_past(*at, now)) {
            self.tried_at = other.tried_at;
            self.failures = other.failures;
            self.is_pending = other.is_pending;
        }
    }

    /// Store key of the record of the keys at an address, under a credential's seal.
    pub fn place(uri: &str, fingerprint: &[u8; 32]) -> String {
        ["keys.1.", &hex(&sha256_of_fields([b"keys", uri.as_bytes(), fingerprint]))].concat()
    }

    /// The record in the store. It is sealed, because a writer of the store who could change a key
    /// could call as any caller of the issuer.
    pub fn seal(&self, seal: &Seal, place: &str, nonce: [u8; NONCE_LENGTH]) -> Vec<u8> {
        seal.seal(&encode(self), place, nonce)
    }

    /// Opens a record; `None` if it was not sealed for this place, or is from the future.
    pub fn open(bytes: &[u8], seal: &Seal, place: &str, now: Timestamp) -> Option<Self> {
        let record: Self = decode_whole(&seal.open(bytes, place)?)?;
        [record.fetched_at, record.tried_at].into_iter().flatten().all(|at| is_past(at, now)).then_some(record)
    }

    /// Age of the keys; `None` if there are none, or none that may still be used.
    fn age(&self, now: Timestamp) -> Option<Duration> {
        self.fetched_at
            .filter(|fetched_at| is_past(*fetched_at, now))
            .map(|fetched_at| now.since(fetched_at))
            .filter(|age| *age < LONGEST_AGE || !mutation::holds(Rule::KeyAge))
    }

    fn is_pending(&self, now: Timestamp) -> bool {
        self.is_pending && self.tried_at.is_some_and(|tried_at| now.since(tried_at) < PENDING_LIMIT)
    }

    /// Time until the next try; `None` if it may be made now.
    fn pause_left(&self, now: Timestamp) -> Option<Duration> {
        let pause = LONGEST_PAUSE.min(PAUSE * 2u32.saturating_pow(self.failures.saturating_sub(1)).min(8));
        let tried_at = self.tried_at.filter(|at| is_past(*at, now))?;
        let left = pause.saturating_sub(now.since(tried_at));
        (!left.is_zero()).then_some(left)
    }
}

/// Whether a time is not from the future, apart from clocks that differ.
fn is_past(time: Timestamp, now: Timestamp) -> bool {
    time <= now + FUTURE_LIMIT
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::read_value;
    use crate::secret::ClientSecret;

    const MINUTE: u64 = 60;
    const HOUR: u64 = 3600;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix_ms(1_800_000_000_000 + seconds * 1000)
    }

    fn keys(kid: &str) -> KeySet {
        let set = format!(
            r#"{{"keys":[{{"kty":"EC","crv":"P-256","kid":"{kid}","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}}]}}"#
        );
        read_value(&set, KeySet::from_json).unwrap().unwrap().0
    }

    /// A record whose keys were fetched at 0.
    fn fetched() -> KeyRecord {
        let mut record = KeyRecord::default();
        record.begin(at(0));
        record.end(Some(keys("1")));
        record
    }

    /// A record after more tries, which have all failed.
    fn failed(mut record: KeyRecord, tries: &[u64]) -> KeyRecord {
        for &tried in tries {
            record.begin(at(tried));
            record.end(None);
        }
        record
    }

    #[test]
    fn age_of_a_key_decides_whether_it_is_used_or_fetched_again() {
        let record = fetched();
        let check = |seconds: u64, expected: Step| {
            let has_key = record.find("1", Algorithm::Es256, at(seconds)).is_some();
            assert_eq!(record.step(has_key, at(seconds)), expected, "at {seconds} s");
        };
        check(0, Step::Use { is_due: false });
        check(10 * MINUTE - 1, Step::Use { is_due: false });
        check(10 * MINUTE, Step::Use { is_due: true });
        check(HOUR - 1, Step::Use { is_due: true });
        check(HOUR, Step::Fetch);
        check(30 * HOUR, Step::Fetch);
        assert_eq!(KeyRecord::default().step(false, at(0)), Step::Fetch);
    }

    #[test]
    fn failed_fetch_is_tried_again_after_a_minute_that_doubles_to_five() {
        let check = |tries: &[u64], pause: u64| {
            let record = failed(fetched(), tries);
            let last = tries[tries.len() - 1];
            assert_eq!(record.step(true, at(last + pause - 1)), Step::Use { is_due: false }, "{tries:?}");
            assert_eq!(record.step(true, at(last + pause)), Step::Fetch, "{tries:?}");
        };
        check(&[HOUR], MINUTE);
        check(&[HOUR, HOUR + 60], 2 * MINUTE);
        check(&[HOUR, HOUR + 60, HOUR + 180], 4 * MINUTE);
        check(&[HOUR, HOUR + 60, HOUR + 180, HOUR + 420], 5 * MINUTE);
        check(&[HOUR; 100], 5 * MINUTE);
    }

    #[test]
    fn no_key_is_used_after_24_hours() {
        let record = failed(fetched(), &[24 * HOUR - 10]);
        let last = at(24 * HOUR - 1);
        assert!(record.find("1", Algorithm::Es256, last).is_some());
        assert_eq!(record.step(true, last), Step::Use { is_due: false });
        let after = at(24 * HOUR);
        assert!(record.find("1", Algorithm::Es256, after).is_none());
        assert_eq!(record.step(false, after), Step::Unavailable(Duration::from_secs(50)));
        // Not even for a caller that says it has one.
        assert_eq!(record.step(true, after), Step::Unavailable(Duration::from_secs(50)));
    }

    #[test]
    fn unknown_key_causes_one_fetch_a_minute() {
        let record = fetched();
        assert_eq!(record.step(false, at(59)), Step::Refuse);
        assert_eq!(record.step(false, at(60)), Step::Fetch);
        // If the fetch failed, the issuer may well have the key.
        let record = failed(record, &[60]);
        assert_eq!(record.step(false, at(61)), Step::Unavailable(Duration::from_secs(59)));
        assert_eq!(record.step(true, at(61)), Step::Use { is_due: false });
    }

    #[test]
    fn try_of_another_instance_is_waited_for_until_its_time_is_over() {
        let mut record = KeyRecord::default();
        record.begin(at(0));
        assert_eq!(record.step(false, at(5)), Step::Wait);
        assert!(!record.is_in_trouble(at(5)));
        assert_eq!(record.step(false, at(6)), Step::Unavailable(Duration::from_secs(54)));
        assert!(record.is_in_trouble(at(6)));
        let mut record = fetched();
        record.begin(at(2 * HOUR));
        assert_eq!(record.step(true, at(2 * HOUR + 5)), Step::Wait);
        assert_eq!(record.step(true, at(2 * HOUR + 6)), Step::Use { is_due: false });
        assert!(record.is_in_trouble(at(2 * HOUR + 6)));
        assert!(!failed(fetched(), &[600]).is_in_trouble(at(700)), "the keys are good for an hour");
    }

    #[test]
    fn try_that_was_dropped_does_not_make_the_pause_longer() {
        let mut record = fetched();
        for tried in [HOUR, HOUR + 60, HOUR + 120, HOUR + 180] {
            assert_eq!(record.step(true, at(tried)), Step::Fetch, "at {tried} s");
            record.begin(at(tried));
        }
        assert_eq!(record.step(true, at(HOUR + 190)), Step::Use { is_due: false });
        assert_eq!(record.step(false, at(HOUR + 190)), Step::Unavailable(Duration::from_secs(50)));
    }

    #[test]
    fn times_from_a_clock_that_was_ahead_count_as_absent() {
        let record = fetched();
        let before = Timestamp::from_unix_ms(at(0).unix_ms() - HOUR * 1000);
        assert!(record.find("1", Algorithm::Es256, before).is_none());
        assert_eq!(record.step(false, before), Step::Fetch);
        let mut other = KeyRecord::default();
        other.begin(before);
        other.end(Some(keys("2")));
        let mut merged = record;
        merged.merge(other.clone(), before);
        assert_eq!(merged, other);
    }

    #[test]
    fn merged_records_have_the_later_keys_and_the_later_tries() {
        let mut newer = KeyRecord::default();
        newer.begin(at(100));
        newer.end(Some(keys("2")));
        let tried = failed(fetched(), &[200]);
        let merged = |mut one: KeyRecord, other: KeyRecord| {
            one.merge(other, at(300));
            one
        };
        for merged in [merged(newer.clone(), tried.clone()), merged(tried.clone(), newer.clone())] {
            assert!(merged.find("2", Algorithm::Es256, at(200)).is_some());
            assert!(merged.find("1", Algorithm::Es256, at(200)).is_none());
            assert_eq!((merged.tried_at, merged.failures), (Some(at(200)), 1));
        }
        assert_eq!(merged(newer.clone(), fetched()), newer);
    }

    #[test]
    fn record_opens_only_in_its_place_and_not_from_the_future() {
        let seal = Seal::of(&ClientSecret::new("s"));
        let place = KeyRecord::place("https://a.example/jwks", &[1; 32]);
        let sealed = fetched().seal(&seal, &place, [7; NONCE_LENGTH]);
        assert_eq!(KeyRecord::open(&sealed, &seal, &place, at(0)), Some(fetched()));
        let other = KeyRecord::place("https://b.example/jwks", &[1; 32]);
        assert_ne!(other, KeyRecord::place("https://b.example/jwks", &[2; 32]));
        assert_eq!(KeyRecord::open(&sealed, &seal, &other, at(0)), None);
        assert_eq!(KeyRecord::open(&sealed, &Seal::of(&ClientSecret::new("t")), &place, at(0)), None);
        let before = Timestamp::from_unix_ms(at(0).unix_ms() - 31_000);
        assert_eq!(KeyRecord::open(&sealed, &seal, &place, before), None);
    }
}
