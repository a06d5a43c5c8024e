//! Runs the token broker's component the way Spin 4.1 does, on wasmtime: for `cargo run`, and for the tests.
//!
//! [`Manifest`] reads `spin.toml` and refuses what this host does not have. [`build`] runs its build command,
//! [`App::load`] compiles the component, [`start`] serves it. What Spin takes from its environment is in [`Options`]:
//! the variables, the key-value store, how far an instance is reused, and where its output goes.
//!
//! [`sandbox`] is an identity server that behaves as OfficeRnD's does, [`demo`] a broker set up against it.
//!
//! [`Policy`] edits the variable `callers`, [`Given`] finds the mistakes in all of the variables, both with the component's
//! own parser.
//!
//! Everything a component may not do under Spin fails here too. What Spin has and this host lacks (other triggers,
//! files, SQLite, service chaining, TLS inbound) is an error when `spin.toml` asks for it, never ignored.

#![forbid(unsafe_code)]

mod app;
mod build;
mod check;
mod counts;
pub mod demo;
mod key_value;
mod manifest;
mod outbound;
mod output;
mod policy;
pub mod sandbox;
mod secret;
mod server;
mod variables;

pub use app::App;
pub use build::build;
pub use check::Given;
pub use counts::Counts;
pub use key_value::{Fail, Faults, KeyValue};
pub use manifest::Manifest;
pub use output::Output;
pub use policy::Policy;
pub use secret::RandomSecret;
pub use server::{Options, Reuse, Server, start};
pub use variables::Variables;
