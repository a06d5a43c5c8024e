//! Reads the audit log, and reports who asked for what and how much of the call quota was used.

mod callers;
mod count;
mod figures;
mod finding;
mod line;
mod lines;
mod minute;
mod page;
mod recent;
mod tally;
#[cfg(test)]
mod tests;
mod text;
mod time;
mod timeline;

use std::collections::BTreeSet;
use std::io::{self, Read};

use count::Counts;
pub(crate) use figures::Figures;
use lines::Lines;
pub(crate) use page::PAGE_BEGIN;

/// A report in the making.
pub(crate) struct Report(Counts);

impl Report {
    pub(crate) fn new() -> Self {
        Self(Counts::new())
    }

    /// Counts the lines of a log. Several logs come in the order of their time.
    ///
    /// # Errors
    ///
    /// If the log cannot be read.
    pub(crate) fn read(&mut self, log: impl Read) -> io::Result<()> {
        let mut lines = Lines::new(log);
        while let Some(line) = lines.next()? {
            self.0.add(line);
        }
        Ok(())
    }

    /// Ends the report. `quota` is the number of calls that OfficeRnD accepts in a minute, and `policy`
    /// has the names of all callers, if they are known.
    pub(crate) fn finish(mut self, quota: u64, policy: Option<&BTreeSet<String>>) -> Figures {
        self.0.finish();
        let mut figures = Figures::of(&self.0, quota, policy);
        figures.findings = finding::all(&figures);
        figures
    }
}
