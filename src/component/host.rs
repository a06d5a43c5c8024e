//! Selects the host that this component is built for: Spin, or any other host with WASI 0.3.

#[cfg(feature = "spin")]
pub(super) use super::spin::Host;
#[cfg(feature = "wasi")]
pub(super) use super::wasi::Host;
