//! The hand-over between threads under a scheduler that tries many thousands of interleavings: a wake-up that can be missed
//! is a deadlock here, and an answer that comes too early is caught by whoever relied on it.
//!
//! What runs is the product's own `mailbox.rs` and `reactor/drain.rs`, compiled with the scheduler's locks and channels.
//! Modelled are the eventfd (`bell.rs`), and in `handover.rs` the loop of the reactor and the device, whose real selves
//! wait in the kernel.
#![allow(clippy::unwrap_used, unreachable_pub, dead_code)]

mod bell;
#[path = "../../src/reactor/drain.rs"]
mod drain;
mod handover;
mod letters;
#[path = "../../src/mailbox.rs"]
mod mailbox;
mod sync;

/// Schedules that each model is tried with. A failure prints the schedule, which `shuttle::replay` repeats.
const SCHEDULES: usize = 20_000;
