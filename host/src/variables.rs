//! Values of an application's variables, which tests can change and make fail.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::ensure;
use broker_operator::spin::{Environment, Values};

use crate::variable_faults::{Queue, Refused, VariableFaults};

/// Values of an application's variables. Clones share them, and the next read sees a change.
#[derive(Clone, Default)]
pub struct Variables(Arc<Mutex<Provider>>);

#[derive(Default)]
struct Provider {
    values: BTreeMap<String, String>,
    /// If set, a name that is not in `values` is looked up here.
    environment: Option<Environment>,
    failing: bool,
    faults: VariableFaults,
    queue: Queue,
}

impl Variables {
    /// Reads values as Spin does, see [`Environment`]. Values from [`set`](Self::set) come before
    /// them.
    ///
    /// # Errors
    ///
    /// If `.env` exists and does not parse.
    pub fn from_environment() -> anyhow::Result<Self> {
        let environment = Some(Environment::read()?);
        Ok(Self(Arc::new(Mutex::new(Provider { environment, ..Provider::default() }))))
    }

    /// Sets the value of `name`.
    pub fn set(&self, name: impl Into<String>, value: impl Into<String>) {
        self.provider().values.insert(name.into(), value.into());
    }

    /// Removes the value from [`set`](Self::set).
    pub fn unset(&self, name: &str) {
        self.provider().values.remove(name);
    }

    /// Sets the faults of the reads that components make.
    pub fn set_faults(&self, faults: VariableFaults) {
        let mut provider = self.provider();
        (provider.faults, provider.queue) = (faults, Queue::default());
    }

    /// Begins one read of a component, and returns how long it takes.
    pub(crate) fn begin_read(&self) -> Result<Duration, Refused> {
        let mut provider = self.provider();
        let faults = provider.faults;
        provider.queue.enter(faults, Instant::now())
    }

    /// Lets every read fail (`true`), as if Vault were unreachable, or succeed again (`false`).
    pub fn fail(&self, failing: bool) {
        self.provider().failing = failing;
    }

    /// Returns the value that is set for `name`, without defaults.
    ///
    /// # Errors
    ///
    /// If the value in the environment is not Unicode, or after [`fail`](Self::fail).
    pub fn lookup(&self, name: &str) -> anyhow::Result<Option<String>> {
        let provider = self.provider();
        ensure!(!provider.failing, "the variables provider is unavailable");
        match (provider.values.get(name), &provider.environment) {
            (Some(value), _) => Ok(Some(value.clone())),
            (None, Some(environment)) => environment.lookup(name),
            (None, None) => Ok(None),
        }
    }

    fn provider(&self) -> MutexGuard<'_, Provider> {
        self.0.lock().expect("nothing panics while it holds the provider")
    }
}

impl Values for Variables {
    fn lookup(&self, name: &str) -> anyhow::Result<Option<String>> {
        self.lookup(name)
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Variables {
    /// Sets these values, without the environment.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(values: I) -> Self {
        let variables = Self::default();
        values.into_iter().for_each(|(name, value)| variables.set(name, value));
        variables
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lookup_sees_the_last_change() {
        let variables = Variables::from_iter([("key", "k1")]);
        let clone = variables.clone();
        let get = || clone.lookup("key");
        assert_eq!(get().unwrap().as_deref(), Some("k1"));
        variables.set("key", "k2");
        assert_eq!(get().unwrap().as_deref(), Some("k2"));
        variables.fail(true);
        get().unwrap_err();
        variables.fail(false);
        variables.unset("key");
        assert_eq!(get().unwrap(), None);
    }
}
