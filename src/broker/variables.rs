//! Reads the variables into a configuration, again every 10 s.

use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;

use super::config_memory::{Turn, Values, unreadable};
use super::fetch::WAIT_LIMIT;
use super::instance::Broker;
use super::ports::Ports;
use crate::config::{Config, VARIABLES, Variable};
use crate::error::Error;
use crate::mutation::{self, Rule};
use crate::time::Timestamp;

/// Longest time for reading all variables while an earlier configuration is in use.
const READ_LIMIT: Duration = Duration::from_secs(2);

/// Longest time for reading all variables without an earlier configuration. It leaves a request
/// 2 s for the token.
const FIRST_READ_LIMIT: Duration = WAIT_LIMIT.saturating_sub(Duration::from_secs(2));

/// How often a variable is read again after a failure if there is no earlier configuration, and
/// the first pause before that, which doubles.
const READ_AGAIN: usize = 2;
const READ_AGAIN_PAUSE: Duration = Duration::from_millis(200);

/// First and longest time between two looks at a read that another request makes.
const READ_POLL_FIRST: Duration = Duration::from_millis(10);
const READ_POLL_LONGEST: Duration = Duration::from_millis(100);

/// These two are read after all others. An operator whose current pair is refused moves the pair of
/// `…_next` to the current variables, and writes those first. Between the writes this order sees
/// the new pair at least once. The reverse order could see only the old one.
const READ_LAST: [&str; 2] = ["officernd_client_id", "officernd_client_secret"];

impl<P: Ports> Broker<P> {
    /// The configuration, read again if the remembered one is older than 10 s. The request
    /// arrived at `arrived`.
    ///
    /// # Errors
    /// When the variables cannot be read, or contain a mistake that concerns more than one
    /// caller or application, and no earlier configuration can be used.
    pub async fn config(&self, arrived: Timestamp) -> Result<Rc<Config>, Error> {
        let recent = self.instance.config.borrow().recent(arrived);
        match recent {
            Some(outcome) => outcome,
            None => Box::pin(self.renew_config(arrived)).await,
        }
    }

    /// Reads the variables, unless another request of this instance is reading them. That one's
    /// outcome is good enough; until then the last good configuration is.
    async fn renew_config(&self, arrived: Timestamp) -> Result<Rc<Config>, Error> {
        let mut waited = Duration::ZERO;
        let mut delay = READ_POLL_FIRST;
        loop {
            // Another request may have read them since this one arrived.
            let recent = self.instance.config.borrow().recent(self.ports.now());
            if let Some(outcome) = recent {
                return outcome;
            }
            // Measured in two ways, because the clock may step back.
            let left = FIRST_READ_LIMIT.saturating_sub(waited.max(self.ports.now().since(arrived)));
            let turn = Turn::take(&self.instance.is_reading_config);
            if !left.is_zero() && (turn.is_some() || !mutation::holds(Rule::OneReader)) {
                return self.read_and_remember(left).await;
            }
            let good = self.instance.config.borrow().good(self.ports.now()).cloned();
            if let Some(config) = good {
                return Ok(config);
            }
            if left.is_zero() {
                return Err(unreadable());
            }
            self.ports.sleep(delay).await;
            waited += delay;
            delay = (delay * 2).min(READ_POLL_LONGEST);
        }
    }

    /// Reads the variables within `longest`, and tells the operator about every problem.
    async fn read_and_remember(&self, longest: Duration) -> Result<Rc<Config>, Error> {
        let started = self.ports.now();
        let has_good = self.instance.config.borrow().good(started).is_some();
        // With a good configuration no request needs to wait for another try.
        let (limit, tries_left) = if has_good { (READ_LIMIT.min(longest), 0) } else { (longest, READ_AGAIN) };
        let read = self.read_values(limit, tries_left).await;
        let now = self.ports.now();
        let mut memory = self.instance.config.borrow_mut();
        let (read_at, outcome, problem) = match read.map(|values| memory.parse(values)) {
            Err(text) => (now, Err(unreadable()), Some(format!("the variables cannot be read: {text}"))),
            Ok(Err(mistakes)) => {
                memory.mistakes = mistakes.len();
                let error = Error::Configuration(mistakes);
                let text = error.to_string();
                (started, Err(error), Some(text))
            }
            Ok(Ok(config)) => {
                let disabled = config.mistakes.iter().map(|mistake| format!("; {mistake}")).collect::<String>();
                let text = format!("callers and applications with a mistake are disabled{disabled}");
                let problem = (!disabled.is_empty()).then_some(text);
                memory.mistakes = config.mistakes.len();
                memory.last_good = Some((started, config));
                (started, Ok(()), problem)
            }
        };
        if outcome.is_err() && !mutation::holds(Rule::LastGood) {
            memory.last_good = None;
        }
        let good = memory.good(now).cloned();
        if let Some(problem) = problem {
            let stays =
                if outcome.is_err() && good.is_some() { "; the last good configuration stays in use" } else { "" };
            self.ports.warn(&format!("{problem}{stays}"));
        }
        memory.last_read = Some((read_at, outcome.clone()));
        good.ok_or_else(|| outcome.err().unwrap_or_else(unreadable))
    }

    /// Reads all variables, each again up to `tries_left` times. The error is the provider's.
    async fn read_values(&self, limit: Duration, tries_left: usize) -> Result<Values, String> {
        let read = |is_last: bool| {
            let names = VARIABLES.iter().map(|variable| variable.name);
            join_all(
                names
                    .filter(move |name| READ_LAST.contains(name) == is_last)
                    .map(move |name| self.read_variable(name, tries_left)),
            )
        };
        let read_all = async {
            let mut values = read(false).await.into_iter().collect::<Result<Vec<_>, _>>()?;
            values.extend(read(true).await.into_iter().collect::<Result<Vec<_>, _>>()?);
            Ok(values)
        };
        let seconds = limit.as_secs();
        let values = self.within(limit, read_all).await;
        values.unwrap_or_else(|| Err(format!("no answer within {seconds} s"))).map(Values)
    }

    /// Reads one variable, with its default if it is not set.
    async fn read_variable(&self, name: &'static str, mut tries_left: usize) -> Result<(&'static str, String), String> {
        let mut pause = READ_AGAIN_PAUSE;
        loop {
            match self.ports.variable(name).await {
                Ok(value) => return Ok((name, value.unwrap_or_else(|| Variable::default_of(name).to_owned()))),
                Err(problem) if tries_left == 0 => return Err(problem),
                Err(_) => {}
            }
            // Up to twice as long, so that instances that failed together do not return together.
            let jitter = pause * u32::from(self.ports.random() as u8) / 255;
            self.ports.sleep(pause + jitter).await;
            (pause, tries_left) = (pause * 2, tries_left - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{CALLERS, TestPorts, at, finish};
    use super::*;

    /// An instance that read a good configuration at 0 s.
    fn configured() -> (TestPorts, Broker<TestPorts>) {
        let ports = TestPorts::default();
        ports.0.callers.replace(Some(CALLERS));
        let broker = ports.broker();
        finish(broker.config(at(0))).unwrap();
        (ports, broker)
    }

    /// The configuration at a time: its number of mistakes, or the reason for none.
    fn config_at(ports: &TestPorts, broker: &Broker<TestPorts>, seconds: u64) -> Result<usize, &'static str> {
        ports.0.seconds.set(seconds);
        finish(broker.config(at(seconds))).map(|config| config.mistakes.len()).map_err(|error| error.reason())
    }

    #[test]
    fn last_good_configuration_stays_in_use_for_an_hour() {
        for (callers, reason) in [(None, "variables_unreadable"), (Some("{…},}"), "configuration_invalid")] {
            let (ports, broker) = configured();
            ports.0.callers.replace(callers);
            assert_eq!(config_at(&ports, &broker, 3599), Ok(0));
            assert!(ports.0.warnings.borrow()[0].ends_with("; the last good configuration stays in use"));
            assert_eq!(config_at(&ports, &broker, 3609), Err(reason));
        }
    }

    #[test]
    fn configuration_is_good_after_the_clock_has_stepped_back() {
        let ports = TestPorts::default();
        ports.0.callers.replace(Some(CALLERS));
        let broker = ports.broker();
        ports.0.seconds.set(100);
        finish(broker.config(at(100))).unwrap();
        ports.0.callers.replace(None);
        assert_eq!(config_at(&ports, &broker, 95), Ok(0));
        assert_eq!(config_at(&ports, &broker, 110), Ok(0));
    }

    #[test]
    fn failed_read_is_remembered_for_a_second_and_a_mistake_for_ten() {
        for (callers, memory) in [(None, 1), (Some("{}"), 10)] {
            let ports = TestPorts::default();
            ports.0.callers.replace(callers);
            let broker = ports.broker();
            config_at(&ports, &broker, 0).unwrap_err();
            let read = ports.0.variables_read.get();
            config_at(&ports, &broker, memory - 1).unwrap_err();
            assert_eq!(ports.0.variables_read.get(), read, "{callers:?}");
            config_at(&ports, &broker, memory).unwrap_err();
            assert!(ports.0.variables_read.get() > read, "{callers:?}");
        }
    }

    #[test]
    fn unchanged_variables_are_not_parsed_again() {
        let (ports, broker) = configured();
        let config_at = |seconds: u64| {
            ports.0.seconds.set(seconds);
            finish(broker.config(at(seconds))).unwrap()
        };
        let first = config_at(0);
        assert!(Rc::ptr_eq(&first, &config_at(10)));
        ports.0.callers.replace(Some(r#"{"a": {}}"#));
        let broken = config_at(20);
        assert!(!Rc::ptr_eq(&first, &broken));
        assert!(Rc::ptr_eq(&broken, &config_at(30)));
        assert_eq!(ports.0.warnings.borrow().len(), 2, "a mistake is told on every read");
    }

    #[test]
    fn entry_with_a_mistake_becomes_the_configuration_at_once() {
        let (ports, broker) = configured();
        ports.0.callers.replace(Some(r#"{"a": {}}"#));
        assert_eq!(config_at(&ports, &broker, 10), Ok(2));
        let has_mistake = || broker.instance.config.borrow().mistakes > 0;
        assert!(has_mistake());
        ports.0.callers.replace(None);
        assert_eq!(config_at(&ports, &broker, 20), Ok(2));
        assert!(has_mistake(), "a provider that fails corrects nothing");
        ports.0.callers.replace(Some(CALLERS));
        assert_eq!(config_at(&ports, &broker, 30), Ok(0));
        assert!(!has_mistake());
    }

    #[test]
    fn request_during_a_read_goes_on_with_the_last_good_configuration_or_waits() {
        let (ports, broker) = configured();
        let read = ports.0.variables_read.get();
        let turn = Turn::take(&broker.instance.is_reading_config).unwrap();
        assert_eq!(config_at(&ports, &broker, 60), Ok(0));
        assert_eq!(config_at(&ports, &broker, 3601), Err("variables_unreadable"), "it waits in vain");
        assert_eq!(ports.0.variables_read.get(), read);
        // A store operation blocked the instance for long after a request had arrived.
        ports.0.seconds.set(80);
        assert!(finish(broker.config(at(69))).is_ok());
        // The host drops the request that reads.
        drop(turn);
        assert_eq!(config_at(&ports, &broker, 3602), Ok(0));
    }
}
