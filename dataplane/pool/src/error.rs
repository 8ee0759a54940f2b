//! Why a pool could not be opened, made or changed, and what to do about it.

use holdfast_bdev::BdevError;
use uuid::Uuid;

/// Errors of this crate. The caller knows the device's name and puts it in front.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// Nothing but zeros where a pool would begin.
    #[error("the device is blank, not a pool; format it first")]
    NotAPool,
    /// A format began and did not end; no volume can exist yet.
    #[error(
        "formatting this device was interrupted; format it again, nothing can be lost and no force is needed"
    )]
    FormatInterrupted,
    /// The device carries somebody else's data.
    #[error(
        "the device carries {what}; Holdfast does not touch it. Choose another device, or, if that data may go for good, format with force"
    )]
    Foreign {
        /// What was recognised.
        what: String,
    },
    /// The device is a pool already.
    #[error(
        "the device is already Holdfast pool {uuid} ({identity}); open it, or, if all its volumes may go for good, format with force"
    )]
    AlreadyAPool {
        /// The pool that is there.
        uuid: Uuid,
        /// Identity of the device it was made on.
        identity: String,
    },
    /// The pool's own data is damaged and no valid copy of it is left.
    #[error(
        "the pool is damaged: {what}. Nothing was changed. Look at it with `holdfast pool inspect`; restore the first six MiB from a backup, or format with force to give up all volumes"
    )]
    Damaged {
        /// Which part, and how.
        what: String,
    },
    /// The device cannot hold a pool at all.
    #[error("the device has {size_bytes} bytes; a pool needs at least {minimum_bytes}")]
    TooSmall {
        /// Its size in bytes.
        size_bytes: u64,
        /// What is needed.
        minimum_bytes: u64,
    },
    /// The device is shorter than the pool on it.
    #[error(
        "the device has {size_bytes} bytes, the pool on it needs {expected_bytes}: it was truncated or is a partial copy. Bring it back to its size; nothing was changed"
    )]
    Truncated {
        /// Its size in bytes.
        size_bytes: u64,
        /// What the pool needs.
        expected_bytes: u64,
    },
    /// A newer release made this pool.
    #[error(
        "the pool has format {found}, this release reads up to {ours}; use a release that knows it"
    )]
    NewerVersion {
        /// What the pool says.
        found: String,
        /// What this code knows.
        ours: String,
    },
    /// The device's blocks became larger than the pool's guests can cope with.
    #[error(
        "the device now has blocks of {found} bytes, the pool was made with {expected}: guests cannot use it. Bring the old block size back, or move the volumes"
    )]
    BlockSize {
        /// Block size of the device in bytes.
        found: u32,
        /// Block size the pool was made with.
        expected: u32,
    },
    /// The device is a pool, but not the one that was asked for.
    #[error(
        "this is pool {found_uuid} made on {found_identity:?}, not {expected}; check which drive is meant. Nothing was changed"
    )]
    WrongPool {
        /// UUID on the device.
        found_uuid: Uuid,
        /// Identity on the device.
        found_identity: String,
        /// What was expected.
        expected: String,
    },
    /// The device refuses writes.
    #[error("the device is read-only; a pool must be able to write its table")]
    ReadOnly,
    /// A volume id that cannot be stored.
    #[error("volume id {id:?} cannot be used: {reason}")]
    InvalidId {
        /// The id.
        id: String,
        /// The rule it breaks.
        reason: String,
    },
    /// A device identity that cannot be stored.
    #[error(
        "device identity {identity:?} cannot be used: it has at most {max} bytes and no control characters"
    )]
    InvalidIdentity {
        /// The identity.
        identity: String,
        /// The most bytes it may have.
        max: usize,
    },
    /// A volume of no size.
    #[error("volume {id:?} cannot have 0 bytes; ask for at least 1, sizes round up to 1 MiB")]
    InvalidSize {
        /// The volume.
        id: String,
    },
    /// The id is taken by a volume of another size.
    #[error(
        "volume {id:?} exists with {size_bytes} bytes, {asked_bytes} were asked for; grow it, or use another id"
    )]
    AlreadyExists {
        /// The volume.
        id: String,
        /// Its size.
        size_bytes: u64,
        /// The size asked for.
        asked_bytes: u64,
    },
    /// No such volume.
    #[error("the pool has no volume {id:?}; `holdfast pool inspect` lists those it has")]
    NotFound {
        /// The id.
        id: String,
    },
    /// Volumes only grow.
    #[error("volume {id:?} has {size_bytes} bytes and cannot shrink to {asked_bytes}")]
    CannotShrink {
        /// The volume.
        id: String,
        /// Its size.
        size_bytes: u64,
        /// The size asked for.
        asked_bytes: u64,
    },
    /// Not enough erased space.
    #[error("no space for volume {id:?}: {asked_bytes} bytes needed, {free_bytes} free, {erase_pending_bytes} more when erasing is done; {}", remedy(*asked_bytes, *free_bytes, *erase_pending_bytes))]
    NoSpace {
        /// The volume.
        id: String,
        /// Bytes that were missing a place.
        asked_bytes: u64,
        /// Erased and free bytes.
        free_bytes: u64,
        /// Bytes that wait to be erased.
        erase_pending_bytes: u64,
    },
    /// The table has no room for another record.
    #[error(
        "the pool's table is full: {needed_bytes} bytes needed, {room_bytes} there; delete volumes, or wait until erasing has closed gaps"
    )]
    TableFull {
        /// Bytes the new table takes.
        needed_bytes: u64,
        /// Bytes of a table copy.
        room_bytes: u64,
    },
    /// A change could not be made durable.
    #[error(
        "writing the pool's table failed: {source}. The change may or may not be on the device; this process goes on without it. Repeat the call once the device is well"
    )]
    TableWrite {
        /// What the device said.
        source: BdevError,
    },
    /// Zeros were written, something else was read back.
    #[error(
        "the device did not erase: byte {offset} still holds data after zeros were written and flushed. Its space stays in quarantine; replace the drive"
    )]
    NotErased {
        /// Where it was seen.
        offset: u64,
    },
    /// The device failed.
    #[error("{action} failed: {source}")]
    Device {
        /// What was tried.
        action: &'static str,
        /// What the device said.
        source: BdevError,
    },
}

fn remedy(asked: u64, free: u64, pending: u64) -> &'static str {
    if free.saturating_add(pending) >= asked {
        "wait for the erasing and try again"
    } else {
        "delete volumes, or use another pool"
    }
}
