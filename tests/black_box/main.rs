//! The component from outside: what callers, the operator and OfficeRnD see of it.
//!
//! One program, because each would link wasmtime anew.

mod commands;
mod configuration;
mod costs;
mod denials;
mod faults;
mod gate;
mod life;
mod operations;
mod peers;
mod program;
mod protocol;
mod revocation;
mod secrets;
mod store;
mod token;
mod upstream;
