//! Runs many seeds: `cargo run --release --package simulation --example play -- FIRST COUNT`
//! runs COUNT seeds from FIRST on. The name of a rule after them switches that rule off.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program prints its result")]

use std::process::ExitCode;
use std::time::Instant;

use officernd_token_broker::mutation::Rule;
use simulation::play_seeds;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let rule = |name: &String| Rule::ALL.into_iter().find(|rule| format!("{rule:?}") == *name);
    let (first, count, broken) = match arguments.as_slice() {
        [first, count] => (first, count, None),
        [first, count, name] if rule(name).is_some() => (first, count, rule(name)),
        _ => return usage(),
    };
    let (Ok(first), Ok(count)) = (first.parse::<u64>(), count.parse::<u64>()) else { return usage() };
    let began = Instant::now();
    let outcome = play_seeds(first..first + count, broken);
    let seconds = began.elapsed().as_secs_f64();
    match outcome {
        Ok(total) => {
            println!("{count} seeds in {seconds:.1} s, no violation: {total:?}");
            ExitCode::SUCCESS
        }
        Err(violation) => {
            eprintln!("after {seconds:.1} s: {violation}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: play FIRST_SEED COUNT [RULE], where RULE is one of {:?}", Rule::ALL);
    ExitCode::from(2)
}
