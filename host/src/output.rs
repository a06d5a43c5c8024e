//! Destination of a component's stdout and stderr, and of the host's own reports.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::counts::Counters;

/// Destination of a component's stdout and stderr. The host's reports (a trap, a refused
/// request) go to the same place.
#[derive(Clone, Default)]
pub struct Output(Option<MemoryOutputPipe>);

impl Output {
    /// Writes to stdout and stderr of this process.
    pub fn inherited() -> Self {
        Self(None)
    }

    /// Keeps everything in memory, in the order of the writes and without a limit. Clones share
    /// the memory.
    pub fn captured() -> Self {
        Self(Some(MemoryOutputPipe::new(usize::MAX)))
    }

    /// Returns the captured output; empty if the output is inherited.
    pub fn text(&self) -> String {
        match &self.0 {
            Some(pipe) => String::from_utf8_lossy(&pipe.contents()).into_owned(),
            None => String::new(),
        }
    }

    /// Connects stdout and stderr of an instance.
    pub(crate) fn connect(&self, wasi: &mut WasiCtxBuilder, counters: &Arc<Counters>) {
        let count = || counters.clone();
        match &self.0 {
            Some(pipe) => {
                wasi.stdout(Counted(pipe.clone(), count())).stderr(Counted(pipe.clone(), count()));
            }
            None => {
                wasi.stdout(Counted(std::io::stdout(), count())).stderr(Counted(std::io::stderr(), count()));
            }
        }
    }

    /// Adds a report of the host, as one line.
    pub(crate) fn report(&self, line: &str) {
        let line = format!("host: {line}\n");
        // If stderr is closed, the failure cannot be reported either. Writing to memory does
        // not fail.
        match &self.0 {
            Some(pipe) => drop(pipe.clone().write(line.into())),
            None => drop(std::io::stderr().write_all(line.as_bytes())),
        }
    }
}

/// Stdout or stderr of an instance, with its calls counted.
struct Counted<S>(S, Arc<Counters>);

impl<S: IsTerminal> IsTerminal for Counted<S> {
    fn is_terminal(&self) -> bool {
        self.0.is_terminal()
    }
}

impl<S: StdoutStream> StdoutStream for Counted<S> {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        // Streams of WASI 0.3 are not counted: Rust's standard library still writes through
        // WASI 0.2.
        self.0.async_stream()
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(Counted(self.0.p2_stream(), self.1.clone()))
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Counted<Box<dyn OutputStream>> {
    async fn ready(&mut self) {
        self.0.ready().await;
    }
}

#[wasmtime_wasi::async_trait]
impl OutputStream for Counted<Box<dyn OutputStream>> {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.1.add(|counts| counts.writes += 1);
        self.0.write(bytes)
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.1.add(|counts| counts.writes += 1);
        self.0.flush()
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.1.add(|counts| counts.writes += 1);
        self.0.check_write()
    }

    async fn blocking_write_and_flush(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.1.add(|counts| counts.writes += 1);
        self.0.blocking_write_and_flush(bytes).await
    }

    /// Not counted: the runtime calls it as part of a counted call.
    async fn write_ready(&mut self) -> StreamResult<usize> {
        self.0.write_ready().await
    }
}
