//! Setup of a test: an OfficeRnD application, callers, variables, store and host. Every test
//! gets new secrets.

use std::time::Duration;

use broker_host::sandbox::{Application, Config};
use broker_host::{Clock, KeyValue, Reuse, Variables};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::answer::basic;
use crate::hex::hex;
use crate::leak::{Secret, keep_secret};
use crate::server::is_wasmtime_serve;

/// Scope of the caller `nightly`.
pub const MEMBERS: &str = "flex.community.members.read";
/// Second scope of the caller `nightly`.
pub const COMPANIES: &str = "flex.community.companies.read";
/// Scope of only the caller `door`.
pub const RESOURCES: &str = "flex.space.resources.read";
/// Scope that the application is granted and no caller may have.
pub const PAYMENTS: &str = "flex.billing.payments.allocations.create";

/// Makes a random text that appears nowhere else. It begins with `what`, so that a reader
/// recognises it in a log.
pub fn random(what: &str) -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system has random bytes");
    format!("{what}-{}", hex(bytes))
}

/// Makes a random secret: every log, answer and store of this process is searched for it.
pub fn secret(what: &str) -> String {
    let secret = random(what);
    keep_secret(what, &secret);
    secret
}

/// Returns the SHA-256 that a policy has for a secret.
pub fn digest_of(secret: &str) -> String {
    hex(Sha256::digest(secret))
}

/// A caller of the broker, an entry of its policy.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Client id.
    pub name: String,
    /// Secret in plain text; the policy has its SHA-256.
    pub secret: String,
    /// Scopes that the policy allows it.
    pub scopes: Vec<String>,
}

impl Caller {
    /// Makes a caller with random name and secret, which begin with `what`.
    pub fn new(what: &str, scopes: &[&str]) -> Self {
        Self {
            name: random(what),
            secret: secret(&format!("{what}-secret")),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        }
    }
}

/// What the host measures of the component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// Nothing beyond requests and store operations.
    Nothing,
    /// Executed instructions.
    Instructions,
    /// Allocations: the component logs them to stderr (`tests/allocations`).
    Allocations,
}

/// Everything a test may change before it starts a broker.
#[derive(Clone)]
pub struct Setup {
    /// Application at OfficeRnD.
    pub application: Application,
    /// Caller that may have [`MEMBERS`] and [`COMPANIES`].
    pub nightly: Caller,
    /// Caller that may have [`RESOURCES`].
    pub door: Caller,
    /// Behaviour of the sandbox. `start` adds the application.
    pub sandbox: Config,
    /// Variables besides the three required ones and the identity URL.
    pub variables: Vec<(&'static str, String)>,
    /// Store that the component gets.
    pub key_value: KeyValue,
    /// When the host replaces an instance.
    pub reuse: Reuse,
    /// Wall clock of the host. A test may set it while the broker runs.
    pub clock: Clock,
    /// What the host measures of the component.
    pub watched: Watched,
    /// Whether the host is `wasmtime serve`.
    pub in_wasmtime_serve: bool,
}

impl Default for Setup {
    fn default() -> Self {
        let scopes = [MEMBERS, COMPANIES, RESOURCES, PAYMENTS];
        Self {
            application: Application {
                // Every character that a form or a header could encode wrongly.
                id: random("application id&=+%"),
                secret: secret("application-secret&=+%/\"\\ \u{e9}"),
                scopes: scopes.map(String::from).to_vec(),
            },
            nightly: Caller::new("nightly", &[MEMBERS, COMPANIES]),
            door: Caller::new("door", &[RESOURCES]),
            sandbox: Config::default(),
            variables: Vec::new(),
            key_value: KeyValue::memory(),
            reuse: Reuse::default(),
            clock: Clock::default(),
            watched: Watched::Nothing,
            in_wasmtime_serve: is_wasmtime_serve(),
        }
    }
}

impl Setup {
    /// Returns a setup with one instance, which answers every request and is kept while none
    /// arrive.
    pub fn in_one_instance() -> Self {
        let idle = Duration::from_secs(60);
        let reuse = Reuse { max_requests: usize::MAX, single_instance: true, idle, ..Reuse::default() };
        Self { reuse, ..Self::default() }
    }

    /// Gives the caller `nightly`, and the application, `count` more scopes, and returns them.
    pub fn with_scopes(&mut self, count: usize) -> Vec<String> {
        let scopes: Vec<_> = (0..count).map(|index| format!("flex.space.resource{index}.read")).collect();
        self.nightly.scopes.extend(scopes.iter().cloned());
        self.application.scopes.extend(scopes.iter().cloned());
        scopes
    }

    /// Removes the caller `door` from the policy, so that `nightly` shares the call quota with no
    /// other. Its scopes must be complete by now.
    pub fn without_door(&mut self) {
        let mut policy = self.policy();
        policy.as_object_mut().expect("a policy is an object").remove(&self.door.name);
        self.variables.push(("callers", policy.to_string()));
    }

    /// Returns every secret of the application and the callers.
    pub fn secrets(&self) -> Vec<Secret> {
        let mut secrets = vec![Secret::new("the application's secret", &self.application.secret)];
        for caller in [&self.nightly, &self.door] {
            let authorization = basic(&caller.name, &caller.secret);
            let credentials = authorization.strip_prefix("Basic ").expect("basic() returns a Basic header");
            secrets.push(Secret::new(format!("the secret of {}", caller.name), &caller.secret));
            secrets.push(Secret::new(format!("the Authorization of {}", caller.name), credentials));
        }
        secrets
    }

    /// Returns the policy, the value of the variable `callers`.
    pub fn policy(&self) -> serde_json::Value {
        let entry = |caller: &Caller| json!({ "secret_sha256": [digest_of(&caller.secret)], "scopes": caller.scopes });
        json!({ &self.nightly.name: entry(&self.nightly), &self.door.name: entry(&self.door) })
    }

    /// Returns the variables for a sandbox at `identity_url`.
    pub fn variables(&self, identity_url: &str) -> Variables {
        let variables = Variables::from_iter([
            ("officernd_client_id", self.application.id.clone()),
            ("officernd_client_secret", self.application.secret.clone()),
            ("officernd_identity_url", identity_url.to_owned()),
            ("callers", self.policy().to_string()),
        ]);
        self.variables.iter().for_each(|(name, value)| variables.set(*name, value));
        variables
    }
}
