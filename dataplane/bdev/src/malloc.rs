//! A device in memory: lazily allocated, gone with the process. Requests are copies, done before `submit`
//! returns.
#![allow(unsafe_code)] // An anonymous mapping, and copies between it and the caller's buffers.

use crate::{BdevError, BlockDevice, Driver, Info, Io, IoChannel, IoStatus, Op, lines};
use std::ptr::NonNull;
use std::sync::Arc;

/// Ranges from this length on are given back to the kernel instead of being overwritten with zeros.
const RELEASE_MIN: usize = 64 << 10;

/// A disk in anonymous memory; blocks never written read as zeros and cost nothing, unless the kernel gives a whole large
/// page for their neighbour's sake.
#[derive(Clone, Debug)]
pub struct Malloc {
    info: Info,
    mapping: Arc<Mapping>,
}

impl Malloc {
    /// A disk of `size_bytes`, a multiple of `block_size` (512 or 4096).
    ///
    /// # Errors
    /// [`BdevError::Invalid`] for a size no device can have, or more address space than there is.
    pub fn new(size_bytes: u64, block_size: u32) -> Result<Malloc, BdevError> {
        crate::device::check_geometry("malloc", size_bytes, block_size)?;
        let mapping = Mapping::new(size_bytes).map_err(|error| BdevError::Invalid {
            what: format!("memory of {size_bytes} bytes for a malloc device"),
            why: format!("the kernel refuses it ({error}); ask for less"),
        })?;
        Ok(Malloc {
            info: Info::memory("malloc", size_bytes, block_size),
            mapping: Arc::new(mapping),
        })
    }

    fn serve(&self, io: &Io) -> IoStatus {
        if let Err(status) = self.info.check(io) {
            return status;
        }
        match io.op() {
            Op::Flush => {}
            Op::Discard | Op::WriteZeroes { .. } => self.mapping.zero(io.offset(), io.len()),
            // SAFETY: the request is not complete yet, so its buffers are valid.
            Op::Read | Op::Write => self.copy(io, unsafe { io.iovecs() }),
        }
        IoStatus::Ok
    }

    fn copy(&self, io: &Io, iovecs: &[libc::iovec]) {
        let mut at = io.offset();
        for part in iovecs {
            let (guest, len) = (part.iov_base.cast::<u8>(), part.iov_len);
            let ours = self.mapping.at(at);
            // SAFETY: `check` kept [at, at + len) inside the mapping, the iovec names len valid bytes, and a
            // private mapping of ours overlaps no buffer of the caller. Two requests that race for the same
            // bytes tear each other, as on any disk.
            unsafe {
                match io.op() {
                    Op::Read => std::ptr::copy_nonoverlapping(ours, guest, len),
                    _ => std::ptr::copy_nonoverlapping(guest, ours, len),
                }
            }
            at += len as u64;
        }
    }
}

impl BlockDevice for Malloc {
    fn info(&self) -> Info {
        self.info
    }

    fn open_channel(&self, _driver: &mut Driver) -> Result<Box<dyn IoChannel>, BdevError> {
        Ok(Box::new(self.clone()))
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), BdevError> {
        self.info.check_span(offset, buf.len() as u64)?;
        // SAFETY: the range was checked, and the slice cannot overlap the private mapping.
        unsafe {
            std::ptr::copy_nonoverlapping(self.mapping.at(offset), buf.as_mut_ptr(), buf.len());
        };
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), BdevError> {
        self.info.check_span(offset, buf.len() as u64)?;
        // SAFETY: as in `read_at`.
        unsafe { std::ptr::copy_nonoverlapping(buf.as_ptr(), self.mapping.at(offset), buf.len()) };
        Ok(())
    }

    fn write_zeroes_at(&self, offset: u64, len: u64) -> Result<(), BdevError> {
        self.info.check_span(offset, len)?;
        self.mapping.zero(offset, len);
        Ok(())
    }

    fn flush(&self) -> Result<(), BdevError> {
        Ok(())
    }
}

impl IoChannel for Malloc {
    fn submit(&mut self, driver: &mut Driver, io: Io) {
        driver.complete(io.token(), self.serve(&io));
    }

    fn is_memory(&self) -> bool {
        true
    }

    fn expect(&mut self, offset: u64, len: u64) {
        if self.info.check_span(offset, len).is_ok() {
            lines::will_read(self.mapping.at(offset), len);
        }
    }
}

/// Private anonymous memory; unmapped when the last device and channel are gone.
#[derive(Debug)]
struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is plain memory that is valid on every thread; all access goes through raw pointers
// with checked ranges.
unsafe impl Send for Mapping {}
// SAFETY: as above; concurrent copies tear at worst, they never leave the mapping.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(size_bytes: u64) -> std::io::Result<Mapping> {
        let len = usize::try_from(size_bytes).map_err(|_| std::io::ErrorKind::OutOfMemory)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches nothing that exists.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        // Random access over small pages spends a tenth of its time on translations. A kernel without large pages refuses,
        // and nothing is lost.
        // SAFETY: advice on the mapping just made changes no content.
        unsafe { libc::madvise(base, len, libc::MADV_HUGEPAGE) };
        let base = NonNull::new(base.cast()).ok_or(std::io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { base, len })
    }

    /// Address of byte `offset`, which the caller has checked.
    #[allow(clippy::cast_possible_truncation)] // The mapping's length is a usize, and offset is inside.
    fn at(&self, offset: u64) -> *mut u8 {
        debug_assert!(offset <= self.len as u64);
        // SAFETY: inside the mapping or one past its end.
        unsafe { self.base.as_ptr().add(offset as usize) }
    }

    /// Zeroes a checked range: the edges by writing, whole pages of a long range by giving them back.
    #[allow(clippy::cast_possible_truncation)] // As in `at`.
    fn zero(&self, offset: u64, len: u64) {
        let (start, end) = (offset as usize, (offset + len) as usize);
        let page = 4096;
        let (first, last) = (start.next_multiple_of(page), end / page * page);
        if end - start < RELEASE_MIN || !self.release(first, last) {
            return self.wipe(start, end);
        }
        self.wipe(start, first);
        self.wipe(last, end);
    }

    fn wipe(&self, start: usize, end: usize) {
        // SAFETY: `zero` was given a range inside the mapping.
        unsafe { std::ptr::write_bytes(self.base.as_ptr().add(start), 0, end - start) };
    }

    /// True if the kernel took the pages; a private anonymous page reads as zeros afterwards.
    fn release(&self, start: usize, end: usize) -> bool {
        // SAFETY: whole pages inside our own mapping.
        unsafe {
            libc::madvise(
                self.base.as_ptr().add(start).cast(),
                end - start,
                libc::MADV_DONTNEED,
            ) == 0
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped; nobody holds a pointer any more, for they keep the Arc.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
