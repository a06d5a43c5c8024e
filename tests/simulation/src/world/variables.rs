//! The variables: their provider, the policy, and what goes wrong with both.

use std::cell::Cell;
use std::time::Duration;

use officernd_token_broker::config::{Config, VARIABLES, Variable};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep_until};

use super::hosts::Running;
use super::requests::{NEW_SCOPES, scopes_of, secret_of};
use super::{LIMIT, World};
use crate::scenario::Scenario;

/// How long a configuration is remembered, and longest time to read it again.
const MEMORY: Duration = Duration::from_secs(10 + 2);

/// The broker reads these after all others. Once both are there, so is the configuration.
const READ_LAST: [&str; 2] = ["officernd_client_id", "officernd_client_secret"];

/// What the provider does at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Provider {
    Well,
    /// Answers after 10 to 500 ms.
    Slow,
    Fails,
    /// Fails at this percentage of the reads.
    FailsSometimes(u8),
    Hangs,
}

/// The policy at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Policy {
    Sound,
    /// A field in the entry of this caller is misspelt.
    MistakeIn(usize),
    /// The entry of this caller occurs twice.
    Twice(usize),
    /// An application that no caller has lacks its secret.
    MistakeInApplication,
    /// Not JSON.
    Nonsense,
}

/// A fault that begins and ends.
#[derive(Clone, Copy, Debug)]
struct Spell {
    began: Instant,
    /// `None` while it lasts.
    ended: Option<Instant>,
}

/// State of the variables.
pub(super) struct Variables {
    sound: [(&'static str, String); VARIABLES.len()],
    /// `callers` with each caller's mistake, and with each caller twice.
    misspelt: Vec<String>,
    twice: Vec<String>,
    provider: Cell<Provider>,
    policy: Cell<Policy>,
    /// When the provider last failed, and the policy was last nonsense.
    unreadable: Cell<Option<Spell>>,
    nonsense: Cell<Option<Spell>>,
    /// Until when each caller may be refused for its own mistake.
    excuses: Vec<Cell<Option<Instant>>>,
}

impl Variables {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let mut entries: Vec<_> = (0..scenario.callers).map(|caller| entry(caller, "scopes")).collect();
        if scenario.faults.greed {
            let scope = format!("{NEW_SCOPES:?}");
            entries.push(entry_of(scenario.callers, "scopes", &scope));
        }
        let with = |caller: usize, other: String| {
            let mut entries = entries.clone();
            entries[caller] = other;
            format!("{{{}}}", entries.join(", "))
        };
        let callers = || 0..scenario.callers;
        Self {
            sound: sound(scenario, format!("{{{}}}", entries.join(", "))),
            misspelt: callers().map(|caller| with(caller, entry(caller, "scope"))).collect(),
            twice: callers().map(|caller| with(caller, [&*entries[caller], &entries[caller]].join(", "))).collect(),
            provider: Cell::new(Provider::Well),
            policy: Cell::new(Policy::Sound),
            unreadable: Cell::default(),
            nonsense: Cell::default(),
            excuses: entries.iter().map(|_| Cell::default()).collect(),
        }
    }

    pub(super) fn config(&self) -> Config {
        let lookup =
            |name: &str| self.sound.iter().find(|(other, _)| *other == name).map_or("", |(_, value)| value.as_str());
        Config::parse(lookup).expect("the simulated variables are valid")
    }

    fn value(&self, name: &str) -> String {
        match (name, self.policy.get()) {
            ("callers", Policy::MistakeIn(caller)) => self.misspelt[caller].clone(),
            ("callers", Policy::Twice(caller)) => self.twice[caller].clone(),
            ("callers", Policy::Nonsense) => "{…},}".to_owned(),
            ("applications", Policy::MistakeInApplication) => r#"{"unused": {"client_id": "id"}}"#.to_owned(),
            _ => {
                self.sound.iter().find(|(other, _)| *other == name).map(|(_, value)| value.clone()).unwrap_or_default()
            }
        }
    }

    /// Whether the policy was nonsense at some time since then.
    pub(super) fn was_nonsense_since(&self, then: Instant) -> bool {
        self.nonsense.get().is_some_and(|spell| spell.ended.is_none_or(|end| end >= then))
    }

    /// Whether a request that an instance took then may be refused for its caller's own mistake.
    pub(super) fn may_refuse(&self, caller: usize, taken: Instant) -> bool {
        let Some(excuse) = self.excuses[caller].get() else { return false };
        let lasts = |spell: Option<Spell>| spell.is_some_and(|spell| spell.ended.is_none() && spell.began <= excuse);
        taken <= excuse || lasts(self.unreadable.get()) || lasts(self.nonsense.get())
    }

    /// Extends the excuses for mistakes, because the last good configuration, which may have one,
    /// stays in use while the variables cannot be read.
    fn extend_excuses(&self, spell: Spell) {
        for excuse in &self.excuses {
            if excuse.get().is_some_and(|end| spell.began <= end) {
                excuse.set(Some(Instant::now() + MEMORY));
            }
        }
    }
}

impl World {
    /// Sets how the provider behaves.
    pub(super) fn set_provider(&self, provider: Provider) {
        self.trace(|| format!("variables: {provider:?}"));
        let fails = matches!(provider, Provider::Fails | Provider::FailsSometimes(_) | Provider::Hangs);
        self.variables.provider.set(provider);
        self.set_spell(&self.variables.unreadable, fails);
    }

    /// Sets what the policy says.
    pub(super) fn set_policy(&self, policy: Policy) {
        self.trace(|| format!("policy: {policy:?}"));
        let was = self.variables.policy.replace(policy);
        let far = Instant::now() + Duration::from_secs(24 * 3600);
        if let Policy::MistakeIn(caller) | Policy::Twice(caller) = policy {
            self.variables.excuses[caller].set(Some(far));
        }
        if let Policy::MistakeIn(caller) | Policy::Twice(caller) = was {
            self.variables.excuses[caller].set(Some(Instant::now() + MEMORY));
        }
        self.set_spell(&self.variables.nonsense, policy == Policy::Nonsense);
    }

    fn set_spell(&self, spell: &Cell<Option<Spell>>, begins: bool) {
        let now = Instant::now();
        match spell.get() {
            _ if begins => spell.set(Some(Spell { began: now, ended: None })),
            Some(last) if last.ended.is_none() => {
                spell.set(Some(Spell { ended: Some(now), ..last }));
                self.variables.extend_excuses(last);
            }
            _ => {}
        }
    }

    pub(crate) async fn read_variable(&self, running: &Running, name: &str) -> Result<String, &'static str> {
        let reading = Reading::begin(running, name);
        if reading.count() > 1 {
            self.violate(format!("instance {} reads {name} twice at the same time", running.number));
        }
        let provider = self.variables.provider.get();
        match provider {
            Provider::Slow => {
                let latency = self.between(Duration::from_millis(10), Duration::from_millis(500));
                sleep_until(running.now() + latency).await;
            }
            Provider::Hangs => {
                let _hopeless = Hopeless::begin(running);
                std::future::pending().await
            }
            _ => {}
        }
        let fails = match provider {
            Provider::Fails => true,
            Provider::FailsSometimes(percent) => self.chance(percent),
            _ => false,
        };
        if fails {
            drop(Hopeless::begin(running));
            return Err("the simulated provider fails");
        }
        // Otherwise the last good configuration stays in use, or may do so.
        let is_usable =
            matches!(provider, Provider::Well | Provider::Slow) && self.variables.policy.get() != Policy::Nonsense;
        if name == "callers" {
            running.seen.begin_policy(is_usable);
        } else if READ_LAST.contains(&name) && reading.is_only_one() {
            running.seen.note_policy();
        }
        Ok(self.variables.value(name))
    }
}

/// A read of a variable in progress.
struct Reading<'a>(&'a Running, &'a str);

impl<'a> Reading<'a> {
    fn begin(running: &'a Running, name: &'a str) -> Self {
        *running.seen.variables_read.borrow_mut().entry(name.to_owned()).or_default() += 1;
        Self(running, name)
    }

    /// Whether the instance reads no other variable.
    fn is_only_one(&self) -> bool {
        self.0.seen.variables_read.borrow().values().sum::<usize>() == 1
    }

    fn count(&self) -> usize {
        self.0.seen.variables_read.borrow()[self.1]
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        *self.0.seen.variables_read.borrow_mut().get_mut(self.1).expect("the read has begun") -= 1;
    }
}

/// A read of a variable that cannot succeed. It is the instance's excuse, while it lasts and
/// afterwards.
struct Hopeless<'a>(&'a Running);

impl<'a> Hopeless<'a> {
    fn begin(running: &'a Running) -> Self {
        running.seen.hopeless.set(running.seen.hopeless.get() + 1);
        Self(running)
    }
}

impl Drop for Hopeless<'_> {
    fn drop(&mut self) {
        self.0.seen.hopeless.set(self.0.seen.hopeless.get() - 1);
        self.0.seen.unreadable_at.set(Some(Instant::now()));
    }
}

/// A caller's entry in the policy, whose scopes are in the field `scopes`.
fn entry(caller: usize, field: &str) -> String {
    let scopes: Vec<_> = scopes_of(caller).tokens().map(|token| format!("{token:?}")).collect();
    entry_of(caller, field, &scopes.join(", "))
}

fn entry_of(caller: usize, field: &str, scopes: &str) -> String {
    let digest: String = Sha256::digest(secret_of(caller)).iter().map(|byte| format!("{byte:02x}")).collect();
    format!(r#""caller-{caller}": {{"secret_sha256": ["{digest}"], "{field}": [{scopes}]}}"#)
}

fn sound(scenario: &Scenario, callers: String) -> [(&'static str, String); VARIABLES.len()] {
    let value = |variable: Variable| match variable.name {
        "officernd_client_id" => "simulated-id".into(),
        "officernd_client_secret" => "simulated-secret".into(),
        "officernd_identity_url" => "https://identity.example".into(),
        "callers" => callers.clone(),
        "min_remaining_seconds" => scenario.min_remaining.as_secs().to_string(),
        "upstream_calls_per_minute" => LIMIT.to_string(),
        _ => variable.default.unwrap_or_default().to_owned(),
    };
    VARIABLES.map(|variable| (variable.name, value(variable)))
}
