//! Lines of memory that are about to be read. A block from anywhere is in memory and in no cache; by itself the processor asks
//! for a few of its lines, and for more only when it has seen that they follow each other.
#![allow(unsafe_code)] // An instruction that takes an address.

const LINE: usize = 64;
/// From there on the processor finds its way.
const MOST: usize = 4096;

/// Asks for `len` bytes from `from` on, or for as many as make sense. A hint: any address will do.
#[inline]
pub(crate) fn will_read(from: *const u8, len: u64) {
    let len = usize::try_from(len).unwrap_or(MOST).min(MOST);
    for offset in (0..len).step_by(LINE) {
        let line = from.wrapping_add(offset);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the instruction neither faults nor changes memory, whatever the address.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T1>(line.cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = line;
    }
}
