//! `check`: prints all mistakes in the variables, and warnings.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::terminal::{now, warn};
use crate::check::GivenVariables;

/// Find all mistakes in the variables, and an outdated manifest
///
/// Finds what the component would refuse, and client ids and secrets that OfficeRnD cannot have
/// shown. Prints each mistake to stderr as a line with its place and without any value. A line that
/// begins with `warning: ` is no mistake: it concerns only some clients or platforms, or has no
/// effect yet. The exit code is 1 if there are mistakes; with nothing but warnings it is 0.
#[derive(Args)]
pub struct Check {
    /// Check only the file that `spin up --variable @FILE` takes, FILE.toml or FILE.json
    /// [default: the environment and .env]
    #[arg(long, value_name = "FILE")]
    variables: Option<PathBuf>,

    /// Manifest to compare with the component [default: spin.toml in this folder, if there is one]
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
}

impl Check {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        let given = match &self.variables {
            Some(file) => GivenVariables::from_file(file)?,
            None => GivenVariables::from_environment()?,
        };
        let mut findings = given.findings(now());
        let here = Some(PathBuf::from("spin.toml")).filter(|path| path.is_file());
        if let Some(manifest) = self.manifest.clone().or(here) {
            given.check_manifest(&manifest, &mut findings)?;
        }
        for mistake in &findings.mistakes {
            writeln!(io::stderr(), "{mistake}")?;
        }
        warn(&findings.warnings)?;
        if !findings.mistakes.is_empty() {
            return Ok(ExitCode::FAILURE);
        }
        writeln!(io::stdout(), "every variable is valid")?;
        Ok(ExitCode::SUCCESS)
    }
}
