//! The dev host: runs the token broker's component on wasmtime as Spin 4.1 does. `cargo run` and
//! the tests use it.
//!
//! - [`Manifest`] reads `spin.toml`, [`build`] runs its build command, [`App::load`] compiles
//!   the component, and [`start`] serves it.
//! - [`Options`] holds what Spin takes from its environment: the variables, the key-value
//!   store, how often an instance is reused, the clock, and where the output goes.
//! - [`sandbox`] is a stand-in for OfficeRnD, and [`demo`] a broker that is set up to use it.
//!
//! A component cannot do anything here that Spin forbids. The dev host lacks some features of
//! Spin: other triggers, files, SQLite, service chaining, inbound TLS. A `spin.toml` that asks
//! for one of them is refused.

#![deny(unsafe_code)]

mod build;
mod clock;
mod counts;
pub mod demo;
mod output;
mod runtime;
pub mod sandbox;
mod server;
mod store;
mod variable_faults;
mod variables;

pub use broker_operator::spin::Manifest;
pub use build::build;
pub use clock::Clock;
pub use counts::Counts;
pub use output::Output;
pub use runtime::app::App;
pub use server::options::{Options, Reuse};
pub use server::{Server, start};
pub use store::{Fail, Faults, KeyValue};
pub use variable_faults::{Beyond, VariableFaults};
pub use variables::Variables;
