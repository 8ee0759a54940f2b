//! The configuration space of a virtio-blk device as its driver reads it (virtio 1.x section 5.2.4).

/// `virtio_blk_config`, field by field. Fields of features that were not negotiated mean nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlkConfig {
    /// Capacity in sectors of 512 bytes.
    pub capacity_sectors: u64,
    /// Largest segment in bytes.
    pub size_max: u32,
    /// Most segments in a request.
    pub seg_max: u32,
    /// Block size in bytes.
    pub blk_size: u32,
    /// Logical blocks per physical block, as a power of two.
    pub physical_block_exp: u8,
    /// Best transfer size in blocks.
    pub opt_io_size: u32,
    /// Whether the write cache is on.
    pub writeback: bool,
    /// Number of queues.
    pub num_queues: u16,
    /// Longest discard range in sectors.
    pub max_discard_sectors: u32,
    /// Most ranges in a discard.
    pub max_discard_seg: u32,
    /// Alignment of discards in sectors.
    pub discard_sector_alignment: u32,
    /// Longest write-zeroes range in sectors.
    pub max_write_zeroes_sectors: u32,
    /// Most ranges in a write-zeroes.
    pub max_write_zeroes_seg: u32,
    /// Whether write-zeroes may unmap.
    pub write_zeroes_may_unmap: bool,
}

impl BlkConfig {
    /// Length of the structure in bytes.
    pub const LEN: usize = 60;
    /// Offset of the write-cache byte.
    pub const WCE_OFFSET: u32 = 32;

    /// Takes the bytes apart.
    pub fn parse(bytes: &[u8; Self::LEN]) -> BlkConfig {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
        BlkConfig {
            capacity_sectors: u64::from(u32_at(0)) | u64::from(u32_at(4)) << 32,
            size_max: u32_at(8),
            seg_max: u32_at(12),
            blk_size: u32_at(20),
            physical_block_exp: bytes[24],
            opt_io_size: u32_at(28),
            writeback: bytes[32] != 0,
            num_queues: u16_at(34),
            max_discard_sectors: u32_at(36),
            max_discard_seg: u32_at(40),
            discard_sector_alignment: u32_at(44),
            max_write_zeroes_sectors: u32_at(48),
            max_write_zeroes_seg: u32_at(52),
            write_zeroes_may_unmap: bytes[56] != 0,
        }
    }
}
