//! Benchmark: rate and latency of the broker in the dev host, compared with the floor.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod hosts;

use std::path::Path;
use std::time::Duration;

use bench::{Authentication, Question, Round, Shape, Summary, ask, ask_in_turns};
use clap::Parser;
use http::{StatusCode, Uri};

use hosts::{
    CALLER, Hosts, MEMBERS, ON_REDIS, SECRET, SERVE, STORE_DELAYS_MS, UPSTREAM, slow_store, stored, unfetched,
};

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
    /// Measures store hits on this Redis server too, and writes tokens to it.
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
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
    if let [_, command, folder, redis @ ..] = &arguments[..]
        && command == SERVE
    {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let redis = redis.first().and_then(|url| url.to_str());
        return runtime.block_on(hosts::serve(Path::new(folder), redis));
    }
    let options = Options::parse();
    // Only one thread sends requests, so that the hosts have the rest of the machine.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(&options))
}

async fn measure(options: &Options) -> anyhow::Result<()> {
    let hosts = Hosts::start(options.redis.as_deref())?;
    throughput(&hosts, options).await?;
    kept_instances(&hosts, options).await?;
    new_instances(&hosts, options).await?;
    stores(&hosts).await
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
    let case = |host: &str, authentication, secret, scopes: &[String], status| {
        anyhow::Ok((hosts.url(host)?, question(authentication, secret, scopes, status)?))
    };
    let (basic, body, ok) = (Authentication::Basic, Authentication::Body, StatusCode::OK);
    let on_redis = match &options.redis {
        None => Vec::new(),
        Some(_) => vec![
            ("Redis: floor with a store", case(&format!("floor with a store{ON_REDIS}"), basic, SECRET, &members, ok)?),
            ("Redis: store hit, `exceptions`", case(&format!("exceptions{ON_REDIS}"), basic, SECRET, &stored(), ok)?),
            ("Redis: store hit, `all`", case(&format!("all{ON_REDIS}"), basic, SECRET, &stored(), ok)?),
        ],
    };
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
    .chain(on_redis)
    .unzip();
    println!("| connections | | requests a second | of the floor's | p50 | p99 | of the floor's | p99.9 |");
    println!("|---|---|---|---|---|---|---|---|");
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
                let p99_9 = Round::pooled(rounds).percentile(0.999).as_secs_f64() * 1e3;
                println!(
                    "| {connections}, {manner} | {name} | {:.0} | {:.3} ({:.3} to {:.3}) | {:.2} ms | {:.2} ms | {:.2} | \
                     {p99_9:.2} ms |",
                    rate.median, ratio.median, ratio.least, ratio.most, p50.median, p99.median, tail.median,
                );
            }
        }
    }
    Ok(())
}

/// Measures the tail of memory hits with Spin's 128 requests for each instance, and with instances
/// that are not replaced. The difference is what new instances make of it.
async fn kept_instances(hosts: &Hosts, options: &Options) -> anyhow::Result<()> {
    let question = question(Authentication::Basic, SECRET, &[MEMBERS.to_owned()], StatusCode::OK)?;
    println!("\n| 16, kept alive | p99 | of the floor's | p99.9 | p99, instances kept | of the floor's | p99.9 |");
    println!("|---|---|---|---|---|---|---|");
    let names = ["floor", "exceptions", "all"];
    let hosts_of = |suffix: &str| {
        let asked = names.iter().map(|name| anyhow::Ok((hosts.url(&format!("{name}{suffix}"))?, question.clone())));
        asked.collect::<anyhow::Result<Vec<_>>>()
    };
    let asked = [hosts_of("")?, hosts_of(", kept")?].concat();
    let shape = Shape { connections: 16, kept_alive: true };
    let rounds = ask_in_turns(&asked, shape, options.rounds, options.duration()).await?;
    let (replaced, kept) = rounds.split_at(names.len());
    for (place, name) in names.iter().enumerate() {
        let tail = |hosts: &[Vec<Round>]| {
            let p99 = Summary::of_percentile_ms(&hosts[place], 0.99).median;
            let ratio = Summary::of_ratio(&hosts[place], &hosts[0], |round| round.percentile(0.99).as_secs_f64());
            let p99_9 = Round::pooled(&hosts[place]).percentile(0.999).as_secs_f64() * 1e3;
            format!("{p99:.2} ms | {:.2} | {p99_9:.2} ms", ratio.median)
        };
        println!("| {name} | {} | {} |", tail(replaced), tail(kept));
    }
    Ok(())
}

/// Measures the first request of an instance that handles only this one.
async fn new_instances(hosts: &Hosts, options: &Options) -> anyhow::Result<()> {
    let question = question(Authentication::Basic, SECRET, &[MEMBERS.to_owned()], StatusCode::OK)?;
    let names = ["floor, once", "floor with a store, once", "1 caller, once", "10,000 callers, once"];
    let asked = names.into_iter().map(|name| anyhow::Ok((hosts.url(name)?, question.clone())));
    let asked = asked.collect::<Result<Vec<_>, _>>()?;
    println!(
        "\n| connections | a new instance for each request | requests a second | of the floor's | p50 | more than the floor | p99 |"
    );
    println!("|---|---|---|---|---|---|---|");
    for connections in [1, 16] {
        let shape = Shape { connections, kept_alive: true };
        let rounds = ask_in_turns(&asked, shape, options.rounds, options.duration()).await?;
        let p50 = |rounds: &[Round]| Summary::of_percentile_ms(rounds, 0.5).median;
        for (name, of_name) in names.iter().zip(&rounds) {
            let rate = Summary::of(of_name, Round::rate).median;
            let ratio = Summary::of_ratio(of_name, &rounds[0], Round::rate);
            let p99 = Summary::of_percentile_ms(of_name, 0.99).median;
            println!(
                "| {connections} | {name} | {rate:.0} | {:.3} ({:.3} to {:.3}) | {:.2} ms | {:.2} ms | {p99:.2} ms |",
                ratio.median,
                ratio.least,
                ratio.most,
                p50(of_name),
                p50(of_name) - p50(&rounds[0])
            );
        }
    }
    Ok(())
}

/// Measures requests without a cached token, and store hits, one after another, with a store that
/// is near or far away.
async fn stores(hosts: &Hosts) -> anyhow::Result<()> {
    println!("\n| added to each store operation | p50 | slowest |\n|---|---|---|");
    let note = |what: &str, p50: f64, slowest: f64| println!("| {what} | {p50:.1} ms | {slowest:.1} ms |");
    let calls = fetches(&hosts.url("officernd")?, Authentication::Body).await?;
    note("OfficeRnD, asked by the caller", calls.median, calls.most);
    for delay_ms in STORE_DELAYS_MS {
        let url = hosts.url(&slow_store(delay_ms))?;
        let cold = fetches(&url, Authentication::Basic).await?;
        note(&format!("{delay_ms} ms: cold fetch"), cold.median, cold.most);
        let question = question(Authentication::Basic, SECRET, &stored(), StatusCode::OK)?;
        let hits = ask(&url, &question, ONE_BY_ONE, Duration::from_secs(1)).await?;
        let ms = |share| hits.percentile(share).as_secs_f64() * 1e3;
        note(&format!("{delay_ms} ms: store hit"), ms(0.5), ms(1.0));
    }
    Ok(())
}

const ONE_BY_ONE: Shape = Shape { connections: 1, kept_alive: true };

/// Asks for scopes without a token, one after another, and summarizes the latencies in
/// milliseconds.
async fn fetches(url: &Uri, authentication: Authentication) -> anyhow::Result<Summary> {
    let mut latencies = Vec::new();
    for scope in unfetched() {
        let question = question(authentication, SECRET, &[scope], StatusCode::OK)?;
        // OfficeRnD takes longer than this, so each round has one request.
        let round = ask(url, &question, ONE_BY_ONE, UPSTREAM / 2).await?;
        latencies.push(round.percentile(1.0).as_secs_f64() * 1e3);
        // Until the broker has written its ledger and released the lease.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(Summary::from_iter(latencies))
}
