//! What stands out in a report, and the command or page for it.

use super::figures::{Caller, Figures, Finding};

/// What each reason of a request or call means to the operator: words, meaning, command or page.
const REASONS: [(&[&str], &str, &str); 14] = [
    (
        &["credential_refused", "credential"],
        "OfficeRnD refused a client id and secret",
        "docs/operations.md#warnings-on-stderr",
    ),
    (
        &["configuration_invalid", "caller_disabled", "application_disabled", "configuration"],
        "the variables had a mistake",
        "broker check",
    ),
    (&["variables_unreadable"], "the provider of the variables failed", "docs/operations.md#warnings-on-stderr"),
    (&["public_url_missing"], "`public_url` was not set", "docs/configuration.md#variables"),
    (
        &["store_unavailable", "store"],
        "the store did not answer, or accepted no writes",
        "docs/operations.md#a-store-that-accepts-no-writes",
    ),
    (&["outbound_denied"], "the host did not let the broker call OfficeRnD", "docs/operations.md#warnings-on-stderr"),
    (&["upstream_rate_limited"], "OfficeRnD answered 429", "docs/hosts.md#what-shares-the-call-quota"),
    (
        &["upstream_server_error", "upstream_timed_out", "upstream_unreachable"],
        "OfficeRnD failed, was slow or unreachable",
        "docs/operations.md#pauses",
    ),
    (&["budget_spent"], "the call quota was used up", "docs/hosts.md#what-shares-the-call-quota"),
    (&["share_used_up"], "one caller used up its share of the call quota", "docs/configuration.md#variables"),
    (&["expired_secret", "expired_key"], "a caller's secret or key has expired", "broker caller rotate"),
    (
        &["wrong_secret", "wrong_signature", "unknown_key"],
        "a caller, or a stranger with its name, had a wrong secret or key",
        "docs/jobs.md",
    ),
    (
        &["scope_outside_policy", "scope_unnamed", "scope_malformed"],
        "a request asked for scopes that the policy does not permit",
        "docs/configuration.md#policy",
    ),
    (
        &["scope_not_granted"],
        "the policy permits a scope that the application lacks",
        "docs/operations.md#warnings-on-stderr",
    ),
];

/// Lists what stands out, the gravest first.
pub(super) fn all(figures: &Figures) -> Vec<Finding> {
    let mut found = Vec::new();
    for (words, what, see) in REASONS {
        let of_requests: u64 = words.iter().map(|word| figures.requests.by_reason.get(word)).sum();
        let of_calls: u64 = words.iter().map(|word| figures.calls.by_reason.get(word)).sum();
        if of_requests + of_calls > 0 {
            let callers = callers_with(figures, words);
            let what = format!("{what} ({}, {}){callers}", count(of_requests, "request"), count(of_calls, "call"));
            found.push(Finding { what, see });
        }
    }
    of_calls(figures, &mut found);
    of_callers(figures, &mut found);
    found
}

/// The first callers with one of these reasons.
fn callers_with(figures: &Figures, words: &[&str]) -> String {
    let has = |caller: &&Caller| words.iter().any(|word| caller.by_reason.get(word) > 0);
    let names: Vec<_> = figures.callers.iter().filter(has).map(|caller| caller.name.as_str()).collect();
    match names.as_slice() {
        [] => String::new(),
        [first @ .., _] if first.len() >= 5 => format!(": {} and {} more", names[..5].join(", "), names.len() - 5),
        names => format!(": {}", names.join(", ")),
    }
}

fn of_calls(figures: &Figures, found: &mut Vec<Finding>) {
    let calls = &figures.calls;
    if let Some(minute) = &calls.busiest_minute
        && minute.calls * 5 >= calls.quota * 4
    {
        let what = format!(
            "the busiest minute, from {}, had {} of the call quota of {}",
            minute.from, minute.calls, calls.quota
        );
        found.push(Finding { what, see: "docs/hosts.md#what-shares-the-call-quota" });
    }
    if calls.by_credential.get("next") > 0 {
        let what = format!("{} used the next credential", count(calls.by_credential.get("next"), "call"));
        found.push(Finding { what, see: "docs/operations.md#rotate-an-applications-secret" });
    }
    if calls.out_of_order > 0 {
        let what = format!(
            "{} came more than 10 min out of order, so the busiest minute may be too low",
            count(calls.out_of_order, "call")
        );
        found.push(Finding { what, see: "docs/monitoring.md#read-the-audit-log" });
    }
}

fn of_callers(figures: &Figures, found: &mut Vec<Finding>) {
    if let Some(unknown) = figures.callers.iter().find(|caller| caller.is_unknown() && caller.denied > 0) {
        let what = format!("{} of strangers, or of jobs with a wrong name, refused", count(unknown.denied, "request"));
        found.push(Finding { what, see: "docs/audit.md#lines-of-requests" });
    }
    if let Some(absent) = figures.absent_callers.as_ref().filter(|absent| !absent.is_empty()) {
        let what = format!("{} of the policy never came: {}", count(absent.len() as u64, "caller"), absent.join(", "));
        found.push(Finding { what, see: "broker caller remove" });
    }
    if figures.cache.may_lack_hits {
        let what = "the log has no hit: with the variable audit at exceptions, hits leave no line, and the report \
                    counts too few requests"
            .to_owned();
        found.push(Finding { what, see: "docs/configuration.md#variables" });
    }
}

/// A number with its noun.
pub(super) fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
