//! The operator's tasks: makes secrets, edits the policy, checks the variables and the
//! manifest, and reports from the log. The programs `broker-operator` and `broker` offer them as subcommands.
//!
//! Policy and variables are read by the component's own parser, so what passes here passes there.
//! This crate does not depend on wasmtime or hyper, so it builds in seconds.

#![forbid(unsafe_code)]

mod check;
pub mod cli;
mod credential;
mod fetch;
mod issuers;
mod policy;
mod public_key;
mod report;
mod secret;
pub mod spin;
mod warning;

pub use secret::RandomSecret;
