//! The program `broker`: runs the token broker on this machine, with OfficeRnD or with the
//! sandbox.

#![forbid(unsafe_code)]

use std::env;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};

use anyhow::Context;
use broker_host::demo::{Demo, OFFICERND_VARIABLES};
use broker_host::{App, KeyValue, Manifest, Options, Server, Variables};
use broker_operator::cli::Command;
use clap::{Args, Parser};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Run the OfficeRnD token broker.
///
/// Set the variables of spin.toml as for Spin: SPIN_VARIABLE_OFFICERND_CLIENT_ID and so on, in
/// the environment or in the file .env. If no OfficeRnD variable is set, this is a demo: a
/// sandbox stands in for OfficeRnD, and the printed curl line gets a token.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Program {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    arguments: Arguments,
}

/// Options of `broker` without a subcommand.
#[derive(Args)]
struct Arguments {
    /// Address to listen on; port 0 chooses a free port
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3000")]
    listen: SocketAddr,

    /// Keep the key-value store in this folder, with Spin's layout, instead of in memory
    #[arg(long, value_name = "FOLDER")]
    state_dir: Option<PathBuf>,

    /// Keep the key-value store in Redis, redis://host:port, instead of in memory
    #[arg(long, value_name = "URL", conflicts_with = "state_dir")]
    key_value: Option<String>,

    /// Manifest to run [default: spin.toml in this folder, otherwise the nearest one above the program]
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,

    /// Run the component without building it first
    #[arg(long)]
    no_build: bool,
}

fn main() -> ExitCode {
    let program = Program::parse();
    let result = match &program.command {
        None => broker(&program.arguments).map(|()| ExitCode::SUCCESS),
        Some(command) => command.run(),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            // Printed here, because a returned error would be printed for developers, with a
            // backtrace if the environment asks for one.
            drop(writeln!(io::stderr(), "broker: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn broker(arguments: &Arguments) -> anyhow::Result<()> {
    let manifest = Manifest::read(&arguments.manifest()?)?;
    let variables = Variables::from_environment()?;
    let is_demo = !uses_officernd(&variables)?;
    if !is_demo {
        // Checked before the build, which may take a minute.
        manifest
            .check_variables(&variables)
            .context("some OfficeRnD variables are set, so the demo is off; the required ones below are missing")?;
    }
    if !arguments.no_build {
        broker_host::build(&manifest)?;
    }
    let app = App::load(manifest)?;

    let runtime = Runtime::new().context("cannot start the threads to run on")?;
    let result = runtime.block_on(run(&app, variables, is_demo, arguments));
    // Does not wait for an instance that computes without end.
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
        // The exit code that a shell reports for a program killed by Ctrl-C.
        () = signals.next() => process::exit(130),
    }
}

#[expect(clippy::print_stdout, reason = "the output of the program")]
fn introduce_demo(demo: &Demo, server: &Server, arguments: &Arguments) {
    println!("Sandbox: a stand-in for OfficeRnD at {}; no OfficeRnD account is touched.", demo.url());
    println!("Broker:  http://{}, tokens kept {}. Ctrl-C stops it.", server.addr(), arguments.place());
    println!("Get a token:");
    println!();
    println!("{}", demo.curl(server.addr()));
    println!();
}

#[expect(clippy::print_stdout, reason = "the output of the program")]
fn introduce(identity_url: &str, server: &Server, arguments: &Arguments) {
    println!("OfficeRnD: tokens come from {identity_url}; this is not the sandbox.");
    println!("Broker:    http://{}, tokens kept {}. Ctrl-C stops it.", server.addr(), arguments.place());
}

/// Whether any OfficeRnD variable is set. Then the demo is off, so that a forgotten variable
/// does not start it.
fn uses_officernd(variables: &Variables) -> anyhow::Result<bool> {
    for name in OFFICERND_VARIABLES {
        if variables.lookup(name)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Adds advice to the error about a port in use.
fn advise(error: anyhow::Error, listen: SocketAddr) -> anyhow::Error {
    match error.downcast_ref::<io::Error>().map(io::Error::kind) {
        Some(io::ErrorKind::AddrInUse) => error.context(format!(
            "another program uses {listen}: choose another address with --listen, or a free port with 127.0.0.1:0"
        )),
        _ => error,
    }
}

impl Arguments {
    fn manifest(&self) -> anyhow::Result<PathBuf> {
        let here = Path::new("spin.toml");
        match &self.manifest {
            Some(path) => Ok(path.clone()),
            None if here.is_file() => Ok(here.to_owned()),
            None => {
                // In a release it is beside the program. For `cargo run` from another folder it is
                // above Cargo's target folder.
                let program = env::current_exe().context("cannot find this program's own file")?;
                let mut above = program.ancestors().map(|folder| folder.join("spin.toml"));
                above.find(|path| path.is_file()).context("spin.toml is missing here: name one with --manifest FILE")
            }
        }
    }

    fn key_value(&self) -> anyhow::Result<KeyValue> {
        match (&self.state_dir, &self.key_value) {
            (Some(folder), _) => KeyValue::sqlite(folder),
            (None, Some(url)) => KeyValue::redis(url),
            (None, None) => Ok(KeyValue::memory()),
        }
    }

    /// Place of the store, as words. The URL of a Redis server may contain its password, so it
    /// is not printed.
    fn place(&self) -> String {
        match (&self.state_dir, &self.key_value) {
            (Some(folder), _) => format!("in {}", folder.display()),
            (None, Some(_)) => "in Redis".into(),
            (None, None) => "in memory".into(),
        }
    }
}

/// Signals that stop the program: Ctrl-C, and SIGTERM from a supervisor.
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
