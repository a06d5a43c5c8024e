//! The gate decides when OfficeRnD may be called: one call at a time (lease), within the call
//! quota and outside of pauses (ledger), and not for scopes that it has just refused (refusal).
//!
//! Nothing here does I/O. `broker/lease.rs`, `broker/ledger.rs` and `broker/cache.rs` read and
//! write the three records.

mod calls;
mod counts;
mod lease;
mod ledger;
mod merge;
mod pause;
mod refusal;

pub use calls::{CallResult, CallerTag, Need, Quota, Reservation};
pub use counts::{BUCKETS, Counts, Durations};
pub use lease::{LEASE_LIFE, LEASE_WAIT, Lease, lease_key};
pub use ledger::{Ledger, ledger_key};
pub use refusal::Refusal;
