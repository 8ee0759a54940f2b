//! What proves the data plane and is never part of it: a vhost-user front end with its own driver-side ring, a workload
//! that verifies every sector, hostile peers, a planner of recoveries, and a reference engine that shares no ring code
//! with Holdfast.
//!
//! This crate refuses to know `holdfast-ring` and `holdfast-dataplane`: an oracle must not be built from what it judges.
//!
//! ```no_run
//! use holdfast_testkit::frontend::Guest;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut guest = Guest::builder().memory(64 << 20).queues(2).queue_size(128).connect("/run/v.sock")?;
//! guest.queue(0).write(4096, &[0x5a; 4096])?;
//! assert_eq!(guest.queue(1).read(4096, 4096)?, [0x5a; 4096]);
//! # Ok(()) }
//! ```
//!
//! Invariants: nothing here waits without a deadline; what the device wrote is checked before it is believed.
#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod foreign;
pub mod frontend;
pub mod load;
pub mod planner;
pub mod raw;
pub mod reference;
pub mod workload;
