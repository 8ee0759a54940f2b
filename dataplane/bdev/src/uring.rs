//! A regular file or a block device of the host: O_DIRECT from and to the caller's buffers, through io_uring
//! or worker threads, whichever the driver has. A file in memory is mapped and copied from and to.

mod blocking;
mod geometry;
mod holder;
mod mapped;
mod open;

use crate::transfer::{Lane, Medium, Transfer};
use crate::{BdevError, BlockDevice, Driver, Info, Io, IoChannel, IoStatus};
use blocking::Blocking;
use mapped::Mapped;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How to open a file or device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UringOptions {
    /// Open for reading only; everything that changes data is refused.
    pub readonly: bool,
    /// 512 or 4096; by default the smallest that the medium takes with O_DIRECT.
    pub block_size: Option<u32>,
}

/// A file or block device, held by an exclusive lock until the last request has come back.
#[derive(Clone, Debug)]
pub struct Uring {
    disk: Arc<Disk>,
}

#[derive(Debug)]
struct Disk {
    /// Its `size_bytes` is the size at opening; see `size_bytes`.
    info: Info,
    size_bytes: AtomicU64,
    medium: Arc<Medium>,
    blocking: Blocking,
    /// The file in this process, if it is one in memory. Replaced when the file has grown.
    mapped: Mutex<Option<Arc<Mapped>>>,
}

impl Uring {
    /// Opens and locks what `path` names.
    ///
    /// # Errors
    /// [`BdevError::Open`], [`BdevError::NotAFileOrDevice`], [`BdevError::InUse`], [`BdevError::Mounted`],
    /// [`BdevError::TooSmall`], or [`BdevError::Invalid`] for a block size the medium cannot have.
    pub fn open(path: impl AsRef<Path>, options: UringOptions) -> Result<Uring, BdevError> {
        let path = path.as_ref();
        let opened = open::open(path, options.readonly)?;
        let geometry = geometry::find(path, &opened, options)?;
        let medium = Arc::new(geometry.medium(opened.fd));
        let info = geometry.info;
        let mapped = Mapped::new(&medium, info.size_bytes, info.read_only);
        tracing::info!(
            path = %path.display(),
            size_bytes = info.size_bytes,
            block_size = info.block_size,
            direct = geometry.direct,
            mapped = mapped.is_some(),
            readonly = info.read_only,
            "Opened a device"
        );
        Ok(Uring {
            disk: Arc::new(Disk {
                info,
                size_bytes: AtomicU64::new(info.size_bytes),
                blocking: Blocking::new(Arc::clone(&medium), path, &info),
                medium,
                mapped: Mutex::new(mapped.map(Arc::new)),
            }),
        })
    }

    /// Makes a sparse file of `size_bytes`, durably, and opens it for reading and writing. Only its owner may
    /// read it.
    ///
    /// # Errors
    /// [`BdevError::Open`] if there is something at `path` already, or no room; [`BdevError::Invalid`] for a
    /// size no device can have. No file is left behind then.
    pub fn create(path: impl AsRef<Path>, size_bytes: u64) -> Result<Uring, BdevError> {
        let path = path.as_ref();
        crate::device::check_geometry("uring", size_bytes, 512)?;
        open::create(path, size_bytes)?;
        Uring::open(path, UringOptions::default())
    }
}

impl Uring {
    /// The open device, which has the lock.
    pub(crate) fn medium(&self) -> &Arc<Medium> {
        &self.disk.medium
    }
}

impl Disk {
    fn info(&self) -> Info {
        let size_bytes = self.size_bytes.load(Ordering::Acquire);
        Info {
            size_bytes,
            ..self.info
        }
    }

    fn mapped(&self) -> Option<Arc<Mapped>> {
        // A value is replaced as a whole, whatever panicked elsewhere.
        self.mapped
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn map_again(&self, size_bytes: u64) {
        let mapped = Mapped::new(&self.medium, size_bytes, self.info.read_only).map(Arc::new);
        *self.mapped.lock().unwrap_or_else(PoisonError::into_inner) = mapped;
    }
}

impl BlockDevice for Uring {
    fn info(&self) -> Info {
        self.disk.info()
    }

    fn refresh(&self) -> Result<Info, BdevError> {
        let found = geometry::size_bytes(&self.disk.medium.fd)
            .map_err(|source| self.disk.blocking.failed("size", 0, source))?;
        let block = u64::from(self.disk.info.block_size);
        let size_bytes = found / block * block;
        let known = self.disk.size_bytes.fetch_max(size_bytes, Ordering::AcqRel);
        if size_bytes < known {
            // Requests past the new end fail one by one; volumes before it go on.
            tracing::error!(device = %self.disk.blocking.name(), known, size_bytes, "A device shrank");
        } else if size_bytes > known && self.disk.medium.memory {
            self.disk.map_again(size_bytes);
        }
        Ok(self.info())
    }

    fn open_channel(&self, driver: &mut Driver) -> Result<Box<dyn IoChannel>, BdevError> {
        driver.prepare()?;
        Ok(Box::new(UringChannel {
            disk: Arc::clone(&self.disk),
            lane: Arc::new(Lane::new(Arc::clone(&self.disk.medium))),
            mapped: self.disk.mapped(),
        }))
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), BdevError> {
        self.info().check_span(offset, buf.len() as u64)?;
        self.disk.blocking.read(offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), BdevError> {
        self.info().check_span(offset, buf.len() as u64)?;
        self.disk.blocking.write(offset, buf)
    }

    fn write_zeroes_at(&self, offset: u64, len: u64) -> Result<(), BdevError> {
        self.info().check_span(offset, len)?;
        if let Some(mapped) = self.disk.mapped() {
            mapped.forget(offset, len);
        }
        self.disk.blocking.zero(offset, len)
    }

    fn flush(&self) -> Result<(), BdevError> {
        self.disk.blocking.sync()
    }
}

struct UringChannel {
    disk: Arc<Disk>,
    lane: Arc<Lane>,
    mapped: Option<Arc<Mapped>>,
}

impl UringChannel {
    /// True if the request has been served by a copy.
    fn copied(&mut self, io: &Io) -> bool {
        if self.mapped.as_ref().is_some_and(|mapped| !mapped.holds(io)) {
            self.mapped = self.disk.mapped();
        }
        self.mapped.as_ref().is_some_and(|mapped| mapped.serve(io))
    }
}

impl IoChannel for UringChannel {
    fn submit(&mut self, driver: &mut Driver, io: Io) {
        match self.disk.info().check(&io) {
            Err(status) => driver.complete(io.token(), status),
            Ok(()) if io.is_empty() && io.op() != crate::Op::Flush => {
                driver.complete(io.token(), IoStatus::Ok);
            }
            Ok(()) if self.copied(&io) => driver.complete(io.token(), IoStatus::Ok),
            Ok(()) => driver.start(Transfer::new(&self.lane, io)),
        }
    }

    fn is_memory(&self) -> bool {
        self.mapped.is_some()
    }

    fn expect(&mut self, offset: u64, len: u64) {
        if let Some(mapped) = &self.mapped {
            mapped.expect(offset, len);
        }
    }
}
