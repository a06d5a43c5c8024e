//! When OfficeRnD may be called: the lease, the ledger of calls, and the back-off. Decisions only; the store is the
//! broker's business.

mod lease;
mod ledger;
mod pause;

pub use lease::{LEASE_KEY, LEASE_LIFE, LEASE_SETTLE, Lease};
pub use ledger::{LEDGER_KEY, Ledger, Need, Reservation};
