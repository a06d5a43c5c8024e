//! A token broker for OfficeRnD: a standard OAuth 2.0 token endpoint. It holds an application's
//! credential, and serves access tokens to backend jobs, each with only the scopes that the
//! job's policy permits.
//!
//! Reading order: [`endpoint`] answers HTTP requests. [`config::caller`] authenticates a caller
//! and authorizes its [`scope`]s. [`broker`] finds a [`token`]: in memory, in the store, or at
//! OfficeRnD ([`upstream`]) with the credential of an [`application`](config::application),
//! when the [`gate`] permits a call. [`config`] parses the variables, [`audit`] writes the log,
//! [`error`] lists every failure, and [`secret`] and [`seal`] protect secrets.
//!
//! The core does no I/O and reads no clock. Both come in through [`broker::Ports`], which
//! `component/` implements with WASI 0.3 and the interfaces of the host.
//!
//! Each module imports only modules that this list names before it, and a test checks it:
//!
//! - digest, record, time, json, mutation, scope, signature
//! - key_set, secret, assertion, seal, key_record, config, error
//! - token, upstream, jwks, gate, broker
//! - audit, endpoint, component

pub mod assertion;
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
pub mod jwks;
pub mod key_record;
pub mod key_set;
pub mod mutation;
mod record;
pub mod scope;
pub mod seal;
pub mod secret;
pub mod signature;
pub mod time;
pub mod token;
pub mod upstream;
