//! `broker check`: prints all mistakes in the variables.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use broker_host::GivenVariables;
use clap::Args;

/// Find all mistakes in the variables, as the component would
///
/// Prints each mistake to stderr as a line with its place and without any value. The exit code
/// is 1 if there are mistakes, otherwise 0.
#[derive(Args)]
pub(crate) struct Check {
    /// Check only the file that `spin up --variable @FILE` takes, FILE.toml or FILE.json
    /// [default: the environment and .env]
    #[arg(long, value_name = "FILE")]
    variables: Option<PathBuf>,
}

impl Check {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let given = match &self.variables {
            Some(file) => GivenVariables::from_file(file)?,
            None => GivenVariables::from_environment()?,
        };
        let mistakes = given.mistakes();
        for mistake in &mistakes {
            writeln!(io::stderr(), "{mistake}")?;
        }
        if !mistakes.is_empty() {
            return Ok(ExitCode::FAILURE);
        }
        writeln!(io::stdout(), "every variable is valid")?;
        Ok(ExitCode::SUCCESS)
    }
}
