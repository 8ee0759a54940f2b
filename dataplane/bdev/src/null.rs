//! A device without a medium, for measuring everything above it. As SPDK's: writes vanish, reads leave the
//! buffers untouched.

use crate::{BdevError, BlockDevice, Driver, Info, Io, IoChannel, IoStatus};

/// Completes every request that is in range at once and does nothing.
#[derive(Clone, Copy, Debug)]
pub struct Null {
    info: Info,
}

impl Null {
    /// A null device of `size_bytes`, a multiple of `block_size` (512 or 4096).
    ///
    /// # Errors
    /// [`BdevError::Invalid`] for a size or block size no device can have.
    pub fn new(size_bytes: u64, block_size: u32) -> Result<Null, BdevError> {
        crate::device::check_geometry("null", size_bytes, block_size)?;
        Ok(Null {
            info: Info::memory("null", size_bytes, block_size),
        })
    }
}

impl BlockDevice for Null {
    fn info(&self) -> Info {
        self.info
    }

    fn open_channel(&self, _driver: &mut Driver) -> Result<Box<dyn IoChannel>, BdevError> {
        Ok(Box::new(*self))
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), BdevError> {
        self.info.check_span(offset, buf.len() as u64)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), BdevError> {
        self.info.check_span(offset, buf.len() as u64)
    }

    fn write_zeroes_at(&self, offset: u64, len: u64) -> Result<(), BdevError> {
        self.info.check_span(offset, len)
    }

    fn flush(&self) -> Result<(), BdevError> {
        Ok(())
    }
}

impl IoChannel for Null {
    fn submit(&mut self, driver: &mut Driver, io: Io) {
        let status = self.info.check(&io).err().unwrap_or(IoStatus::Ok);
        driver.complete(io.token(), status);
    }
}
