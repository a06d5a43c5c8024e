//! Tests that need all processors, so they run one at a time and in a binary of their own.

mod load;
mod wasmtime_serve;
