//! What a device offers its guest. Advertised in the configuration space and enforced on every request.

/// The limits of one block device as its guest sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most data buffers in a request.
    pub seg_max: u32,
    /// Longest data buffer, in bytes; `u32::MAX` for no limit.
    pub size_max: u32,
    /// Longest range of a discard, in sectors of 512 bytes.
    pub max_discard_sectors: u32,
    /// Most ranges in a discard.
    pub max_discard_seg: u32,
    /// Longest range of a write-zeroes, in sectors of 512 bytes.
    pub max_write_zeroes_sectors: u32,
    /// Most ranges in a write-zeroes.
    pub max_write_zeroes_seg: u32,
    /// Logical block size in bytes, 512 or 4096: offset and length of every transfer are multiples of it.
    pub block_size: u32,
    /// Size of the device in bytes.
    pub capacity_bytes: u64,
    /// Whether writes, discards and write-zeroes are refused.
    pub read_only: bool,
    /// Whether discard is offered.
    pub discard: bool,
    /// Whether write-zeroes is offered.
    pub write_zeroes: bool,
    /// Whether flush is offered.
    pub flush: bool,
}
