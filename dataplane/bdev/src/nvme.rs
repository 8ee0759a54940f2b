//! An NVMe namespace by its own commands: io_uring carries them to the generic character device (`/dev/ng0n1`), past
//! the block layer. What no command serves, and what meets a controller that is being reset, takes the block path.
//!
//! The block device (`/dev/nvme0n1`) is held open and locked meanwhile, exactly as kind `uring` holds it, and serves
//! the blocking calls.

mod command;
mod namespace;
mod nodes;
mod request;

use crate::transfer::Lane;
use crate::{BdevError, BlockDevice, Driver, Info, Io, IoChannel, IoStatus, Op, UringOptions};
pub(crate) use namespace::Namespace;
pub(crate) use request::{Next, Request};
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::sync::Arc;

/// A namespace of an NVMe drive, held by the lock of its block device until the last command has come back.
#[derive(Clone, Debug)]
pub struct Nvme {
    namespace: Arc<Namespace>,
}

impl Nvme {
    /// Opens and locks the namespace that `path` names, by its character or its block device or a link to one.
    ///
    /// # Errors
    /// [`BdevError::Invalid`] if it is no whole namespace, or one whose format has metadata; else as
    /// [`Uring::open`](crate::Uring::open).
    pub fn open(path: impl AsRef<Path>, options: UringOptions) -> Result<Nvme, BdevError> {
        let namespace = Arc::new(Namespace::open(path.as_ref(), options)?);
        Ok(Nvme { namespace })
    }

    /// Whether `path` leads to a whole NVMe namespace, by what the kernel calls it. False also if that cannot be found out.
    pub fn is_at(path: impl AsRef<Path>) -> bool {
        nodes::is_at(path.as_ref())
    }

    fn info(&self) -> Info {
        self.namespace.info(self.namespace.block.info())
    }
}

impl BlockDevice for Nvme {
    fn info(&self) -> Info {
        self.info()
    }

    fn refresh(&self) -> Result<Info, BdevError> {
        Ok(self.namespace.info(self.namespace.block.refresh()?))
    }

    fn open_channel(&self, driver: &mut Driver) -> Result<Box<dyn IoChannel>, BdevError> {
        driver.prepare()?;
        match driver.seat(&self.namespace) {
            Ok(seat) => Ok(Box::new(NvmeChannel { seat })),
            Err(error) => {
                tracing::warn!(%error, "Using the block path for an NVMe drive");
                self.namespace.block.open_channel(driver)
            }
        }
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), BdevError> {
        self.namespace.block.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), BdevError> {
        self.namespace.block.write_at(offset, buf)
    }

    fn write_zeroes_at(&self, offset: u64, len: u64) -> Result<(), BdevError> {
        self.namespace.block.write_zeroes_at(offset, len)
    }

    fn flush(&self) -> Result<(), BdevError> {
        self.namespace.block.flush()
    }
}

/// A namespace's place at one driver: all its channels there, and their requests, share it.
#[derive(Debug)]
pub(crate) struct Seat {
    namespace: Arc<Namespace>,
    block: Arc<Lane>,
}

impl Seat {
    pub(crate) fn new(namespace: &Arc<Namespace>) -> Seat {
        Seat {
            namespace: Arc::clone(namespace),
            block: Arc::new(Lane::new(Arc::clone(namespace.block.medium()))),
        }
    }

    pub(crate) fn is_of(&self, namespace: &Arc<Namespace>) -> bool {
        Arc::ptr_eq(&self.namespace, namespace)
    }

    /// The block device, whose lock must hold as long as commands are under way, and the character device.
    pub(crate) fn descriptors(&self) -> [RawFd; 2] {
        let namespace = &self.namespace;
        [
            namespace.block.medium().fd.as_raw_fd(),
            namespace.generic.as_raw_fd(),
        ]
    }
}

struct NvmeChannel {
    seat: Arc<Seat>,
}

impl IoChannel for NvmeChannel {
    fn submit(&mut self, driver: &mut Driver, io: Io) {
        let namespace = &self.seat.namespace;
        match namespace.info(namespace.block.info()).check(&io) {
            Err(status) => driver.complete(io.token(), status),
            Ok(()) if io.is_empty() && io.op() != Op::Flush => {
                driver.complete(io.token(), IoStatus::Ok);
            }
            Ok(()) => match Request::new(&self.seat, io) {
                Ok(request) => driver.start_command(request),
                Err(transfer) => driver.start(transfer),
            },
        }
    }
}
