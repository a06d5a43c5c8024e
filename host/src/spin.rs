//! What Spin's files and settings say: the manifest, the variables, the hosts a component may call. None of it names
//! wasmtime.

pub(crate) mod allowed_hosts;
pub(crate) mod manifest;
pub(crate) mod variables;
