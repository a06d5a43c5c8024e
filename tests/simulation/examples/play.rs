//! Runs many seeds: `cargo run --release --package simulation --example play -- FIRST COUNT`
//! runs COUNT seeds from FIRST on.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program prints its result")]

use std::process::ExitCode;

use simulation::play_seeds;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>());
    let (Some(Ok(first)), Some(Ok(count)), None) = (arguments.next(), arguments.next(), arguments.next()) else {
        eprintln!("usage: play FIRST_SEED COUNT");
        return ExitCode::from(2);
    };
    match play_seeds(first..first + count, None) {
        Ok(total) => {
            println!("{count} seeds, no violation: {total:?}");
            ExitCode::SUCCESS
        }
        Err(violation) => {
            eprintln!("{violation}");
            ExitCode::FAILURE
        }
    }
}
