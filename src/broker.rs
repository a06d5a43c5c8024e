//! From an authorized request to a token: memory, store, and, through the gate, OfficeRnD.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{Either, Ready, ready, select};
use http::{Request, Response};

use crate::config::application::{self, Application, Credential};
use crate::config::caller::Caller;
use crate::config::{Audited, Config, VARIABLES};
use crate::digest::memory_hash_of;
use crate::error::{Error, Trouble};
use crate::gate::{LEASE_KEY, LEASE_LIFE, LEASE_SETTLE, LEDGER_KEY, Lease, Ledger, Need, SCOPE_REFUSAL_LIFE};
use crate::mutation::{self, Rule};
use crate::record::decode_whole;
use crate::scope::{ScopeRefusal, Scopes};
use crate::seal::NONCE_LENGTH;
use crate::time::{CLOCK_SKEW, Timestamp, is_pending, is_recent};
use crate::token::{Index, Key, LEAST_REMAINING, Life, Token};
use crate::upstream::{self, ANSWER_LIMIT, CALL_LIMIT, Failure};

/// Everything the core needs of the world. One implementation per kind of host, and one for the simulation.
///
/// Clones share what they stand on. No method may wake another request: waiting is [`Ports::sleep`].
pub trait Ports: Clone + 'static {
    /// The wall clock.
    fn now(&self) -> Timestamp;
    /// Unpredictable bits.
    fn random(&self) -> u64;
    /// Ends after `duration`.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()>;
    /// The value of a variable; the empty text when it has none.
    ///
    /// # Errors
    /// When the provider fails, in its words.
    fn variable(&self, name: &'static str) -> impl Future<Output = Result<String, String>>;
    /// A value of the store.
    ///
    /// # Errors
    /// When the store fails, in its words.
    fn get(&self, key: &str) -> impl Future<Output = Result<Option<Vec<u8>>, String>>;
    /// Writes a value to the store.
    ///
    /// # Errors
    /// When the store fails, in its words.
    fn set(&self, key: &str, value: &[u8]) -> impl Future<Output = Result<(), String>>;
    /// Sends a request to OfficeRnD, and reads at most `limit` bytes of the answer. Redirects are not followed.
    ///
    /// # Errors
    /// When there is no whole answer, or a longer one.
    fn send(
        &self,
        request: Request<String>,
        limit: usize,
    ) -> impl Future<Output = Result<Response<Vec<u8>>, SendError>>;
    /// The class of what the host lacks, for `/readyz`, where the broker is of use without it.
    fn lack(&self) -> Option<&'static str> {
        None
    }
    /// Writes the audit line of a request, which ends with its only line break.
    fn audit(&self, line: Vec<u8>);
    /// Tells the operator about something that is amiss and was coped with.
    fn warn(&self, line: &str);
}

/// Why there is no answer to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// No connection, or one that broke.
    Unreachable,
    /// More bytes than the limit.
    TooLong,
}

/// Work that goes on after the answer. Whoever runs the request runs this to its end, which is bounded.
pub type Followup = Pin<Box<dyn Future<Output = ()>>>;

/// A request waits no longer than this for a token, and a fetch no longer than this for the lease.
pub const WAIT_LIMIT: Duration = Duration::from_secs(12);

/// A request whose token still lives waits no longer than this for the next one.
const WAIT_LIMIT_LATE: Duration = Duration::from_secs(4);

/// A store operation that takes longer has failed.
const STORE_LIMIT: Duration = Duration::from_secs(1);

/// How long a configuration is remembered, so that a changed variable is heeded without a restart.
const CONFIG_MEMORY: Duration = Duration::from_secs(10);

/// The variables that take longer, all together, have failed.
const VARIABLES_LIMIT: Duration = Duration::from_secs(2);

/// How long a configuration is good for while the variables cannot be read.
const CONFIG_LIFE: Duration = Duration::from_secs(300);

/// How long a token is served from memory before the store is asked again, so that a token that another instance
/// fetched, or forgot, gets around.
const TOKEN_MEMORY: Duration = Duration::from_secs(2);

/// Most tokens an instance remembers. The one that was looked up longest ago makes room.
const TOKENS_REMEMBERED: usize = 256;

/// A key is revoked no more often than this: jobs that revoke at every 401 must not spend the budget.
const PAUSE_AFTER_REVOCATION: Duration = Duration::from_secs(60);

/// How often a request looks whether the fetch it waits for has ended, and how often a fetch looks at the lease.
const POLL_MEMORY: Duration = Duration::from_millis(10);
const POLL_STORE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(250));

/// A call for which there is less time is not begun.
const SHORTEST_CALL: Duration = Duration::from_secs(2);

/// How often the read-back of a lease is tried on a store that fails.
const READ_BACK_TRIES: usize = 3;

/// What somebody is told who waited for a fetch that has not ended.
const RETRY_SOON: Duration = Duration::from_secs(2);

/// What outlives a request. Nothing in it tells who called.
///
/// Requests of an instance run interleaved: no borrow of a cell may cross an await.
#[derive(Debug)]
pub struct Instance {
    config: RefCell<Option<ReadConfig>>,
    /// A short list: a search through it costs less than the code of a map.
    tokens: RefCell<Vec<Remembered>>,
    flights: RefCell<Vec<Rc<Flight>>>,
    /// The ledger as last seen or written, with what is in `unsaved`.
    ledger: RefCell<Ledger>,
    /// What the store does not know, because it did not take the ledger since: it may be read all the same.
    unsaved: RefCell<Ledger>,
    /// Sets this instance apart from the others of a fleet: in when it renews, and in the names of its requests.
    random: u64,
    /// How many requests got a name.
    named: Cell<u64>,
}

#[derive(Debug)]
struct ReadConfig {
    /// When the variables were last asked for.
    read_at: Timestamp,
    /// When they last answered.
    answered_at: Timestamp,
    outcome: Result<Rc<Config>, Error>,
}

#[derive(Clone, Debug)]
struct Remembered {
    /// Of the next three, and compared first: scopes are alike to the last letters, and as many as are remembered would be
    /// compared to the end.
    hash: u64,
    /// What [`Key`] hashes, compared as it is: a request that memory can serve needs no digest for it.
    application: Rc<Application>,
    credential: Rc<Credential>,
    scopes: Scopes,
    /// When the store was last asked, or told.
    looked_at: Timestamp,
    /// What it had, or what it would not keep.
    token: Option<Rc<Token>>,
    /// The store did not take the token: it is here or nowhere.
    only_here: bool,
}

/// A fetch that requests of one instance share.
#[derive(Debug)]
struct Flight {
    key: Key,
    need: Need,
    landed: RefCell<Option<Landing>>,
}

#[derive(Clone, Debug)]
enum Landing {
    Outcome(Outcome),
    /// The request that led the fetch was dropped on the way.
    Abandoned,
}

/// How a fetch ended.
#[derive(Clone, Debug)]
struct Outcome {
    token: Result<Rc<Token>, Error>,
    /// The call it made, if it made one: it may as well find what another one brought.
    upstream: Option<UpstreamCall>,
}

impl Outcome {
    fn without_call(token: Result<Rc<Token>, Error>) -> Self {
        Self { token, upstream: None }
    }
}

/// What a call to OfficeRnD looked like, for the audit line.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamCall {
    /// The HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// How long it took, in milliseconds.
    pub ms: u64,
}

/// How a request for a token ends.
pub struct Issue {
    /// The token, or why there is none.
    pub token: Result<Rc<Token>, Error>,
    /// Where the token came from.
    pub source: Source,
    /// The call to OfficeRnD that this request waited for and led.
    pub upstream: Option<UpstreamCall>,
    /// What is still to be done.
    pub followup: Option<Followup>,
    /// The clock when that was decided: nothing was waited for since.
    pub at: Timestamp,
}

/// An [`Issue`] that is there at once, or one that has to wait and takes the room for it.
pub type Issuing = Either<Ready<Issue>, Pin<Box<dyn Future<Output = Issue>>>>;

impl Issue {
    /// Of a request that nothing was looked up for.
    pub(crate) fn refused(error: Error, at: Timestamp) -> Self {
        Self { token: Err(error), source: Source::Miss, upstream: None, followup: None, at }
    }

    fn hit(token: Rc<Token>, at: Timestamp) -> Self {
        Self { token: Ok(token), source: Source::Hit, upstream: None, followup: None, at }
    }
}

/// Where the token of an answer came from, in the words of RFC 9211.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The cache.
    Hit,
    /// OfficeRnD: nothing was cached.
    Miss,
    /// OfficeRnD: what was cached had too little life.
    Stale,
    /// Another request's fetch.
    Collapsed,
}

impl Source {
    /// The word for the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Stale => "stale",
            Self::Collapsed => "collapsed",
        }
    }
}

impl Instance {
    /// An instance that remembers nothing yet.
    pub fn new(random: u64) -> Self {
        Self {
            config: RefCell::default(),
            tokens: RefCell::default(),
            flights: RefCell::default(),
            ledger: RefCell::default(),
            unsaved: RefCell::default(),
            random,
            named: Cell::default(),
        }
    }

    /// A name that no other request has, of this instance or another.
    pub fn name_request(&self) -> u128 {
        let number = self.named.get();
        self.named.set(number + 1);
        u128::from(self.random) << 64 | u128::from(number)
    }

    /// The configuration, if it was read within 10 s.
    fn recent_config(&self, now: Timestamp) -> Option<Result<Rc<Config>, Error>> {
        let config = self.config.borrow();
        config
            .as_ref()
            .filter(|config| is_recent(config.read_at, now, CONFIG_MEMORY))
            .map(|config| config.outcome.clone())
    }

    /// Which requests the configuration wants in the log; all of them, while there is none.
    pub fn audited(&self) -> Audited {
        match &*self.config.borrow() {
            Some(ReadConfig { outcome: Ok(config), .. }) => config.audited,
            _ => Audited::All,
        }
    }

    /// From none up to a quarter of `min_remaining`.
    fn jitter(&self, min_remaining: Duration) -> Duration {
        min_remaining / 4 * u32::from(self.random as u8) / 255
    }

    fn remember(&self, wanted: &Wanted, looked_at: Timestamp, token: Option<Rc<Token>>, only_here: bool) {
        let mut tokens = self.tokens.borrow_mut();
        tokens.retain(|remembered| !remembered.is_for(wanted));
        if tokens.len() >= TOKENS_REMEMBERED {
            // Every look is written at the end, so the first is the one that was looked up longest ago.
            tokens.remove(0);
        }
        let Wanted { hash, application, credential, scopes, .. } = wanted.clone();
        tokens.push(Remembered { hash, application, credential, scopes, looked_at, token, only_here });
    }

    fn remembered<T>(&self, wanted: &Wanted, read: impl Fn(&Remembered) -> T) -> Option<T> {
        self.tokens.borrow().iter().find(|remembered| remembered.is_for(wanted)).map(read)
    }

    /// Whether this token is one that the store did not take.
    fn has_alone(&self, token: &str) -> bool {
        let is_token = |known: &Rc<Token>| known.access_token.expose() == token;
        self.tokens.borrow().iter().any(|remembered| remembered.only_here && remembered.token.iter().any(is_token))
    }

    /// The token as last seen.
    fn last_token(&self, wanted: &Wanted) -> Option<Rc<Token>> {
        self.remembered(wanted, |remembered| remembered.token.clone())?
    }

    /// Changes the ledger. Until the store has taken it, the change is unsaved.
    fn write_down<T>(&self, change: impl Fn(&mut Ledger) -> T) -> T {
        change(&mut self.unsaved.borrow_mut());
        change(&mut self.ledger.borrow_mut())
    }

    fn flight(&self, key: Key) -> Option<Rc<Flight>> {
        self.flights.borrow().iter().find(|flight| flight.key == key).cloned()
    }
}

/// The broker of one instance.
#[derive(Clone, Debug)]
pub struct Broker<P> {
    /// The world.
    pub ports: P,
    /// What outlives a request.
    pub instance: Rc<Instance>,
}

/// What a fetch is for.
#[derive(Clone, Debug)]
struct Wanted {
    config: Rc<Config>,
    application: Rc<Application>,
    /// What it would be fetched with.
    credential: Rc<Credential>,
    scopes: Scopes,
    /// As in [`Remembered`].
    hash: u64,
    key: OnceCell<Key>,
}

impl Remembered {
    fn is_for(&self, wanted: &Wanted) -> bool {
        self.hash == wanted.hash
            && self.scopes == wanted.scopes
            && self.credential.fingerprint == wanted.credential.fingerprint
            && self.application.name == wanted.application.name
    }
}

impl Wanted {
    fn new(config: Rc<Config>, application: Rc<Application>, credential: Rc<Credential>, scopes: Scopes) -> Self {
        let hash = memory_hash_of((&application.name, &credential.fingerprint, &scopes));
        Self { config, application, credential, scopes, hash, key: OnceCell::new() }
    }

    fn key(&self) -> Key {
        *self.key.get_or_init(|| Key::of(&self.application, &self.credential, &self.scopes))
    }

    /// The same with another credential.
    fn with(&self, credential: &Rc<Credential>) -> Self {
        Self::new(self.config.clone(), self.application.clone(), credential.clone(), self.scopes.clone())
    }

    /// The same with the application's other credential, while its secret rotates.
    fn with_other(&self) -> Option<Self> {
        let is_other = |other: &&Rc<Credential>| !Rc::ptr_eq(other, &self.credential);
        self.application.credentials().find(is_other).map(|other| self.with(other))
    }
}

impl<P: Ports> Broker<P> {
    /// The configuration, read again when what is remembered is older than 10 s.
    ///
    /// # Errors
    /// When the variables cannot be read, or have mistakes.
    pub async fn config(&self, now: Timestamp) -> Result<Rc<Config>, Error> {
        match self.instance.recent_config(now) {
            Some(outcome) => outcome,
            None => Box::pin(self.renew_config(now)).await,
        }
    }

    async fn renew_config(&self, now: Timestamp) -> Result<Rc<Config>, Error> {
        let mut read = ReadConfig { read_at: now, answered_at: now, outcome: self.read_config().await };
        if let Err(error) = &read.outcome {
            self.ports.warn(&error.to_string());
        }
        // A provider that fails for a while is no reason to fail with it.
        if matches!(read.outcome, Err(Error::Variables(_)))
            && let Some(last) = &*self.instance.config.borrow()
            && last.outcome.is_ok()
            && is_recent(last.answered_at, now, CONFIG_LIFE)
        {
            read = ReadConfig { read_at: now, answered_at: last.answered_at, outcome: last.outcome.clone() };
        }
        let outcome = read.outcome.clone();
        self.instance.config.replace(Some(read));
        outcome
    }

    /// What keeps the broker from being of use, apart from its configuration: the store does not answer, or OfficeRnD has
    /// just refused every application's credential.
    pub async fn problem(&self, config: &Config) -> Option<&'static str> {
        if self.load_ledger().await.is_err() {
            return Some("store");
        }
        let ledger = self.instance.ledger.borrow();
        let now = self.ports.now();
        config.applications.iter().all(|application| ledger.refuses(application, now)).then_some("credential")
    }

    async fn read_config(&self) -> Result<Rc<Config>, Error> {
        let read_all = async {
            let mut values = Vec::with_capacity(VARIABLES.len());
            for variable in VARIABLES {
                values.push((variable.name, self.ports.variable(variable.name).await?));
            }
            Ok(values)
        };
        let values = self.within(VARIABLES_LIMIT, read_all).await;
        let values =
            values.unwrap_or_else(|| Err("no answer within two seconds".to_owned())).map_err(Error::Variables)?;
        let lookup = |name: &str| values.iter().find(|(other, _)| *other == name).map_or("", |(_, value)| value);
        Config::parse(lookup).map(Rc::new).map_err(Error::Configuration)
    }

    /// A token of `scopes` for a caller that is known and may have them, for a request that came at `arrived`.
    ///
    /// Whoever calls this has authenticated the caller and authorized the scopes: from here on nobody asks.
    pub fn issue(&self, config: &Rc<Config>, caller: &Caller, scopes: Scopes, arrived: Timestamp) -> Issuing {
        let application = config.application(caller).clone();
        let credential = self.instance.ledger.borrow().choose(&application, arrived).clone();
        let wanted = Wanted::new(config.clone(), application, credential, scopes);
        let now = self.ports.now();
        let recent = self.recent(&wanted, now);
        match recent.as_ref().and_then(|token| self.serve(&wanted, token, now)) {
            Some(issue) => Either::Left(ready(issue)),
            None => Either::Right(Box::pin(self.clone().issue_later(wanted, recent, now, arrived))),
        }
    }

    /// The same where memory has nothing, or something with too little life.
    async fn issue_later(self, wanted: Wanted, recent: Option<Rc<Token>>, now: Timestamp, arrived: Timestamp) -> Issue {
        let (cached, now) = match recent {
            Some(_) => (recent, now),
            None => {
                let (stored, now) = self.stored(&wanted).await;
                if let Some(issue) = stored.as_ref().and_then(|token| self.serve(&wanted, token, now)) {
                    return issue;
                }
                (stored, now)
            }
        };
        let Some(token) = cached else {
            return self.issue_fetched(wanted, Need::Now, Source::Miss, arrived).await;
        };
        let need = if token.remaining(now) < LEAST_REMAINING { Need::Now } else { Need::Late };
        let issue = self.issue_fetched(wanted, need, Source::Stale, arrived).await;
        // A token that lives outlives any trouble with OfficeRnD.
        match issue.token {
            Err(_) if need == Need::Late && token.remaining(issue.at) >= LEAST_REMAINING => {
                Issue { token: Ok(token), source: Source::Hit, ..issue }
            }
            _ => issue,
        }
    }

    /// Serves a cached token, if its life allows that without a wait for its successor.
    fn serve(&self, wanted: &Wanted, token: &Rc<Token>, now: Timestamp) -> Option<Issue> {
        let min_remaining = wanted.config.min_remaining;
        let life = token.life(now, min_remaining, self.instance.jitter(min_remaining));
        let in_flight = || self.instance.flight(wanted.key()).is_some();
        match life {
            Life::Aging if !in_flight() && self.may_renew(wanted, token, Need::Early, now) => {
                // In flight from now on, whenever the followup begins: who comes in between does not try as well.
                let lead = Lead::start(self.instance.clone(), wanted.key(), Need::Early);
                let (broker, wanted) = (self.clone(), wanted.clone());
                let followup = async move { lead.land(broker.fetch(&wanted, Need::Early).await) };
                Some(Issue { followup: Some(Box::pin(followup)), ..Issue::hit(token.clone(), now) })
            }
            Life::Late if in_flight() || self.may_renew(wanted, token, Need::Late, now) => None,
            Life::Fresh | Life::Aging | Life::Late => Some(Issue::hit(token.clone(), now)),
            Life::Over => None,
        }
    }

    /// Whether it makes sense to ask for a successor, as far as this instance knows.
    fn may_renew(&self, wanted: &Wanted, token: &Token, need: Need, now: Timestamp) -> bool {
        token.next_fetch(now) <= now && self.admit(wanted, need, now).is_ok()
    }

    /// Asks the ledger as this instance knows it.
    fn admit(&self, wanted: &Wanted, need: Need, now: Timestamp) -> Result<(), Error> {
        let ledger = self.instance.ledger.borrow();
        ledger.admit(now, wanted.config.calls_per_minute, need, &wanted.credential.fingerprint)
    }

    async fn issue_fetched(&self, wanted: Wanted, need: Need, source: Source, arrived: Timestamp) -> Issue {
        // What the body and the store took is part of the wait.
        let left = WAIT_LIMIT.saturating_sub(self.ports.now().since(arrived));
        let patience = if need == Need::Late { left.min(WAIT_LIMIT_LATE) } else { left };
        let in_flight = self.instance.flight(wanted.key()).is_some();
        let fetch = Box::pin(self.clone().obtain(wanted, need));
        let deadline = pin!(self.ports.sleep(patience));
        let ended = select(fetch, deadline).await;
        let at = self.ports.now();
        match ended {
            Either::Left((outcome, _)) => {
                let source = if in_flight || outcome.upstream.is_none() { Source::Collapsed } else { source };
                Issue { token: outcome.token, source, upstream: outcome.upstream, followup: None, at }
            }
            // A call may be on its way and its token must not be lost: the fetch ends after the answer.
            Either::Right(((), fetch)) => Issue {
                token: Err(Error::no_token(Trouble::StillFetching, RETRY_SOON)),
                source,
                upstream: None,
                followup: Some(Box::pin(async move { drop(fetch.await) })),
                at,
            },
        }
    }

    /// What memory has, if that is recent. While a secret rotates, a token that the other one brought is as good.
    fn recent(&self, wanted: &Wanted, now: Timestamp) -> Option<Rc<Token>> {
        let recent_of = |wanted: &Wanted| {
            let known = |known: &Remembered| (known.looked_at, known.token.clone());
            let (looked_at, token) = self.instance.remembered(wanted, known)?;
            token.filter(|_| is_recent(looked_at, now, TOKEN_MEMORY))
        };
        recent_of(wanted).or_else(|| recent_of(&wanted.with_other()?))
    }

    /// What the store has, and when: it may take a second of a token's life.
    async fn stored(&self, wanted: &Wanted) -> (Option<Rc<Token>>, Timestamp) {
        let (found, now) = self.look(wanted).await;
        let lives = |token: &Rc<Token>, now| token.remaining(now) >= LEAST_REMAINING;
        match wanted.with_other() {
            Some(other) if !found.as_ref().is_some_and(|token| lives(token, now)) => {
                let (others, now) = self.look(&other).await;
                (others.filter(|token| lives(token, now)).or(found), now)
            }
            _ => (found, now),
        }
    }

    /// Asks the store, and remembers what it says. Where it cannot answer, or did not take what it was told, memory
    /// stands in for it. The time is that of its answer.
    async fn look(&self, wanted: &Wanted) -> (Option<Rc<Token>>, Timestamp) {
        let found = self.get(&wanted.key().of_token()).await;
        let now = self.ports.now();
        let (remembered, only_here) =
            self.instance.remembered(wanted, |known| (known.token.clone(), known.only_here)).unwrap_or_default();
        let (token, only_here) = match found {
            Err(StoreFailed) => (remembered, only_here),
            Ok(None) if only_here => (remembered, true),
            Ok(None) => (None, false),
            Ok(Some(bytes)) => {
                // A record of the future was written by a clock that is wrong, and so is what it says of the token's life.
                let latest = now + CLOCK_SKEW;
                let is_ours = |token: &Token| token.requested == wanted.scopes && token.fetched_at <= latest;
                let token = self.open(&bytes, wanted).filter(is_ours);
                let is_older =
                    |token: &Token| remembered.as_ref().is_some_and(|ours| ours.fetched_at > token.fetched_at);
                match token {
                    Some(token) if only_here && is_older(&token) => (remembered, true),
                    token => (token.map(Rc::new), false),
                }
            }
        };
        self.instance.remember(wanted, now, token.clone(), only_here);
        (token, now)
    }

    fn open(&self, bytes: &[u8], wanted: &Wanted) -> Option<Token> {
        let token = Token::open(bytes, wanted.key(), &wanted.credential.seal);
        if token.is_none() {
            self.ports.warn("the store has a token record that does not open: it was damaged or tampered with, and counts as absent");
        }
        token
    }

    /// Forgets a token that a caller says does not work (RFC 7009), if it is one that the caller could have been given:
    /// of its application, for scopes that it may have. The next request gets a new one, within 2 s on every instance.
    ///
    /// Whoever calls this has authenticated the caller.
    ///
    /// # Errors
    /// When a token of the same key was revoked less than a minute ago, or the store does not take it.
    pub async fn revoke(&self, config: &Rc<Config>, caller: &Caller, token: &str) -> Result<(), Error> {
        let unavailable = |StoreFailed| Error::no_token(Trouble::StoreUnavailable, RETRY_SOON);
        if self.instance.has_alone(token) {
            return Err(unavailable(StoreFailed));
        }
        let index = self.get(Index::KEY).await.map_err(unavailable)?;
        let Some(key) = index.and_then(|bytes| Index::decode(bytes).find(token)) else {
            return Ok(());
        };
        let Some(bytes) = self.get(&key.of_token()).await.map_err(unavailable)? else { return Ok(()) };
        let application = config.application(caller);
        let open = |credential: &Rc<Credential>| {
            let record = Token::open(&bytes, key, &credential.seal)?;
            let scopes = record.requested.clone();
            let wanted = Wanted::new(config.clone(), application.clone(), credential.clone(), scopes);
            (wanted.key() == key && caller.scopes.permits(&record.requested)).then_some((wanted, record))
        };
        let Some((wanted, record)) = application.credentials().find_map(open) else { return Ok(()) };
        if record.access_token.expose() != token {
            return Ok(());
        }
        let now = self.ports.now();
        if let Some(revoked_at) = record.revoked_at
            && is_recent(revoked_at, now, PAUSE_AFTER_REVOCATION)
        {
            return Err(Error::no_token(Trouble::RevokedLately, (revoked_at + PAUSE_AFTER_REVOCATION).since(now)));
        }
        let revoked = Rc::new(record.revoked(now));
        self.put(&wanted, &revoked).await.map_err(unavailable)?;
        // While a secret rotates, the other one may have brought the same token.
        if let Some(other) = wanted.with_other()
            && self.look(&other).await.0.is_some_and(|known| known.access_token.expose() == token)
        {
            self.put(&other, &revoked).await.map_err(unavailable)?;
        }
        Ok(())
    }

    /// Writes a token to the store, and remembers that it is there.
    async fn put(&self, wanted: &Wanted, token: &Rc<Token>) -> Result<(), StoreFailed> {
        let sealed = token.seal(wanted.key(), &wanted.credential.seal, self.nonce());
        self.set(&wanted.key().of_token(), &sealed).await?;
        self.instance.remember(wanted, self.ports.now(), Some(token.clone()), false);
        Ok(())
    }

    /// Joins the fetch that is on its way, or leads one.
    async fn obtain(self, wanted: Wanted, need: Need) -> Outcome {
        loop {
            let Some(flight) = self.instance.flight(wanted.key()) else {
                let lead = Lead::start(self.instance.clone(), wanted.key(), need);
                let outcome = self.fetch(&wanted, need).await;
                lead.land(outcome.clone());
                return outcome;
            };
            loop {
                let landed = flight.landed.borrow().clone();
                match landed {
                    None => self.ports.sleep(POLL_MEMORY).await,
                    // A fetch that was less needed gave up sooner than this one would.
                    Some(Landing::Outcome(Outcome { token: Err(_), .. })) if flight.need < need => break,
                    Some(Landing::Outcome(outcome)) => return Outcome::without_call(outcome.token),
                    Some(Landing::Abandoned) => break,
                }
            }
        }
    }

    /// Waits for the lease, then calls. After every wait the cache and the ledger are looked at again: what others have
    /// brought or suffered meanwhile decides.
    async fn fetch(&self, wanted: &Wanted, need: Need) -> Outcome {
        let wanted = &self.with_credential_in_use(wanted).await;
        let known = self.instance.last_token(wanted);
        let started = self.ports.now();
        // Counted twice, because the clock may step back.
        let mut waited = Duration::ZERO;
        let mut pause = POLL_STORE.0;
        loop {
            let contest = match self.decided(wanted, need, known.as_deref()).await {
                None => self.contend().await,
                // The call that took the last of the budget may be on its way for this very token.
                Some(Err(Error::NoToken { because: Trouble::BudgetSpent, retry_after })) => {
                    match self.held_lease().await {
                        Ok(Some(remaining)) => Contest::Lost(remaining.max(retry_after)),
                        _ => return Outcome::without_call(Err(Error::no_token(Trouble::BudgetSpent, retry_after))),
                    }
                }
                Some(decided) => return Outcome::without_call(decided),
            };
            match contest {
                Contest::Won(lease) => return self.fetch_holding(wanted, need, known.as_deref(), Some(lease)).await,
                // The instance still has its own flights and ledger to keep the limit with.
                Contest::NoStore => return self.fetch_holding(wanted, need, known.as_deref(), None).await,
                Contest::Lost(remaining)
                    if need == Need::Early || waited.max(self.ports.now().since(started)) >= WAIT_LIMIT =>
                {
                    return Outcome::without_call(Err(Error::no_token(Trouble::StillFetching, remaining)));
                }
                Contest::Lost(_) => {}
            }
            self.ports.sleep(pause).await;
            waited += pause;
            pause = (pause * 2).min(POLL_STORE.1);
        }
    }

    /// While a secret rotates, another instance may have found the current one refused.
    async fn with_credential_in_use(&self, wanted: &Wanted) -> Wanted {
        if wanted.application.next.is_some() {
            let _ = self.load_ledger().await;
        }
        wanted.with(self.instance.ledger.borrow().choose(&wanted.application, self.ports.now()))
    }

    /// With the lease, or without a store: makes the call, and gives the lease back.
    async fn fetch_holding(&self, wanted: &Wanted, need: Need, known: Option<&Token>, lease: Option<Lease>) -> Outcome {
        let mut outcome = self.fetch_once(wanted, need, known, lease).await;
        if matches!(outcome.token, Err(Error::NoToken { because: Trouble::CredentialRefused, .. }))
            && outcome.upstream.is_some()
            && let Some(other) = wanted.with_other()
            && Rc::ptr_eq(self.instance.ledger.borrow().choose(&other.application, self.ports.now()), &other.credential)
        {
            let second = self.fetch_once(&other, need, None, lease).await;
            outcome = Outcome { upstream: second.upstream.or(outcome.upstream), ..second };
        }
        self.release(lease).await;
        outcome
    }

    /// Looks once more, writes the call down, and makes it.
    async fn fetch_once(&self, wanted: &Wanted, need: Need, known: Option<&Token>, lease: Option<Lease>) -> Outcome {
        if mutation::holds(Rule::SecondLook)
            && let Some(decided) = self.decided(wanted, need, known).await
        {
            return Outcome::without_call(decided);
        }
        let credential = &wanted.credential.fingerprint;
        let started = self.ports.now();
        if lease.is_some_and(|lease| lease.time_to_call(started) < SHORTEST_CALL) {
            // The store was too slow: a call now would reach into another's lease.
            return Outcome::without_call(Err(Error::no_token(Trouble::StillFetching, RETRY_SOON)));
        }
        let admitted = self.admit(wanted, need, started);
        // Nothing comes between the decision and writing it down in memory, which is all there is without a store.
        let reserved = admitted.map(|()| self.instance.write_down(|ledger| ledger.reserve(started)));
        let reservation = match reserved {
            Ok(reservation) => reservation,
            Err(error) => return Outcome::without_call(Err(error)),
        };
        if lease.is_some() {
            self.store_ledger().await;
        }
        let limit = lease.map_or(CALL_LIMIT, |lease| lease.time_to_call(self.ports.now()));
        let (answer, call) = self.call(wanted, limit).await;
        let ended = self.ports.now();
        // The token first: others wait for it and not for the ledger.
        let kept = match answer {
            Ok(grant) => Ok(self.keep(wanted, grant, started, ended).await),
            Err(failure) => {
                let application = &wanted.application.name;
                self.ports.warn(&format!("OfficeRnD issued no token of {application}: {}", failure.reason()));
                if failure == Failure::ScopeNotGranted {
                    self.keep_refusal(wanted, ended + SCOPE_REFUSAL_LIFE).await;
                }
                Err(failure)
            }
        };
        if lease.is_some() {
            let _ = self.load_ledger().await;
        }
        let random = self.ports.random();
        let token = self.instance.write_down(|ledger| match &kept {
            Ok(kept) => {
                ledger.settle_success(reservation, ended, credential);
                kept.clone()
            }
            Err(failure) => Err(ledger.settle_failure(reservation, ended, *failure, credential, random)),
        });
        if lease.is_some() {
            self.store_ledger().await;
            if let Ok(token) = &token {
                self.note_in_index(token.access_token.expose(), wanted.key()).await;
            }
        }
        if kept.is_ok() && !Rc::ptr_eq(&wanted.credential, &wanted.application.current) {
            let (variable, place) = match wanted.application.name.as_str() {
                application::DEFAULT => ("officernd_", String::new()),
                name => ("", format!("applications: {name}: ")),
            };
            self.ports.warn(&format!(
                "{place}OfficeRnD refuses {variable}client_secret and takes {variable}client_secret_next: swap the two, and \
                 remove the old one after an hour",
            ));
        }
        Outcome { token, upstream: Some(call) }
    }

    /// What there is no need to call for: a token that somebody else brought, or a reason not to call.
    async fn decided(&self, wanted: &Wanted, need: Need, known: Option<&Token>) -> Option<Result<Rc<Token>, Error>> {
        let (found, _) = self.look(wanted).await;
        let now = self.ports.now();
        if let Some(token) = found {
            let lives = token.remaining(now) >= LEAST_REMAINING;
            let is_news = known.is_none_or(|known| token.expires_at > known.expires_at);
            let next_fetch = token.next_fetch(now);
            if lives && (is_news || next_fetch > now) {
                return Some(Ok(token));
            }
            if next_fetch > now {
                return Some(Err(Error::no_token(Trouble::TokenExpiring, next_fetch.since(now))));
            }
        }
        if let Ok(Some(bytes)) = self.get(&wanted.key().of_refusal()).await
            && decode_whole::<Timestamp>(&bytes).is_some_and(|until| is_pending(until, now, SCOPE_REFUSAL_LIFE))
        {
            return Some(Err(Error::InvalidScope(ScopeRefusal::NotGranted)));
        }
        let _ = self.load_ledger().await;
        self.admit(wanted, need, now).err().map(Err)
    }

    /// Calls OfficeRnD, within `limit`.
    async fn call(&self, wanted: &Wanted, limit: Duration) -> (Result<upstream::Grant, Failure>, UpstreamCall) {
        let Wanted { config, application, credential, scopes, .. } = wanted;
        let request = upstream::token_request(&config.identity, application, credential, scopes);
        let started = self.ports.now();
        let answer = self.within(limit, self.ports.send(request, ANSWER_LIMIT)).await;
        let now = self.ports.now();
        let status = match &answer {
            Some(Ok(answer)) => Some(answer.status().as_u16()),
            _ => None,
        };
        let grant = match answer {
            Some(Ok(answer)) => {
                upstream::read_answer(answer.status(), answer.headers(), answer.body(), &wanted.scopes, now)
            }
            Some(Err(SendError::TooLong)) => Err(Failure::Trouble(Trouble::AnswerTooLong, None)),
            Some(Err(SendError::Unreachable)) => Err(Failure::Trouble(Trouble::Unreachable, None)),
            None => Err(Failure::Trouble(Trouble::TimedOut, None)),
        };
        let ms = now.since(started).as_millis().try_into().unwrap_or(u64::MAX);
        (grant, UpstreamCall { status, ms })
    }

    /// Stores and remembers what OfficeRnD granted between `started` and `now`.
    ///
    /// # Errors
    /// When it has too little life to be handed out.
    async fn keep(
        &self,
        wanted: &Wanted,
        grant: upstream::Grant,
        started: Timestamp,
        now: Timestamp,
    ) -> Result<Rc<Token>, Error> {
        let mut token = Token {
            access_token: grant.access_token,
            requested: wanted.scopes.clone(),
            scopes: grant.scopes,
            expires_at: started + grant.expires_in,
            fetched_at: now,
            stalled: false,
            revoked_at: None,
        };
        // Asked anew: it may have been revoked meanwhile.
        if let (Some(previous), _) = self.look(wanted).await {
            if previous.expires_at >= token.expires_at {
                token = Token { fetched_at: now, stalled: true, ..Token::clone(&previous) };
            } else if previous.access_token.expose() == token.access_token.expose() {
                token.stalled = true;
            }
            token.revoked_at = previous.revoked_at;
        }
        let lives = token.remaining(now) >= LEAST_REMAINING;
        token.stalled |= !lives;
        let token = Rc::new(token);
        // Before the write: a request that comes meanwhile is served.
        self.instance.remember(wanted, now, Some(token.clone()), true);
        let _ = self.put(wanted, &token).await;
        if lives { Ok(token) } else { Err(Error::no_token(Trouble::TokenExpiring, token.next_fetch(now).since(now))) }
    }

    fn nonce(&self) -> [u8; NONCE_LENGTH] {
        let mut nonce = [0; NONCE_LENGTH];
        for part in nonce.chunks_exact_mut(8) {
            part.copy_from_slice(&self.ports.random().to_be_bytes());
        }
        nonce
    }

    /// For revocation. Only a holder of the lease writes the index.
    async fn note_in_index(&self, token: &str, key: Key) {
        if let Ok(bytes) = self.get(Index::KEY).await {
            let mut index = Index::decode(bytes.unwrap_or_default());
            index.insert(token, key);
            let _ = self.set(Index::KEY, index.as_bytes()).await;
        }
    }

    async fn keep_refusal(&self, wanted: &Wanted, until: Timestamp) {
        let bytes = postcard::to_allocvec(&until).expect("a number always serializes");
        let _ = self.set(&wanted.key().of_refusal(), &bytes).await;
    }

    /// Fischer's mutual exclusion on plain get and set.
    async fn contend(&self) -> Contest {
        let started = self.ports.now();
        match self.held_lease().await {
            Err(StoreFailed) => return Contest::NoStore,
            Ok(Some(remaining)) => return Contest::Lost(remaining),
            Ok(None) => {}
        }
        let lease = Lease { holder: self.ports.random(), until_ms: started + LEASE_LIFE };
        let bytes = lease.encode();
        if self.set(LEASE_KEY, &bytes).await.is_err() {
            return Contest::NoStore;
        }
        // Where the store is slow for us, it is slow for the others: give their writes time to land.
        let took = self.ports.now().since(started).min(2 * STORE_LIMIT);
        self.ports.sleep(LEASE_SETTLE.max(took * 2)).await;
        if !mutation::holds(Rule::ReadBack) {
            return Contest::Won(lease);
        }
        // A lease that was written must be read: given up here, it would bar everybody until it ends.
        for _ in 0..READ_BACK_TRIES {
            match self.get(LEASE_KEY).await {
                Ok(Some(found)) if found == bytes => return Contest::Won(lease),
                Ok(_) => return Contest::Lost(LEASE_LIFE),
                Err(StoreFailed) => self.ports.sleep(LEASE_SETTLE).await,
            }
        }
        Contest::NoStore
    }

    /// How long the lease that somebody has will last; nothing when it is free.
    async fn held_lease(&self) -> Result<Option<Duration>, StoreFailed> {
        let bytes = self.get(LEASE_KEY).await?.unwrap_or_default();
        if bytes.is_empty() {
            return Ok(None);
        }
        let lease = Lease::decode(&bytes);
        if lease.is_none() {
            self.ports.warn("the store has a lease that this version does not read; it counts as absent");
        }
        Ok(lease.and_then(|lease| lease.remaining(self.ports.now())))
    }

    /// Gives the lease back, unless it is another's by now.
    async fn release(&self, lease: Option<Lease>) {
        let Some(lease) = lease else { return };
        // If the store does not take it, it ends by itself.
        if matches!(self.get(LEASE_KEY).await, Ok(Some(found)) if found == lease.encode()) {
            let _ = self.set(LEASE_KEY, &[]).await;
        }
    }

    /// Brings the ledger in memory up to what the store has. What cannot be read changes nothing.
    async fn load_ledger(&self) -> Result<(), StoreFailed> {
        if let Some(bytes) = self.get(LEDGER_KEY).await? {
            match Ledger::decode(&bytes) {
                Some(mut ledger) => {
                    ledger.absorb(&self.instance.unsaved.borrow());
                    self.instance.ledger.replace(ledger);
                }
                None => self.ports.warn("the store has a ledger that this version does not read; it counts as absent"),
            }
        }
        Ok(())
    }

    async fn store_ledger(&self) {
        let bytes = self.instance.ledger.borrow().encode();
        if self.set(LEDGER_KEY, &bytes).await.is_ok() {
            self.instance.unsaved.take();
        }
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreFailed> {
        self.try_twice("get", || self.ports.get(key)).await
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<(), StoreFailed> {
        self.try_twice("set", || self.ports.set(key, value)).await
    }

    /// A store that fails at once gets a second chance: a connection that broke is made anew. One that is slow does not.
    async fn try_twice<T, F>(&self, operation: &str, attempt: impl Fn() -> F) -> Result<T, StoreFailed>
    where
        F: Future<Output = Result<T, String>>,
    {
        let mut is_retry = false;
        let problem = loop {
            match self.within(STORE_LIMIT, attempt()).await {
                Some(Ok(value)) => return Ok(value),
                Some(Err(problem)) if is_retry => break problem,
                Some(Err(_)) => is_retry = true,
                None => break "no answer within a second".to_owned(),
            }
        };
        self.ports.warn(&format!("the store failed at {operation}: {problem}"));
        Err(StoreFailed)
    }

    /// The future's output, unless `limit` passes first.
    async fn within<T>(&self, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
        match select(pin!(future), pin!(self.ports.sleep(limit))).await {
            Either::Left((output, _)) => Some(output),
            Either::Right(_) => None,
        }
    }
}

/// The store failed; the log has said so. Whoever meets this goes on as if there were nothing.
#[derive(Clone, Copy, Debug)]
struct StoreFailed;

enum Contest {
    Won(Lease),
    /// Somebody else has it, for this long at most.
    Lost(Duration),
    NoStore,
}

/// Leads a flight, and takes it off the board whatever happens: a host may drop a request at any await.
struct Lead {
    instance: Rc<Instance>,
    flight: Rc<Flight>,
}

impl Lead {
    fn start(instance: Rc<Instance>, key: Key, need: Need) -> Self {
        let flight = Rc::new(Flight { key, need, landed: RefCell::new(None) });
        instance.flights.borrow_mut().push(flight.clone());
        Self { instance, flight }
    }

    fn land(self, outcome: Outcome) {
        self.flight.landed.replace(Some(Landing::Outcome(outcome)));
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.instance.flights.borrow_mut().retain(|flight| !Rc::ptr_eq(flight, &self.flight));
        self.flight.landed.borrow_mut().get_or_insert(Landing::Abandoned);
    }
}
