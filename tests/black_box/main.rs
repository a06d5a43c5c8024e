//! Tests of the component from outside: what callers, the operator and OfficeRnD see of it.
//!
//! One test binary, because each more would link wasmtime again.

mod applications;
mod assertions;
mod audit;
mod beneath;
mod commands;
mod configuration;
mod costs;
mod denials;
mod faults;
mod gate;
mod identities;
mod issuer_keys;
mod life;
mod metrics;
mod peers;
mod program;
mod prometheus;
mod protocol;
mod readiness;
mod release;
mod report;
mod revocation;
mod rotation;
mod secrets;
mod store;
mod token;
mod upstream;
