//! A token broker for OfficeRnD: a standard OAuth 2.0 token endpoint that holds an application's credential and hands
//! backend jobs access tokens, each with no more scope than it may have.
//!
//! The modules in reading order. [`endpoint`] is HTTP in and out. [`caller`] says who may call and what each may have,
//! [`scope`] what that means. [`broker`] finds a token: in memory, in the store ([`cache`]), or at OfficeRnD
//! ([`upstream`]), with the credential of an [`application`], as far as the [`gate`] lets it. [`config`] reads the
//! variables, [`audit`] writes the log, [`error`] lists what can go wrong, [`secret`] and [`seal`] keep secrets out of
//! sight.
//!
//! Nothing here does I/O or reads a clock: that comes in through [`broker::Ports`], which `component.rs` implements with
//! WASI 0.3 and, for what WASI lacks, `spin.rs` or `wasi.rs`.

pub mod audit;
pub mod broker;
#[cfg(target_family = "wasm")]
mod component;
pub mod config;
mod digest;
pub mod endpoint;
pub mod error;
pub mod gate;
mod json;
pub mod mutation;
mod record;
pub mod scope;
pub mod seal;
pub mod secret;
pub mod time;
pub mod token;
pub mod upstream;
