//! `report`: reads the audit log, and prints its figures.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value};

use crate::check::GivenVariables;
use crate::report::{PAGE_BEGIN, Report as Counted};

/// Show what the audit log says: requests, calls and callers
///
/// Prints the period covered, requests by outcome and reason, how often the cache served, the calls
/// to OfficeRnD, the busiest minute beside the call quota, a table of callers, and what stands out with
/// the command or page for it. Skips lines of other programs and counts them.
#[derive(Args)]
pub struct Report {
    /// Files of the log, the oldest first; - reads stdin [default: stdin]
    #[arg(value_name = "LOG")]
    logs: Vec<PathBuf>,

    /// Policy, or file that `spin up --variable @FILE` takes: names the callers that never came
    #[arg(long, value_name = "FILE")]
    callers: Option<PathBuf>,

    /// Value of the variable `upstream_calls_per_minute`
    #[arg(long, value_name = "CALLS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    quota: u64,

    /// Print the figures as JSON
    #[arg(long)]
    json: bool,

    /// Write the report as a page with charts into FILE, and print nothing without --json
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Shortest log for which a progress bar is shown; a shorter one is read at once.
const LONG_LOG_BYTES: u64 = 64 << 20;

impl Report {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let policy = self.callers.as_deref().map(names).transpose()?;
        if let Some(page) = &self.html {
            check_replaceable(page)?;
        }
        let mut report = Counted::new();
        if self.logs.is_empty() {
            report.read(io::stdin().lock()).context("cannot read stdin")?;
        }
        let bar = self.progress_bar();
        for log in &self.logs {
            if log.as_os_str() == "-" {
                report.read(io::stdin().lock()).context("cannot read stdin")?;
            } else {
                let read = File::open(log).and_then(|file| report.read(bar.wrap_read(file)));
                read.with_context(|| format!("cannot read {}", log.display()))?;
            }
        }
        bar.finish_and_clear();
        let figures = report.finish(self.quota, policy.as_ref());
        if let Some(page) = &self.html {
            fs::write(page, figures.to_page()?).with_context(|| format!("cannot write {}", page.display()))?;
        }
        let text = match (self.json, &self.html) {
            (true, _) => serde_json::to_string_pretty(&figures)? + "\n",
            (false, None) => figures.to_string(),
            (false, Some(_)) => return Ok(()),
        };
        io::stdout().write_all(text.as_bytes()).context("cannot write to stdout")
    }

    /// A progress bar on stderr, hidden if the log is short or stderr is no terminal.
    fn progress_bar(&self) -> ProgressBar {
        let length = self.logs.iter().filter_map(|log| fs::metadata(log).ok()).map(|file| file.len()).sum();
        if length < LONG_LOG_BYTES || !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes}, {eta} left");
        ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    }
}

/// Refuses a file that is not a page of this command. With a forgotten FILE, the log itself would be
/// overwritten.
fn check_replaceable(page: &Path) -> anyhow::Result<()> {
    if page.is_file() {
        let shown = page.display();
        let mut begin = Vec::new();
        let read = File::open(page).and_then(|file| file.take(PAGE_BEGIN.len() as u64).read_to_end(&mut begin));
        read.with_context(|| format!("cannot read {shown}"))?;
        let is_page = begin.is_empty() || begin == PAGE_BEGIN.as_bytes();
        ensure!(is_page, "{shown}: is not a page of this command, expected one or a new file after --html");
    }
    Ok(())
}

/// Reads the names of the callers from a policy or from a file of variables.
fn names(file: &Path) -> anyhow::Result<BTreeSet<String>> {
    let shown = file.display();
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
    let policy = match serde_json::from_str::<Map<String, Value>>(&text) {
        // A caller's entry is an object, and a variable's value a string.
        Ok(policy) if policy.values().all(Value::is_object) => Some(policy),
        _ => GivenVariables::from_file(file)?.object("callers"),
    };
    let policy = policy.ok_or_else(|| anyhow!("{shown}: callers: is not valid, expected a JSON object"))?;
    ensure!(!policy.is_empty(), "{shown}: callers: is empty, expected at least one caller");
    Ok(policy.into_iter().map(|(name, _)| name).collect())
}
