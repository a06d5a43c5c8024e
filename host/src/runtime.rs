//! The component on wasmtime: what compiles it, and the host's side of each of its imports.

pub(crate) mod app;
mod bindings;
mod cache;
pub(crate) mod instance;
mod key_value;
mod outbound;
pub(crate) mod shared;
mod timers;
mod variables;
