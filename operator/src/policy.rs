//! Edits the policy: adds a caller, gives it another credential, or removes it.

use std::fmt;

use anyhow::{Context as _, bail, ensure};
use officernd_token_broker::config::Mistakes;
use officernd_token_broker::config::caller::Callers;
use officernd_token_broker::config::issuer::Issuers;
use officernd_token_broker::time::Timestamp;
use serde_json::{Map, Value};

use crate::credential::Credential;
use crate::warning;

/// A policy that the component accepts. An edit leaves everything else unchanged and in its
/// place.
#[derive(Debug)]
pub(crate) struct Policy(Map<String, Value>);

impl Policy {
    /// Reads a value of the variable `callers`.
    ///
    /// # Errors
    ///
    /// All mistakes that the component would find, one line each. A policy with mistakes cannot
    /// be edited safely: for example, only the last of several equal keys would be left.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let mut mistakes = Mistakes::of("callers");
        // Applications and issuers are in other variables, so any name is accepted here.
        Callers::parse(text, |_| true, &Issuers::unread(), &mut mistakes);
        let mistakes: Vec<_> = mistakes.into_iter().map(|mistake| mistake.to_string()).collect();
        ensure!(mistakes.is_empty(), "{}", mistakes.join("\n"));
        Ok(Self(serde_json::from_str(text)?))
    }

    /// A policy without a caller, which only [`add`](Self::add) makes a valid one.
    pub(crate) fn empty() -> Self {
        Self(Map::new())
    }

    /// Adds a caller at the end.
    ///
    /// # Errors
    ///
    /// If a caller of that name exists, or if the component would refuse the entry.
    pub(crate) fn add(
        mut self,
        name: &str,
        scopes: &[String],
        application: Option<&str>,
        reads_metrics: bool,
        credential: &Credential,
    ) -> anyhow::Result<Self> {
        ensure!(
            !self.0.contains_key(name),
            "the caller {name:?} already exists: `caller rotate` gives it another secret or key, and `caller remove` \
             removes it"
        );
        let mut entry = credential.entry(scopes);
        if let Some(application) = application {
            entry["application"] = application.into();
        }
        if reads_metrics {
            entry["metrics"] = true.into();
        }
        self.0.insert(name.into(), entry);
        self.checked()
    }

    /// Gives a caller another credential in addition to its present ones. Those that it replaces
    /// expire at `expires`, if they have no expiry yet: a date or a time of RFC 3339.
    ///
    /// # Errors
    ///
    /// If the caller does not exist or cannot have this credential, or if `expires` is neither a date
    /// nor a time after `now`.
    pub(crate) fn rotate(
        mut self,
        name: &str,
        credential: &Credential,
        expires: Option<&str>,
        now: Timestamp,
    ) -> anyhow::Result<Self> {
        if let Some(text) = expires {
            let expires = Timestamp::parse_rfc3339(text).context(
                "--expires is wrong, expected a date or a time of RFC 3339: 2027-01-31 or 2027-01-31T12:00:00Z",
            )?;
            ensure!(
                expires > now,
                "--expires is in the past, so the present secrets and keys would end at once, expected a later time"
            );
        }
        let caller = self.0.get_mut(name).with_context(|| absent(name))?;
        let caller = caller.as_object_mut().expect("the component accepts only an object");
        credential.add_to(name, caller, expires)?;
        self.checked()
    }

    /// Removes a caller.
    ///
    /// # Errors
    ///
    /// If the caller does not exist, or if it is the only one.
    pub(crate) fn remove(mut self, name: &str) -> anyhow::Result<Self> {
        // Not `remove`, which would move the last caller into the gap.
        self.0.shift_remove(name).with_context(|| absent(name))?;
        if self.0.is_empty() {
            bail!("{name:?} is the only caller, and the broker needs at least one: add another one first");
        }
        self.checked()
    }

    /// Returns warnings about the policy, each as one line: what the component accepts, but what
    /// does not work for every client, or not any more at the time `now`.
    pub(crate) fn warnings(&self, now: Timestamp) -> Vec<String> {
        let length = warning::of_length("callers", &self.to_string());
        length.into_iter().chain(warning::of_policy(&self.0, now)).collect()
    }

    /// Returns the policy if the component accepts it.
    fn checked(self) -> anyhow::Result<Self> {
        Self::parse(&self.to_string())
    }
}

fn absent(name: &str) -> String {
    format!("the caller {name:?} does not exist: `caller new` adds it")
}

impl fmt::Display for Policy {
    /// Writes the value of the variable on several lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string_pretty(&self.0).map_err(|_| fmt::Error)?)
    }
}

#[cfg(test)]
mod tests;
