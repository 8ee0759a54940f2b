//! The configuration space of a virtio-blk device, as the driver reads it (virtio 1.x section 5.2.4).

use super::{Limits, SECTOR_BYTES};

/// Writer of `virtio_blk_config`, up to and with the write-zeroes fields.
#[derive(Debug)]
pub struct ConfigSpace;

/// What the drive prefers; hints only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Physical block size in bytes: a smaller write costs a read first. A power of two, at least the block size.
    pub physical_block_bytes: u32,
    /// Best transfer size in bytes; 0 for no opinion.
    pub optimal_io_bytes: u32,
}

impl ConfigSpace {
    /// Length of the structure in bytes.
    pub const LEN: usize = 60;
    /// Offset of the write-cache byte, the only one that a driver may write (VIRTIO_BLK_F_CONFIG_WCE).
    pub const WCE_OFFSET: usize = 32;

    /// The bytes for a device without a known topology: physical blocks of 4096 bytes.
    pub fn bytes(limits: &Limits, num_queues: u16, writeback: bool) -> [u8; Self::LEN] {
        let topology = Topology {
            physical_block_bytes: 4096,
            optimal_io_bytes: 0,
        };
        Self::bytes_with(limits, num_queues, writeback, topology)
    }

    /// The bytes for a device with a known topology.
    pub fn bytes_with(
        limits: &Limits,
        num_queues: u16,
        writeback: bool,
        topology: Topology,
    ) -> [u8; Self::LEN] {
        let block = limits.block_size.max(1);
        let sectors_per_block = limits.block_size / 512;
        let per_physical = (topology.physical_block_bytes / block).max(1);
        let mut space = [0; Self::LEN];
        let mut put = |offset: usize, bytes: &[u8]| {
            space[offset..offset + bytes.len()].copy_from_slice(bytes);
        };
        put(0, &(limits.capacity_bytes / SECTOR_BYTES).to_le_bytes());
        put(8, &limits.size_max.to_le_bytes());
        put(12, &limits.seg_max.to_le_bytes());
        // 16..20: geometry, which nobody is offered.
        put(20, &limits.block_size.to_le_bytes());
        // Physical blocks as a power of two of logical ones; alignment_offset at 25 stays 0.
        put(24, &[u8::try_from(per_physical.ilog2()).unwrap_or(0)]);
        put(26, &u16::try_from(per_physical).unwrap_or(1).to_le_bytes());
        put(28, &(topology.optimal_io_bytes / block).to_le_bytes());
        put(Self::WCE_OFFSET, &[u8::from(writeback)]);
        put(34, &num_queues.to_le_bytes());
        if limits.discard {
            put(36, &limits.max_discard_sectors.to_le_bytes());
            put(40, &limits.max_discard_seg.to_le_bytes());
            put(44, &sectors_per_block.to_le_bytes());
        }
        if limits.write_zeroes {
            put(48, &limits.max_write_zeroes_sectors.to_le_bytes());
            put(52, &limits.max_write_zeroes_seg.to_le_bytes());
            put(56, &[u8::from(limits.discard)]);
        }
        space
    }
}

#[cfg(test)]
mod tests;
