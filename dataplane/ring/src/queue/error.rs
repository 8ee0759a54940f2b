//! Every way in which a guest can break the rules of a ring. Each of them parks that queue and nothing else.

use crate::inflight::InflightError;
use std::fmt;

/// The three parts of a split virtqueue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingPart {
    /// The descriptor table.
    Descriptors,
    /// The available ring, written by the guest.
    Available,
    /// The used ring, written by us.
    Used,
}

impl fmt::Display for RingPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RingPart::Descriptors => "descriptor table",
            RingPart::Available => "available ring",
            RingPart::Used => "used ring",
        })
    }
}

/// Why a queue cannot be started, or must not be served any longer.
///
/// The remedy is always with the guest's driver or its VMM: a reset of the device starts the queue afresh.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// Zero, not a power of two, or too large (2.7).
    #[error("queue size {size} is not a power of two between 1 and {max}")]
    BadSize {
        /// What was asked for.
        size: u16,
        /// The largest size served.
        max: u16,
    },
    /// An address that is not a multiple of 16, 2 or 4 (2.7).
    #[error("{part} at user address {addr:#x} is not aligned to {align} bytes")]
    Misaligned {
        /// Which part.
        part: RingPart,
        /// Its user address.
        addr: u64,
        /// The alignment virtio demands.
        align: u64,
    },
    /// A part that is not all in one memory region.
    #[error("{part} at user address {addr:#x}, {len} bytes, does not lie in one memory region")]
    OutsideMemory {
        /// Which part.
        part: RingPart,
        /// Its user address.
        addr: u64,
        /// Its length in bytes.
        len: u64,
    },
    /// Two parts share a byte.
    #[error("{first} and {second} overlap")]
    PartsOverlap {
        /// One part.
        first: RingPart,
        /// The other.
        second: RingPart,
    },
    /// `avail.idx` is further ahead than the ring has room for (2.7.13.3).
    #[error(
        "avail.idx {avail_idx} is more than {room} ahead of {last_avail}: a ring of {size} has no more to give"
    )]
    AvailIndexJumped {
        /// The index found.
        avail_idx: u16,
        /// Our position.
        last_avail: u16,
        /// Ring size less the chains in flight.
        room: u16,
        /// Ring size.
        size: u16,
    },
    /// A head that is no descriptor of the table.
    #[error("head {head} is outside a table of {size} descriptors")]
    HeadOutOfRange {
        /// The head found.
        head: u16,
        /// Ring size.
        size: u16,
    },
    /// A head made available again before it was used.
    #[error("head {head} was made available again while it is in flight")]
    HeadRepeated {
        /// The head found.
        head: u16,
    },
    /// `next` points outside its table.
    #[error("chain {head}: next descriptor {next} is outside a table of {size}")]
    NextOutOfRange {
        /// The chain.
        head: u16,
        /// The index found.
        next: u16,
        /// Descriptors in the table.
        size: u16,
    },
    /// More hops than the table has descriptors: a loop (2.7.5.1).
    #[error("chain {head} has more than {limit} descriptors: it loops")]
    ChainLoops {
        /// The chain.
        head: u16,
        /// The budget that ran out.
        limit: u16,
    },
    /// A descriptor of no bytes.
    #[error("chain {head} has a descriptor of length 0")]
    EmptyDescriptor {
        /// The chain.
        head: u16,
    },
    /// Device-readable after device-writable (2.7.4.2).
    #[error("chain {head} has a readable descriptor after a writable one")]
    ReadableAfterWritable {
        /// The chain.
        head: u16,
    },
    /// A buffer that is not all in guest memory.
    #[error("chain {head}: {len} bytes at guest address {addr:#x} are not all guest memory")]
    BufferOutsideMemory {
        /// The chain.
        head: u16,
        /// Guest address.
        addr: u64,
        /// Length in bytes.
        len: u32,
    },
    /// A chain of 2^32 bytes or more (2.7.5.2).
    #[error("chain {head} is longer than 4 GiB")]
    ChainTooLarge {
        /// The chain.
        head: u16,
    },
    /// More pieces of memory than one transfer can carry.
    #[error("chain {head} scatters over more than {limit} pieces of memory")]
    ChainTooScattered {
        /// The chain.
        head: u16,
        /// The limit.
        limit: usize,
    },
    /// An indirect table without the feature (2.7.5.3.1).
    #[error("chain {head} uses an indirect table, which was not negotiated")]
    IndirectNotNegotiated {
        /// The chain.
        head: u16,
    },
    /// An indirect table in an indirect table (2.7.5.3.1).
    #[error("chain {head} has an indirect table inside an indirect table")]
    IndirectNested {
        /// The chain.
        head: u16,
    },
    /// INDIRECT and NEXT in one descriptor (2.7.5.3.1).
    #[error("chain {head} goes on after an indirect table")]
    IndirectWithNext {
        /// The chain.
        head: u16,
    },
    /// An indirect table that is empty, no multiple of 16 bytes, or too long.
    #[error(
        "chain {head}: an indirect table of {len} bytes is not 1 to {limit} descriptors of 16 bytes"
    )]
    IndirectLength {
        /// The chain.
        head: u16,
        /// The length found, in bytes.
        len: u32,
        /// The most descriptors accepted.
        limit: u16,
    },
    /// The readable part is too short for a virtio-blk header (5.2.6).
    #[error("chain {head} has {len} readable bytes, too few for a block request header")]
    HeaderTooShort {
        /// The chain.
        head: u16,
        /// Readable bytes found.
        len: u32,
    },
    /// No writable byte to put the status in (5.2.6).
    #[error("chain {head} has no writable byte for the status")]
    NoStatusByte {
        /// The chain.
        head: u16,
    },
    /// The in-flight region of a former back end cannot be trusted: nothing is done again, and nothing new is begun.
    #[error("{0}; the guest has to reset the device")]
    InFlight(#[from] InflightError),
    /// Our own mistake: an answer to a head that is not in flight.
    #[error("head {head} was answered but is not in flight; this is a bug of the data plane")]
    HeadNotOutstanding {
        /// The head pushed.
        head: u16,
    },
}
