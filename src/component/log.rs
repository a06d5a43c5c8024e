//! Writes audit lines to stdout and warnings to stderr.
//!
//! An audit line takes one host call. Rust's standard library would make three: `check-write`,
//! `write` and `blocking-flush`.

use std::cell::Cell;
use std::io::{self, Write};

use self::wasi::cli::stdout::get_stdout;
use self::wasi::io::streams::OutputStream;

wasip3::wit_bindgen::generate!({
    runtime_path: "wasip3::wit_bindgen::rt",
    generate_all,
    // The linker merges this interface with the one that Rust's standard library imports. It
    // therefore has the same version (`interfaces.rs` fails at another) and the methods that
    // this component never calls.
    inline: "
        package officernd:token-broker;

        world output {
            import wasi:cli/stdout@0.2.6;
        }

        package wasi:cli@0.2.6 {
            interface stdout {
                use wasi:io/streams@0.2.6.{output-stream};
                get-stdout: func() -> output-stream;
            }
        }

        package wasi:io@0.2.6 {
            interface error {
                resource error {
                    to-debug-string: func() -> string;
                }
            }
            interface poll {
                resource pollable {
                    ready: func() -> bool;
                    block: func();
                }
                poll: func(in: list<borrow<pollable>>) -> list<u32>;
            }
            interface streams {
                use error.{error};
                use poll.{pollable};
                variant stream-error {
                    last-operation-failed(error),
                    closed,
                }
                resource input-stream {
                    read: func(len: u64) -> result<list<u8>, stream-error>;
                    blocking-read: func(len: u64) -> result<list<u8>, stream-error>;
                    skip: func(len: u64) -> result<u64, stream-error>;
                    blocking-skip: func(len: u64) -> result<u64, stream-error>;
                    subscribe: func() -> pollable;
                }
                resource output-stream {
                    check-write: func() -> result<u64, stream-error>;
                    write: func(contents: list<u8>) -> result<_, stream-error>;
                    blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>;
                    flush: func() -> result<_, stream-error>;
                    blocking-flush: func() -> result<_, stream-error>;
                    subscribe: func() -> pollable;
                    write-zeroes: func(len: u64) -> result<_, stream-error>;
                    blocking-write-zeroes-and-flush: func(len: u64) -> result<_, stream-error>;
                    splice: func(src: borrow<input-stream>, len: u64) -> result<u64, stream-error>;
                    blocking-splice: func(src: borrow<input-stream>, len: u64) -> result<u64, stream-error>;
                }
            }
        }
    ",
});

/// Most bytes that a host accepts in one call.
const LONGEST: usize = 4096;

/// First member of an instance's first line, with the brace before it: the version that writes this
/// line and those after it.
const VERSION: &[u8] = concat!("{\"version\":\"", env!("CARGO_PKG_VERSION"), "\",").as_bytes();

pub(super) struct Stdout {
    stream: OutputStream,
    is_first: Cell<bool>,
}

impl Stdout {
    pub(super) fn open() -> Self {
        Self { stream: get_stdout(), is_first: Cell::new(true) }
    }

    /// Writes an audit line in one piece, so that lines of several instances do not mix. A line
    /// longer than [`LONGEST`] goes through Rust's standard library, which also writes it in one
    /// piece if the host can take it. A failed write is ignored: a broken log must not stop
    /// requests.
    pub(super) fn write(&self, mut line: Vec<u8>) {
        // Here, because the first line can be that of a request or of a call.
        if self.is_first.take() {
            line.splice(..1, VERSION.iter().copied());
        }
        if line.len() <= LONGEST {
            let _ = self.stream.blocking_write_and_flush(&line);
        } else {
            let _ = io::stdout().write_all(&line);
        }
    }
}

/// Writes a warning to stderr, in one line.
pub(super) fn warn(line: &str) {
    // The text of a provider or a store must not forge a line of its own.
    let line = line.replace(char::is_control, " ");
    let _ = io::stderr().write_all(["officernd-token-broker: ", &line, "\n"].concat().as_bytes());
}
