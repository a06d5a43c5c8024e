//! Simulation: the real core in a made-up world with many instances, one store, one OfficeRnD,
//! virtual time, and faults, all drawn from a seed.
//!
//! Time is tokio's paused clock. It jumps to the next timer when no task can run, so a day
//! takes seconds, and a seed always replays the same run. A write in progress reaches the store
//! even if its instance is killed, and a call in progress reaches OfficeRnD.

mod fleet;
mod issuers;
mod kills;
mod officernd;
mod ports;
mod scenario;
mod seeds;
mod world;

pub use fleet::{Fleet, Work};
pub use issuers::{KeyReport, play_keys};
pub use kills::{Deaths, Victim, die_at_each_await};
pub use officernd::Mood;
pub use scenario::{Faults, Reuse, Scenario};
pub use seeds::play_seeds;
pub use world::{Report, World};
