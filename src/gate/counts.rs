//! Counts of calls to OfficeRnD. They are part of the ledger, so they are those of all instances.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::calls::{ApplicationTag, CallEnd, CallResult};
use crate::time::Timestamp;

/// Longest duration of each bucket of [`Durations`]; a last one has the calls that took longer.
pub const BUCKETS: [Duration; 5] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// How long calls took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Durations {
    /// Calls of each bucket, without those of shorter ones.
    pub buckets: [u64; BUCKETS.len() + 1],
    /// Sum of all durations, in milliseconds.
    pub sum_ms: u64,
}

/// Calls for one application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplicationCounts {
    tag: ApplicationTag,
    /// Name of the application.
    pub name: String,
    /// Number of calls by their results.
    pub results: Vec<(CallResult, u64)>,
}

/// Numbers of calls since the first one that this ledger has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// When the first call was recorded; `None` before.
    pub since_ms: Option<Timestamp>,
    /// Calls by application, also of those that are no longer configured.
    pub applications: Vec<ApplicationCounts>,
    /// Durations of the calls whose end is known.
    pub durations: Durations,
}

impl Counts {
    /// Notes that calls for an application are counted.
    pub(super) fn begin(&mut self, application: &str, now: Timestamp) -> ApplicationTag {
        let tag = ApplicationTag::of(application);
        self.since_ms.get_or_insert(now);
        self.of(tag).name = application.to_owned();
        tag
    }

    fn of(&mut self, tag: ApplicationTag) -> &mut ApplicationCounts {
        let place = self.applications.iter().position(|counts| counts.tag == tag).unwrap_or_else(|| {
            self.applications.push(ApplicationCounts { tag, name: String::new(), results: Vec::new() });
            self.applications.len() - 1
        });
        &mut self.applications[place]
    }

    pub(super) fn add(&mut self, application: ApplicationTag, end: CallEnd) {
        let results = &mut self.of(application).results;
        match results.iter_mut().find(|(result, _)| *result == end.result) {
            Some((_, number)) => *number = number.saturating_add(1),
            None => results.push((end.result, 1)),
        }
        if end.result != CallResult::Abandoned {
            let took = Duration::from_millis(end.took_ms.into());
            let bucket = BUCKETS.iter().position(|longest| took <= *longest).unwrap_or(BUCKETS.len());
            let Durations { buckets, sum_ms } = &mut self.durations;
            buckets[bucket] = buckets[bucket].saturating_add(1);
            *sum_ms = sum_ms.saturating_add(end.took_ms.into());
        }
    }

    /// Takes over what the store lacks: when counting began, and names of applications.
    pub(super) fn absorb(&mut self, unsaved: &Self) {
        self.since_ms = self.since_ms.or(unsaved.since_ms);
        for counts in &unsaved.applications {
            self.of(counts.tag).name.clone_from(&counts.name);
        }
    }
}
