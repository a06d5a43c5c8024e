//! Reads the variables into a configuration, again every 10 s.

use std::rc::Rc;
use std::time::Duration;

use super::instance::{Broker, ReadConfig};
use super::ports::Ports;
use crate::config::{Config, VARIABLES};
use crate::error::Error;
use crate::time::{Timestamp, is_recent};

/// Longest time for reading all variables.
const VARIABLES_LIMIT: Duration = Duration::from_secs(2);

/// How long the last configuration stays in use while the variables cannot be read.
const CONFIG_LIFE: Duration = Duration::from_secs(300);

impl<P: Ports> Broker<P> {
    /// The configuration, read again if the remembered one is older than 10 s.
    ///
    /// # Errors
    /// When the variables cannot be read, or contain mistakes.
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
        // While the variable provider fails, keep the last good configuration.
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
}
