//! Operator tasks: makes secrets, edits the policy, checks the variables.

pub(crate) mod check;
pub(crate) mod policy;
pub(crate) mod secret;
