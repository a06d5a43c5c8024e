//! The figures of a report, as `--json` prints them. docs/monitoring.md names each field.

use std::collections::BTreeSet;

use officernd_token_broker::config::caller::UNKNOWN;
use serde::Serialize;

use super::callers::MAX_SCOPE_SETS;
use super::count::Counts;
use super::tally::Tally;
use super::time::rfc3339;

#[derive(Serialize)]
pub(crate) struct Figures {
    pub(super) period: Option<Period>,
    pub(super) lines: Lines,
    pub(super) versions: Tally,
    pub(super) requests: Requests,
    pub(super) cache: Cache,
    pub(super) calls: Calls,
    pub(super) callers: Vec<Caller>,
    /// Requests of callers that have no row.
    pub(super) requests_not_listed: u64,
    /// Callers of `--callers` without a line.
    pub(super) absent_callers: Option<Vec<String>>,
    pub(super) timeline: Timeline,
    pub(super) findings: Vec<Finding>,
}

#[derive(Serialize)]
pub(super) struct Period {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) seconds: u64,
}

#[derive(Serialize)]
pub(super) struct Lines {
    pub(super) requests: u64,
    pub(super) calls: u64,
    pub(super) foreign: u64,
}

#[derive(Serialize)]
pub(super) struct Requests {
    pub(super) total: u64,
    pub(super) ok: u64,
    pub(super) denied: u64,
    pub(super) failed: u64,
    pub(super) by_route: Tally,
    pub(super) by_reason: Tally,
}

#[derive(Serialize)]
pub(super) struct Cache {
    pub(super) hit: u64,
    pub(super) collapsed: u64,
    pub(super) miss: u64,
    pub(super) stale: u64,
    /// Share of the tokens that needed no call of their own.
    pub(super) share_served: Option<f64>,
    /// Whether the log has no `hit` at all: then the broker may write none.
    pub(super) may_lack_hits: bool,
}

#[derive(Serialize)]
pub(super) struct Calls {
    pub(super) total: u64,
    pub(super) ok: u64,
    pub(super) failed: u64,
    pub(super) by_application: Tally,
    pub(super) by_credential: Tally,
    pub(super) by_reason: Tally,
    pub(super) mean_ms: Option<u64>,
    pub(super) longest_ms: Option<u64>,
    pub(super) quota: u64,
    pub(super) busiest_minute: Option<BusiestMinute>,
    pub(super) out_of_order: u64,
    pub(super) without_request: u64,
}

#[derive(Serialize)]
pub(super) struct BusiestMinute {
    pub(super) calls: u64,
    pub(super) from: String,
}

#[derive(Serialize)]
pub(super) struct Caller {
    pub(super) name: String,
    pub(super) requests: u64,
    pub(super) ok: u64,
    pub(super) denied: u64,
    pub(super) failed: u64,
    pub(super) tokens: u64,
    pub(super) scope_sets: usize,
    /// Whether the caller has more sets of scopes than are told apart.
    pub(super) more_scope_sets: bool,
    pub(super) calls: u64,
    pub(super) share_of_calls: f64,
    pub(super) by_reason: Tally,
    pub(super) first_seen: String,
    pub(super) last_seen: String,
}

#[derive(Serialize)]
pub(super) struct Timeline {
    pub(super) bucket_seconds: u64,
    pub(super) buckets: Vec<Bucket>,
}

#[derive(Serialize)]
pub(super) struct Bucket {
    pub(super) from: String,
    pub(super) ok: u64,
    pub(super) denied: u64,
    pub(super) failed: u64,
    pub(super) calls: u64,
    pub(super) most_calls_in_a_minute: u64,
}

/// One thing that the operator should look at.
#[derive(Serialize)]
pub(super) struct Finding {
    /// What happened.
    pub(super) what: String,
    /// The command or page.
    pub(super) see: &'static str,
}

impl Figures {
    /// Makes the figures of a log. `policy` has the names of its callers, if it is known.
    pub(super) fn of(counts: &Counts, quota: u64, policy: Option<&BTreeSet<String>>) -> Self {
        let seen: BTreeSet<_> = counts.callers.rows.iter().map(|row| row.name.as_str()).collect();
        let absent = |policy: &BTreeSet<String>| {
            policy.iter().filter(|name| !seen.contains(name.as_str())).cloned().collect::<Vec<_>>()
        };
        let requests = &counts.requests;
        Self {
            period: counts.period.map(|(from, to)| Period {
                from: rfc3339(from),
                to: rfc3339(to),
                seconds: (to - from) / 1000,
            }),
            lines: Lines {
                requests: requests.total(),
                calls: counts.calls.ok + counts.calls.failed,
                foreign: counts.foreign,
            },
            versions: counts.versions.clone(),
            requests: Requests {
                total: requests.total(),
                ok: requests.ok,
                denied: requests.denied,
                failed: requests.failed,
                by_route: requests.routes.clone(),
                by_reason: requests.reasons.clone(),
            },
            cache: Cache::of(&requests.cache),
            calls: Calls::of(counts, quota),
            callers: callers(counts),
            requests_not_listed: counts.callers.not_listed,
            absent_callers: policy.map(absent),
            timeline: Timeline::of(counts),
            findings: Vec::new(),
        }
    }
}

impl Cache {
    fn of(cache: &Tally) -> Self {
        let [hit, collapsed, miss, stale] = ["hit", "collapsed", "miss", "stale"].map(|word| cache.get(word));
        let total = hit + collapsed + miss + stale;
        let share_served = (total > 0).then(|| share(hit + collapsed, total));
        Self { hit, collapsed, miss, stale, share_served, may_lack_hits: total > 0 && hit == 0 }
    }
}

impl Calls {
    fn of(counts: &Counts, quota: u64) -> Self {
        let calls = &counts.calls;
        let total = calls.ok + calls.failed;
        let of_callers: u64 = counts.callers.rows.iter().map(|row| row.calls).sum();
        Self {
            total,
            ok: calls.ok,
            failed: calls.failed,
            by_application: calls.applications.clone(),
            by_credential: calls.credentials.clone(),
            by_reason: calls.reasons.clone(),
            mean_ms: calls.total_ms.checked_div(total),
            longest_ms: (total > 0).then_some(calls.longest_ms),
            quota,
            busiest_minute: calls.busiest.map(|(calls, from)| BusiestMinute { calls, from: rfc3339(from) }),
            out_of_order: calls.minute.out_of_order,
            without_request: total - of_callers,
        }
    }
}

impl Timeline {
    fn of(counts: &Counts) -> Self {
        let bucket = |(from, bucket): (u64, &super::timeline::Bucket)| Bucket {
            from: rfc3339(from),
            ok: bucket.ok,
            denied: bucket.denied,
            failed: bucket.failed,
            calls: bucket.calls,
            most_calls_in_a_minute: bucket.peak,
        };
        Self {
            bucket_seconds: counts.timeline.width_ms / 1000,
            buckets: counts.timeline.buckets().map(bucket).collect(),
        }
    }
}

fn callers(counts: &Counts) -> Vec<Caller> {
    let calls = (counts.calls.ok + counts.calls.failed).max(1);
    let caller = |row: &super::callers::Caller| Caller {
        name: row.name.clone(),
        requests: row.requests,
        ok: row.ok,
        denied: row.denied,
        failed: row.failed,
        tokens: row.tokens,
        scope_sets: row.scope_sets.len(),
        more_scope_sets: row.scope_sets.len() >= MAX_SCOPE_SETS,
        calls: row.calls,
        share_of_calls: share(row.calls, calls),
        by_reason: row.reasons.clone(),
        first_seen: rfc3339(row.first_ms),
        last_seen: rfc3339(row.last_ms),
    };
    counts.callers.rows.iter().map(caller).collect()
}

/// A share with four digits, so that every form of the report shows the same.
fn share(part: u64, whole: u64) -> f64 {
    (part as f64 / whole as f64 * 10_000.0).round() / 10_000.0
}

impl Caller {
    pub(super) fn is_unknown(&self) -> bool {
        self.name == UNKNOWN
    }
}
