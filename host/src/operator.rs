//! Operator tasks: makes secrets, edits the policy, checks the variables and the manifest.

pub(crate) mod check;
pub(crate) mod manifest;
pub(crate) mod policy;
pub(crate) mod secret;
mod value;
mod warning;
