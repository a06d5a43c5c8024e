//! The component on wasmtime: compiles and links it, and implements the interfaces that it
//! imports.

pub(crate) mod app;
mod bindings;
mod cache;
pub(crate) mod instance;
mod key_value;
mod outbound;
pub(crate) mod shared;
mod timers;
mod variables;
