//! In-flight tracking (vhost-user specification, "Inflight I/O tracking", split virtqueue): which heads were taken and not
//! yet answered, kept in memory that outlives this process. A successor finds there what it must do again.
//!
//! The region lies in a file that the front end holds as well, so it is hostile input: sizes come from what was agreed on,
//! never from the region, and every index is checked. Stores are ordered for a reader that comes when this process is dead.

mod map;
mod queue;
mod recovery;

pub use map::{InflightMap, InflightSlot};
pub(crate) use queue::InflightQueue;
pub(crate) use recovery::Recovered;

/// Why an in-flight region cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InflightError {
    /// Its size does not fit what it is said to hold.
    #[error(
        "in-flight region of {size} bytes is too small for {queues} queues of {queue_size}: {needed} are needed"
    )]
    TooSmall {
        /// Bytes the region has.
        size: u64,
        /// Bytes needed.
        needed: u64,
        /// Number of queues.
        queues: u16,
        /// Descriptors of each.
        queue_size: u16,
    },
    /// A number of queues or descriptors that nobody uses.
    #[error(
        "in-flight region for {queues} queues of {queue_size} descriptors: ask for 1 to 256 queues of 1 to 1024"
    )]
    Shape {
        /// Number of queues.
        queues: u16,
        /// Descriptors of each.
        queue_size: u16,
    },
    /// The memory behind it cannot be mapped.
    #[error("in-flight region cannot be mapped: {0}")]
    Memory(String),
    /// A queue that the region has no room for.
    #[error(
        "in-flight region has no queue {index} of {size} descriptors: it holds {queues} queues of {queue_size}"
    )]
    NoSuchQueue {
        /// The queue asked for.
        index: u16,
        /// Its size.
        size: u16,
        /// Number of queues.
        queues: u16,
        /// Descriptors of each.
        queue_size: u16,
    },
    /// A layout of another version.
    #[error("in-flight region has version {0}; version 1 is known")]
    Version(u16),
    /// It was made for another number of descriptors.
    #[error("in-flight region was written for {found} descriptors, {expected} were agreed on")]
    DescNum {
        /// What stands in the region.
        found: u16,
        /// What was agreed on.
        expected: u16,
    },
    /// More answers than the ring holds would have been cut off.
    #[error(
        "in-flight region ends at used position {recorded}, the ring at {used}: more than {size} apart"
    )]
    UsedIndex {
        /// `used_idx` of the region.
        recorded: u16,
        /// `used.idx` of the ring.
        used: u16,
        /// Size of the ring.
        size: u16,
    },
    /// The list of the last batch names a head that cannot be, or one twice.
    #[error("in-flight region lists head {head} in its last batch, which cannot be")]
    Batch {
        /// The head.
        head: u16,
    },
    /// A flag that is neither 0 nor 1, or set for a head the ring does not have.
    #[error("in-flight region has flag {flag} for head {head}")]
    Flag {
        /// The head.
        head: u16,
        /// The flag.
        flag: u8,
    },
}

#[cfg(test)]
mod tests;
