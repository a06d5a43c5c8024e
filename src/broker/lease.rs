//! The lease in the store.

use std::time::Duration;

use super::instance::Broker;
use super::ports::Ports;
use super::store::{STORE_LIMIT, StoreFailed};
use crate::gate::{LEASE_KEY, LEASE_LIFE, LEASE_SETTLE, Lease};
use crate::mutation::{self, Rule};

/// How often the read-back of a lease is tried on a store that fails.
const READ_BACK_TRIES: usize = 3;

pub(super) enum LeaseAttempt {
    Won(Lease),
    /// Somebody else has it, for this long at most.
    Lost(Duration),
    NoStore,
}

impl<P: Ports> Broker<P> {
    /// Fischer's mutual exclusion on plain get and set.
    pub(super) async fn acquire_lease(&self) -> LeaseAttempt {
        let started = self.ports.now();
        match self.remaining_lease().await {
            Err(StoreFailed) => return LeaseAttempt::NoStore,
            Ok(Some(remaining)) => return LeaseAttempt::Lost(remaining),
            Ok(None) => {}
        }
        let lease = Lease { holder: self.ports.random(), until_ms: started + LEASE_LIFE };
        let bytes = lease.encode();
        if self.set(LEASE_KEY, &bytes).await.is_err() {
            return LeaseAttempt::NoStore;
        }
        // Where the store is slow for us, it is slow for the others: give their writes time to land.
        let took = self.ports.now().since(started).min(2 * STORE_LIMIT);
        self.ports.sleep(LEASE_SETTLE.max(took * 2)).await;
        if !mutation::holds(Rule::ReadBack) {
            return LeaseAttempt::Won(lease);
        }
        // A lease that was written must be read: given up here, it would bar everybody until it ends.
        for _ in 0..READ_BACK_TRIES {
            match self.get(LEASE_KEY).await {
                Ok(Some(found)) if found == bytes => return LeaseAttempt::Won(lease),
                Ok(_) => return LeaseAttempt::Lost(LEASE_LIFE),
                Err(StoreFailed) => self.ports.sleep(LEASE_SETTLE).await,
            }
        }
        LeaseAttempt::NoStore
    }

    /// How long the lease that somebody has will last; nothing when it is free.
    pub(super) async fn remaining_lease(&self) -> Result<Option<Duration>, StoreFailed> {
        let bytes = self.get(LEASE_KEY).await?.unwrap_or_default();
        if bytes.is_empty() {
            return Ok(None);
        }
        let lease = Lease::decode(&bytes);
        if lease.is_none() {
            self.ports.warn("the store has a lease that this version does not read; it counts as absent");
        }
        Ok(lease.and_then(|lease| lease.remaining(self.ports.now())))
    }

    /// Gives the lease back, unless it is another's by now.
    pub(super) async fn release_lease(&self, lease: Option<Lease>) {
        let Some(lease) = lease else { return };
        // If the store does not take it, it ends by itself.
        if matches!(self.get(LEASE_KEY).await, Ok(Some(found)) if found == lease.encode()) {
            let _ = self.set(LEASE_KEY, &[]).await;
        }
    }
}
