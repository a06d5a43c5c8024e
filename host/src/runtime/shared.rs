//! State that all instances on one server share.

use std::sync::Arc;

use crate::clock::Clock;
use crate::counts::Counters;
use crate::output::Output;
use crate::spin::allowed_hosts::AllowedHosts;
use crate::spin::manifest::Manifest;
use crate::spin::variables::Variables;
use crate::store::KeyValue;

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
