//! Kills, pulls, stops and starts a real Holdfast under verified load, again and again, and counts what it did to the guest.
//!
//! Each section does one kind of harm many times and hands back an [`Outcome`]. Work is cut into rounds; a round has a
//! fresh disk and a seed of its own, so that one that fails is replayed by one command. The judge is the testkit's
//! workload, which knows for every sector what it may hold; nothing is retried and nothing is forgiven.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod blackout;
pub mod drives;
pub mod farewell;
pub mod fence;
pub mod interleave;
pub mod kills;
pub mod points;

mod csi;
mod lab;
mod outcome;
mod rounds;
mod server;
mod site;

pub use outcome::{Outcome, table};
pub use rounds::Rounds;
pub use server::Programs;
