//! What an operator does apart from running the broker: making secrets, editing the policy, checking the variables.

pub(crate) mod check;
pub(crate) mod policy;
pub(crate) mod secret;
