//! The report as text, for a terminal.

use std::fmt::{self, Display, Formatter};

use super::figures::Figures;
use super::finding::count;
use super::tally::Tally;
use super::time::to_minute;

impl Display for Figures {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let foreign = count(self.lines.foreign, "foreign line");
        let Some(period) = &self.period else { return writeln!(f, "the log has no audit line ({foreign})") };
        writeln!(f, "Period    {} to {} UTC", to_minute(&period.from), to_minute(&period.to))?;
        writeln!(
            f,
            "Lines     {}, {}, {foreign} skipped",
            count(self.lines.requests, "request"),
            count(self.lines.calls, "call")
        )?;
        let requests = &self.requests;
        writeln!(f, "Requests  {} ok, {} denied, {} failed", requests.ok, requests.denied, requests.failed)?;
        self.write_cache(f)?;
        self.write_calls(f)?;
        write_tally(f, "Requests by path", &requests.by_route)?;
        write_tally(f, "Requests by reason", &requests.by_reason)?;
        write_tally(f, "Failed calls by reason", &self.calls.by_reason)?;
        self.write_callers(f)?;
        writeln!(f, "\nWhat stands out")?;
        if self.findings.is_empty() {
            writeln!(f, "  nothing")?;
        }
        self.findings
            .iter()
            .try_for_each(|finding| writeln!(f, "  {}\n    see {}", printable(&finding.what), finding.see))
    }
}

impl Figures {
    fn write_cache(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let cache = &self.cache;
        if let Some(share) = cache.share_served {
            let counted =
                format!("{} hit, {} collapsed, {} miss, {} stale", cache.hit, cache.collapsed, cache.miss, cache.stale);
            writeln!(f, "Cache     {} of the tokens without a call of their own: {counted}", percent(share))?;
        }
        Ok(())
    }

    fn write_calls(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let calls = &self.calls;
        write!(f, "Calls     {} to OfficeRnD: {} ok, {} failed", calls.total, calls.ok, calls.failed)?;
        if let (Some(mean), Some(longest)) = (calls.mean_ms, calls.longest_ms) {
            write!(f, "; {mean} ms on average, {longest} ms at most")?;
        }
        if let Some(minute) = &calls.busiest_minute {
            write!(f, "\nBusiest   {} of {} calls in the 60 s from {}", minute.calls, calls.quota, minute.from)?;
        }
        writeln!(f)
    }

    fn write_callers(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let name = |name: &str| printable(name);
        let width = self.callers.iter().map(|caller| name(&caller.name).chars().count()).max().unwrap_or(0).max(6);
        writeln!(
            f,
            "\n{:width$}  {:>9} {:>9} {:>7} {:>7} {:>7} {:>6} {:>6} {:>7}  last seen (UTC)",
            "Caller", "requests", "ok", "denied", "failed", "tokens", "scopes", "calls", "share"
        )?;
        for caller in &self.callers {
            writeln!(
                f,
                "{:width$}  {:>9} {:>9} {:>7} {:>7} {:>7} {:>6} {:>6} {:>7}  {}",
                name(&caller.name),
                caller.requests,
                caller.ok,
                caller.denied,
                caller.failed,
                caller.tokens,
                format!("{}{}", caller.scope_sets, if caller.more_scope_sets { "+" } else { "" }),
                caller.calls,
                percent(caller.share_of_calls),
                to_minute(&caller.last_seen)
            )?;
            let reasons: Vec<_> =
                caller.by_reason.sorted().iter().map(|(word, count)| format!("{} {count}", printable(word))).collect();
            if !reasons.is_empty() {
                writeln!(f, "{:width$}    {}", "", reasons.join(", "))?;
            }
        }
        if self.requests_not_listed > 0 {
            writeln!(f, "{} of further callers", count(self.requests_not_listed, "request"))?;
        }
        if self.calls.without_request > 0 {
            writeln!(f, "{} of requests without a line nearby", count(self.calls.without_request, "call"))?;
        }
        Ok(())
    }
}

fn write_tally(f: &mut Formatter<'_>, heading: &str, tally: &Tally) -> fmt::Result {
    if tally.total() == 0 {
        return Ok(());
    }
    writeln!(f, "\n{heading}")?;
    tally.sorted().iter().try_for_each(|(word, count)| writeln!(f, "  {count:>9}  {}", printable(word)))
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// The text without characters that control a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
