//! Loads a broker for this many seconds (600 if not given) and prints the results. Exits with 1
//! if anything was wrong.

use std::process::ExitCode;
use std::time::Duration;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let seconds: u64 = std::env::args().nth(1).map_or(Ok(600), |seconds| seconds.parse())?;
    let load = tests::load(Duration::from_secs(seconds), 16).await?;
    println!("| request | status | answers |\n|---|---|---|");
    for ((what, status), count) in &load.answers {
        println!("| {what} | {status} | {count} |");
    }
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let (before, after) = load.peaks();
    println!("\n{} requests, {} a second, slowest {:.1?}", load.requests(), load.requests() / seconds, load.slowest);
    println!("calls: {}, {} in the busiest minute", load.calls.0, load.calls.1);
    load.met.iter().for_each(|(way, calls)| println!("OfficeRnD {way}: {calls} calls"));
    println!("host: {:.1} MiB at most in the first quarter, {:.1} MiB after it", mib(before), mib(after));
    println!("instance: {:.2} MiB, then {:.2} MiB", mib(load.instance.0 as u64), mib(load.instance.1 as u64));
    load.wrong.iter().for_each(|wrong| println!("WRONG: {wrong}"));
    Ok(if load.wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
