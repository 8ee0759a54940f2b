//! What can be wrong with memory that a front end offers.

use super::RegionSpec;

/// Why a memory region or a change of the memory table was refused.
#[derive(Debug, thiserror::Error)]
pub enum MemError {
    /// A region without a byte.
    #[error("memory region {0} is empty; the front end must not send it")]
    Empty(RegionSpec),
    /// Guest, user or file range runs past the end of 64 bits.
    #[error("memory region {0} wraps around the end of the address space")]
    Wraps(RegionSpec),
    /// The region is larger than this process can map.
    #[error("memory region {0} is larger than this machine can map")]
    TooLarge(RegionSpec),
    /// The descriptor is not a regular or memory file.
    #[error(
        "memory region {0} came with something that is not a file; use memory-backend-memfd or -file with share=on"
    )]
    NotAFile(RegionSpec),
    /// The file ends before the region does; touching the rest would raise SIGBUS.
    #[error("memory region {spec} needs a file of {needed} bytes, but it has {actual}")]
    FileTooShort {
        /// The refused region.
        spec: RegionSpec,
        /// Bytes needed: file offset plus size.
        needed: u64,
        /// Bytes the file has.
        actual: u64,
    },
    /// The file may be shrunk by its owner at any time.
    #[error(
        "memory region {0} is not sealed against shrinking; seal it (QEMU: memory-backend-memfd, seal=on) \
         or allow unsealed memory in the configuration"
    )]
    NotSealed(RegionSpec),
    /// More regions than this process can watch over.
    #[error(
        "memory region {0} is one too many: this process serves too many regions; disconnect some guests"
    )]
    Unguarded(RegionSpec),
    /// Two regions claim one guest or user address.
    #[error("memory region {new} overlaps {present}")]
    Overlap {
        /// The refused region.
        new: RegionSpec,
        /// The region it collides with.
        present: RegionSpec,
    },
    /// A region to be removed is not in the table.
    #[error("memory region {0} is not in the memory table")]
    Unknown(RegionSpec),
    /// The table is full.
    #[error("memory region {spec} is one too many: the table holds at most {limit}")]
    TooMany {
        /// The refused region.
        spec: RegionSpec,
        /// The limit.
        limit: usize,
    },
    /// The kernel refused.
    #[error("memory region {spec}: {step} failed")]
    System {
        /// The refused region.
        spec: RegionSpec,
        /// The system call.
        step: &'static str,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
}
