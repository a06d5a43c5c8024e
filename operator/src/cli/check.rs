//! `check`: prints all mistakes in the variables, and warnings.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::terminal::{now, read, warn};
use crate::check::GivenVariables;
use crate::check::assertion::FetchedKeys;

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

    /// Fetch the keys of each issuer with a jwks_uri, and print their ids and algorithms. A failure is
    /// a mistake
    #[arg(long)]
    fetch: bool,

    /// Check also the client assertion in FILE, with the present time: print the caller that it
    /// authenticates, or the rule or claim that fails with the claim's value; - reads stdin
    #[arg(long, value_name = "FILE")]
    assertion: Option<PathBuf>,

    /// Client id that the job sends beside the assertion [default: it sends none]
    #[arg(long, value_name = "NAME", requires = "assertion")]
    caller: Option<String>,
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
        let fetched = self.fetch.then(|| given.fetch_keys(&mut findings));
        for mistake in &findings.mistakes {
            writeln!(io::stderr(), "{mistake}")?;
        }
        warn(&findings.warnings)?;
        let is_sound = findings.mistakes.is_empty();
        if is_sound {
            writeln!(io::stdout(), "every variable is valid")?;
        }
        let (keys, lines) = fetched.unzip();
        for line in lines.iter().flatten() {
            writeln!(io::stdout(), "{line}")?;
        }
        let is_authenticated = match &self.assertion {
            Some(file) => self.check_assertion(&given, file, keys.as_ref())?,
            None => true,
        };
        Ok(if is_sound && is_authenticated { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Prints which caller the assertion in `file` authenticates, or why it authenticates none.
    fn check_assertion(&self, given: &GivenVariables, file: &Path, keys: Option<&FetchedKeys>) -> anyhow::Result<bool> {
        let (_, text) = read(file)?;
        let Some(verdict) = given.check_assertion(&text, self.caller.as_deref(), now(), keys) else {
            writeln!(
                io::stderr(),
                "assertion: was not checked, because a mistake in the variables stops every caller"
            )?;
            return Ok(false);
        };
        warn(verdict.unchecked.as_slice())?;
        match &verdict.outcome {
            Ok(caller) => writeln!(io::stdout(), "{caller}")?,
            Err(refused) => writeln!(io::stderr(), "{refused}")?,
        }
        Ok(verdict.outcome.is_ok())
    }
}
