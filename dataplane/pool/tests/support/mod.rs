//! Drives in memory with a pool on them, shared by the tests of what others leave and of what breaks.

#![allow(dead_code)] // Each test file uses its part.

use holdfast_bdev::{BdevError, BlockDevice, Driver, Info, IoChannel, Malloc};
use holdfast_pool::{EXTENT_BYTES, FormatOptions, Pool, PoolError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) const MIB: u64 = EXTENT_BYTES;
/// Six MiB of head, sixteen of data, one of tail.
pub(crate) const SIZE: u64 = 23 * MIB;

pub(crate) fn blank() -> Arc<Malloc> {
    Arc::new(Malloc::new(SIZE, 512).unwrap())
}

pub(crate) fn options(force: bool) -> FormatOptions {
    FormatOptions {
        identity: "drive".into(),
        zeroed: true,
        force,
    }
}

/// A drive with a pool of two volumes, the first of which holds data.
pub(crate) fn pooled() -> Arc<Malloc> {
    let drive = blank();
    let pool = Pool::format(drive.clone(), options(false)).unwrap();
    let first = pool.allocate("first", 2 * MIB).unwrap();
    pool.allocate("second", MIB).unwrap();
    drive
        .write_at(first.extents[0].offset_bytes, &[0xd1; 8192])
        .unwrap();
    drive
}

/// What we could write on a drive: the head, the first of the data and the tail.
pub(crate) fn ends(drive: &dyn BlockDevice) -> Vec<u8> {
    let size = drive.info().size_bytes;
    let mut bytes = vec![0; 8 << 20];
    let len = bytes.len().min(usize::try_from(size).unwrap());
    drive.read_at(0, &mut bytes[..len]).unwrap();
    let mut tail = vec![0; len.min(1 << 20)];
    let at = size - tail.len() as u64;
    drive.read_at(at, &mut tail).unwrap();
    bytes.extend(tail);
    bytes
}

/// Both ways to take a drive must refuse, for the same reason, and leave every byte as it is.
pub(crate) fn refused(drive: &Arc<Malloc>) -> String {
    let before = ends(&**drive);
    let open = Pool::open(drive.clone()).unwrap_err().to_string();
    let format = Pool::format(drive.clone(), options(false)).unwrap_err();
    if !matches!(format, PoolError::AlreadyAPool { .. }) {
        assert_eq!(format.to_string(), open);
    }
    let report = Pool::inspect(&**drive).unwrap();
    assert!(report.notes.contains(&open), "{open}\n{report}");
    assert!(report.pool.is_none());
    assert!(ends(&**drive) == before, "something was written");
    open
}

/// A drive that says "zeroed" and does nothing, and on demand says "written" and does nothing to data.
#[derive(Debug)]
pub(crate) struct Liar {
    drive: Arc<Malloc>,
    lies_about_writes: AtomicBool,
}

impl Liar {
    pub(crate) fn new(drive: Arc<Malloc>) -> Liar {
        let lies_about_writes = AtomicBool::new(false);
        Liar {
            drive,
            lies_about_writes,
        }
    }

    pub(crate) fn lie_about_writes(&self, lies: bool) {
        self.lies_about_writes.store(lies, Ordering::Relaxed);
    }
}

impl BlockDevice for Liar {
    fn info(&self) -> Info {
        self.drive.info()
    }

    fn open_channel(&self, driver: &mut Driver) -> Result<Box<dyn IoChannel>, BdevError> {
        self.drive.open_channel(driver)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), BdevError> {
        self.drive.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), BdevError> {
        let lies = self.lies_about_writes.load(Ordering::Relaxed);
        if lies && offset >= 6 * MIB {
            return Ok(());
        }
        self.drive.write_at(offset, buf)
    }

    fn write_zeroes_at(&self, _offset: u64, _len: u64) -> Result<(), BdevError> {
        Ok(())
    }

    fn flush(&self) -> Result<(), BdevError> {
        self.drive.flush()
    }
}
