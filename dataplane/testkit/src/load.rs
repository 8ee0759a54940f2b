//! Load for measuring: queues that are kept full by a driver that costs next to nothing, so that the time seen is the
//! device's. Descriptors are written once; a request then costs one word of its header and one of the available ring.
//!
//! Nothing is verified here but that every request is answered once and with success; `workload` verifies data.

mod bare;
mod cells;
mod clock;
mod echo;
mod histogram;
mod pattern;
mod queue;
mod run;

pub use bare::BareReads;
pub use clock::Clock;
pub use echo::Echo;
pub use histogram::Histogram;
pub use pattern::{Pattern, Wait};
pub use queue::LoadQueue;
pub use run::{Tally, beside, run, wake};
