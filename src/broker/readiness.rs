//! Says whether this instance can do its work.

use std::time::Duration;

use super::config_memory::Turn;
use super::instance::Broker;
use super::ports::Ports;
use crate::config::Config;
use crate::time::is_recent;

/// How long the outcome of a check of the store is remembered, so that a stranger who asks often
/// costs the store nothing. It is longer than an instance remembers the store's failures.
const CHECK_MEMORY: Duration = Duration::from_secs(5);

/// Pause of a request that waits for the first check of its instance.
const CHECK_POLL: Duration = Duration::from_millis(50);

impl<P: Ports> Broker<P> {
    /// The problem that `/readyz` reports if there is a configuration: it has a mistake, the
    /// store does not answer or accepts no writes, or OfficeRnD has just refused every
    /// application's credential.
    pub async fn readiness_problem(&self, config: &Config) -> Option<&'static str> {
        if self.instance.config.borrow().mistakes > 0 {
            return Some("configuration");
        }
        if !self.store_works(config).await {
            return Some("store");
        }
        let ledger = self.instance.ledger.borrow();
        let now = self.ports.now();
        config.applications.iter().all(|application| ledger.has_refused(application, now)).then_some("credential")
    }

    /// The word that `/readyz` reports about a broker that can work, but lacks something. It looks
    /// only at what the instance knows.
    pub fn degradation(&self, config: &Config) -> Option<&'static str> {
        let has_old_keys = self.instance.issuer_keys.is_in_trouble(config, self.ports.now());
        if has_old_keys { Some("issuer_keys") } else { self.ports.degradation() }
    }

    /// Whether the store answers a read and accepts a write. One request of the instance asks it
    /// for all.
    async fn store_works(&self, config: &Config) -> bool {
        loop {
            let (now, last) = (self.ports.now(), self.instance.store_checked.get());
            let turn = Turn::take(&self.instance.is_checking_store);
            match last {
                Some((at, works)) if turn.is_none() || is_recent(at, now, CHECK_MEMORY) => return works,
                _ if turn.is_some() => {
                    // If the host drops this request, the next one waits as long as after a check.
                    self.instance.store_checked.set(last.map(|(_, works)| (now, works)));
                    let key = ["readiness.", config.identity.id()].concat();
                    // One after the other: a failed read would let the write fail untried.
                    let works = self.load_ledger(config).await.is_ok()
                        && self.set(&key, &now.unix_ms().to_be_bytes()).await.is_ok();
                    self.instance.store_checked.set(Some((self.ports.now(), works)));
                    return works;
                }
                // The first check of this instance is in progress.
                _ => self.ports.sleep(CHECK_POLL).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{TestPorts, finish, wanted};

    #[test]
    fn store_is_checked_at_most_every_5_s_by_a_read_and_a_write() {
        let (ports, config) = (TestPorts::default(), wanted().config);
        let broker = ports.broker();
        let check = |seconds: u64, outcomes: &[bool], expected: bool| {
            ports.0.seconds.set(seconds);
            ports.0.outcomes.replace(outcomes.iter().copied().collect());
            assert_eq!(finish(broker.store_works(&config)), expected, "at {seconds} s");
            assert!(ports.0.outcomes.borrow().is_empty(), "at {seconds} s");
        };
        check(0, &[true, true], true);
        check(4, &[], true);
        // A read succeeds; a write fails twice.
        check(5, &[true, false, false], false);
        check(9, &[], false);
        check(10, &[true, true], true);
    }
}
