//! `broker`: the token broker on this machine, with the real OfficeRnD or with a sandbox of it.

#![forbid(unsafe_code)]

mod cli;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};

use anyhow::Context;
use broker_host::demo::{Demo, OFFICERND_VARIABLES};
use broker_host::{App, KeyValue, Manifest, Options, Server, Variables};
use clap::{Args, Parser, Subcommand};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Runs the OfficeRnD token broker.
///
/// The variables of spin.toml are set as for Spin: SPIN_VARIABLE_OFFICERND_CLIENT_ID and so on, in the environment or
/// in the file .env. With none of them set this is a demo: a sandbox takes OfficeRnD's place, and the curl line that
/// is printed gets a token.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Program {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    arguments: Arguments,
}

#[derive(Subcommand)]
enum Command {
    #[command(subcommand)]
    Caller(cli::Caller),
    Check(cli::Check),
}

/// How to run it.
#[derive(Args)]
struct Arguments {
    /// Where to listen; port 0 is a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3000")]
    listen: SocketAddr,

    /// Keep the key-value store in this folder, in Spin's layout, instead of in memory
    #[arg(long, value_name = "FOLDER")]
    state_dir: Option<PathBuf>,

    /// Keep the key-value store in Redis, redis://host:port, instead of in memory
    #[arg(long, value_name = "URL", conflicts_with = "state_dir")]
    key_value: Option<String>,

    /// The manifest [default: spin.toml here, or else the project's own]
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,

    /// Run the component as it was built last
    #[arg(long)]
    no_build: bool,
}

fn main() -> ExitCode {
    let program = Program::parse();
    let result = match &program.command {
        None => broker(&program.arguments).map(|()| ExitCode::SUCCESS),
        Some(Command::Caller(caller)) => caller.run().map(|()| ExitCode::SUCCESS),
        Some(Command::Check(check)) => check.run(),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            // Not by returning the error, which would print it for developers: with a backtrace when the environment
            // says so.
            drop(writeln!(io::stderr(), "broker: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn broker(arguments: &Arguments) -> anyhow::Result<()> {
    let manifest = Manifest::read(&arguments.manifest())?;
    let variables = Variables::from_environment()?;
    let is_demo = !leads_to_officernd(&variables)?;
    if !is_demo {
        // Before the build, which takes a minute.
        manifest
            .check_variables(&variables)
            .context("variables that lead to OfficeRnD are set, so this is no demo, but not all that are needed")?;
    }
    if !arguments.no_build {
        broker_host::build(&manifest)?;
    }
    let app = App::load(manifest)?;

    let runtime = Runtime::new().context("cannot start the threads to run on")?;
    let result = runtime.block_on(run(&app, variables, is_demo, arguments));
    // Does not wait for a component that computes without end.
    runtime.shutdown_background();
    result
}

async fn run(app: &App, variables: Variables, is_demo: bool, arguments: &Arguments) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let key_value = arguments.key_value()?;
    key_value.check().await?;
    let demo = if is_demo { Some(Demo::start(&variables).await?) } else { None };
    let options = Options { listen: arguments.listen, variables: variables.clone(), key_value, ..Options::default() };
    let server = broker_host::start(app, options).await.map_err(|error| advise(error, arguments.listen))?;

    match &demo {
        Some(demo) => introduce_demo(demo, &server, arguments),
        None => introduce(&app.manifest().variable("officernd_identity_url", &variables)?, &server, arguments),
    }

    signals.next().await;
    tokio::select! {
        () = server.stop() => Ok(()),
        // What a shell reports for a program that Ctrl-C has killed.
        () = signals.next() => process::exit(130),
    }
}

#[expect(clippy::print_stdout, reason = "what `broker` is asked to say")]
fn introduce_demo(demo: &Demo, server: &Server, arguments: &Arguments) {
    println!("Sandbox: a stand-in for OfficeRnD at {}; no OfficeRnD account is touched.", demo.url());
    println!("Broker:  http://{}, tokens kept {}. Ctrl-C stops it.", server.addr(), arguments.place());
    println!("Get a token:");
    println!();
    println!("{}", demo.curl(server.addr()));
    println!();
}

#[expect(clippy::print_stdout, reason = "what `broker` is asked to say")]
fn introduce(identity_url: &str, server: &Server, arguments: &Arguments) {
    println!("OfficeRnD: tokens come from {identity_url}; this is no sandbox.");
    println!("Broker:    http://{}, tokens kept {}. Ctrl-C stops it.", server.addr(), arguments.place());
}

/// Whether any variable is set that only matters with OfficeRnD. One that is forgotten must not turn the broker into
/// a demo.
fn leads_to_officernd(variables: &Variables) -> anyhow::Result<bool> {
    for name in OFFICERND_VARIABLES {
        if variables.lookup(name)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Says what to do about a port that is taken.
fn advise(error: anyhow::Error, listen: SocketAddr) -> anyhow::Error {
    match error.downcast_ref::<io::Error>().map(io::Error::kind) {
        Some(io::ErrorKind::AddrInUse) => error.context(format!(
            "another program has {listen}: choose another address with --listen, 127.0.0.1:0 for any"
        )),
        _ => error,
    }
}

impl Arguments {
    fn manifest(&self) -> PathBuf {
        let here = Path::new("spin.toml");
        match &self.manifest {
            Some(path) => path.clone(),
            None if here.is_file() => here.to_owned(),
            // `cargo run` from a folder inside the project.
            None => Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("spin.toml"),
        }
    }

    fn key_value(&self) -> anyhow::Result<KeyValue> {
        match (&self.state_dir, &self.key_value) {
            (Some(folder), _) => KeyValue::sqlite(folder),
            (None, Some(url)) => KeyValue::redis(url),
            (None, None) => Ok(KeyValue::memory()),
        }
    }

    /// Where the store is, in words. The URL of a Redis server may hold its password, so it is not repeated.
    fn place(&self) -> String {
        match (&self.state_dir, &self.key_value) {
            (Some(folder), _) => format!("in {}", folder.display()),
            (None, Some(_)) => "in Redis".into(),
            (None, None) => "in memory".into(),
        }
    }
}

/// Ctrl-C, and what a supervisor sends.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
