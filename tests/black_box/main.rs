//! The component from outside: what callers, the operator and OfficeRnD see of it.
//!
//! One program, because each would link wasmtime anew.

mod applications;
mod audit;
mod commands;
mod configuration;
mod costs;
mod denials;
mod faults;
mod gate;
mod life;
mod peers;
mod program;
mod protocol;
mod readiness;
mod revocation;
mod rotation;
mod secrets;
mod store;
mod token;
mod upstream;
