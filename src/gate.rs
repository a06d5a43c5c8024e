//! The gate decides when OfficeRnD may be called: one call at a time (lease), within the call
//! quota and outside of pauses (ledger).
//!
//! Nothing here does I/O. `broker/lease.rs` and `broker/ledger.rs` read and write the two
//! records.

mod lease;
mod ledger;
mod pause;

pub use lease::{LEASE_KEY, LEASE_LIFE, LEASE_WAIT, Lease};
pub use ledger::{LEDGER_KEY, Ledger, Need, Reservation};
