//! What the subcommands take from the machine and print to it.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use officernd_token_broker::time::Timestamp;

/// The present time.
pub(super) fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_ms(since_epoch.as_millis().try_into().unwrap_or(u64::MAX))
}

/// Prints warnings to stderr, each with a word in front that no mistake has.
pub(super) fn warn(warnings: &[String]) -> anyhow::Result<()> {
    for warning in warnings {
        writeln!(io::stderr(), "warning: {warning}")?;
    }
    Ok(())
}

/// Reads a file, or stdin for `-`. Returns its name for messages, and its text.
pub(super) fn read(file: &Path) -> anyhow::Result<(String, String)> {
    let (name, text) = match file.to_str() {
        Some("-") => ("stdin".to_owned(), io::read_to_string(io::stdin())),
        _ => (file.to_string_lossy().into_owned(), fs::read_to_string(file)),
    };
    let text = text.with_context(|| format!("cannot read {name}"))?;
    Ok((name, text))
}
