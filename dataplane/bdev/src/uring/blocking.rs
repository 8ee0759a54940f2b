//! Access for the control plane: blocking, and of any alignment. It goes through the same open file and a
//! buffer that O_DIRECT takes, so it sees what requests see, with no cache in between.
//!
//! A write of less than a block rewrites the whole block. That is safe against other blocking writes, which
//! take turns, but not against a request on the same block at the same time: metadata and volumes share none.

use crate::transfer::{BUFFER_LEN, Buffer, Medium};
use crate::{BdevError, Info};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
pub(super) struct Blocking {
    medium: Arc<Medium>,
    name: String,
    block: u64,
    read_only: bool,
    scratch: Mutex<Buffer>,
}

/// The blocks around a piece of a range that fit into the scratch buffer.
struct Window {
    /// First byte of the first block.
    start: u64,
    /// Bytes of the first block before the piece.
    skip: usize,
    /// Length of the piece.
    take: usize,
    /// Length of the blocks.
    len: usize,
}

impl Blocking {
    pub(super) fn new(medium: Arc<Medium>, path: &Path, info: &Info) -> Blocking {
        Blocking {
            medium,
            name: path.display().to_string(),
            block: u64::from(info.block_size),
            read_only: info.read_only,
            scratch: Mutex::new(Buffer::new()),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), BdevError> {
        let mut scratch = self.scratch();
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let window = self.window(at, rest.len());
            let blocks = &mut scratch.bytes()[..window.len];
            self.load(blocks, window.start)?;
            let (now, later) = rest.split_at_mut(window.take);
            now.copy_from_slice(&blocks[window.skip..][..window.take]);
            (at, rest) = (at + window.take as u64, later);
        }
        Ok(())
    }

    pub(super) fn write(&self, offset: u64, buf: &[u8]) -> Result<(), BdevError> {
        self.check_writable()?;
        let mut scratch = self.scratch();
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let window = self.window(at, rest.len());
            let blocks = &mut scratch.bytes()[..window.len];
            if window.take < window.len {
                self.load(blocks, window.start)?;
            }
            let (now, later) = rest.split_at(window.take);
            blocks[window.skip..][..window.take].copy_from_slice(now);
            self.store(blocks, window.start)?;
            (at, rest) = (at + window.take as u64, later);
        }
        Ok(())
    }

    /// Whole blocks by fallocate(2), which gives space back where it can; the edges, and everything where that
    /// does not work, by writing.
    pub(super) fn zero(&self, offset: u64, len: u64) -> Result<(), BdevError> {
        self.check_writable()?;
        let end = offset + len;
        let (first, last) = (
            offset.next_multiple_of(self.block),
            end / self.block * self.block,
        );
        if first < last && self.deallocate(first, last - first)? {
            self.write_zeros(offset, first - offset)?;
            return self.write_zeros(last, end - last);
        }
        self.write_zeros(offset, len)
    }

    pub(super) fn sync(&self) -> Result<(), BdevError> {
        rustix::fs::fdatasync(&self.medium.fd).map_err(|e| self.failed("flush", 0, e.into()))
    }

    pub(super) fn failed(
        &self,
        op: &'static str,
        offset: u64,
        source: std::io::Error,
    ) -> BdevError {
        BdevError::Io {
            op,
            name: self.name.clone(),
            offset,
            source,
        }
    }

    fn check_writable(&self) -> Result<(), BdevError> {
        if self.read_only {
            return Err(BdevError::ReadOnly {
                kind: "uring",
                name: self.name.clone(),
            });
        }
        Ok(())
    }

    /// False if neither way of doing it works on this medium.
    fn deallocate(&self, offset: u64, len: u64) -> Result<bool, BdevError> {
        for mode in [FallocateFlags::PUNCH_HOLE, FallocateFlags::ZERO_RANGE] {
            let mode = mode | FallocateFlags::KEEP_SIZE;
            match retry(|| rustix::fs::fallocate(&self.medium.fd, mode, offset, len)) {
                Ok(()) => return Ok(true),
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV | Errno::INVAL) => {}
                Err(errno) => return Err(self.failed("write zeroes", offset, errno.into())),
            }
        }
        Ok(false)
    }

    fn write_zeros(&self, offset: u64, len: u64) -> Result<(), BdevError> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        let (mut at, end) = (offset, offset + len);
        while at < end {
            // Up to a boundary, so that all but the edges are whole blocks.
            let boundary = (at + 1).next_multiple_of(ZEROS.len() as u64).min(end);
            let piece = usize::try_from(boundary - at).expect("at most that long");
            self.write(at, &ZEROS[..piece])?;
            at = boundary;
        }
        Ok(())
    }

    fn window(&self, at: u64, left: usize) -> Window {
        let start = at / self.block * self.block;
        let skip = usize::try_from(at - start).expect("less than a block");
        let take = left.min(BUFFER_LEN - skip);
        let block = usize::try_from(self.block).expect("512 or 4096");
        Window {
            start,
            skip,
            take,
            len: (skip + take).next_multiple_of(block),
        }
    }

    fn load(&self, blocks: &mut [u8], start: u64) -> Result<(), BdevError> {
        let (mut done, failed) = (0, |done, source| self.failed("read", start + done, source));
        while done < blocks.len() {
            let at = start + done as u64;
            match rustix::io::pread(&self.medium.fd, &mut blocks[done..], at) {
                Ok(0) => {
                    return Err(failed(
                        done as u64,
                        std::io::ErrorKind::UnexpectedEof.into(),
                    ));
                }
                Ok(moved) => done += moved,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(failed(done as u64, errno.into())),
            }
        }
        Ok(())
    }

    fn store(&self, blocks: &[u8], start: u64) -> Result<(), BdevError> {
        let (mut done, failed) = (0, |done, source| self.failed("write", start + done, source));
        while done < blocks.len() {
            let at = start + done as u64;
            match rustix::io::pwrite(&self.medium.fd, &blocks[done..], at) {
                Ok(0) => return Err(failed(done as u64, std::io::ErrorKind::WriteZero.into())),
                Ok(moved) => done += moved,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(failed(done as u64, errno.into())),
            }
        }
        Ok(())
    }

    fn scratch(&self) -> MutexGuard<'_, Buffer> {
        // Its content means nothing between two calls.
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn retry(mut call: impl FnMut() -> Result<(), Errno>) -> Result<(), Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}
