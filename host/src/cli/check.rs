//! `broker check`: finds the mistakes in the variables.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use broker_host::Given;
use clap::Args;

/// Finds every mistake in the variables, as the component would
///
/// Each is a line on stderr, with its place and without any value, and the exit code is 1; it is 0 when there is none.
#[derive(Args)]
pub(crate) struct Check {
    /// The variables that `spin up --variable @FILE` takes, FILE.toml or FILE.json, alone [default: the environment and .env]
    #[arg(long, value_name = "FILE")]
    variables: Option<PathBuf>,
}

impl Check {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let given = match &self.variables {
            Some(file) => Given::from_file(file)?,
            None => Given::from_environment()?,
        };
        let mistakes = given.mistakes();
        for mistake in &mistakes {
            writeln!(io::stderr(), "{mistake}")?;
        }
        if !mistakes.is_empty() {
            return Ok(ExitCode::FAILURE);
        }
        writeln!(io::stdout(), "every variable is sound")?;
        Ok(ExitCode::SUCCESS)
    }
}
