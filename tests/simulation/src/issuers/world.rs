//! Two issuers that rotate their keys and misbehave, and a store that does too.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fastrand::Rng;
use http::Response;
use officernd_token_broker::broker::SendError;
use officernd_token_broker::signature::PublicKey;
use tokio::time::{Instant, sleep};

/// Names of the issuers. Both give their keys the same ids, so a key of the wrong one shows.
pub(super) const ISSUERS: [&str; 2] = ["one", "two"];

/// Shortest time between two fetches of an instance for an issuer.
const SHORTEST_PAUSE: Duration = Duration::from_secs(60);

/// What an issuer does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IssuerMood {
    Well,
    Down,
    Hangs,
    Slow,
    Empty,
    Page,
    TooLong,
}

/// A key of an issuer.
struct Key {
    jwk: String,
    public: PublicKey,
    withdrawn_at: Option<Instant>,
    last_served: Option<Instant>,
}

struct Issuer {
    mood: IssuerMood,
    well_since: Option<Instant>,
    keys: Vec<Key>,
    /// Last fetch of each instance.
    fetched: BTreeMap<u64, Instant>,
    fetches: usize,
}

pub(super) struct World {
    pub(super) seed: u64,
    pub(super) started: Instant,
    pub(super) random: RefCell<Rng>,
    pub(super) problem: RefCell<Option<String>>,
    issuers: [RefCell<Issuer>; 2],
    store: RefCell<BTreeMap<String, Vec<u8>>>,
    /// Everything that was ever stored: a writer of the store may put it back.
    past: RefCell<Vec<(String, Vec<u8>)>>,
    is_store_failing: Cell<bool>,
    instances: Cell<u64>,
    has_ended: Cell<bool>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed ^ 0x6b65_7973);
        let issuer = |random: &mut Rng| Issuer {
            mood: IssuerMood::Well,
            well_since: Some(Instant::now()),
            keys: vec![key(random, 0)],
            fetched: BTreeMap::new(),
            fetches: 0,
        };
        let issuers = [issuer(&mut random), issuer(&mut random)].map(RefCell::new);
        Self {
            seed,
            started: Instant::now(),
            random: RefCell::new(random),
            problem: RefCell::default(),
            issuers,
            store: RefCell::default(),
            past: RefCell::default(),
            is_store_failing: Cell::default(),
            instances: Cell::default(),
            has_ended: Cell::default(),
        }
    }

    pub(super) fn next_instance(&self) -> u64 {
        self.instances.set(self.instances.get() + 1);
        self.instances.get()
    }

    fn chance(&self, of_256: u8) -> bool {
        self.random.borrow_mut().u8(..) < of_256
    }

    /// Lets time bring rotations and faults.
    pub(super) fn change(&self) {
        for (place, issuer) in self.issuers.iter().enumerate() {
            // In one seed of four, the first issuer is gone for good after two hours.
            if place == 0 && self.seed.is_multiple_of(4) && self.started.elapsed() > Duration::from_secs(7200) {
                issuer.borrow_mut().become_(IssuerMood::Down);
                continue;
            }
            if self.chance(6) {
                issuer.borrow_mut().rotate(&mut self.random.borrow_mut());
            }
            if self.chance(12) {
                use IssuerMood::{Down, Empty, Hangs, Page, Slow, TooLong, Well};
                let moods = [Well, Well, Well, Down, Hangs, Slow, Empty, Page, TooLong];
                let mood = self.random.borrow_mut().choice(moods).expect("nine");
                issuer.borrow_mut().become_(mood);
            }
        }
        if self.chance(16) {
            self.is_store_failing.set(self.chance(100));
        }
        if self.chance(8) {
            let count = self.past.borrow().len();
            if count > 0 {
                let place = self.random.borrow_mut().usize(..count);
                let (key, value) = self.past.borrow()[place].clone();
                self.store.borrow_mut().insert(key, value);
            }
        }
    }

    pub(super) fn end_faults(&self) {
        self.is_store_failing.set(false);
        self.has_ended.set(true);
        self.issuers.iter().for_each(|issuer| issuer.borrow_mut().become_(IssuerMood::Well));
    }

    /// The id of a present, a withdrawn or an invented key.
    pub(super) fn some_kid(&self, issuer: usize) -> String {
        let present = self.issuers[issuer].borrow().keys.len() - 1;
        let mut random = self.random.borrow_mut();
        match random.u8(..8) {
            0 => format!("invented-{}", random.u32(..)),
            1 => (present.saturating_sub(1)).to_string(),
            _ => present.to_string(),
        }
    }

    pub(super) fn present_kid(&self, issuer: usize) -> String {
        (self.issuers[issuer].borrow().keys.len() - 1).to_string()
    }

    pub(super) fn fetches(&self) -> usize {
        self.issuers.iter().map(|issuer| issuer.borrow().fetches).sum()
    }

    pub(super) async fn store_latency(&self) -> Result<(), String> {
        let latency = match self.chance(10) {
            true => Duration::from_millis(1500),
            false => Duration::from_millis(self.random.borrow_mut().u64(..20)),
        };
        sleep(if self.has_ended.get() { Duration::from_millis(1) } else { latency }).await;
        if self.is_store_failing.get() { Err("out of order".to_owned()) } else { Ok(()) }
    }

    pub(super) fn stored(&self, key: &str) -> Option<Vec<u8>> {
        self.store.borrow().get(key).cloned()
    }

    pub(super) fn store(&self, key: &str, value: &[u8]) {
        self.past.borrow_mut().push((key.to_owned(), value.to_owned()));
        if self.has_ended.get() || !self.chance(5) {
            self.store.borrow_mut().insert(key.to_owned(), value.to_owned());
        }
    }

    /// Answers the fetch of an instance.
    pub(super) async fn serve(&self, instance: u64, uri: &str, limit: usize) -> Result<Response<Vec<u8>>, SendError> {
        let place = ISSUERS.iter().position(|name| uri == format!("https://{name}.example/keys"));
        let issuer = &self.issuers[place.expect("an address of the policy")];
        let mood = self.note_fetch(issuer, instance);
        let latency = self.random.borrow_mut().u64(1..200);
        sleep(Duration::from_millis(latency)).await;
        let body = match mood {
            IssuerMood::Down => return Err(SendError::Unreachable),
            IssuerMood::Hangs => std::future::pending().await,
            IssuerMood::Empty => r#"{"keys":[]}"#.to_owned(),
            IssuerMood::Page => "<html>".to_owned(),
            IssuerMood::TooLong => "x".repeat(1 << 20),
            IssuerMood::Slow => {
                sleep(Duration::from_secs(3)).await;
                issuer.borrow_mut().set()
            }
            IssuerMood::Well => issuer.borrow_mut().set(),
        };
        if body.len() > limit { Err(SendError::TooLong) } else { Ok(Response::new(body.into_bytes())) }
    }

    fn note_fetch(&self, issuer: &RefCell<Issuer>, instance: u64) -> IssuerMood {
        let now = Instant::now();
        let mut issuer = issuer.borrow_mut();
        issuer.fetches += 1;
        if let Some(last) = issuer.fetched.insert(instance, now)
            && now - last < SHORTEST_PAUSE
        {
            self.problem.replace(Some(format!("an instance fetched keys twice within {:?}", now - last)));
        }
        issuer.mood
    }

    fn key_of<T>(&self, issuer: usize, public: &PublicKey, read: impl Fn(&Key) -> Option<T>) -> Option<T> {
        self.issuers[issuer].borrow().keys.iter().find(|key| key.public == *public).and_then(read)
    }

    pub(super) fn last_served(&self, issuer: usize, key: &PublicKey) -> Option<Instant> {
        self.key_of(issuer, key, |key| key.last_served)
    }

    pub(super) fn withdrawn_at(&self, issuer: usize, key: &PublicKey) -> Option<Instant> {
        self.key_of(issuer, key, |key| key.withdrawn_at)
    }

    pub(super) fn well_since(&self, issuer: usize) -> Option<Instant> {
        self.issuers[issuer].borrow().well_since
    }
}

impl Issuer {
    fn rotate(&mut self, random: &mut Rng) {
        let number = self.keys.len();
        if let Some(last) = self.keys.last_mut() {
            last.withdrawn_at = Some(Instant::now());
        }
        self.keys.push(key(random, number));
    }

    fn become_(&mut self, mood: IssuerMood) {
        let is_well = matches!(mood, IssuerMood::Well | IssuerMood::Slow);
        self.well_since = is_well.then(|| self.well_since.unwrap_or_else(Instant::now));
        self.mood = mood;
    }

    /// The set of its keys: the present one.
    fn set(&mut self) -> String {
        let key = self.keys.last_mut().expect("an issuer has a key");
        key.last_served = Some(Instant::now());
        format!(r#"{{"keys":[{}]}}"#, key.jwk)
    }
}

/// A key with a number for its id. No signature is verified here, so any modulus will do.
fn key(random: &mut Rng, number: usize) -> Key {
    let mut modulus: Vec<u8> = (0..256).map(|_| random.u8(..)).collect();
    modulus[0] |= 0x80;
    modulus[255] |= 1;
    let jwk = format!(r#"{{"kty":"RSA","kid":"{number}","e":"AQAB","n":"{}"}}"#, URL_SAFE_NO_PAD.encode(modulus));
    let public = PublicKey::parse(&jwk).expect("it is a key");
    Key { jwk, public, withdrawn_at: None, last_served: None }
}
