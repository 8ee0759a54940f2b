//! Reasons of events. They are part of the API: alerts and people look for them, so a name never changes its meaning.

/// BlockPool: the device is open and its table is valid.
pub const POOL_READY: &str = "PoolReady";
/// BlockPool: no device with this identity is attached.
pub const DEVICE_MISSING: &str = "DeviceMissing";
/// BlockPool: the device found holds another pool, or something that is none.
pub const DEVICE_MISMATCH: &str = "DeviceMismatch";
/// BlockPool: the device is mounted, held by another program, or the drive of another BlockPool.
pub const DEVICE_IN_USE: &str = "DeviceInUse";
/// BlockPool: the table on the device is damaged.
pub const METADATA_CORRUPT: &str = "MetadataCorrupt";
/// BlockPool: little is left for new volumes.
pub const POOL_NEARLY_FULL: &str = "PoolNearlyFull";
/// BlockPool: the drive went away while it was in use.
pub const DEVICE_LOST: &str = "DeviceLost";
/// BlockPool: the same drive is back.
pub const DEVICE_RETURNED: &str = "DeviceReturned";
/// SplitVolume: space on the drive is its own.
pub const ALLOCATED: &str = "Allocated";
/// SplitVolume: the pool has no room for it.
pub const NO_SPACE: &str = "NoSpace";
/// SplitVolume: it has grown as asked.
pub const EXPANDED: &str = "Expanded";
/// SplitVolume: it could not grow.
pub const EXPAND_FAILED: &str = "ExpandFailed";
/// SplitVolume: its space is being erased.
pub const ERASE_STARTED: &str = "EraseStarted";
/// BlockPool: all that was given up is erased and free.
pub const ERASE_COMPLETED: &str = "EraseCompleted";
/// BlockPool: space that was given up could not be erased; it stays out of use, and erasing is tried again.
pub const ERASE_FAILED: &str = "EraseFailed";
/// OrphanExtent: a drive holds a volume that no object speaks of.
pub const ORPHAN_DETECTED: &str = "OrphanDetected";
/// VolumeSession: the socket listens.
pub const EXPORTED: &str = "Exported";
/// VolumeSession: the socket listens again after a restart.
pub const RE_EXPORTED: &str = "ReExported";
/// VolumeSession: a VM is connected.
pub const GUEST_CONNECTED: &str = "GuestConnected";
/// VolumeSession: the VM has gone.
pub const GUEST_DISCONNECTED: &str = "GuestDisconnected";
/// VolumeSession: requests that were in flight at a restart were submitted again.
pub const INFLIGHT_REPLAYED: &str = "InflightReplayed";
/// VolumeSession: a guest's request failed on the drive.
pub const IO_ERROR: &str = "IOError";
/// VolumeSession: a VM wants to stop, and its requests wait for the drive.
pub const STOP_WAITS_FOR_DEVICE: &str = "StopWaitsForDevice";
/// SplitVolume: nothing in the cluster wants it any more.
pub const GARBAGE_FOUND: &str = "GarbageFound";
/// SplitVolume: it was deleted because nothing in the cluster wanted it.
pub const GARBAGE_DELETED: &str = "GarbageDeleted";
/// SplitVolume: its node is gone for good.
pub const NODE_GONE: &str = "NodeGone";

/// All reasons.
pub const ALL: &[&str] = &[
    POOL_READY,
    DEVICE_MISSING,
    DEVICE_MISMATCH,
    DEVICE_IN_USE,
    METADATA_CORRUPT,
    POOL_NEARLY_FULL,
    DEVICE_LOST,
    DEVICE_RETURNED,
    ALLOCATED,
    NO_SPACE,
    EXPANDED,
    EXPAND_FAILED,
    ERASE_STARTED,
    ERASE_COMPLETED,
    ERASE_FAILED,
    ORPHAN_DETECTED,
    EXPORTED,
    RE_EXPORTED,
    GUEST_CONNECTED,
    GUEST_DISCONNECTED,
    INFLIGHT_REPLAYED,
    IO_ERROR,
    STOP_WAITS_FOR_DEVICE,
    GARBAGE_FOUND,
    GARBAGE_DELETED,
    NODE_GONE,
];
