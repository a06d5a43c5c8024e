//! `broker caller`: edits the policy.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use broker_host::{Policy, RandomSecret};
use clap::Subcommand;

const OUTPUT: &str = "The whole new value of the variable `callers` goes to stdout. A new secret goes to stderr, this once: the \
                      policy has only its SHA-256. No file is written, and FILE must not be where stdout goes, because the \
                      shell would empty it first.";

/// Adds a caller to the policy, gives it another secret, or takes it out
#[derive(Subcommand)]
pub(crate) enum Caller {
    /// Adds a caller
    #[command(after_help = OUTPUT)]
    New {
        /// Its client id
        name: String,
        /// What it may have, as flex.community.members.read, flex.community.*.read or flex.billing.**; give it several times,
        /// or several between spaces
        #[arg(long = "scope", value_name = "SCOPE", required = true)]
        scopes: Vec<String>,
        /// The OfficeRnD application that it gets tokens of, one of the variable `applications` [default: the default one]
        #[arg(long)]
        application: Option<String>,
        /// The present value of the variable `callers`; - is stdin [default: none, the new caller is the only one]
        #[arg(long, value_name = "FILE")]
        callers: Option<PathBuf>,
    },
    /// Gives a caller another secret beside those it has
    #[command(after_help = OUTPUT)]
    Rotate {
        /// Its client id
        name: String,
        /// When those it has no longer open, unless that is settled for them: 2027-01-31 (its first moment in UTC) or
        /// 2027-01-31T12:00:00Z
        #[arg(long, value_name = "DATE-OR-TIME")]
        expires: Option<String>,
        /// The present value of the variable `callers`; - is stdin
        #[arg(long, value_name = "FILE")]
        callers: PathBuf,
    },
    /// Takes a caller out
    #[command(after_help = OUTPUT)]
    Remove {
        /// Its client id
        name: String,
        /// The present value of the variable `callers`; - is stdin
        #[arg(long, value_name = "FILE")]
        callers: PathBuf,
    },
}

impl Caller {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        match self {
            Self::New { name, scopes, application, callers } => {
                let scopes: Vec<_> = scopes.iter().flat_map(|text| text.split_whitespace()).map(String::from).collect();
                let application = application.as_deref();
                let (policy, secret) = match callers {
                    Some(file) => read(file)?.add(name, &scopes, application)?,
                    None => Policy::of(name, &scopes, application)?,
                };
                print(&policy, Some((name, &secret)))
            }
            Self::Rotate { name, expires, callers } => {
                let (policy, secret) = read(callers)?.rotate(name, expires.as_deref())?;
                print(&policy, Some((name, &secret)))
            }
            Self::Remove { name, callers } => print(&read(callers)?.remove(name)?, None),
        }
    }
}

fn read(file: &Path) -> anyhow::Result<Policy> {
    let (file, text) = match file.to_str() {
        Some("-") => ("stdin".into(), io::read_to_string(io::stdin())),
        _ => (file.to_string_lossy(), fs::read_to_string(file)),
    };
    let text = text.with_context(|| format!("cannot read {file}"))?;
    Policy::parse(&text).map_err(|mistakes| anyhow!("{file} is not a sound policy:\n{mistakes}"))
}

/// The policy first: a secret whose digest got lost is of no use to anybody.
fn print(policy: &Policy, secret: Option<(&str, &RandomSecret)>) -> anyhow::Result<()> {
    let mut stdout = io::stdout();
    writeln!(stdout, "{policy}").and_then(|()| stdout.flush()).context("cannot write to stdout")?;
    if let Some((name, secret)) = secret {
        writeln!(io::stderr(), "The new secret of {name}, shown this once:\n\n{}\n", secret.expose())
            .context("cannot write to stderr")?;
    }
    Ok(())
}
