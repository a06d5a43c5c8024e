//! Spin's manifest, variables and allowed hosts, read as Spin reads them.

mod allowed_hosts;
mod manifest;
mod variables;

pub(crate) use self::variables::environment_name;

pub use self::allowed_hosts::AllowedHosts;
pub use self::manifest::{Manifest, Route};
pub use self::variables::{Environment, Error, Values};
