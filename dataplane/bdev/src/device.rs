//! The two traits every device kind implements, and the facts a device tells about itself.

use crate::{BdevError, Driver, Io, IoStatus, Op};

/// What a device is and can do. Fixed for the device's life, except that `size_bytes` may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Unit of offsets and lengths of requests, in bytes: 512 or 4096.
    pub block_size: u32,
    /// Capacity in bytes, a multiple of `block_size`.
    pub size_bytes: u64,
    /// Requests of a multiple of this many bytes are served best.
    pub optimal_io_bytes: u32,
    /// Refuses everything that changes data.
    pub read_only: bool,
    /// Knows [`Op::Discard`].
    pub discard: bool,
    /// Knows [`Op::WriteZeroes`].
    pub write_zeroes: bool,
    /// Has a volatile cache or a kernel behind it, so that [`Op::Flush`] does something.
    pub flush: bool,
    /// The device kind, in SPDK's words where the thing is the same.
    pub kind: &'static str,
}

impl Info {
    /// Refuses a request that this device must not act on. Every device calls it first.
    ///
    /// # Errors
    /// The status to complete the request with: `OutOfRange`, `Unsupported`, `Failed(EROFS)`, or
    /// `Failed(EINVAL)` for a length or offset that is no multiple of the block size.
    pub fn check(&self, io: &Io) -> Result<(), IoStatus> {
        match io.op() {
            Op::Flush => return Ok(()),
            Op::Discard if !self.discard => return Err(IoStatus::Unsupported),
            Op::WriteZeroes { .. } if !self.write_zeroes => return Err(IoStatus::Unsupported),
            Op::Read => {}
            Op::Write | Op::Discard | Op::WriteZeroes { .. } if self.read_only => {
                return Err(IoStatus::Failed(libc::EROFS));
            }
            Op::Write | Op::Discard | Op::WriteZeroes { .. } => {}
        }
        let block = u64::from(self.block_size);
        if !io.offset().is_multiple_of(block) || !io.len().is_multiple_of(block) {
            return Err(IoStatus::Failed(libc::EINVAL));
        }
        if matches!(io.op(), Op::Read | Op::Write) && io.iov_count() == 0 && !io.is_empty() {
            return Err(IoStatus::Failed(libc::EINVAL));
        }
        match io.offset().checked_add(io.len()) {
            Some(end) if end <= self.size_bytes => Ok(()),
            _ => Err(IoStatus::OutOfRange),
        }
    }

    /// The facts of a device that is memory, or less.
    pub(crate) fn memory(kind: &'static str, size_bytes: u64, block_size: u32) -> Info {
        Info {
            block_size,
            size_bytes,
            optimal_io_bytes: 4096,
            read_only: false,
            discard: true,
            write_zeroes: true,
            flush: true,
            kind,
        }
    }

    /// The same range check for blocking access, which may have any alignment.
    pub(crate) fn check_span(&self, offset: u64, len: u64) -> Result<(), BdevError> {
        match offset.checked_add(len) {
            Some(end) if end <= self.size_bytes => Ok(()),
            _ => Err(BdevError::OutOfRange {
                kind: self.kind,
                offset,
                len,
                size: self.size_bytes,
            }),
        }
    }
}

/// No drive is larger than this; a size above it is a slip of the pen.
pub(crate) const SIZE_MAX: u64 = 1 << 50;

/// Refuses sizes and block sizes that no device can have.
pub(crate) fn check_geometry(
    kind: &str,
    size_bytes: u64,
    block_size: u32,
) -> Result<(), BdevError> {
    let invalid = |what, why: &str| {
        Err(BdevError::Invalid {
            what,
            why: why.to_owned(),
        })
    };
    if block_size != 512 && block_size != 4096 {
        return invalid(
            format!("block size {block_size} of a {kind} device"),
            "it must be 512 or 4096",
        );
    }
    if size_bytes == 0 || size_bytes > SIZE_MAX {
        return invalid(
            format!("size of {size_bytes} bytes for a {kind} device"),
            "it must be at least one block and at most 1 PiB",
        );
    }
    if !size_bytes.is_multiple_of(u64::from(block_size)) {
        let what = format!("size of {size_bytes} bytes for a {kind} device");
        return invalid(
            what,
            &format!("it must be a multiple of the block size, {block_size}"),
        );
    }
    Ok(())
}

/// A device that all threads share. Requests go through a channel; the blocking calls are for the control
/// plane (pool metadata, erase), take any alignment and must not be used on a reactor.
pub trait BlockDevice: Send + Sync + std::fmt::Debug {
    /// Facts about the device; the size may grow over time.
    fn info(&self) -> Info;

    /// Looks whether the device has grown; [`BlockDevice::info`] tells the new size afterwards, and open
    /// channels serve it.
    ///
    /// # Errors
    /// [`BdevError::Io`] if the device does not tell its size.
    fn refresh(&self) -> Result<Info, BdevError> {
        Ok(self.info())
    }

    /// Opens this reactor's way to the device.
    ///
    /// # Errors
    /// [`BdevError`] if the driver lacks something the device needs.
    fn open_channel(&self, driver: &mut Driver) -> Result<Box<dyn IoChannel>, BdevError>;

    /// Fills `buf` from byte `offset`.
    ///
    /// # Errors
    /// [`BdevError::OutOfRange`], or [`BdevError::Io`] with the cause.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), BdevError>;

    /// Writes `buf` at byte `offset`; durable only after [`BlockDevice::flush`].
    ///
    /// # Errors
    /// As for [`BlockDevice::read_at`]; [`BdevError::ReadOnly`].
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), BdevError>;

    /// Makes the range read as zeros; durable only after [`BlockDevice::flush`].
    ///
    /// # Errors
    /// As for [`BlockDevice::write_at`].
    fn write_zeroes_at(&self, offset: u64, len: u64) -> Result<(), BdevError>;

    /// Everything written before this call is durable when it returns.
    ///
    /// # Errors
    /// [`BdevError::Io`] with the cause.
    fn flush(&self) -> Result<(), BdevError>;
}

/// One reactor's way to a device. Lives and dies on that reactor's thread.
pub trait IoChannel {
    /// Hands a request over. It completes exactly once through `driver`, maybe before this returns.
    fn submit(&mut self, driver: &mut Driver, io: Io);

    /// Whether it pays to [`expect`](Self::expect) reads: a read that is a copy takes as long as its lines need to come.
    fn is_memory(&self) -> bool {
        false
    }

    /// These bytes will be read soon. A hint, best given before the request in front of theirs is submitted.
    fn expect(&mut self, _offset: u64, _len: u64) {}
}
