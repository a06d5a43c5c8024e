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

#![deny(unsafe_code)]

mod build;
mod counts;
pub mod demo;
mod operator;
mod output;
mod runtime;
pub mod sandbox;
mod server;
mod spin;
mod store;

pub use build::build;
pub use counts::Counts;
pub use operator::check::Given;
pub use operator::policy::Policy;
pub use operator::secret::RandomSecret;
pub use output::Output;
pub use runtime::app::App;
pub use server::options::{Options, Reuse};
pub use server::{Server, start};
pub use spin::manifest::Manifest;
pub use spin::variables::Variables;
pub use store::{Fail, Faults, KeyValue};
