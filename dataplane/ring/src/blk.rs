//! virtio-blk (virtio 1.x section 5.2): requests parsed straight off the ring, and the configuration space.

mod config;
mod limits;
mod parse;
mod request;

pub use config::{ConfigSpace, Topology};
pub use limits::Limits;
pub use request::{BlkRange, Kind, Request, Status};

/// The unit of sectors in virtio-blk, whatever the device's block size: 512 bytes.
pub const SECTOR_BYTES: u64 = 512;
