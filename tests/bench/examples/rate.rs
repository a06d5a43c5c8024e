//! Asks a broker anywhere for tokens as fast as it answers, and says how fast that was.

#![expect(clippy::print_stdout, reason = "this is what the program is for")]

use std::time::Duration;

use anyhow::Context;
use bench::{Authentication, Question, Round, Shape, Summary, ask_in_turns};
use clap::Parser;
use http::{StatusCode, Uri};

/// Asks a token endpoint for tokens as fast as it answers. The caller's secret is read from the environment: CALLER_SECRET.
#[derive(Parser)]
struct Options {
    /// The token endpoint: http://127.0.0.1:3000/oauth/token
    url: Uri,
    /// Another one to ask in turns, such as the floor's: the rates are compared.
    #[arg(long)]
    beside: Option<Uri>,
    /// The caller's name.
    #[arg(long)]
    caller: String,
    /// The scopes to ask for, several times for one after the other; without any, all that the caller may have.
    #[arg(long)]
    scope: Vec<String>,
    /// Sends the secret in the body instead of by HTTP Basic.
    #[arg(long)]
    form: bool,
    /// The status that each answer must have.
    #[arg(long, default_value_t = 200)]
    expect: u16,
    /// Requests at the same time.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// A connection for each request.
    #[arg(long)]
    new_connections: bool,
    /// How often each is asked.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long each time.
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
        println!(
            "{url}: {:.0} a second ({:.0} to {:.0}), p50 {:.2} ms, p99 {:.2} ms",
            rate.median, rate.least, rate.most, p50.median, p99.median
        );
    }
    if let [beside, rounds] = &rounds[..] {
        let ratio = Summary::of_ratio(rounds, beside, Round::rate);
        println!("{:.3} of it ({:.3} to {:.3})", ratio.median, ratio.least, ratio.most);
    }
    Ok(())
}
