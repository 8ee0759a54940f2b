//! What can go wrong with a device: what failed, on which object, why, and what to do about it.

use std::io;
use std::path::PathBuf;

/// Errors of the control plane side of a device. Failed requests are an [`IoStatus`](crate::IoStatus).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BdevError {
    /// The path could not be opened.
    #[error("cannot open {}: {source}; check the path and its permissions", path.display())]
    Open {
        /// The file or device.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Somebody else holds the file or device.
    #[error("{} is in use{holder}; stop whoever holds it (`fuser -v`, `lsblk` show it) and try again", path.display())]
    InUse {
        /// The file or device.
        path: PathBuf,
        /// Who holds it, if that could be found out: empty, or ` by process N (name)`.
        holder: String,
    },
    /// A mounted block device is somebody's file system.
    #[error("{} is mounted on {mount_point}; unmount it first, or name another device", path.display())]
    Mounted {
        /// The block device.
        path: PathBuf,
        /// Where it is mounted.
        mount_point: String,
    },
    /// The path names a folder, a pipe, a socket or a character device.
    #[error("{} is {what}; name a regular file or a block device", path.display())]
    NotAFileOrDevice {
        /// The path given.
        path: PathBuf,
        /// What is there instead.
        what: &'static str,
    },
    /// The file or device cannot hold a single block.
    #[error("{} holds {size} bytes, less than one block of {block_size}; create it larger or grow it", path.display())]
    TooSmall {
        /// The file or device.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// The device's block size in bytes.
        block_size: u32,
    },
    /// A size, block size or layout that no device can have.
    #[error("{what}: {why}")]
    Invalid {
        /// The object, with the value that was refused.
        what: String,
        /// The rule, and what would be accepted.
        why: String,
    },
    /// A range past the end.
    #[error(
        "bytes {offset}+{len} lie past the end of the {kind} device of {size} bytes; check the offset, or grow the device"
    )]
    OutOfRange {
        /// Device kind.
        kind: &'static str,
        /// First byte of the range.
        offset: u64,
        /// Length in bytes.
        len: u64,
        /// Size of the device in bytes.
        size: u64,
    },
    /// A change to a device that was opened for reading.
    #[error(
        "the {kind} device {name} is open for reading only; open it without `readonly` to change it"
    )]
    ReadOnly {
        /// Device kind.
        kind: &'static str,
        /// Path or other name.
        name: String,
    },
    /// An operation that the device refused or failed.
    #[error(
        "{op} of {name} at byte {offset} failed: {source}; see the kernel log for the device's own words"
    )]
    Io {
        /// `read`, `write`, ...
        op: &'static str,
        /// Path or kind of the device.
        name: String,
        /// First byte concerned.
        offset: u64,
        /// The cause.
        source: io::Error,
    },
    /// The reactor's wait point could not be set up or used.
    #[error("{what} failed: {source}")]
    Driver {
        /// The step, with the remedy where there is one.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// A device specification that could not be understood.
    #[error("device specification {spec:?}: {why}")]
    Spec {
        /// The text given.
        spec: String,
        /// What is wrong with it, and what is accepted.
        why: String,
    },
}
