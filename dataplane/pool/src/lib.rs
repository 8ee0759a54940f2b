//! What is written on a drive: who the pool is, which space belongs to which volume, and what must still be erased.
//!
//! A [`Pool`] cuts one block device into volumes, each a short list of 1 MiB-aligned [`Extent`]s. Every change is durable on
//! the drive before the call returns, so the process may be killed between any two instructions. The bytes are described
//! in `docs/on-disk-format.md`; this room refuses to know files, clocks, device names, sessions and Kubernetes.
//!
//! ```
//! use holdfast_bdev::Malloc;
//! use holdfast_pool::{FormatOptions, Pool};
//! use std::sync::Arc;
//! let drive = Arc::new(Malloc::new(64 << 20, 512)?);
//! let options = FormatOptions { identity: "doc".into(), zeroed: true, force: false };
//! let pool = Pool::format(drive.clone(), options)?;
//! let volume = pool.allocate("disk-a", 10 << 20)?;
//! assert_eq!(volume.extents.len(), 1);
//! pool.release("disk-a")?; // durable at once; the space stays away until it is erased
//! while pool.erase_step(16 << 20)?.pending_bytes > 0 {}
//! assert_eq!(pool.usage().free_bytes, pool.usage().capacity_bytes);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Invariants: a byte of the data area belongs to at most one record; a byte in no record reads zero; after any crash the
//! table is the one before or the one after the interrupted call; nothing damaged or foreign is ever guessed at.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bytes;
mod codec;
mod discovery;
mod erase;
mod error;
mod format;
mod journal;
mod layout;
mod mend;
mod pool;
mod report;
mod signature;
mod space;
mod superblock;
mod table;
#[cfg(test)]
mod tests;

pub use erase::EraseProgress;
pub use error::PoolError;
pub use format::FormatOptions;
pub use layout::{EXTENT_BYTES, MIN_DEVICE_BYTES};
pub use pool::{Pool, Usage};
pub use report::{CopyReport, PoolReport, Report};
pub use space::Extent;
pub use table::{Pending, Volume};
