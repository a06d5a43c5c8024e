//! The kind of host that this component is built for.

#[cfg(feature = "spin")]
pub(super) use super::spin::Host;
#[cfg(feature = "wasi")]
pub(super) use super::wasi::Host;
