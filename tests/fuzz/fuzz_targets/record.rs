//! Fuzzes the records of the store: lease, ledger, index, and a token with and without a valid
//! seal. A record stays the same when written and read again, closes the gate only for a
//! limited time, and cannot make the broker return more than was requested.

#![no_main]

use std::rc::Rc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use fuzz::{CLIENT_SECRET, NOW, World, default_of, digest_of};
use http::Request;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use libfuzzer_sys::fuzz_target;
use officernd_token_broker::config::Config;
use officernd_token_broker::gate::{CallerTag, LEASE_LIFE, Lease, Ledger, Need, Quota};
use officernd_token_broker::scope::Scopes;
use officernd_token_broker::seal::NONCE_LENGTH;
use officernd_token_broker::time::CLOCK_SKEW;
use officernd_token_broker::token::{Index, Key, Token};
use officernd_token_broker::upstream::CALL_LIMIT;
use serde_json::{Value, json};

const NONCE: [u8; NONCE_LENGTH] = [7; NONCE_LENGTH];

std::thread_local! {
    static CONFIG: Rc<Config> = Rc::new(config());
}

fn callers() -> String {
    json!({ "nightly": { "secret_sha256": [digest_of("secret")], "scopes": ["a", "b"] } }).to_string()
}

fn config() -> Config {
    let callers = callers();
    let lookup = |name: &str| match name {
        "officernd_client_id" => "id",
        "officernd_client_secret" => CLIENT_SECRET,
        "callers" => &callers,
        _ => default_of(name),
    };
    Config::parse(lookup).expect("it has no mistake")
}

fuzz_target!(|bytes: &[u8]| {
    let config = CONFIG.with(Rc::clone);
    lease(bytes);
    ledger(bytes, &config);
    index(bytes);
    token(bytes, &config);
    broker(bytes, &config);
});

fn lease(bytes: &[u8]) {
    if let Some(lease) = Lease::decode(bytes) {
        assert_eq!(Lease::decode(&lease.encode()), Some(lease));
        assert!(lease.time_to_call(NOW) <= CALL_LIMIT);
        assert!(lease.remaining(NOW).is_none_or(|remaining| remaining <= LEASE_LIFE + CLOCK_SKEW));
    }
}

fn ledger(bytes: &[u8], config: &Config) {
    let Some(mut ledger) = Ledger::decode(bytes) else { return };
    assert_eq!(Ledger::decode(&ledger.encode()).as_ref(), Some(&ledger));
    let application = &config.applications[0];
    let credential = ledger.credential_in_use(application, NOW).fingerprint;
    let _ = ledger.has_refused(application, NOW);
    let mut alone = Ledger::default();
    alone.absorb(&ledger, NOW);
    ledger.absorb(&alone, NOW);
    let _ = ledger.counts(NOW);
    // The ledger admits at most the call quota, and three of five calls to one caller. Its
    // `Retry-After` is at most the longest pause.
    let callers = [CallerTag(1), CallerTag(2)];
    let mut calls = [0; 2];
    for turn in 0..12 {
        let caller = turn / 6;
        let quota = Quota { calls: 5, shared_by: Some(callers[caller]) };
        match ledger.admit(NOW, quota, Need::Now, &credential) {
            Ok(()) => {
                ledger.reserve(NOW, callers[caller], "default", turn as u32);
                calls[caller] += 1;
            }
            Err(error) => {
                let officernd_token_broker::error::Error::Unavailable { retry_after, .. } = error else {
                    panic!("{error}")
                };
                assert!(!retry_after.is_zero() && retry_after <= Duration::from_secs(5 * 60), "{retry_after:?}");
            }
        };
    }
    assert!(calls.iter().all(|calls| *calls <= 3) && calls.iter().sum::<u32>() <= 5, "{calls:?}");
    let reservation = ledger.reserve(NOW, callers[0], "default", 100);
    ledger.settle_success(reservation, NOW, &credential);
    // What it notes for other copies is not stored.
    let stored = ledger.encode();
    assert_eq!(Ledger::decode(&stored).map(|again| again.encode()), Some(stored));
}

fn index(bytes: &[u8]) {
    let mut index = Index::decode(bytes.to_owned());
    assert_eq!(Index::decode(index.as_bytes().to_owned()).as_bytes(), index.as_bytes());
    let key = key();
    let before = index.as_bytes().len();
    index.insert("a token", key, NOW + LEASE_LIFE, NOW, 300);
    assert!(index.as_bytes().len() <= (before + 44).min(300 * 44));
    assert_eq!(index.find("a token"), Some(key));
}

fn key() -> Key {
    CONFIG.with(|config| {
        let application = &config.applications[0];
        Key::of(application, &application.current, &Scopes::parse("a").expect("a scope"))
    })
}

fn token(bytes: &[u8], config: &Config) {
    let (key, seal) = (key(), &config.applications[0].current.seal);
    assert!(Token::open(bytes, key, seal).is_none(), "a seal was forged");
    let Some(token) = Token::open(&seal.seal(bytes, &key.of_token(), NONCE), key, seal) else { return };
    assert!(token.scopes.is_subset_of(&token.requested));
    let again = Token::open(&token.seal(key, seal, NONCE), key, seal).expect("what was sealed opens");
    assert_eq!(
        (again.access_token.expose(), format!("{again:?}")),
        (token.access_token.expose(), format!("{token:?}"))
    );
    let _ = (token.stage(NOW, config.min_remaining, 0), token.next_fetch(NOW));
}

/// Sends a request for the scope `a` to a store that has these bytes under every key, with a
/// valid seal around the token's record.
fn broker(bytes: &[u8], config: &Config) {
    let sealed = config.applications[0].current.seal.seal(bytes, &key().of_token(), NONCE);
    let bytes = bytes.to_owned();
    let store = move |key: &str| Some(if key.starts_with("token.2.") { sealed.clone() } else { bytes.clone() });
    let request = Request::post("/oauth/token")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(AUTHORIZATION, format!("Basic {}", BASE64_STANDARD.encode("nightly:secret")))
        .body(Ok(b"grant_type=client_credentials&scope=a".to_vec()))
        .expect("a good request");
    let (response, _) = World::new(&callers(), b"", store).ask(request);
    let answer: Value = serde_json::from_str(response.body()).expect("JSON");
    match response.status().as_u16() {
        200 => assert_eq!(answer["scope"], "a"),
        // A remembered refusal, or a closed gate.
        400 | 502 | 503 => assert!(answer["access_token"].is_null()),
        other => panic!("{other}"),
    }
}
