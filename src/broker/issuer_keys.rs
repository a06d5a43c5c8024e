//! The keys of issuers that are fetched: in memory, in the store, and from the issuer.

use std::rc::Rc;
use std::time::Duration;

use http::Uri;

use super::config_memory::Turn;
use super::fetch::WAIT_LIMIT;
use super::instance::Broker;
use super::key_memory::FetchedKeys;
use super::ports::{Followup, Ports, SendError};
use crate::config::Config;
use crate::config::issuer::Issuer;
use crate::error::{Cause, Error};
use crate::jwks::{self, ANSWER_LIMIT};
use crate::key_record::{FETCH_LIMIT, KeyRecord, Step};
use crate::key_set::KeySet;
use crate::signature::{Algorithm, PublicKey};
use crate::time::Timestamp;

/// Longest time that a request waits for keys.
const KEYS_LIMIT: Duration = Duration::from_secs(8);

/// Time that a try may take: reading and writing the store, and the fetch. A request that has less
/// left makes none, because its end would drop the try.
const TRY_LIMIT: Duration = FETCH_LIMIT.saturating_add(Duration::from_secs(2));

/// Time between two looks at the memory, while another request of this instance renews the keys.
const POLL_MEMORY: Duration = Duration::from_millis(50);

/// Time between two looks at the store, while another instance fetches the keys.
const POLL_STORE: Duration = Duration::from_millis(250);

/// `Retry-After` of a request that has waited in vain for a fetch in progress.
const RETRY_SOON: Duration = Duration::from_secs(5);

/// A key that may have signed an assertion.
pub struct FoundKey {
    /// The key; `None` if the issuer has none with that id and algorithm.
    pub key: Option<PublicKey>,
    /// A fetch of the keys, which are old, after the answer.
    pub followup: Option<Followup>,
}

impl<P: Ports> Broker<P> {
    /// The key of an issuer with this id and algorithm, fetched if need be, for a request that
    /// arrived at `arrived`.
    ///
    /// # Errors
    /// [`Cause::KeysUnavailable`] if the issuer may have the key, and does not answer.
    pub async fn issuer_key(
        &self,
        config: &Rc<Config>,
        issuer: &Rc<Issuer>,
        kid: Option<&str>,
        algorithm: Algorithm,
        arrived: Timestamp,
    ) -> Result<FoundKey, Error> {
        let without_followup = |key: Option<&PublicKey>| FoundKey { key: key.cloned(), followup: None };
        let (uri, kid) = match (issuer.jwks_uri(), kid) {
            (None, kid) => return Ok(without_followup(issuer.inline_key(kid, algorithm))),
            // In a set that changes, only an id tells which key is meant.
            (Some(_), None) => return Ok(without_followup(None)),
            (Some(uri), Some(kid)) => (uri, kid),
        };
        let keys = self.instance.issuer_keys.at(uri, config);
        let left = WAIT_LIMIT.saturating_sub(self.ports.now().since(arrived)).min(KEYS_LIMIT);
        let mut has_looked = false;
        let look_up = async {
            loop {
                let now = self.ports.now();
                let key = keys.record.borrow().find(kid, algorithm, now).cloned();
                let step = keys.record.borrow().step(key.is_some(), now);
                match step {
                    Step::Use { is_due } => {
                        let followup = is_due.then(|| self.renew_after_answer(config, issuer, &keys));
                        return Ok(FoundKey { key, followup });
                    }
                    Step::Refuse => return Ok(without_followup(None)),
                    Step::Unavailable(left) => return Err(Error::unavailable(Cause::KeysUnavailable, left)),
                    Step::Fetch if left < TRY_LIMIT && has_looked => {
                        return Err(Error::unavailable(Cause::KeysUnavailable, RETRY_SOON));
                    }
                    Step::Fetch | Step::Wait => match Turn::take(&keys.is_renewing) {
                        Some(_turn) if left < TRY_LIMIT => {
                            if has_looked {
                                self.ports.sleep(POLL_STORE).await;
                            }
                            self.load_keys(config, &keys).await;
                            has_looked = true;
                        }
                        Some(_turn) => self.renew(config, issuer, &keys, Some((kid, algorithm))).await,
                        None => self.ports.sleep(POLL_MEMORY).await,
                    },
                }
            }
        };
        let found = self.within(left, look_up).await;
        found.unwrap_or_else(|| Err(Error::unavailable(Cause::KeysUnavailable, RETRY_SOON)))
    }

    fn renew_after_answer(&self, config: &Rc<Config>, issuer: &Rc<Issuer>, keys: &Rc<FetchedKeys>) -> Followup {
        let (broker, config, issuer, keys) = (self.clone(), config.clone(), issuer.clone(), keys.clone());
        Box::pin(async move {
            if let Some(_turn) = Turn::take(&keys.is_renewing) {
                broker.renew(&config, &issuer, &keys, None).await;
            }
        })
    }

    /// Reads the record in the store. If another instance has not renewed it, fetches the keys, or
    /// waits a moment for the fetch of another instance. `wanted` is the key that an assertion needs;
    /// `None` if the keys are only old.
    async fn renew(&self, config: &Config, issuer: &Issuer, keys: &FetchedKeys, wanted: Option<(&str, Algorithm)>) {
        self.load_keys(config, keys).await;
        let now = self.ports.now();
        let step = {
            let record = keys.record.borrow();
            record.step(wanted.is_none_or(|(kid, algorithm)| record.find(kid, algorithm, now).is_some()), now)
        };
        match step {
            Step::Fetch | Step::Use { is_due: true } => {
                keys.record.borrow_mut().begin(now);
                // Before the fetch, so that other instances wait for it instead of making their own.
                self.save_keys(config, keys).await;
                keys.record.borrow_mut().send(self.ports.now());
                let outcome = self.fetch_keys(&keys.uri).await;
                if let Err(problem) = &outcome {
                    let (name, uri) = (&issuer.name, &keys.uri);
                    self.ports.warn(&format!("issuers: {name}: no keys from {uri}: {problem}"));
                }
                keys.record.borrow_mut().end(outcome.ok());
                self.save_keys(config, keys).await;
            }
            Step::Wait => self.ports.sleep(POLL_STORE).await,
            _ => {}
        }
    }

    async fn fetch_keys(&self, uri: &Uri) -> Result<KeySet, &'static str> {
        match self.within(FETCH_LIMIT, self.ports.send(jwks::request(uri), ANSWER_LIMIT)).await {
            Some(Ok(answer)) => jwks::read_answer(answer.status(), answer.body()),
            Some(Err(SendError::TooLong)) => Err("the answer exceeds 64 KiB"),
            Some(Err(SendError::Unreachable)) => Err("no connection, or one that broke"),
            Some(Err(SendError::Denied)) => {
                Err("the host does not permit this address: set one of keys_origin_1 to keys_origin_4 to its origin")
            }
            None => Err("no answer within 5 s"),
        }
    }

    /// Merges what the store has into the memory. While an application's credentials are swapped,
    /// the record may be under either.
    async fn load_keys(&self, config: &Config, keys: &FetchedKeys) {
        for credential in config.applications.iter().take(1).flat_map(|default| default.credentials()) {
            let place = KeyRecord::place(&keys.uri.to_string(), credential.fingerprint.as_bytes());
            let Ok(Some(bytes)) = self.get(&place).await else { continue };
            if let Some(record) = KeyRecord::open(&bytes, &credential.seal, &place, self.ports.now()) {
                keys.record.borrow_mut().merge(record, self.ports.now());
                return;
            }
        }
    }

    async fn save_keys(&self, config: &Config, keys: &FetchedKeys) {
        let Some(credential) = config.applications.first().map(|default| &default.current) else { return };
        let place = KeyRecord::place(&keys.uri.to_string(), credential.fingerprint.as_bytes());
        let sealed = keys.record.borrow().seal(&credential.seal, &place, self.nonce());
        // The store may fail: then this instance has the keys in its memory.
        let _ = self.set(&place, &sealed).await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{CALLERS, TestPorts, at, finish};
    use super::*;
    use crate::config::Variable;

    /// A set with the key of RFC 7515 appendix A.3.
    const KEYS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"1","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

    const HOUR: u64 = 3600;

    fn config_with(client_secret: &'static str, next: &'static str) -> Rc<Config> {
        let issuers = r#"{"a": {"issuer": "https://a.example", "jwks_uri": "https://a.example/keys"}}"#;
        let config = Config::parse(|name| match name {
            "callers" => CALLERS,
            "issuers" => issuers,
            "officernd_client_id" => "id",
            "officernd_client_secret" => client_secret,
            "officernd_client_secret_next" => next,
            name => Variable::default_of(name),
        });
        Rc::new(config.unwrap())
    }

    /// How a request for a key ends: whether there is one, or how many seconds to wait.
    fn look_up(broker: &Broker<TestPorts>, config: &Rc<Config>, kid: &str) -> Result<bool, u64> {
        let issuer = config.issuers.of_identifier("https://a.example").unwrap().clone();
        let now = broker.ports.now();
        let found = finish(broker.issuer_key(config, &issuer, Some(kid), Algorithm::Es256, now));
        found
            .map(|FoundKey { key, followup }| {
                followup.map(finish);
                key.is_some()
            })
            .map_err(|error| match error {
                Error::Unavailable { cause: Cause::KeysUnavailable, retry_after } => retry_after.as_secs(),
                other => panic!("{other}"),
            })
    }

    fn world() -> (TestPorts, Broker<TestPorts>, Rc<Config>) {
        let ports = TestPorts::default();
        ports.0.answer.set(Some((200, KEYS)));
        let broker = ports.broker();
        (ports, broker, config_with("secret", ""))
    }

    #[test]
    fn keys_are_fetched_once_for_all_instances_and_again_when_they_age() {
        let (ports, broker, config) = world();
        let other = ports.broker();
        let check = |broker: &Broker<TestPorts>, seconds: u64, expected: usize| {
            ports.0.seconds.set(seconds);
            assert_eq!(look_up(broker, &config, "1"), Ok(true), "at {seconds} s");
            assert_eq!(ports.0.sent.get(), expected, "at {seconds} s");
        };
        check(&broker, 0, 1);
        check(&other, 1, 1);
        check(&broker, 599, 1);
        // After the answer.
        check(&broker, 600, 2);
        check(&other, 601, 2);
        check(&other, 600 + HOUR, 3);
    }

    #[test]
    fn request_with_too_little_time_for_a_fetch_uses_the_stores_keys_and_makes_none() {
        let (ports, broker, config) = world();
        let issuer = config.issuers.of_identifier("https://a.example").unwrap().clone();
        let look_up_late = |broker: &Broker<TestPorts>| {
            let arrived = Timestamp::from_unix_ms(broker.ports.now().unix_ms() - 6_000);
            let found = finish(broker.issuer_key(&config, &issuer, Some("1"), Algorithm::Es256, arrived));
            found.map(|found| found.key.is_some()).map_err(|error| error.reason())
        };
        assert_eq!(look_up_late(&broker), Err("keys_unavailable"));
        assert_eq!(ports.0.sent.get(), 0, "the end of the request would drop the fetch");
        assert_eq!(look_up(&broker, &config, "1"), Ok(true));
        assert_eq!(look_up_late(&ports.broker()), Ok(true));
        assert_eq!(ports.0.sent.get(), 1);
    }

    #[test]
    fn made_up_key_ids_cause_one_fetch_a_minute() {
        let (ports, broker, config) = world();
        for seconds in 0..180 {
            ports.0.seconds.set(seconds);
            for number in 0..3 {
                assert_eq!(look_up(&broker, &config, &format!("x{number}")), Ok(false));
            }
        }
        assert_eq!(ports.0.sent.get(), 3);
    }

    #[test]
    fn issuer_that_is_down_is_asked_once_a_minute_and_its_keys_serve_for_a_day() {
        let (ports, broker, config) = world();
        assert_eq!(look_up(&broker, &config, "1"), Ok(true));
        assert!(!broker.instance.issuer_keys.is_in_trouble(&config, broker.ports.now()));
        ports.0.answer.set(Some((200, r#"{"keys":[]}"#)));
        ports.0.seconds.set(HOUR);
        assert_eq!(look_up(&broker, &config, "1"), Ok(true), "an empty set changes nothing");
        assert_eq!(ports.0.warnings.borrow().len(), 1, "{:?}", ports.0.warnings.borrow());
        assert!(broker.instance.issuer_keys.is_in_trouble(&config, broker.ports.now()));
        assert_eq!(look_up(&broker, &config, "2"), Err(60), "the issuer may have it");
        for minute in 0..23 * 60 {
            ports.0.seconds.set(HOUR + minute * 60);
            assert_eq!(look_up(&broker, &config, "1"), Ok(true), "minute {minute}");
        }
        // At 0, then after one hour, one minute, two, four, and every five minutes.
        assert_eq!(ports.0.sent.get(), 1 + 4 + (23 * 60 - 8) / 5);
        ports.0.seconds.set(24 * HOUR);
        ports.0.answer.set(None);
        assert!(look_up(&broker, &config, "1").is_err());
        assert!(look_up(&ports.broker(), &config, "1").is_err(), "another instance has no older keys either");
    }

    #[test]
    fn another_instances_fetch_is_waited_for_and_used() {
        let (ports, broker, config) = world();
        let other = ports.broker();
        ports.0.sleep_takes_time.set(true);
        // While the first instance fetches, the second one is asked.
        let (state, config_of_other) = (ports.clone(), config.clone());
        ports.0.during_send.replace(Some(Box::new(move || {
            let found = look_up(&other, &config_of_other, "1");
            assert_eq!((found, state.0.sent.get()), (Err(54), 1), "it waits as long as a fetch may take");
        })));
        ports.0.answer.set(None);
        assert!(look_up(&broker, &config, "1").is_err());
        assert_eq!(ports.0.sent.get(), 1);
    }

    #[test]
    fn record_stays_readable_while_credentials_are_swapped() {
        let (ports, broker, config) = world();
        assert_eq!(look_up(&broker, &config, "1"), Ok(true));
        assert_eq!(look_up(&ports.broker(), &config_with("new", "secret"), "1"), Ok(true));
        assert_eq!(ports.0.sent.get(), 1);
        assert_eq!(look_up(&ports.broker(), &config_with("new", ""), "1"), Ok(true));
        assert_eq!(ports.0.sent.get(), 2, "nothing opens the record any more");
    }

    #[test]
    fn store_that_fails_leaves_the_keys_in_memory() {
        let (ports, broker, config) = world();
        ports.0.outcomes.replace([false; 20].into());
        assert_eq!(look_up(&broker, &config, "1"), Ok(true));
        assert_eq!(look_up(&broker, &config, "1"), Ok(true));
        assert_eq!(ports.0.sent.get(), 1);
        assert_eq!(broker.ports.now(), at(0));
    }
}
