//! Aligned buffers for data that the device cannot take where it lies: few, reused, and queued for.
#![allow(unsafe_code)] // Aligned memory, and copies between it and the caller's buffers.

use super::Medium;
use crate::slab::Key;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Longer requests go through a buffer in several pieces.
pub(crate) const BUFFER_LEN: usize = 128 << 10;
/// A channel bounces this many requests at a time; more wait. Bounds memory to 1 MiB per channel.
pub(crate) const BUFFERS_MAX: usize = 8;
/// Enough for every device.
const ALIGN: usize = 4096;

/// Memory that any device takes.
#[derive(Debug)]
pub(crate) struct Buffer(NonNull<u8>);

// SAFETY: plain memory with one owner.
unsafe impl Send for Buffer {}

impl Buffer {
    pub(crate) fn new() -> Buffer {
        // SAFETY: the layout's size is not 0.
        let base = unsafe { alloc_zeroed(LAYOUT) };
        Buffer(NonNull::new(base).unwrap_or_else(|| handle_alloc_error(LAYOUT)))
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: ours alone, of that length, and initialised.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_ptr(), BUFFER_LEN) }
    }

    pub(crate) fn iovec(&mut self, len: usize) -> libc::iovec {
        assert!(len <= BUFFER_LEN, "the caller cut the request into pieces");
        libc::iovec {
            iov_base: self.0.as_ptr().cast(),
            iov_len: len,
        }
    }
}

const LAYOUT: Layout = match Layout::from_size_align(BUFFER_LEN, ALIGN) {
    Ok(layout) => layout,
    Err(_) => panic!("a power of two, and small"),
};

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and nobody else has it.
        unsafe { dealloc(self.0.as_ptr(), LAYOUT) };
    }
}

#[derive(Debug, Default)]
struct Pool {
    free: Vec<Buffer>,
    made: usize,
    waiting: VecDeque<Key>,
}

/// One channel's way to a medium. The lock is taken only for requests that bounce, and by one thread unless
/// workers serve the channel.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) medium: Arc<Medium>,
    pool: Mutex<Pool>,
}

impl Lane {
    pub(crate) fn new(medium: Arc<Medium>) -> Lane {
        Lane {
            medium,
            pool: Mutex::default(),
        }
    }

    /// A free buffer; or notes that `key` waits for one.
    pub(super) fn take(&self, key: Option<Key>) -> Option<Buffer> {
        let mut pool = self.lock();
        if let Some(buffer) = pool.free.pop() {
            return Some(buffer);
        }
        if pool.made < BUFFERS_MAX {
            pool.made += 1;
            return Some(Buffer::new());
        }
        pool.waiting.extend(key);
        None
    }

    /// Takes a buffer back and tells who waits for it.
    pub(super) fn give_back(&self, buffer: Buffer) -> Option<Key> {
        let mut pool = self.lock();
        pool.free.push(buffer);
        pool.waiting.pop_front()
    }

    fn lock(&self) -> MutexGuard<'_, Pool> {
        // Every change of the pool is complete before anything can panic.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Fills `piece` from the buffers, starting at their byte `skip`.
///
/// # Safety
/// The buffers are valid for reads.
pub(super) unsafe fn gather(iovecs: &[libc::iovec], skip: u64, piece: &mut [u8]) {
    let mut at = 0;
    each_part(iovecs, skip, piece.len(), |guest, len| {
        // SAFETY: `each_part` stays inside the buffers and hands out `piece.len()` bytes in total; a buffer
        // of ours is no buffer of the caller's.
        unsafe { std::ptr::copy_nonoverlapping(guest, piece[at..].as_mut_ptr(), len) };
        at += len;
    });
}

/// Spreads `piece` over the buffers, starting at their byte `skip`.
///
/// # Safety
/// The buffers are valid for writes.
pub(super) unsafe fn scatter(piece: &[u8], iovecs: &[libc::iovec], skip: u64) {
    let mut at = 0;
    each_part(iovecs, skip, piece.len(), |guest, len| {
        // SAFETY: as in `gather`.
        unsafe { std::ptr::copy_nonoverlapping(piece[at..].as_ptr(), guest, len) };
        at += len;
    });
}

/// Visits `len` bytes of the buffers from byte `skip` on, or fewer if they end before.
fn each_part(iovecs: &[libc::iovec], skip: u64, len: usize, mut visit: impl FnMut(*mut u8, usize)) {
    let (mut skip, mut left) = (skip, len);
    for part in iovecs {
        let before = usize::try_from(skip).map_or(part.iov_len, |skip| skip.min(part.iov_len));
        let len = left.min(part.iov_len - before);
        if len > 0 {
            // SAFETY: `before` is less than the length of this buffer.
            visit(unsafe { part.iov_base.cast::<u8>().add(before) }, len);
        }
        skip -= before as u64;
        left -= len;
    }
}
