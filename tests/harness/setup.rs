//! Who is there: an OfficeRnD application, and callers of the broker. Every secret is made anew for each test.

use std::time::Duration;

use broker_host::sandbox::{Application, Config};
use broker_host::{KeyValue, Reuse, Variables};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::answer::basic;
use crate::hex::hex;
use crate::leak::{Secret, keep_secret};
use crate::server::is_wasmtime_serve;

/// A scope that the caller `nightly` may have.
pub const MEMBERS: &str = "flex.community.members.read";
/// Another one.
pub const COMPANIES: &str = "flex.community.companies.read";
/// A scope that only the caller `door` may have.
pub const RESOURCES: &str = "flex.space.resources.read";
/// A scope that the application has been granted and no caller may have.
pub const PAYMENTS: &str = "flex.billing.payments.allocations.create";

/// A random text that nobody else writes. It begins with what it is, so that it can be recognised where it turns up.
pub fn random(what: &str) -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system has random bytes");
    format!("{what}-{}", hex(bytes))
}

/// The same for what must never be written anywhere: every log, answer and store of this process is searched for it.
pub fn secret(what: &str) -> String {
    let secret = random(what);
    keep_secret(what, &secret);
    secret
}

/// What a policy has of a caller's secret.
pub fn digest_of(secret: &str) -> String {
    hex(Sha256::digest(secret))
}

/// A caller of the broker.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Its client id.
    pub name: String,
    /// Its secret, of which the policy has the digest.
    pub secret: String,
    /// What it may have.
    pub scopes: Vec<String>,
}

impl Caller {
    /// A caller with a name and a secret that begin like this.
    pub fn new(what: &str, scopes: &[&str]) -> Self {
        Self {
            name: random(what),
            secret: secret(&format!("{what}-secret")),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        }
    }
}

/// What is seen of the component beyond what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// Nothing.
    Nothing,
    /// Its instructions are counted.
    Instructions,
    /// It writes to stderr how much it allocates (`tests/allocations`).
    Allocations,
}

/// What a test starts from, and may change before it starts.
#[derive(Clone)]
pub struct Setup {
    /// The application at OfficeRnD.
    pub application: Application,
    /// A caller that may have [`MEMBERS`] and [`COMPANIES`].
    pub nightly: Caller,
    /// A caller that may have [`RESOURCES`].
    pub door: Caller,
    /// How the sandbox behaves; the application is added to it.
    pub sandbox: Config,
    /// Variables beyond the four that have no useful default.
    pub variables: Vec<(&'static str, String)>,
    /// The store.
    pub key_value: KeyValue,
    /// How far an instance is reused.
    pub reuse: Reuse,
    /// What is seen of the component beyond what it does.
    pub watched: Watched,
    /// Whether the host is `wasmtime serve`.
    pub in_wasmtime_serve: bool,
}

impl Default for Setup {
    fn default() -> Self {
        let scopes = [MEMBERS, COMPANIES, RESOURCES, PAYMENTS];
        Self {
            application: Application {
                // Everything that a form or a header could get wrong.
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
            watched: Watched::Nothing,
            in_wasmtime_serve: is_wasmtime_serve(),
        }
    }
}

impl Setup {
    /// Everything that happens, happens in one instance of the component, which is not given up while nobody asks.
    pub fn in_one_instance() -> Self {
        let idle = Duration::from_secs(60);
        let reuse = Reuse { max_requests: usize::MAX, single_instance: true, idle, ..Reuse::default() };
        Self { reuse, ..Self::default() }
    }

    /// Gives the caller `nightly`, and the application, so many scopes of their own, and returns them.
    pub fn with_scopes(&mut self, count: usize) -> Vec<String> {
        let scopes: Vec<_> = (0..count).map(|index| format!("flex.space.resource{index}.read")).collect();
        self.nightly.scopes.extend(scopes.iter().cloned());
        self.application.scopes.extend(scopes.iter().cloned());
        scopes
    }

    /// Everything that must never be written anywhere.
    pub fn secrets(&self) -> Vec<Secret> {
        let mut secrets = vec![Secret::new("the application's secret", &self.application.secret)];
        for caller in [&self.nightly, &self.door] {
            let authorization = basic(&caller.name, &caller.secret);
            let credentials = authorization.strip_prefix("Basic ").expect("that is how it begins");
            secrets.push(Secret::new(format!("the secret of {}", caller.name), &caller.secret));
            secrets.push(Secret::new(format!("the Authorization of {}", caller.name), credentials));
        }
        secrets
    }

    /// The policy, as the variable `callers` has it.
    pub fn policy(&self) -> serde_json::Value {
        let entry = |caller: &Caller| json!({ "secret_sha256": [digest_of(&caller.secret)], "scopes": caller.scopes });
        json!({ &self.nightly.name: entry(&self.nightly), &self.door.name: entry(&self.door) })
    }

    /// The variables for a sandbox at `identity_url`.
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
