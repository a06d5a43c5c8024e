//! `caller`: adds, rotates and removes callers in the policy.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::Subcommand;

use super::terminal::{now, warn};
use crate::policy::Policy;
use crate::secret::RandomSecret;

const OUTPUT: &str = "Prints the whole new value of the variable `callers` to stdout, and a new secret to stderr. The secret \
                      is shown only once, because the policy contains only its SHA-256. Writes no file: do not redirect \
                      stdout to FILE, because the shell would empty FILE first. A line on stderr that begins with \
                      `warning: ` concerns the new policy, and does not change the exit code.";

/// Add a caller to the policy, give it another secret, or remove it
#[derive(Subcommand)]
pub enum Caller {
    /// Add a caller
    #[command(after_help = OUTPUT)]
    New {
        /// Client id of the caller. Every client can present one of letters, digits, and - . _ ~
        name: String,
        /// Scope that the caller may request: flex.community.members.read,
        /// flex.community.*.read or flex.billing.**; repeatable, or several separated by spaces
        #[arg(long = "scope", value_name = "SCOPE", required = true)]
        scopes: Vec<String>,
        /// OfficeRnD application whose tokens the caller gets, a name from the variable
        /// `applications` [default: the default application]
        #[arg(long)]
        application: Option<String>,
        /// File with the present value of the variable `callers`; - reads stdin [default: none,
        /// so the new caller is the only one]
        #[arg(long, value_name = "FILE")]
        callers: Option<PathBuf>,
    },
    /// Give a caller another secret in addition to its present ones
    #[command(after_help = OUTPUT)]
    Rotate {
        /// Client id of the caller
        name: String,
        /// Expiry of the present secrets that have none: 2027-01-31 (from its first moment in
        /// UTC) or 2027-01-31T12:00:00Z; not in the past
        #[arg(long, value_name = "DATE-OR-TIME")]
        expires: Option<String>,
        /// File with the present value of the variable `callers`; - reads stdin
        #[arg(long, value_name = "FILE")]
        callers: PathBuf,
    },
    /// Remove a caller
    #[command(after_help = OUTPUT)]
    Remove {
        /// Client id of the caller
        name: String,
        /// File with the present value of the variable `callers`; - reads stdin
        #[arg(long, value_name = "FILE")]
        callers: PathBuf,
    },
}

impl Caller {
    pub(super) fn run(&self) -> anyhow::Result<()> {
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
                let (policy, secret) = read(callers)?.rotate(name, expires.as_deref(), now())?;
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
    Policy::parse(&text).map_err(|mistakes| anyhow!("{file} is not a valid policy:\n{mistakes}"))
}

/// Prints the policy before the secret: if the policy is lost, its secret opens nothing and is
/// not shown.
fn print(policy: &Policy, secret: Option<(&str, &RandomSecret)>) -> anyhow::Result<()> {
    let mut stdout = io::stdout();
    writeln!(stdout, "{policy}").and_then(|()| stdout.flush()).context("cannot write to stdout")?;
    if let Some((name, secret)) = secret {
        writeln!(io::stderr(), "The new secret of {name}, shown only once:\n\n{}\n", secret.expose())
            .context("cannot write to stderr")?;
    }
    warn(&policy.warnings(now()))
}
