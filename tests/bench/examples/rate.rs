//! Sends token requests to any broker as fast as it answers, and prints the rate and the
//! latencies.

#![expect(clippy::print_stdout, reason = "this is what the program is for")]

use std::time::Duration;

use anyhow::Context;
use bench::{Authentication, Question, Round, Shape, Summary, ask_in_turns};
use clap::Parser;
use http::{StatusCode, Uri};

/// Sends token requests to a token endpoint as fast as it answers. The caller's secret is read
/// from the environment: CALLER_SECRET.
#[derive(Parser)]
struct Options {
    /// The token endpoint: http://127.0.0.1:3000/oauth/token
    url: Uri,
    /// Second endpoint, which gets requests in turns, such as the floor's. The rates are
    /// compared.
    #[arg(long)]
    beside: Option<Uri>,
    /// Name of the caller.
    #[arg(long)]
    caller: String,
    /// Scopes to request; repeat the flag to alternate. Without it, all scopes of the caller.
    #[arg(long)]
    scope: Vec<String>,
    /// Sends the secret in the body instead of HTTP Basic.
    #[arg(long)]
    form: bool,
    /// Status that each answer must have.
    #[arg(long, default_value_t = 200)]
    expect: u16,
    /// Number of requests at the same time.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Opens a new connection for each request.
    #[arg(long)]
    new_connections: bool,
    /// Rounds for each endpoint.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each round.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let secret = std::env::var("CALLER_SECRET").context("CALLER_SECRET must be the caller's secret")?;
    let authentication = if options.form { Authentication::Body } else { Authentication::Basic };
    let expected = StatusCode::from_u16(options.expect).context("--expect")?;
    let question = Question::token(authentication, &options.caller, &secret, &options.scope, expected)?;
    let shape = Shape { connections: options.connections, kept_alive: !options.new_connections };
    let urls: Vec<_> = options.beside.iter().chain([&options.url]).cloned().collect();
    let asked: Vec<_> = urls.iter().map(|url| (url.clone(), question.clone())).collect();
    let rounds = ask_in_turns(&asked, shape, options.rounds, Duration::from_secs_f64(options.seconds)).await?;
    for (url, rounds) in urls.iter().zip(&rounds) {
        let rate = Summary::of(rounds, Round::rate);
        let (p50, p99) = (Summary::of_percentile_ms(rounds, 0.5), Summary::of_percentile_ms(rounds, 0.99));
        let p99_9 = Round::pooled(rounds).percentile(0.999).as_secs_f64() * 1e3;
        println!(
            "{url}: {:.0} a second ({:.0} to {:.0}), p50 {:.2} ms, p99 {:.2} ms, p99.9 {p99_9:.2} ms",
            rate.median, rate.least, rate.most, p50.median, p99.median
        );
    }
    if let [beside, rounds] = &rounds[..] {
        let ratio = Summary::of_ratio(rounds, beside, Round::rate);
        let tail = Summary::of_ratio(rounds, beside, |round| round.percentile(0.99).as_secs_f64());
        println!("{:.3} of it ({:.3} to {:.3}), p99 {:.2} of it", ratio.median, ratio.least, ratio.most, tail.median);
    }
    Ok(())
}
