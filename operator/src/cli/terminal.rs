//! What the subcommands take from the machine and print to it.

use std::io::{self, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

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
