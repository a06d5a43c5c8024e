//! Spin's own interfaces, generated from `wit/`, and the host's types that they name.

use std::sync::Arc;

use wasmtime_wasi::TrappableError;

use self::spin::key_value::key_value::Error;
use crate::store::KeyValue;

wasmtime::component::bindgen!({
    path: "wit",
    imports: { default: trappable },
    with: { "spin:key-value/key-value.store": crate::runtime::bindings::OpenStore },
    trappable_error_type: { "spin:key-value/key-value.error" => crate::runtime::bindings::StoreError },
});

/// A store that an instance holds open.
#[derive(Clone)]
#[expect(unreachable_pub, reason = "the generated bindings export it, inside this crate")]
pub struct OpenStore {
    pub(super) label: Arc<str>,
    pub(super) key_value: KeyValue,
}

/// An error that the interface returns to the component, or a trap.
pub(crate) type StoreError = TrappableError<Error>;
