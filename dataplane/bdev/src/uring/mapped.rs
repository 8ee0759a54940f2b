//! A file in memory, mapped: a request on pages that hold data is a copy, without a system call.
//!
//! Which pages hold data is noted here as requests go by. The notes are hints: everything else, and every copy that fails,
//! goes the way of the system call, which tells what is wrong (the file was cut short, the file system is full) and does not
//! allocate a page for reading a hole, as a mapping would.
#![allow(unsafe_code)] // A mapping of the file, and copies between it and the caller's buffers.

use crate::transfer::{COPY_MAX, Medium};
use crate::{Io, Op, fault, lines};
use rustix::fs::SeekFrom;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

const PAGE: u64 = 4096;
/// Larger files are not mapped: notes for this one take 32 MiB.
const SIZE_MAX: u64 = 1 << 40;

/// The first bytes of a file, and which of its pages hold data.
#[derive(Debug)]
pub(super) struct Mapped {
    base: NonNull<u8>,
    len: usize,
    known: Known,
}

// SAFETY: a shared mapping is valid on every thread; all access goes through raw pointers with checked ranges.
unsafe impl Send for Mapped {}
// SAFETY: as above; concurrent copies tear each other, as requests on any disk.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps a file in memory of `size_bytes`; none if that is impossible, or if the medium is something else.
    pub(super) fn new(medium: &Medium, size_bytes: u64, read_only: bool) -> Option<Mapped> {
        if !medium.memory || size_bytes > SIZE_MAX || !fault::is_survivable() {
            return None;
        }
        let len = usize::try_from(size_bytes).ok()?;
        let protection = match read_only {
            true => rustix::mm::ProtFlags::READ,
            false => rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE,
        };
        let shared = rustix::mm::MapFlags::SHARED;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches nothing that exists.
        let base = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), len, protection, shared, &medium.fd, 0)
        };
        let base = NonNull::new(base.ok()?.cast())?;
        let known = Known::new(size_bytes);
        find_data(medium, size_bytes, &known);
        Some(Mapped { base, len, known })
    }

    /// Whether the mapping reaches as far as a request.
    pub(super) fn holds(&self, io: &Io) -> bool {
        io.offset().saturating_add(io.len()) <= self.len as u64
    }

    /// A range will be read soon.
    #[allow(clippy::cast_possible_truncation)] // The mapping's length is a usize, and the offset is inside.
    pub(super) fn expect(&self, offset: u64, len: u64) {
        if offset.saturating_add(len) <= self.len as u64 {
            lines::will_read(self.base.as_ptr().wrapping_add(offset as usize), len);
        }
    }

    /// A range is to become a hole.
    pub(super) fn forget(&self, offset: u64, len: u64) {
        let end = (offset + len).min(self.len as u64);
        self.known.clear(offset.div_ceil(PAGE)..end / PAGE);
    }

    /// True if the request is done. False: the kernel has to be asked.
    pub(super) fn serve(&self, io: &Io) -> bool {
        if !self.holds(io) {
            return false;
        }
        let (start, end) = (io.offset(), io.offset() + io.len());
        let touched = start / PAGE..end.div_ceil(PAGE);
        match io.op() {
            Op::Flush => false,
            Op::Discard | Op::WriteZeroes { .. } => {
                self.forget(start, io.len());
                false
            }
            Op::Read | Op::Write if self.known.all(touched.clone()) => {
                io.len() <= COPY_MAX && self.copy(io)
            }
            Op::Read => false,
            Op::Write => {
                self.known.set(touched);
                false
            }
        }
    }

    /// Copies all of a request that the mapping holds; false if an access failed.
    #[allow(clippy::cast_possible_truncation)] // The mapping's length is a usize, and the offset is inside.
    fn copy(&self, io: &Io) -> bool {
        let mut at = io.offset() as usize;
        // SAFETY: the request is not complete yet.
        for part in unsafe { io.iovecs() } {
            let (theirs, len) = (part.iov_base.cast::<u8>(), part.iov_len);
            // SAFETY: `holds` has kept the range inside the mapping, whose accesses may raise SIGBUS; the iovec names valid
            // bytes; and a mapping of ours overlaps no buffer of the caller.
            let missing = unsafe {
                let ours = self.base.as_ptr().add(at);
                let (to, from) = match io.op() {
                    Op::Read => (theirs, ours),
                    _ => (ours, theirs),
                };
                fault::copy(to, from.cast_const(), len, self.base.as_ptr(), self.len)
            };
            if missing > 0 {
                return false;
            }
            at += len;
        }
        true
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped; nobody holds a pointer into it any more.
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok(), "{unmapped:?}");
    }
}

/// Notes what holds data already. A file system that cannot tell leaves it unknown.
fn find_data(medium: &Medium, size_bytes: u64, known: &Known) {
    let mut at = 0;
    // Bound: each turn moves past an extent of the file.
    while let Ok(start) = rustix::fs::seek(&medium.fd, SeekFrom::Data(at)) {
        let end = rustix::fs::seek(&medium.fd, SeekFrom::Hole(start)).unwrap_or(start);
        if end <= start || start >= size_bytes {
            return;
        }
        known.set(start / PAGE..end.min(size_bytes).div_ceil(PAGE));
        at = end;
    }
}

/// One bit for each page.
#[derive(Debug)]
struct Known(Box<[AtomicU64]>);

impl Known {
    fn new(size_bytes: u64) -> Known {
        let words = size_bytes.div_ceil(PAGE * u64::from(u64::BITS));
        Known((0..words).map(|_| AtomicU64::new(0)).collect())
    }

    fn all(&self, pages: Range<u64>) -> bool {
        words(pages).all(|(word, mask)| self.0[word].load(Ordering::Relaxed) & mask == mask)
    }

    fn set(&self, pages: Range<u64>) {
        for (word, mask) in words(pages) {
            self.0[word].fetch_or(mask, Ordering::Relaxed);
        }
    }

    fn clear(&self, pages: Range<u64>) {
        for (word, mask) in words(pages) {
            self.0[word].fetch_and(!mask, Ordering::Relaxed);
        }
    }
}

/// The words that hold the bits of these pages, and which bits those are.
#[allow(clippy::cast_possible_truncation)] // Files are smaller than SIZE_MAX.
fn words(pages: Range<u64>) -> impl Iterator<Item = (usize, u64)> {
    let bits = u64::from(u64::BITS);
    let mut next = pages.start;
    std::iter::from_fn(move || {
        let left = pages.end.checked_sub(next).filter(|left| *left > 0)?;
        let (word, first) = ((next / bits) as usize, next % bits);
        let count = left.min(bits - first);
        next += count;
        Some((word, (u64::MAX >> (bits - count)) << first))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_known_one_by_one() {
        let known = Known::new(200 * PAGE);
        known.set(3..5);
        known.set(60..130);
        known.clear(100..101);
        let all: Vec<u64> = (0..200).filter(|page| known.all(*page..page + 1)).collect();
        let expected: Vec<u64> = (3..5).chain(60..100).chain(101..130).collect();
        assert_eq!(all, expected);
        assert!(known.all(60..100) && !known.all(60..101) && !known.all(2..4));
        assert!(known.all(7..7), "no page is missing where there is none");
    }
}
