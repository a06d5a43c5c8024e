//! The program `broker-operator`: the operator's tasks, without a broker.

#![forbid(unsafe_code)]

use std::io::{self, Write as _};
use std::process::ExitCode;

use broker_operator::cli::Command;
use clap::Parser;

/// Edit and check the policy and the variables of the OfficeRnD token broker, and read its log.
#[derive(Parser)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    Program::parse().command.run().unwrap_or_else(|error| {
        // Printed here, because a returned error would be printed for developers, with a
        // backtrace if the environment asks for one.
        drop(writeln!(io::stderr(), "broker-operator: {error:#}"));
        ExitCode::FAILURE
    })
}
