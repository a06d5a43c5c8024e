//! Turns an authorized request into a token: from memory, from the store, or through the gate
//! from OfficeRnD.
//!
//! `issue`, `revoke` and `readiness` answer requests. `lead` makes requests share a fetch, `look`
//! looks for a reason not to call, `fetch` waits for the lease, `call` asks OfficeRnD, `call_line`
//! logs it, and `finish` writes what is left after the answer. `cache`, `ledger` and `lease` keep
//! tokens, the ledger and the lease in the store; `store` puts a deadline on each operation, and `store_failures`
//! remembers which failed. `issuer_keys` fetches the keys of issuers, and `key_memory` keeps them. `variables` reads the configuration, and `config_memory` keeps it.
//! `wanted` says what a fetch is for, `flight` how it ended. `instance` is what an instance
//! remembers, and `ports` is the outside world.

mod cache;
mod call;
mod call_line;
mod config_memory;
mod fetch;
mod finish;
mod flight;
mod instance;
mod issue;
mod issuer_keys;
mod key_memory;
mod lead;
mod lease;
mod ledger;
mod look;
mod metrics;
mod ports;
mod readiness;
mod revoke;
mod store;
mod store_failures;
#[cfg(test)]
mod testing;
mod variables;
mod wanted;

pub use fetch::WAIT_LIMIT;
pub use instance::{Broker, Instance};
pub use issue::{Source, TokenFuture, TokenOutcome};
pub use issuer_keys::FoundKey;
pub use metrics::Metrics;
pub use ports::{Followup, Ports, SendError};
pub use wanted::RequestId;
