//! Spin's manifest, variables and allowed hosts, read as Spin reads them. No file here names
//! wasmtime.

pub(crate) mod allowed_hosts;
pub(crate) mod manifest;
pub(crate) mod variable_faults;
pub(crate) mod variables;
