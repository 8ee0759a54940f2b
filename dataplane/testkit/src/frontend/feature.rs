//! Feature bits of virtio and virtio-blk as masks (virtio 1.x sections 5.2.3 and 6).

/// Largest segment size is in the configuration space.
pub const SIZE_MAX: u64 = 1 << 1;
/// Most segments in a request are in the configuration space.
pub const SEG_MAX: u64 = 1 << 2;
/// The device is read-only.
pub const RO: u64 = 1 << 5;
/// Block size is in the configuration space.
pub const BLK_SIZE: u64 = 1 << 6;
/// Flush requests.
pub const FLUSH: u64 = 1 << 9;
/// Topology is in the configuration space.
pub const TOPOLOGY: u64 = 1 << 10;
/// The driver may switch the write cache.
pub const CONFIG_WCE: u64 = 1 << 11;
/// Several queues.
pub const MQ: u64 = 1 << 12;
/// Discard requests.
pub const DISCARD: u64 = 1 << 13;
/// Write-zeroes requests.
pub const WRITE_ZEROES: u64 = 1 << 14;
/// Indirect descriptor tables.
pub const INDIRECT: u64 = 1 << 28;
/// Positions instead of flags suppress notifications.
pub const EVENT_IDX: u64 = 1 << 29;
/// vhost-user protocol features exist.
pub const PROTOCOL_FEATURES: u64 = 1 << 30;
/// Virtio 1.0 or later.
pub const VERSION_1: u64 = 1 << 32;

/// Everything above: what a modern guest asks for.
pub const ALL: u64 = SIZE_MAX
    | SEG_MAX
    | RO
    | BLK_SIZE
    | FLUSH
    | TOPOLOGY
    | CONFIG_WCE
    | MQ
    | DISCARD
    | WRITE_ZEROES
    | INDIRECT
    | EVENT_IDX
    | PROTOCOL_FEATURES
    | VERSION_1;
