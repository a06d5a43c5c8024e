//! Benchmark: rate and latency of the broker in the dev host, compared with the floor.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod hosts;

use std::path::Path;
use std::time::Duration;

use bench::{Authentication, Question, Round, Shape, Summary, ask, ask_in_turns};
use clap::Parser;
use http::StatusCode;

use hosts::{CALLER, Hosts, MEMBERS, SECRET, SERVE, UPSTREAM, stored, unfetched};

/// Measures how fast the broker answers in the dev host, compared with a component that only
/// answers.
#[derive(Parser)]
struct Options {
    /// Rounds for each host and each kind of request.
    #[arg(long, default_value_t = 21)]
    rounds: usize,
    /// Seconds of each round.
    #[arg(long, default_value_t = 0.25)]
    seconds: f64,
    /// Numbers of simultaneous connections.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64])]
    connections: Vec<usize>,
    /// Flag that cargo passes to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<_> = std::env::args_os().collect();
    if let [_, command, folder] = &arguments[..]
        && command == SERVE
    {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        return runtime.block_on(hosts::serve(Path::new(folder)));
    }
    let options = Options::parse();
    // Only one thread sends requests, so that the hosts have the rest of the machine.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(&options))
}

async fn measure(options: &Options) -> anyhow::Result<()> {
    let hosts = Hosts::start()?;
    throughput(&hosts, options).await?;
    new_instances(&hosts, options).await?;
    cold_fetch(&hosts).await
}

fn question(
    authentication: Authentication,
    secret: &str,
    scopes: &[String],
    status: StatusCode,
) -> anyhow::Result<Question> {
    Question::token(authentication, CALLER, secret, scopes, status)
}

async fn throughput(hosts: &Hosts, options: &Options) -> anyhow::Result<()> {
    let members = [MEMBERS.to_owned()];
    let case = |host, authentication, secret, scopes: &[String], status| {
        anyhow::Ok((hosts.url(host)?, question(authentication, secret, scopes, status)?))
    };
    let (basic, body, ok) = (Authentication::Basic, Authentication::Body, StatusCode::OK);
    let (names, asked): (Vec<_>, Vec<_>) = [
        ("floor", case("floor", basic, SECRET, &members, ok)?),
        ("memory hit, `exceptions`", case("exceptions", basic, SECRET, &members, ok)?),
        ("memory hit, `all`", case("all", basic, SECRET, &members, ok)?),
        ("memory hit, form, `all`", case("all", body, SECRET, &members, ok)?),
        ("floor with a store", case("floor with a store", basic, SECRET, &members, ok)?),
        ("store hit, `exceptions`", case("exceptions", basic, SECRET, &stored(), ok)?),
        ("store hit, `all`", case("all", basic, SECRET, &stored(), ok)?),
        ("denial", case("all", basic, "wrong", &members, StatusCode::UNAUTHORIZED)?),
        ("memory hit, 10,000 callers", case("10,000 callers", basic, SECRET, &members, ok)?),
    ]
    .into_iter()
    .unzip();
    println!("| connections | | requests a second | of the floor's | p50 | p99 | of the floor's |");
    println!("|---|---|---|---|---|---|---|");
    for kept_alive in [true, false] {
        for &connections in &options.connections {
            let shape = Shape { connections, kept_alive };
            let rounds = ask_in_turns(&asked, shape, options.rounds, options.duration()).await?;
            let floor = &rounds[0];
            for (name, rounds) in names.iter().zip(&rounds) {
                let manner = if kept_alive { "kept alive" } else { "new" };
                let rate = Summary::of(rounds, Round::rate);
                let ratio = Summary::of_ratio(rounds, floor, Round::rate);
                let tail = Summary::of_ratio(rounds, floor, |round| round.percentile(0.99).as_secs_f64());
                let (p50, p99) = (Summary::of_percentile_ms(rounds, 0.5), Summary::of_percentile_ms(rounds, 0.99));
                println!(
                    "| {connections}, {manner} | {name} | {:.0} | {:.3} ({:.3} to {:.3}) | {:.2} ms | {:.2} ms | {:.2} |",
                    rate.median, ratio.median, ratio.least, ratio.most, p50.median, p99.median, tail.median,
                );
            }
        }
    }
    Ok(())
}

/// Measures the first request of an instance that handles only this one.
async fn new_instances(hosts: &Hosts, options: &Options) -> anyhow::Result<()> {
    let question = question(Authentication::Basic, SECRET, &[MEMBERS.to_owned()], StatusCode::OK)?;
    let names = ["floor, once", "1 caller, once", "10,000 callers, once"];
    let asked = names.into_iter().map(|name| anyhow::Ok((hosts.url(name)?, question.clone())));
    let asked = asked.collect::<Result<Vec<_>, _>>()?;
    let one_by_one = Shape { connections: 1, kept_alive: true };
    let rounds = ask_in_turns(&asked, one_by_one, options.rounds, options.duration()).await?;
    println!("\n| a new instance for each request | p50 | more than the floor | p99 |\n|---|---|---|---|");
    let p50 = |rounds: &[Round]| Summary::of_percentile_ms(rounds, 0.5).median;
    for (name, of_name) in names.iter().zip(&rounds) {
        let p99 = Summary::of_percentile_ms(of_name, 0.99).median;
        println!("| {name} | {:.2} ms | {:.2} ms | {p99:.2} ms |", p50(of_name), p50(of_name) - p50(&rounds[0]));
    }
    Ok(())
}

/// Measures requests without a cached token, one after another.
async fn cold_fetch(hosts: &Hosts) -> anyhow::Result<()> {
    let one_by_one = Shape { connections: 1, kept_alive: true };
    println!("\n| OfficeRnD takes {UPSTREAM:?} | p50 | slowest |\n|---|---|---|");
    for (what, host, authentication) in [
        ("asked by the caller", "officernd", Authentication::Body),
        ("asked by the broker", "all", Authentication::Basic),
    ] {
        let mut latencies = Vec::new();
        for scope in unfetched() {
            let question = question(authentication, SECRET, &[scope], StatusCode::OK)?;
            // The first answer takes longer than this, so each round has one request.
            let round = ask(&hosts.url(host)?, &question, one_by_one, Duration::from_millis(50)).await?;
            latencies.push(round.percentile(1.0).as_secs_f64() * 1e3);
        }
        let latencies = Summary::from_iter(latencies);
        println!("| {what} | {:.1} ms | {:.1} ms |", latencies.median, latencies.most);
    }
    Ok(())
}
