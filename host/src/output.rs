//! Where a component's output goes, and the host's own remarks about it.

use std::io::Write;
use std::sync::Arc;

use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p2::OutputStream;
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;

use crate::counts::{Counters, Written};

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
