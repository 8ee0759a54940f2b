//! Where things lie on a drive. The first six MiB and the last one are ours; what lies between is cut into volumes.

/// Unit and alignment of every extent, in bytes.
pub const EXTENT_BYTES: u64 = 1 << 20;

/// The smallest device that can be a pool: the head, one extent and the tail, in bytes.
pub const MIN_DEVICE_BYTES: u64 = DATA_START + EXTENT_BYTES + TAIL_BYTES;

/// The two superblock copies. Both places are fixed for ever, so that each is found without the other.
pub(crate) const SUPERBLOCK_OFFSETS: [u64; 2] = [0, 5 << 20];

/// Space kept around each superblock copy; past the copy itself it stays zero.
pub(crate) const SUPERBLOCK_AREA: u64 = EXTENT_BYTES;

/// The two table copies, as `format` lays them out; the superblock says where they really are.
pub(crate) const TABLE_OFFSETS: [u64; 2] = [1 << 20, 3 << 20];

/// Room for one table copy: 4,096 volumes with the longest ids and eight extents each fit.
pub(crate) const TABLE_BYTES: u64 = 2 << 20;

/// First byte of the data area, as `format` lays it out.
pub(crate) const DATA_START: u64 = 6 << 20;

/// The end of the device, which belongs to nobody. RAID and other formats keep their superblock there, and a host assembles
/// what it finds: a guest that owned the last bytes could make the host claim the drive at its next boot.
pub(crate) const TAIL_BYTES: u64 = EXTENT_BYTES;

/// Metadata is written in whole blocks of this size, the largest block size a drive has.
pub(crate) const WRITE_BYTES: usize = 4096;

/// Where the data area of a device of this size ends at most.
pub(crate) fn data_end(device_bytes: u64) -> u64 {
    floor(device_bytes.saturating_sub(TAIL_BYTES))
}

/// Rounds down to the extent grid.
pub(crate) fn floor(bytes: u64) -> u64 {
    bytes / EXTENT_BYTES * EXTENT_BYTES
}

/// Rounds up to the extent grid; `None` past the end of the number range.
pub(crate) fn ceil(bytes: u64) -> Option<u64> {
    bytes.checked_next_multiple_of(EXTENT_BYTES)
}
