//! Encodes and decodes the records in the store, with postcard.

use serde::{Deserialize, Serialize};

/// Encodes a record.
pub(crate) fn encode(value: &impl Serialize) -> Vec<u8> {
    postcard::to_allocvec(value).expect("numbers and strings always serialize")
}

/// Decodes a record that takes up all of `bytes`.
pub(crate) fn decode_whole<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    let (value, rest) = postcard::take_from_bytes(bytes).ok()?;
    rest.is_empty().then_some(value)
}
