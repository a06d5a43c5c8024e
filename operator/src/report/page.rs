//! The report as a page: one file of HTML without scripts and without anything from elsewhere.

mod axis;
mod chart;
mod charts;
mod html;
mod table;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::figures::{Figures, Period};
use super::finding::count;
use super::time::to_minute;
use html::{Html, grouped};

/// Begin of every page, by which the command recognises its own file before it replaces it.
pub(crate) const PAGE_BEGIN: &str = "<!doctype html>\n<html lang=\"en\" class=\"broker-report\">\n";

const STYLE: &str = include_str!("page/style.css");

impl Figures {
    /// Returns the page.
    ///
    /// # Errors
    ///
    /// If a chart cannot be drawn.
    pub(crate) fn to_page(&self) -> anyhow::Result<String> {
        let mut html = Html::default();
        // The policy makes a mistake in escaping harmless: no script runs, and nothing is loaded.
        html.tags(PAGE_BEGIN)
            .tags("<head>\n<meta charset=\"utf-8\">\n")
            .tags("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'sha256-")
            .text(STANDARD.encode(Sha256::digest(STYLE)))
            .tags("'; base-uri 'none'; form-action 'none'\">\n")
            .tags("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n")
            .tags("<meta name=\"color-scheme\" content=\"light dark\">\n<title>Token broker report</title>\n<style>")
            .tags(STYLE)
            .tags("</style>\n</head>\n<body>\n<header>\n<h1>Token broker report</h1>\n");
        match &self.period {
            Some(period) => self.write_body(&mut html, period)?,
            None => {
                html.tags("<p>The log has no audit line (")
                    .text(count(self.lines.foreign, "foreign line"))
                    .tags(").</p>\n</header>\n");
            }
        }
        html.tags("</body>\n</html>\n");
        Ok(html.into_string())
    }

    fn write_body(&self, html: &mut Html, period: &Period) -> anyhow::Result<()> {
        html.tags("<p>").text(to_minute(&period.from)).tags(" to ").text(to_minute(&period.to));
        html.tags(" UTC</p>\n</header>\n<main>\n");
        self.write_tiles(html);
        self.write_findings(html);
        html.tags("<section>\n<h2>Calls to OfficeRnD</h2>\n");
        self.write_calls_chart(html)?;
        self.write_call_tables(html);
        html.tags("</section>\n<section>\n<h2>Requests</h2>\n");
        self.write_requests_chart(html)?;
        self.write_request_tables(html);
        html.tags("</section>\n<section>\n<h2>Callers</h2>\n");
        self.write_callers_chart(html)?;
        self.write_callers_table(html);
        html.tags("</section>\n<section>\n<h2>Log</h2>\n");
        self.write_log_tables(html);
        html.tags("</section>\n</main>\n");
        Ok(())
    }

    /// The numbers that an operator looks for first.
    fn write_tiles(&self, html: &mut Html) {
        let (requests, calls, cache) = (&self.requests, &self.calls, &self.cache);
        html.tags("<dl class=\"tiles\">\n<div><dt>Requests</dt><dd>").number(requests.total).tags("</dd><dd>");
        html.text(grouped(requests.denied))
            .tags(" denied, ")
            .text(grouped(requests.failed))
            .tags(" failed</dd></div>\n");
        if let Some(share) = cache.share_served {
            html.tags("<div><dt>Tokens without a call</dt><dd>").percent(share).tags("</dd><dd>");
            html.text(grouped(cache.hit + cache.collapsed)).tags(" of ");
            html.text(grouped(cache.hit + cache.collapsed + cache.miss + cache.stale)).tags("</dd></div>\n");
        }
        html.tags("<div><dt>Calls to OfficeRnD</dt><dd>").number(calls.total).tags("</dd><dd>");
        html.text(grouped(calls.failed)).tags(" failed</dd></div>\n");
        if let Some(minute) = &calls.busiest_minute {
            html.tags("<div><dt>Most calls in 60 s</dt><dd>").number(minute.calls).tags(" <small>of ");
            html.number(calls.quota).tags("</small></dd><dd>from ");
            html.text(minute.from.get(..19).unwrap_or(&minute.from).replace('T', " ")).tags("</dd></div>\n");
        }
        html.tags("</dl>\n");
    }

    fn write_findings(&self, html: &mut Html) {
        html.tags("<section>\n<h2>What stands out</h2>\n");
        if self.findings.is_empty() {
            html.tags("<p>Nothing.</p>\n</section>\n");
            return;
        }
        html.tags("<ul class=\"findings\">\n");
        for finding in &self.findings {
            html.tags("<li>")
                .name(&finding.what)
                .tags(" <span>see <code>")
                .text(finding.see)
                .tags("</code></span></li>\n");
        }
        html.tags("</ul>\n</section>\n");
    }
}
