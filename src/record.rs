//! The bytes of a record in the store.

use serde::{Deserialize, Serialize};

/// The bytes of a value.
pub(crate) fn encode(value: &impl Serialize) -> Vec<u8> {
    postcard::to_allocvec(value).expect("numbers and strings always serialize")
}

/// A value of exactly these bytes.
pub(crate) fn decode_whole<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    let (value, rest) = postcard::take_from_bytes(bytes).ok()?;
    rest.is_empty().then_some(value)
}
