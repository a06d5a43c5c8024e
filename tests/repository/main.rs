//! Rules about the repository itself: its pages, the files of `deploy/`, its dependencies, and the interfaces of each build.
//!
//! One program, because each would link wasmtime anew.

mod deploy;
mod interfaces;
mod pages;
mod supply;
