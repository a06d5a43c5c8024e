//! Harness of the black-box tests: the compiled component in a real host, over real sockets.
//!
//! A test makes a [`Setup`], changes the part that it tests, and starts it. It gets a sandbox
//! in OfficeRnD's place and a [`Broker`], and sees what a caller, an operator and OfficeRnD
//! would see.

mod answer;
mod assertion;
mod broker;
mod component;
mod crowd;
mod hex;
mod identity;
mod leak;
mod load;
mod peer;
mod program;
mod prometheus;
mod redis;
mod repository;
mod server;
mod setup;
mod sqlite;
mod toolchain;

pub use answer::{Answer, basic, exchange, form};
pub use assertion::{Draft, JWT_BEARER, PrivateKey, assertion_request, encode, seconds_since_epoch, set, sign_text};
pub use broker::{Broker, Touched, eventually, revocation_request, token_request};
pub use component::{component_for_spin, component_for_wasi};
pub use crowd::{all_at_once, crowd, different_tokens, most_in_a_minute};
pub use hex::hex;
pub use identity::{CLUSTER, GITHUB, TestIssuer, github_claims, kubernetes_claims};
pub use leak::{Secret, encodings, find_leaks, keep_secret, saw, search};
pub use load::{Load, load};
pub use peer::{PeerServer, installed, run_peer, run_peer_with};
pub use program::{Ended, Program};
pub use prometheus::Prometheus;
pub use redis::Redis;
pub use repository::{read, root};
pub use server::{Server, WasmtimeServe};
pub use setup::{COMPANIES, Caller, MEMBERS, PAYMENTS, RESOURCES, Setup, Watched, digest_of, random, secret};
pub use sqlite::SqliteLock;
pub use toolchain::toolchain_note;
