//! State that all instances on one server share.

use std::sync::Arc;

use broker_operator::spin::{AllowedHosts, Manifest};

use crate::clock::Clock;
use crate::counts::Counters;
use crate::output::Output;
use crate::store::KeyValue;
use crate::variables::Variables;

/// State that all instances on one server share.
pub(crate) struct Shared {
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) variables: Variables,
    pub(crate) key_value: KeyValue,
    pub(crate) allowed_hosts: AllowedHosts,
    pub(crate) counters: Arc<Counters>,
    pub(crate) clock: Clock,
    pub(crate) output: Output,
}
