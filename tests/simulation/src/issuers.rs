//! A world of its own for the keys of issuers: instances on one store ask two issuers for keys, for
//! days, and everything beneath them fails.

mod ports;
mod world;

use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use officernd_token_broker::broker::{Broker, FoundKey, Instance, Ports as _};
use officernd_token_broker::config::{Config, Variable};
use officernd_token_broker::error::{Cause, Error};
use officernd_token_broker::mutation::Rule;
use officernd_token_broker::signature::{Algorithm, PublicKey};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

use crate::seeds::in_virtual_time;
use ports::Simulated;
use world::{ISSUERS, World};

/// Longest time that a request may take for its keys: 8 s, and a little.
const LONGEST_WAIT: Duration = Duration::from_millis(8100);

/// Oldest key that may be used, with the largest difference of two clocks.
const OLDEST: Duration = Duration::from_secs(24 * 3600 + 10);

/// After this time with an issuer that works, a withdrawn key is refused: an hour, a pause after
/// failures, and a fetch.
const WITHDRAWN_AFTER: Duration = Duration::from_secs(3600 + 300 + 10);

/// What a run has seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyReport {
    /// Requests for a key.
    pub requests: usize,
    /// Those that got one.
    pub found: usize,
    /// Those that were told to come back.
    pub unavailable: usize,
    /// Fetches.
    pub fetches: usize,
}

/// Plays a seed.
///
/// # Errors
/// The first broken invariant, with its virtual time.
pub fn play_keys(seed: u64, broken: Option<Rule>) -> Result<KeyReport, String> {
    in_virtual_time(broken, || async move {
        let world = Rc::new(World::new(seed));
        let report = play(&world).await;
        let problem = world.problem.borrow().clone();
        match (report, problem) {
            (_, Some(problem)) | (Err(problem), None) => Err(format!("seed {seed}: {problem}")),
            (Ok(report), None) => Ok(report),
        }
    })
}

/// The configuration of every instance.
fn config() -> Rc<Config> {
    let entry = |name: &str| {
        format!(r#""{name}": {{"issuer": "https://{name}.example", "jwks_uri": "https://{name}.example/keys"}}"#)
    };
    let issuers = format!("{{{}}}", ISSUERS.map(entry).join(","));
    let callers = r#"{"a": {"secret_sha256": ["0000000000000000000000000000000000000000000000000000000000000000"], "scopes": ["a"]}}"#;
    let config = Config::parse(|name| match name {
        "callers" => callers,
        "issuers" => &issuers,
        "officernd_client_id" => "id",
        "officernd_client_secret" => "secret",
        name => Variable::default_of(name),
    });
    Rc::new(config.expect("the variables are sound"))
}

async fn play(world: &Rc<World>) -> Result<KeyReport, String> {
    let config = config();
    let mut random = Rng::with_seed(world.seed);
    let mut instances: Vec<_> = (0..random.usize(1..=3)).map(|_| instance(world, &mut random)).collect();
    let mut report = KeyReport::default();
    let end = Instant::now() + Duration::from_secs(random.u64(3600..60 * 3600));
    while Instant::now() < end && world.problem.borrow().is_none() {
        let longest = random.choice([200, 5_000, 120_000, 1_800_000]).expect("four");
        sleep(Duration::from_millis(random.u64(10..longest))).await;
        world.change();
        if random.u8(..) < 10 {
            let place = random.usize(..instances.len());
            instances[place] = instance(world, &mut random);
        }
        let mut asked = Vec::new();
        for _ in 0..random.choice([1, 1, 2, 8]).expect("four") {
            let broker = random.choice(&instances).expect("an instance").clone();
            let issuer = random.usize(..ISSUERS.len());
            let (world, config, kid) = (world.clone(), config.clone(), world.some_kid(issuer));
            asked.push(spawn_local(async move { ask(&world, &broker, &config, issuer, &kid).await }));
        }
        for answer in asked {
            report.requests += 1;
            match answer.await.map_err(|error| error.to_string())?? {
                Asked::Found => report.found += 1,
                Asked::None => {}
                Asked::Unavailable => report.unavailable += 1,
            }
        }
    }
    world.end_faults();
    sleep(Duration::from_secs(400)).await;
    for broker in &instances {
        for issuer in 0..ISSUERS.len() {
            let kid = world.present_kid(issuer);
            if !matches!(ask(world, broker, &config, issuer, &kid).await?, Asked::Found) {
                return Err(format!("an instance does not get the key {kid} although all faults have ended"));
            }
        }
    }
    report.fetches = world.fetches();
    Ok(report)
}

fn instance(world: &Rc<World>, random: &mut Rng) -> Broker<Simulated> {
    Broker { ports: Simulated::new(world, random.u64(..=5000)), instance: Rc::new(Instance::new(random.u64(..))) }
}

enum Asked {
    Found,
    None,
    Unavailable,
}

/// Asks for a key, and checks the answer.
async fn ask(
    world: &Rc<World>,
    broker: &Broker<Simulated>,
    config: &Rc<Config>,
    issuer: usize,
    kid: &str,
) -> Result<Asked, String> {
    let entry =
        config.issuers.of_identifier(&format!("https://{}.example", ISSUERS[issuer])).expect("it is there").clone();
    let (began, arrived) = (Instant::now(), broker.ports.now());
    let found = broker.issuer_key(config, &entry, Some(kid), Algorithm::Rs256, arrived).await;
    if began.elapsed() > LONGEST_WAIT {
        return Err(format!("a request waited {:?} for keys", began.elapsed()));
    }
    match found {
        Ok(FoundKey { key: Some(key), followup }) => {
            world.check_key(issuer, &key)?;
            if let Some(followup) = followup {
                spawn_local(followup);
            }
            Ok(Asked::Found)
        }
        Ok(FoundKey { key: None, .. }) => Ok(Asked::None),
        Err(Error::Unavailable { cause: Cause::KeysUnavailable, retry_after }) => {
            let is_sensible = !retry_after.is_zero() && retry_after <= Duration::from_secs(300 + 10);
            if is_sensible { Ok(Asked::Unavailable) } else { Err(format!("Retry-After of {retry_after:?}")) }
        }
        Err(other) => Err(format!("an unexpected error: {other}")),
    }
}

impl World {
    /// Checks that the issuer has had this key, and how long ago.
    fn check_key(&self, issuer: usize, key: &PublicKey) -> Result<(), String> {
        let now = Instant::now();
        let name = ISSUERS[issuer];
        let Some(last_served) = self.last_served(issuer, key) else {
            return Err(format!("a key that {name} has never served: {:?}", key.kid()));
        };
        if now - last_served > OLDEST {
            return Err(format!("a key of {name} that it last served {:?} ago", now - last_served));
        }
        let well_since = self.well_since(issuer);
        let withdrawn_at = self.withdrawn_at(issuer, key);
        if let (Some(well_since), Some(withdrawn_at)) = (well_since, withdrawn_at)
            && now - well_since.max(withdrawn_at) > WITHDRAWN_AFTER
        {
            return Err(format!("a key that {name} has withdrawn {:?} ago", now - withdrawn_at));
        }
        Ok(())
    }
}
