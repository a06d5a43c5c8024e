//! `caller`: adds, rotates and removes callers in the policy.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};

use super::terminal::{self, now, warn};
use crate::credential::{Credential, Identity};
use crate::policy::Policy;
use crate::public_key;
use crate::secret::RandomSecret;

const OUTPUT: &str = "Prints the whole new value of the variable `callers` to stdout, and a new secret to stderr. The secret \
                      is shown only once, because the policy contains only its SHA-256. With --key or --issuer no secret \
                      is made. Writes no file: do not redirect stdout to FILE, because the shell would empty FILE first. \
                      A line on stderr that begins with `warning: ` concerns the new policy, and does not change the exit \
                      code.";

/// Add a caller to the policy, give it another secret or key, or remove it
#[derive(Subcommand)]
pub enum Caller {
    /// Add a caller
    #[command(after_help = OUTPUT)]
    New {
        /// Client id of the caller. Every client can present one of letters, digits, and - . _ ~
        name: String,
        /// Scope that the caller may request: flex.community.members.read,
        /// flex.community.*.read or flex.billing.**; repeatable, or several separated by spaces
        #[arg(long = "scope", value_name = "SCOPE", required_unless_present = "metrics")]
        scopes: Vec<String>,
        /// Let the caller read the metrics, with or without scopes
        #[arg(long)]
        metrics: bool,
        #[command(flatten)]
        means: Means,
        /// OfficeRnD application whose tokens the caller gets, a name from the variable
        /// `applications` [default: the default application]
        #[arg(long)]
        application: Option<String>,
        /// File with the present value of the variable `callers`; - reads stdin [default: none,
        /// so the new caller is the only one]
        #[arg(long, value_name = "FILE")]
        callers: Option<PathBuf>,
    },
    /// Give a caller another secret, key or identity in addition to its present ones
    #[command(after_help = OUTPUT)]
    Rotate {
        /// Client id of the caller
        name: String,
        #[command(flatten)]
        means: Means,
        /// Expiry of the present secrets that have none, and with --key or --issuer of the present
        /// keys too: 2027-01-31 (from its first moment in UTC) or 2027-01-31T12:00:00Z; not in the
        /// past
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

/// What the caller authenticates with; a new secret by default.
#[derive(Args)]
pub struct Means {
    /// File with the caller's public key, as PEM or as a JWK, in place of a secret
    #[arg(long, value_name = "FILE", conflicts_with = "issuer")]
    key: Option<PathBuf>,
    /// Issuer whose tokens are the caller's, a name from the variable `issuers`, in place of a secret
    #[arg(long, value_name = "NAME", requires = "claims")]
    issuer: Option<String>,
    /// Claim that these tokens have, such as repository_id=456789; repeatable, and one name with
    /// several values permits each of them
    #[arg(long = "claim", value_name = "CLAIM=VALUE", requires = "issuer")]
    claims: Vec<String>,
}

impl Means {
    fn credential(&self) -> anyhow::Result<Credential> {
        Ok(match (&self.key, &self.issuer) {
            (Some(file), _) => Credential::Key(public_key::read(file)?),
            (None, Some(issuer)) => Credential::Identity(Identity::new(issuer, &self.claims)?),
            (None, None) => Credential::Secret(RandomSecret::generate()),
        })
    }
}

impl Caller {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        match self {
            Self::New { name, scopes, metrics, means, application, callers } => {
                let scopes: Vec<_> = scopes.iter().flat_map(|text| text.split_whitespace()).map(String::from).collect();
                let policy = callers.as_deref().map_or_else(|| Ok(Policy::empty()), read)?;
                let credential = means.credential()?;
                let policy = policy.add(name, &scopes, application.as_deref(), *metrics, &credential)?;
                print(&policy, Some((name, &credential)))
            }
            Self::Rotate { name, means, expires, callers } => {
                let credential = means.credential()?;
                let policy = read(callers)?.rotate(name, &credential, expires.as_deref(), now())?;
                print(&policy, Some((name, &credential)))
            }
            Self::Remove { name, callers } => print(&read(callers)?.remove(name)?, None),
        }
    }
}

fn read(file: &Path) -> anyhow::Result<Policy> {
    let (file, text) = terminal::read(file)?;
    Policy::parse(&text).map_err(|mistakes| anyhow!("{file} is not a valid policy:\n{mistakes}"))
}

/// Prints the policy before the secret: if the policy is lost, its secret opens nothing and is
/// not shown.
fn print(policy: &Policy, added: Option<(&str, &Credential)>) -> anyhow::Result<()> {
    let mut stdout = io::stdout();
    writeln!(stdout, "{policy}").and_then(|()| stdout.flush()).context("cannot write to stdout")?;
    if let Some((name, credential)) = added {
        let shown = match credential {
            Credential::Secret(secret) => {
                format!("The new secret of {name}, shown only once:\n\n{}\n", secret.expose())
            }
            Credential::Key(jwk) => format!("The key of {name} has the id {}. No secret was made.", jwk["kid"]),
            Credential::Identity(_) => format!("{name} authenticates with its issuer's tokens. No secret was made."),
        };
        writeln!(io::stderr(), "{shown}").context("cannot write to stderr")?;
    }
    warn(&policy.warnings(now()))
}
