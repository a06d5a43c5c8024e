//! The gate decides when OfficeRnD may be called: one call at a time (lease), within the call
//! quota and outside of pauses (ledger).
//!
//! Nothing here does I/O. `broker/lease.rs` and `broker/ledger.rs` read and write the two
//! records.

mod lease;
mod ledger;
mod merge;
mod pause;

pub use lease::{LEASE_LIFE, LEASE_WAIT, Lease, lease_key};
pub use ledger::{Ledger, Need, Reservation, ledger_key};
