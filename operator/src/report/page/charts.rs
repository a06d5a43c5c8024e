//! Which figures each chart shows.

use officernd_token_broker::time::Timestamp;

use super::super::figures::{Bucket, Figures};
use super::super::finding::count;
use super::chart::{Bars, Ink, Names, Result, Stack};
use super::html::{Html, grouped};

/// Most callers in the chart; the table has all.
const CALLERS: usize = 10;

/// What the three colours of requests mean.
const OUTCOMES: &str = "<ul class=\"legend\"><li class=\"ok\">ok</li><li class=\"denied\">denied</li>\
                        <li class=\"failed\">failed</li></ul>\n";

impl Figures {
    pub(super) fn write_calls_chart(&self, html: &mut Html) -> Result<()> {
        let quota = self.calls.quota;
        let bars = self.bars(Some(quota), |bucket| vec![(Ink::Calls, bucket.most_calls_in_a_minute)]);
        let most = self.calls.busiest_minute.as_ref().map_or(0, |minute| minute.calls);
        let label = format!("Calls in 60 s over time: at most {}. The call quota is {quota}.", grouped(most));
        html.tags("<figure>\n<figcaption>Most calls in any 60 s, and the call quota</figcaption>\n")
            .tags("<ul class=\"legend\"><li class=\"calls\">calls</li><li class=\"quota\">call quota: ")
            .text(quota)
            .tags("</li></ul>\n")
            .chart(&bars.draw(&label)?)
            .tags("</figure>\n");
        Ok(())
    }

    pub(super) fn write_requests_chart(&self, html: &mut Html) -> Result<()> {
        let requests = &self.requests;
        let bars = self.bars(None, |bucket| stack(bucket.ok, bucket.denied, bucket.failed));
        let label = format!(
            "Requests over time: {} ok, {} denied, {} failed.",
            grouped(requests.ok),
            grouped(requests.denied),
            grouped(requests.failed)
        );
        let minutes = count(self.timeline.bucket_seconds / 60, "minute");
        html.tags("<figure>\n<figcaption>Requests in each ")
            .text(minutes.strip_prefix("1 ").unwrap_or(&minutes))
            .tags(" by outcome</figcaption>\n")
            .tags(OUTCOMES)
            .chart(&bars.draw(&label)?)
            .tags("</figure>\n");
        Ok(())
    }

    pub(super) fn write_callers_chart(&self, html: &mut Html) -> Result<()> {
        let shown = &self.callers[..self.callers.len().min(CALLERS)];
        if shown.is_empty() {
            return Ok(());
        }
        let rows = shown.iter().map(|caller| {
            let beside = format!("{}, {}", grouped(caller.requests), count(caller.calls, "call"));
            (caller.name.clone(), beside, stack(caller.ok, caller.denied, caller.failed))
        });
        let label = format!("Requests of the {} with the most, by outcome.", count(shown.len() as u64, "caller"));
        html.tags("<figure>\n<figcaption>Requests by caller, and the calls that they led</figcaption>\n")
            .tags(OUTCOMES)
            .chart(&Names { rows: rows.collect() }.draw(&label)?)
            .tags("</figure>\n");
        Ok(())
    }

    fn bars(&self, line: Option<u64>, stack: impl Fn(&Bucket) -> Stack) -> Bars {
        let begin = |bucket: &Bucket| Timestamp::parse_rfc3339(&bucket.from).map_or(0, Timestamp::unix_ms);
        let bars = self.timeline.buckets.iter().map(|bucket| (begin(bucket), stack(bucket)));
        Bars { bars: bars.collect(), width_ms: self.timeline.bucket_seconds * 1000, line }
    }
}

/// Requests by outcome. The bad outcomes come first, so that their height begins at zero and can be compared.
fn stack(ok: u64, denied: u64, failed: u64) -> Stack {
    vec![(Ink::Failed, failed), (Ink::Denied, denied), (Ink::Ok, ok)]
}
