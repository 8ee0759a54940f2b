//! Where the pieces of each request lie. Header and indirect table of a request share one cache line, which only the
//! driver writes; its status has a line of its own, which only the device writes.
#![allow(unsafe_code)] // Words shared with the device, through pointers that are checked once.

use crate::frontend::memory::Region;
use crate::frontend::{Desc, GuestError};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::{AtomicU8, AtomicU64};

const LINE: usize = 64;
const TABLE_BYTES: u32 = 48;
const HEADER_AT: usize = 48;
const KIND_IN: u64 = 0;
const KIND_OUT: u64 = 1;

/// The cells of all requests of one queue: a line for the driver, a line for the device, then data.
#[derive(Debug)]
pub(super) struct Cells {
    region: Arc<Region>,
    driver: *mut u8,
    device: *mut u8,
    /// Guest address of the first line of the driver.
    base: u64,
    depth: u16,
    bytes: u32,
}

// SAFETY: the pointers name shared memory that `region` keeps mapped, and are used through atomics only.
unsafe impl Send for Cells {}
// SAFETY: as above.
unsafe impl Sync for Cells {}

impl Cells {
    /// Lays out `depth` requests of `bytes` bytes in `room` bytes of `region` from guest address `base` on.
    pub(super) fn new(
        region: Arc<Region>,
        (base, room): (u64, u64),
        depth: u16,
        bytes: u32,
    ) -> Result<Cells, GuestError> {
        let base = base.next_multiple_of(4096);
        let lines = usize::from(depth) * LINE;
        let needed = data_at(depth) + u64::from(depth) * u64::from(bytes);
        if needed + 4096 > room {
            let what = format!("{depth} requests of {bytes} bytes need {needed} bytes, not {room}");
            return Err(GuestError::Invalid { what });
        }
        let offset = usize::try_from(base - region.guest_addr).expect("a mapping fits in usize");
        Ok(Cells {
            driver: region.at(offset, lines),
            device: region.at(offset + lines, lines),
            region,
            base,
            depth,
            bytes,
        })
    }

    /// The descriptor that stands for a request in the ring.
    pub(super) fn head(&self, head: u16) -> Desc {
        let line = self.base + (usize::from(head) * LINE) as u64;
        Desc::new(line, TABLE_BYTES, Desc::INDIRECT)
    }

    /// Writes what stays the same in every use of a request.
    pub(super) fn format(&self, head: u16) {
        let line = self.base + (usize::from(head) * LINE) as u64;
        let status = line + (usize::from(self.depth) * LINE) as u64;
        let data = self.base + data_at(self.depth) + u64::from(head) * u64::from(self.bytes);
        let linked = |desc: Desc, next| Desc {
            flags: desc.flags | Desc::NEXT,
            next,
            ..desc
        };
        let table = [
            linked(Desc::new(line + HEADER_AT as u64, 16, 0), 1),
            linked(Desc::new(data, self.bytes, Desc::WRITE), 2),
            Desc::new(status, 1, Desc::WRITE),
        ];
        let at = usize::try_from(line - self.region.guest_addr).expect("a mapping fits in usize");
        for (index, desc) in table.into_iter().enumerate() {
            self.region.write(at + 16 * index, &desc.bytes());
        }
    }

    /// Makes a request a read or a write at a sector. The head is below the depth.
    #[inline]
    pub(super) fn set(&self, head: u16, sector: u64, reads: bool) {
        debug_assert!(head < self.depth);
        let kind = if reads { KIND_IN } else { KIND_OUT };
        let flags = Desc::NEXT | if reads { Desc::WRITE } else { 0 };
        let data = u64::from(self.bytes) | u64::from(flags) << 32 | 2 << 48;
        let line = self.driver.wrapping_add(usize::from(head) * LINE);
        // SAFETY: a line of a head below the depth is inside the region, and lines are aligned to their length.
        unsafe {
            store(line, 24, data);
            store(line, HEADER_AT, kind);
            store(line, HEADER_AT + 8, sector);
        }
    }

    /// The status byte of a request that was answered.
    #[inline]
    pub(super) fn status(&self, head: u16) -> u8 {
        self.status_byte(head).load(Acquire)
    }

    /// Writes a status, as a device does.
    #[inline]
    pub(super) fn set_status(&self, head: u16, status: u8) {
        self.status_byte(head).store(status, Relaxed);
    }

    #[inline]
    fn status_byte(&self, head: u16) -> &AtomicU8 {
        debug_assert!(head < self.depth);
        // SAFETY: as in `set`; the region is borrowed with `self`.
        unsafe { AtomicU8::from_ptr(self.device.wrapping_add(usize::from(head) * LINE)) }
    }
}

/// # Safety
/// `line` is a line of [`Cells`] and `at` a multiple of 8 inside it.
#[inline]
unsafe fn store(line: *mut u8, at: usize, word: u64) {
    // SAFETY: aligned and inside the region by this function's contract.
    unsafe { AtomicU64::from_ptr(line.add(at).cast()) }.store(word.to_le(), Relaxed);
}

/// Where data begins behind the lines.
fn data_at(depth: u16) -> u64 {
    (2 * LINE as u64 * u64::from(depth)).next_multiple_of(4096)
}
