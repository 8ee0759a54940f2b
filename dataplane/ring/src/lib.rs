//! Guest memory, the split virtqueue and the virtio-blk request: everything a guest can write to, read once and checked.
//!
//! This room turns bytes shared with a hostile guest into [`blk::Request`] values, and answers back into the used ring.
//! It refuses to know sockets, files, block devices, threads and clocks: the rooms above bring memory and addresses.
//!
//! ```
//! use holdfast_ring::{MemRegion, MemView, QueueFeatures, QueueLayout, RegionSpec, SplitQueue};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let spec = RegionSpec { guest_addr: 0, user_addr: 0x7000_0000, size: 1 << 20, fd_offset: 0 };
//! let view = MemView::empty().with_region(MemRegion::anonymous(spec)?.into())?;
//! let layout = QueueLayout { size: 8, desc: 0x7000_0000, avail: 0x7000_1000, used: 0x7000_2000 };
//! let features = QueueFeatures { event_idx: true, indirect: true };
//! let mut queue = SplitQueue::new(view.into(), layout, features, 0)?;
//! assert!(!queue.arm()?, "an empty ring has no work");
//! # Ok(()) }
//! ```
//!
//! Invariants: each guest word is loaded once into a private copy; no reference to guest memory exists, only raw pointers
//! inside `unsafe` of this room; a pointer never outlives the view it was resolved in; no guest input panics.
#![deny(unsafe_code)]

#[cfg(test)]
extern crate self as holdfast_ring;

pub mod blk;
mod inflight;
mod mem;
mod queue;
mod word;

pub use inflight::{InflightError, InflightMap, InflightSlot};
pub use mem::{MemError, MemRegion, MemView, RegionSpec, vanished_memory_count};
pub use queue::{
    Chain, MAX_CHAIN, MAX_QUEUE_SIZE, QueueError, QueueFeatures, QueueLayout, RingPart, SplitQueue,
};

/// The tests' driver speaks of this crate by its name, here and in `tests/`.
#[cfg(test)]
#[path = "../tests/driver/mod.rs"]
mod driver;
