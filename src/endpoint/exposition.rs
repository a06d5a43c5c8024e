//! Writes the metrics as text: OpenMetrics 1.0, or the older text format of Prometheus.

use std::time::Duration;

use http::HeaderValue;
use http::header::{ACCEPT, HeaderMap};

use crate::broker::Metrics;
use crate::config::Config;
use crate::error::Error;
use crate::gate::{BUCKETS, Counts, Need, Quota};
use crate::time::Timestamp;

/// A text format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    OpenMetrics,
    Prometheus,
}

impl Format {
    /// The format that the header `Accept` prefers (RFC 9110 section 12.5.1); OpenMetrics if it
    /// prefers none.
    pub(super) fn preferred(headers: &HeaderMap) -> Self {
        let ranges = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let (mut openmetrics, mut prometheus) = (0, 0);
        for range in ranges.flat_map(|value| value.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let media_type = parts.next().unwrap_or_default();
            let mut parameters = parts.filter_map(|parameter| parameter.split_once('='));
            let quality = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
            let quality = quality.map_or(1000, |(_, value)| thousandths(value.trim()));
            if media_type.eq_ignore_ascii_case("application/openmetrics-text") {
                openmetrics = quality.max(openmetrics);
            } else if media_type.eq_ignore_ascii_case("text/plain") {
                prometheus = quality.max(prometheus);
            }
        }
        if prometheus > openmetrics { Self::Prometheus } else { Self::OpenMetrics }
    }

    pub(super) fn media_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        })
    }
}

/// A weight of RFC 9110 section 12.4.2, which has at most three decimals; 0 if it is none.
fn thousandths(weight: &str) -> u32 {
    let (whole, decimals) = weight.split_once('.').unwrap_or((weight, ""));
    let digits = [whole, decimals, &"000"[decimals.len().min(3)..]].concat();
    digits.parse().ok().filter(|thousandths| *thousandths <= 1000).unwrap_or_default()
}

/// Beginning of all names.
const PREFIX: &str = "officernd_broker_";

/// The metrics of the broker with this configuration.
pub(super) fn write(metrics: &Metrics, config: &Config, format: Format) -> String {
    let mut text = Exposition { text: String::with_capacity(4096), format };
    if let Some(counts) = &metrics.counts {
        text.write_calls(counts);
    }
    text.write_gate(metrics, config);
    text.family("credential_refused", Kind::Gauge, "", "Whether OfficeRnD has just refused the credential in use.");
    for application in &config.applications {
        let is_refused = metrics.ledger.has_refused(application, metrics.now);
        text.sample("credential_refused", &[("application", &application.name)], u64::from(is_refused));
    }
    let help = "Whether the next credential is in use, because OfficeRnD has refused the current one.";
    text.family("next_credential_in_use", Kind::Gauge, "", help);
    for application in &config.applications {
        let in_use = metrics.ledger.credential_in_use(application, metrics.now);
        let is_next = !std::rc::Rc::ptr_eq(in_use, &application.current);
        text.sample("next_credential_in_use", &[("application", &application.name)], u64::from(is_next));
    }
    text.gauge("scope_sets", "Scope sets with a token that has not expired.", metrics.scope_sets as u64);
    let help = "Mistakes in the variables, when this instance last read them.";
    text.gauge("configuration_mistakes", help, metrics.mistakes as u64);
    let help = "Whether a store that instances share answered. If not, the metrics are only what this instance knows.";
    text.gauge("store_up", help, u64::from(metrics.store_works));
    let help = "When the first secret or key of a caller expires that has not expired yet.";
    text.family("caller_expiry_timestamp_seconds", Kind::Gauge, "seconds", help);
    for (caller, expires_at) in config.callers.next_expirations(metrics.now) {
        text.sample_of_text(
            "caller_expiry_timestamp_seconds",
            &[("caller", caller)],
            &in_seconds(expires_at.unix_ms()),
        );
    }
    if format == Format::OpenMetrics {
        text.text.push_str("# EOF\n");
    }
    text.text
}

/// Types of metrics.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

struct Exposition {
    text: String,
    format: Format,
}

impl Exposition {
    fn write_calls(&mut self, counts: &Counts) {
        let since = counts.since_ms.map(|since| in_seconds(since.unix_ms()));
        self.family("calls", Kind::Counter, "", "Calls to OfficeRnD that have ended, of all instances on the store.");
        for application in &counts.applications {
            for (result, number) in &application.results {
                let labels = [("application", application.name.as_str()), ("result", result.as_str())];
                self.sample("calls_total", &labels, *number);
                self.created("calls_created", &labels, since.as_deref());
            }
        }
        let help = "Durations of the calls to OfficeRnD whose end is known.";
        self.family("call_duration_seconds", Kind::Histogram, "seconds", help);
        let mut sum = 0;
        for (place, number) in counts.durations.buckets.iter().enumerate() {
            sum += number;
            let longest = BUCKETS.get(place).map_or("+Inf".to_owned(), |longest| in_seconds(millis(*longest)));
            self.sample("call_duration_seconds_bucket", &[("le", &longest)], sum);
        }
        self.sample_of_text("call_duration_seconds_sum", &[], &in_seconds(counts.durations.sum_ms));
        self.sample("call_duration_seconds_count", &[], sum);
        self.created("call_duration_seconds_created", &[], since.as_deref());
    }

    fn write_gate(&mut self, metrics: &Metrics, config: &Config) {
        let quota = config.calls_per_minute;
        self.gauge("call_quota", "Calls that OfficeRnD accepts in a minute.", quota as u64);
        let help = "Calls that count against the quota: those of the last 65 s, and those in progress.";
        self.gauge("recent_calls", help, metrics.ledger.recent_calls(metrics.now) as u64);
        let quota = Quota { calls: quota, shared_by: None };
        let closed: Vec<_> = config
            .applications
            .iter()
            .map(|application| {
                let credential = &metrics.ledger.credential_in_use(application, metrics.now).fingerprint;
                (&application.name, metrics.ledger.admit(metrics.now, quota, Need::Now, credential).err())
            })
            .collect();
        self.family("gate_closed", Kind::Gauge, "", "Whether no call can be made for an application now, and why.");
        for (application, error) in &closed {
            let labels = [("application", application.as_str()), ("reason", error.as_ref().map_or("", Error::reason))];
            self.sample("gate_closed", &labels[..1 + usize::from(error.is_some())], u64::from(error.is_some()));
        }
        let help = "When a call can be made again for an application; 0 if it can be made now.";
        self.family("gate_opens_timestamp_seconds", Kind::Gauge, "seconds", help);
        for (application, error) in &closed {
            let opens = match error {
                Some(Error::Unavailable { retry_after, .. }) => metrics.now + *retry_after,
                _ => Timestamp::from_unix_ms(0),
            };
            let labels = [("application", application.as_str())];
            self.sample_of_text("gate_opens_timestamp_seconds", &labels, &in_seconds(opens.unix_ms()));
        }
    }

    /// Begins a metric family. OpenMetrics names a counter without its suffix `_total`, and Prometheus
    /// with it.
    #[inline(never)]
    fn family(&mut self, name: &str, kind: Kind, unit: &str, help: &str) {
        let suffix = if kind == Kind::Counter && self.format == Format::Prometheus { "_total" } else { "" };
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.push(&["# TYPE ", PREFIX, name, suffix, " ", kind, "\n"]);
        if self.format == Format::OpenMetrics && !unit.is_empty() {
            self.push(&["# UNIT ", PREFIX, name, " ", unit, "\n"]);
        }
        self.push(&["# HELP ", PREFIX, name, suffix, " ", help, "\n"]);
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, Kind::Gauge, "", help);
        self.sample(name, &[], value);
    }

    #[inline(never)]
    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        self.sample_of_text(name, labels, &value.to_string());
    }

    #[inline(never)]
    fn sample_of_text(&mut self, name: &str, labels: &[(&str, &str)], value: &str) {
        self.push(&[PREFIX, name]);
        for (place, (label, text)) in labels.iter().enumerate() {
            self.push(&[if place == 0 { "{" } else { "," }, label, "=\""]);
            for character in text.chars() {
                match character {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    other => self.text.push(other),
                }
            }
            self.text.push('"');
        }
        self.push(&[if labels.is_empty() { " " } else { "} " }, value, "\n"]);
    }

    /// When counting began, which only OpenMetrics has a sample for. Before the first call no time is
    /// stored, and another at each scrape would mean that the counters start again.
    fn created(&mut self, name: &str, labels: &[(&str, &str)], since: Option<&str>) {
        if let (Format::OpenMetrics, Some(since)) = (self.format, since) {
            self.sample_of_text(name, labels, since);
        }
    }

    // The component would have a copy of these four at each of their many calls.
    #[inline(never)]
    fn push(&mut self, parts: &[&str]) {
        for part in parts {
            self.text.push_str(part);
        }
    }
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

/// Milliseconds as a number of seconds.
fn in_seconds(ms: u64) -> String {
    let thousandths = (1000 + ms % 1000).to_string();
    let fraction = thousandths[1..].trim_end_matches('0');
    [(ms / 1000).to_string().as_str(), ".", if fraction.is_empty() { "0" } else { fraction }].concat()
}
