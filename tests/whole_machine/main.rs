//! Tests that need the whole machine, because what they run takes all processors: one at a time, and in a program of their own.

mod load;
mod wasmtime_serve;
