//! Where a component's output goes, and the host's own remarks about it.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::counts::Counters;

/// Where stdout and stderr of a component go, together with what the host reports about it (a trap, a refused host).
#[derive(Clone, Default)]
pub struct Output(Option<MemoryOutputPipe>);

impl Output {
    /// To this process's own stdout and stderr.
    pub fn inherited() -> Self {
        Self(None)
    }

    /// Into memory, without a bound, in the order in which it was written. Clones share it.
    pub fn captured() -> Self {
        Self(Some(MemoryOutputPipe::new(usize::MAX)))
    }

    /// What was captured so far; empty when the output is inherited.
    pub fn text(&self) -> String {
        match &self.0 {
            Some(pipe) => String::from_utf8_lossy(&pipe.contents()).into_owned(),
            None => String::new(),
        }
    }

    /// Gives a component its stdout and stderr.
    pub(crate) fn connect(&self, wasi: &mut WasiCtxBuilder, counters: &Arc<Counters>) {
        let count = || counters.clone();
        match &self.0 {
            Some(pipe) => {
                wasi.stdout(Written(pipe.clone(), count())).stderr(Written(pipe.clone(), count()));
            }
            None => {
                wasi.stdout(Written(std::io::stdout(), count())).stderr(Written(std::io::stderr(), count()));
            }
        }
    }

    /// Adds a line of the host's own.
    pub(crate) fn report(&self, line: &str) {
        let line = format!("host: {line}\n");
        // Nobody is left to tell when stderr is closed, and memory takes everything: neither failure needs an answer.
        match &self.0 {
            Some(pipe) => drop(pipe.clone().write(line.into())),
            None => drop(std::io::stderr().write_all(line.as_bytes())),
        }
    }
}

/// A component's stdout or stderr.
struct Written<S>(S, Arc<Counters>);

impl<S: IsTerminal> IsTerminal for Written<S> {
    fn is_terminal(&self) -> bool {
        self.0.is_terminal()
    }
}

impl<S: StdoutStream> StdoutStream for Written<S> {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        // Of WASI 0.3, which Rust's standard library does not write through yet.
        self.0.async_stream()
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(Written(self.0.p2_stream(), self.1.clone()))
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Written<Box<dyn OutputStream>> {
    async fn ready(&mut self) {
        self.0.ready().await;
    }
}

#[wasmtime_wasi::async_trait]
impl OutputStream for Written<Box<dyn OutputStream>> {
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

    /// Part of another call.
    async fn write_ready(&mut self) -> StreamResult<usize> {
        self.0.write_ready().await
    }
}
