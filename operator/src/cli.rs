//! The operator's subcommands, each in a file of its own. The programs `broker-operator` and
//! `broker` share them.

mod caller;
mod check;
mod issuer;
mod report;
mod terminal;

use std::process::ExitCode;

use clap::Subcommand;

/// A subcommand with its arguments.
#[derive(Subcommand)]
#[expect(missing_docs, reason = "a comment here would replace the help that the type of the subcommand has")]
pub enum Command {
    #[command(subcommand)]
    Caller(caller::Caller),
    Check(check::Check),
    #[command(subcommand)]
    Issuer(issuer::Issuer),
    Report(report::Report),
}

impl Command {
    /// Runs the subcommand: its result goes to stdout, and everything else to stderr.
    ///
    /// # Errors
    ///
    /// If it cannot do its work, with the reason for the operator.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Caller(caller) => caller.run().map(|()| ExitCode::SUCCESS),
            Self::Check(check) => check.run(),
            Self::Issuer(issuer) => issuer.run().map(|()| ExitCode::SUCCESS),
            Self::Report(report) => report.run().map(|()| ExitCode::SUCCESS),
        }
    }
}
