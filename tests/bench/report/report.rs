//! Compares `broker report` with jq, which counts the same in a log of a million lines, and measures the report's memory.
//!
//!     cargo bench --package bench-report
//!
//! Fails if the report takes more than a tenth of jq's time, or 64 MiB.

use std::env;
use std::error::Error;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use broker_operator::cli;
use clap::Parser;

/// This program is also the one that it measures: with the word `report` it is `broker report`.
#[derive(Parser)]
struct Program {
    #[command(subcommand)]
    command: cli::Command,
}

const LINES: u64 = 1_000_000;
const LIMIT_OF_JQ: f64 = 0.1;
const LIMIT_KIB: u64 = 64 * 1024;

/// Rounds of the report; the median counts. One of jq takes longer than all of them.
const ROUNDS: usize = 5;

/// Paths, callers, outcomes, reasons and sources as in the log of a busy month: 20 jobs, probes, a stranger.
fn write_log(path: &Path) -> std::io::Result<()> {
    let mut log = BufWriter::new(File::create(path)?);
    // Knuth's generator, of which the upper bits are random enough.
    let mut state = 1_u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for number in 0..LINES {
        let time = 1_795_000_000_000 + number * 2_592;
        let id = u128::from(random(u64::MAX)) << 64 | u128::from(number);
        let job = random(20);
        let scopes = "flex.community.members.read flex.community.companies.read flex.space.resources.read";
        let begin = format!(r#"{{"time_ms":{time},"request_id":"{id:032x}","#);
        let of_job =
            format!(r#"{begin}"route":"/oauth/token","caller":"job-{job}","application":"default","method":"secret","#);
        match random(100) {
            0 => writeln!(
                log,
                r#"{begin}"application":"default","credential":"current","outcome":"ok","upstream_status":200,"upstream_ms":{}}}"#,
                random(900)
            ),
            1..4 => writeln!(log, r#"{begin}"route":"/healthz","caller":"unknown","outcome":"ok","status":200}}"#),
            4 => writeln!(
                log,
                r#"{begin}"route":"/oauth/token","caller":"unknown","outcome":"denied","status":401,"reason":"unknown_caller"}}"#
            ),
            5 => writeln!(log, r#"{of_job}"outcome":"denied","status":401,"reason":"expired_secret"}}"#),
            6 => writeln!(
                log,
                r#"{of_job}"scopes":"{scopes}","outcome":"failed","status":503,"reason":"budget_spent"}}"#
            ),
            source => {
                let cache = if source == 7 { "miss" } else { "hit" };
                let token = (job << 32) | (number / 10_000);
                writeln!(
                    log,
                    r#"{of_job}"scopes":"{scopes}","outcome":"ok","status":200,"cache":"{cache}","token":"{token:016x}"}}"#
                )
            }
        }?;
    }
    log.flush()
}

/// Waits for a program, and returns its time and its peak of resident memory in KiB.
fn measure(mut child: Child, begin: Instant) -> Result<(Duration, u64), Box<dyn Error>> {
    let mut peak = 0;
    loop {
        // The kernel keeps the peak, so only what is added within the last millisecond is missed.
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        peak = line.and_then(|kib| kib.parse().ok()).unwrap_or(0).max(peak);
        if let Some(status) = child.try_wait()? {
            let time = begin.elapsed();
            return if status.success() { Ok((time, peak)) } else { Err(format!("it ended with {status}").into()) };
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn run(command: &mut Command) -> Result<(Duration, u64), Box<dyn Error>> {
    let begin = Instant::now();
    let child =
        command.stdout(Stdio::null()).spawn().map_err(|error| format!("{command:?} does not start: {error}"))?;
    measure(child, begin)
}

fn main() -> Result<(), Box<dyn Error>> {
    if env::args().nth(1).is_some_and(|word| word == "report") {
        Program::parse().command.run()?;
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let (log, page) = (folder.path().join("log"), folder.path().join("report.html"));
    write_log(&log)?;
    let mut out = std::io::stdout();
    writeln!(out, "{LINES} lines, {} MB", fs::metadata(&log)?.len() / 1_000_000)?;
    let mut runs = Vec::new();
    for _ in 0..ROUNDS {
        let mut report = Command::new(env::current_exe()?);
        runs.push(run(report.args(["report", "--json", "--html"]).arg(&page).arg(&log))?);
    }
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/../../peers/report.jq");
    let (jq, jq_kib) = run(Command::new("jq").args(["--null-input", "--from-file", program]).arg(&log))?;
    runs.sort_unstable();
    let (report, peak) = (runs[ROUNDS / 2].0, runs.iter().map(|(_, kib)| *kib).max().unwrap_or(0));
    let ratio = report.as_secs_f64() / jq.as_secs_f64();
    writeln!(out, "broker report: {:.2} s, {:.1} MiB", report.as_secs_f64(), peak as f64 / 1024.0)?;
    writeln!(out, "jq: {:.2} s, {:.1} MiB", jq.as_secs_f64(), jq_kib as f64 / 1024.0)?;
    writeln!(out, "ratio: {ratio:.3}, at most {LIMIT_OF_JQ}")?;
    if ratio > LIMIT_OF_JQ || peak == 0 || peak > LIMIT_KIB {
        return Err(format!("expected a ratio of at most {LIMIT_OF_JQ} and at most {LIMIT_KIB} KiB").into());
    }
    Ok(())
}
