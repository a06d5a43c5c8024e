//! From an authorized request to a token: memory, store, and, through the gate, OfficeRnD.

mod cache;
mod call;
mod fetch;
mod flight;
mod instance;
mod issue;
mod lead;
mod lease;
mod ledger;
mod ports;
mod revoke;
mod store;
mod variables;
mod wanted;

pub use fetch::WAIT_LIMIT;
pub use flight::UpstreamCall;
pub use instance::{Broker, Instance};
pub use issue::{Source, TokenFuture, TokenOutcome};
pub use ports::{Followup, Ports, SendError};
