//! The tables of a page, which have every figure of the report.

use super::super::figures::{Caller, Figures};
use super::super::tally::Tally;
use super::super::time::to_minute;
use super::html::Html;

impl Figures {
    pub(super) fn write_call_tables(&self, html: &mut Html) {
        let calls = &self.calls;
        html.tags("<div class=\"tables\">\n");
        write_numbers(html, "Calls by outcome", "Calls", &[("ok", calls.ok), ("failed", calls.failed)]);
        write_tally(html, "Failed calls by reason", "Calls", &calls.by_reason);
        write_tally(html, "Calls by application", "Calls", &calls.by_application);
        write_tally(html, "Calls by credential", "Calls", &calls.by_credential);
        if let (Some(mean), Some(longest)) = (calls.mean_ms, calls.longest_ms) {
            write_numbers(html, "Time of calls in ms", "ms", &[("on average", mean), ("at most", longest)]);
        }
        html.tags("</div>\n");
    }

    pub(super) fn write_request_tables(&self, html: &mut Html) {
        let (requests, cache) = (&self.requests, &self.cache);
        let outcomes = [("ok", requests.ok), ("denied", requests.denied), ("failed", requests.failed)];
        let sources =
            [("hit", cache.hit), ("collapsed", cache.collapsed), ("miss", cache.miss), ("stale", cache.stale)];
        html.tags("<div class=\"tables\">\n");
        write_numbers(html, "Requests by outcome", "Requests", &outcomes);
        write_tally(html, "Requests by reason", "Requests", &requests.by_reason);
        write_tally(html, "Requests by path", "Requests", &requests.by_route);
        write_numbers(html, "Tokens by source", "Tokens", &sources);
        html.tags("</div>\n");
    }

    pub(super) fn write_callers_table(&self, html: &mut Html) {
        html.tags(
            "<table class=\"callers\" role=\"table\">\n<caption>All callers</caption>\n<thead role=\"rowgroup\">",
        )
        .tags("<tr role=\"row\"><th scope=\"col\" role=\"columnheader\">Caller</th>");
        for (heading, _) in COLUMNS {
            html.tags("<th scope=\"col\" role=\"columnheader\">").text(heading).tags("</th>");
        }
        html.tags("</tr></thead>\n<tbody role=\"rowgroup\">\n");
        for caller in &self.callers {
            html.tags("<tr role=\"row\"><th scope=\"row\" role=\"rowheader\">").name(&caller.name);
            html.tags("<small>");
            for (place, (word, number)) in caller.by_reason.sorted().into_iter().enumerate() {
                html.tags(if place > 0 { ", " } else { "" }).name(word).tags(" ").number(number);
            }
            html.tags("</small></th>");
            for (heading, write) in COLUMNS {
                html.tags("<td role=\"cell\" data-label=\"").text(heading).tags("\">");
                write(html, caller);
                html.tags("</td>");
            }
            html.tags("</tr>\n");
        }
        html.tags("</tbody>\n</table>\n");
        if let Some(absent) = self.absent_callers.as_ref().filter(|absent| !absent.is_empty()) {
            html.tags("<h3>Callers of the policy that never came</h3>\n<ul class=\"names\">");
            for name in absent {
                html.tags("<li>").name(name).tags("</li>");
            }
            html.tags("</ul>\n");
        }
    }

    pub(super) fn write_log_tables(&self, html: &mut Html) {
        let numbers = [
            ("lines of requests", self.lines.requests),
            ("lines of calls", self.lines.calls),
            ("foreign lines, skipped", self.lines.foreign),
            ("calls too late for the busiest minute", self.calls.out_of_order),
            ("calls of requests without a line nearby", self.calls.without_request),
            ("requests of further callers", self.requests_not_listed),
        ];
        html.tags("<div class=\"tables\">\n");
        write_numbers(html, "What was read", "Lines", &numbers);
        write_tally(html, "Instances by version", "Lines", &self.versions);
        html.tags("</div>\n<details>\n<summary>Numbers over time</summary>\n<table class=\"timeline\">\n")
            .tags("<caption>Numbers over time</caption>\n<thead><tr><th scope=\"col\">From (UTC)</th>")
            .tags("<th scope=\"col\">ok</th><th scope=\"col\">denied</th><th scope=\"col\">failed</th>")
            .tags("<th scope=\"col\">calls</th><th scope=\"col\">in 60 s</th></tr></thead>\n<tbody>\n");
        for bucket in &self.timeline.buckets {
            html.tags("<tr><th scope=\"row\">").text(to_minute(&bucket.from)).tags("</th>");
            for number in [bucket.ok, bucket.denied, bucket.failed, bucket.calls, bucket.most_calls_in_a_minute] {
                html.tags("<td>").number(number).tags("</td>");
            }
            html.tags("</tr>\n");
        }
        html.tags("</tbody>\n</table>\n</details>\n");
    }
}

/// Heading of a column, and what writes its cells.
type Column = (&'static str, for<'a> fn(&'a mut Html, &Caller) -> &'a mut Html);

const COLUMNS: [Column; 9] = [
    ("requests", |html, caller| html.number(caller.requests)),
    ("ok", |html, caller| html.number(caller.ok)),
    ("denied", |html, caller| html.number(caller.denied)),
    ("failed", |html, caller| html.number(caller.failed)),
    ("tokens", |html, caller| html.number(caller.tokens)),
    ("scope sets", |html, caller| {
        html.number(caller.scope_sets as u64).tags(if caller.more_scope_sets { "+" } else { "" })
    }),
    ("calls", |html, caller| html.number(caller.calls)),
    ("of calls", |html, caller| html.percent(caller.share_of_calls)),
    ("last seen (UTC)", |html, caller| html.text(to_minute(&caller.last_seen))),
];

fn write_tally(html: &mut Html, caption: &'static str, unit: &'static str, tally: &Tally) {
    if tally.total() > 0 {
        write_numbers(html, caption, unit, &tally.sorted());
    }
}

/// A table of two columns. `caption` says what the first has.
fn write_numbers(html: &mut Html, caption: &'static str, unit: &'static str, rows: &[(&str, u64)]) {
    html.tags("<table>\n<caption>").tags(caption).tags("</caption>\n<thead><tr><th scope=\"col\">");
    html.tags(caption.rsplit(' ').next().unwrap_or(caption)).tags("</th><th scope=\"col\">").tags(unit);
    html.tags("</th></tr></thead>\n<tbody>\n");
    for (word, number) in rows {
        html.tags("<tr><th scope=\"row\">").name(word).tags("</th><td>").number(*number).tags("</td></tr>\n");
    }
    html.tags("</tbody>\n</table>\n");
}
