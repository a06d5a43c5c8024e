//! What an instance remembers of the variables, and whose turn it is to read them.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use crate::config::{Config, Mistake};
use crate::error::{Cause, Error};
use crate::time::{Timestamp, is_recent};

/// How long a configuration is remembered. A changed variable takes effect after this time,
/// without a restart.
const CONFIG_MEMORY: Duration = Duration::from_secs(10);

/// How long a failed read is remembered. It is also `Retry-After` for a request without a
/// configuration.
const FAILURE_MEMORY: Duration = Duration::from_secs(1);

/// How long the last good configuration stays in use while the variables cannot be read, or
/// contain a mistake. A caller that was withdrawn meanwhile could hold a token for as long.
const CONFIG_LIFE: Duration = Duration::from_secs(3600);

/// Values of all variables, by name. They contain secrets.
#[derive(Default, PartialEq, Eq)]
pub(super) struct Values(pub(super) Vec<(&'static str, String)>);

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// What an instance remembers of the variables.
#[derive(Debug, Default)]
pub(super) struct ConfigMemory {
    /// How the last read ended, and when.
    pub(super) last_read: Option<(Timestamp, Result<(), Error>)>,
    /// The last good configuration, and when it was read.
    pub(super) last_good: Option<(Timestamp, Rc<Config>)>,
    /// The values that the last good configuration was parsed from.
    values: Values,
    /// Number of mistakes in the variables when they could last be read.
    pub(super) mistakes: usize,
}

/// The right to read the variables. Dropping it lets another request read them, because a host
/// may drop a request at any await.
pub(super) struct Turn<'a>(&'a Cell<bool>);

impl<'a> Turn<'a> {
    pub(super) fn take(is_taken: &'a Cell<bool>) -> Option<Self> {
        (!is_taken.replace(true)).then(|| Self(is_taken))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl ConfigMemory {
    /// The configuration of these values. Unchanged values are not parsed again, because a policy
    /// may have thousands of callers, and a request would wait for that every 10 s.
    ///
    /// # Errors
    /// All mistakes, if one concerns more than a caller or an application.
    pub(super) fn parse(&mut self, values: Values) -> Result<Rc<Config>, Vec<Mistake>> {
        if let Some((_, config)) = &self.last_good
            && self.values == values
        {
            return Ok(config.clone());
        }
        let lookup = |name: &str| values.0.iter().find(|(other, _)| *other == name).map_or("", |(_, value)| value);
        let config = Rc::new(Config::parse(lookup)?);
        self.values = values;
        Ok(config)
    }

    /// The outcome of the last read, if it is recent. The last good configuration replaces a
    /// failure.
    pub(super) fn recent(&self, now: Timestamp) -> Option<Result<Rc<Config>, Error>> {
        let (read_at, outcome) = self.last_read.as_ref()?;
        let memory = if matches!(outcome, Err(Error::Unavailable { .. })) { FAILURE_MEMORY } else { CONFIG_MEMORY };
        is_recent(*read_at, now, memory).then(|| match (self.good(now), outcome) {
            (Some(config), _) => Ok(config.clone()),
            (None, Err(error)) => Err(error.clone()),
            (None, Ok(())) => Err(unreadable()),
        })
    }

    /// The last good configuration, unless it is too old. A clock that has stepped back makes it
    /// no older: without it, the instance could serve no request until the clock is right again.
    pub(super) fn good(&self, now: Timestamp) -> Option<&Rc<Config>> {
        let (_, config) = self.last_good.as_ref().filter(|(read_at, _)| now.since(*read_at) < CONFIG_LIFE)?;
        Some(config)
    }

    /// The last good configuration, whatever its age.
    pub(super) fn last_good(&self) -> Option<&Rc<Config>> {
        self.last_good.as_ref().map(|(_, config)| config)
    }
}

/// The error of a request while the variables cannot be read.
pub(super) fn unreadable() -> Error {
    Error::unavailable(Cause::VariablesUnreadable, FAILURE_MEMORY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_request_has_the_turn() {
        let is_taken = Cell::default();
        let turn = Turn::take(&is_taken);
        assert!(turn.is_some());
        assert!(Turn::take(&is_taken).is_none());
        assert!(Turn::take(&is_taken).is_none(), "a request in vain does not end the turn of another");
        drop(turn);
        assert!(Turn::take(&is_taken).is_some());
    }
}
