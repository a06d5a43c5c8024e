//! Rules about the repository itself: its pages, the files of `deploy/`, its dependencies, and
//! the interfaces of each build.
//!
//! One test binary, because each more would link wasmtime again.

mod deploy;
mod interfaces;
mod pages;
mod release;
mod supply;
