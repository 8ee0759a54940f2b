//! The only place that loads and stores words shared with a guest: each call touches memory exactly once.
//!
//! Atomics (relaxed unless said otherwise) are used so that the compiler can neither split, repeat nor invent an access
//! while the guest changes the word. Values are little endian in memory and native in the result.
#![allow(unsafe_code)]

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering};

/// Loads one 16-bit word with the given ordering.
///
/// # Safety
/// `word` is aligned to 2 and lies in mapped memory.
#[inline]
pub(crate) unsafe fn load_u16(word: *const u16, order: Ordering) -> u16 {
    // SAFETY: mapped and aligned by this function's contract; guest memory is only ever accessed through atomics.
    let value = unsafe { AtomicU16::from_ptr(word.cast_mut()) }.load(order);
    fetched(word.cast(), 2);
    u16::from_le(value)
}

/// Stores one 16-bit word with the given ordering.
///
/// # Safety
/// `word` is aligned to 2 and lies in mapped, writable memory.
#[inline]
pub(crate) unsafe fn store_u16(word: *mut u16, value: u16, order: Ordering) {
    storing();
    // SAFETY: mapped and aligned by this function's contract; guest memory is only ever accessed through atomics.
    unsafe { AtomicU16::from_ptr(word) }.store(value.to_le(), order);
}

/// Loads one 64-bit word.
///
/// # Safety
/// `word` is aligned to 8 and lies in mapped memory.
#[inline]
pub(crate) unsafe fn load_u64(word: *const u64) -> u64 {
    // SAFETY: mapped and aligned by this function's contract; guest memory is only ever accessed through atomics.
    let value = unsafe { AtomicU64::from_ptr(word.cast_mut()) }.load(Relaxed);
    fetched(word.cast(), 8);
    u64::from_le(value)
}

/// Stores one 64-bit word.
///
/// # Safety
/// `word` is aligned to 8 and lies in mapped, writable memory.
#[inline]
pub(crate) unsafe fn store_u64(word: *mut u64, value: u64) {
    storing();
    // SAFETY: mapped and aligned by this function's contract; shared memory is only ever accessed through atomics.
    unsafe { AtomicU64::from_ptr(word) }.store(value.to_le(), Relaxed);
}

/// Asks for the line of a word that will soon be stored: the guest had it last, and without asking the store would wait for
/// it then. A hint: any address will do.
#[inline]
pub(crate) fn will_store(word: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: prefetchw neither faults nor changes memory, whatever the address; a processor without it does nothing.
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) word, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = word;
}

/// Asks for the line of a word that may soon be loaded. A hint: any address will do.
#[inline]
pub(crate) fn will_load(address: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: prefetcht0 neither faults nor changes memory, whatever the address.
    unsafe {
        std::arch::asm!("prefetcht0 [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Loads one byte.
///
/// # Safety
/// `byte` lies in mapped memory.
#[inline]
pub(crate) unsafe fn load_u8(byte: *const u8) -> u8 {
    // SAFETY: mapped by this function's contract; shared memory is only ever accessed through atomics.
    let value = unsafe { AtomicU8::from_ptr(byte.cast_mut()) }.load(Relaxed);
    fetched(byte, 1);
    value
}

/// Stores one byte.
///
/// # Safety
/// `byte` lies in mapped, writable memory.
#[inline]
pub(crate) unsafe fn store_u8(byte: *mut u8, value: u8) {
    storing();
    // SAFETY: mapped by this function's contract; guest memory is only ever accessed through atomics.
    unsafe { AtomicU8::from_ptr(byte) }.store(value, Relaxed);
}

/// Stores one aligned 32-bit pair as a single 64-bit word if it can, for used elements.
///
/// # Safety
/// `at` is aligned to 4 and 8 bytes from it lie in mapped, writable memory.
#[inline]
pub(crate) unsafe fn store_u32_pair(at: *mut u32, first: u32, second: u32) {
    use std::sync::atomic::AtomicU32;
    storing();
    // SAFETY: mapped and aligned by this function's contract; the second word is the next element of the same range.
    unsafe {
        AtomicU32::from_ptr(at).store(first.to_le(), Relaxed);
        AtomicU32::from_ptr(at.add(1)).store(second.to_le(), Relaxed);
    }
}

/// Copies bytes out of guest memory, each byte loaded once.
///
/// # Safety
/// `into.len()` bytes from `from` lie in mapped memory.
#[inline]
pub(crate) unsafe fn copy_from(from: *const u8, into: &mut [u8]) {
    let mut done = 0;
    // Bound: `done` grows by at least 1 up to `into.len()`.
    while done < into.len() {
        // SAFETY: `done < into.len()`, so the byte at `done` lies in the range the caller vouches for.
        let at = unsafe { from.add(done) };
        if at.cast::<u64>().is_aligned() && into.len() - done >= 8 {
            // SAFETY: aligned, and 8 bytes remain in the range.
            let word = unsafe { load_u64(at.cast()) };
            into[done..done + 8].copy_from_slice(&word.to_le_bytes());
            done += 8;
        } else {
            // SAFETY: one byte remains in the range.
            into[done] = unsafe { AtomicU8::from_ptr(at.cast_mut()) }.load(Relaxed);
            fetched(at, 1);
            done += 1;
        }
    }
}

/// Copies 16 bytes out of guest memory, the size of a descriptor and of a request's header: two loads if they are aligned,
/// as they are from every driver we know.
///
/// # Safety
/// 16 bytes from `from` lie in mapped memory.
#[inline]
pub(crate) unsafe fn load_pair(from: *const u8) -> [u64; 2] {
    let words = from.cast::<u64>();
    if words.is_aligned() {
        // SAFETY: aligned, and both words lie in the range the caller vouches for.
        return unsafe { [load_u64(words), load_u64(words.add(1))] };
    }
    let mut bytes = [0; 16];
    // SAFETY: as the caller vouches.
    unsafe { copy_from(from, &mut bytes) };
    pair(bytes)
}

/// The two words of 16 bytes as they lie in memory.
#[inline]
pub(crate) fn pair(bytes: [u8; 16]) -> [u64; 2] {
    let both = u128::from_le_bytes(bytes);
    // The lower half, then the upper: nothing is lost.
    #[allow(clippy::cast_possible_truncation)]
    [both as u64, (both >> 64) as u64]
}

/// Copies bytes into guest memory.
///
/// # Safety
/// `from.len()` bytes from `into` lie in mapped, writable memory.
pub(crate) unsafe fn copy_to(from: &[u8], into: *mut u8) {
    for (offset, byte) in from.iter().enumerate() {
        // SAFETY: `offset < from.len()`, so the byte lies in the range the caller vouches for.
        unsafe { store_u8(into.add(offset), *byte) };
    }
}

/// Reports a load to the test that watches for double fetches; nothing in the product.
#[cfg(not(test))]
#[inline(always)]
fn fetched(_at: *const u8, _len: usize) {}

/// Reports a store that is about to happen to the test that dies before each; nothing in the product.
#[cfg(not(test))]
#[inline(always)]
fn storing() {}

#[cfg(test)]
pub(crate) use watch::{fetched, storing};

/// Lets a test see every store before it happens, and see and answer every load from guest memory, on its thread.
#[cfg(test)]
pub(crate) mod watch {
    use std::cell::RefCell;

    type Watcher = Box<dyn FnMut(*mut u8, usize)>;

    thread_local! {
        static WATCHER: RefCell<Option<Watcher>> = const { RefCell::new(None) };
    }

    /// Calls `watcher` with the address and length of each load made while `body` runs.
    pub(crate) fn during<T>(
        watcher: impl FnMut(*mut u8, usize) + 'static,
        body: impl FnOnce() -> T,
    ) -> T {
        WATCHER.with_borrow_mut(|slot| *slot = Some(Box::new(watcher)));
        let result = body();
        WATCHER.with_borrow_mut(|slot| *slot = None);
        result
    }

    thread_local! {
        static DYING: RefCell<Option<Box<dyn FnMut()>>> = const { RefCell::new(None) };
    }

    /// Calls `witness` before each store made while `body` runs: what a kill at that moment leaves can be seen there.
    pub(crate) fn before_each_store<T>(
        witness: impl FnMut() + 'static,
        body: impl FnOnce() -> T,
    ) -> T {
        DYING.with_borrow_mut(|slot| *slot = Some(Box::new(witness)));
        let result = body();
        DYING.with_borrow_mut(|slot| *slot = None);
        result
    }

    pub(crate) fn storing() {
        // A witness that stores itself, to make a picture, is not asked again.
        let witness = DYING.with_borrow_mut(Option::take);
        if let Some(mut witness) = witness {
            witness();
            DYING.with_borrow_mut(|slot| *slot = Some(witness));
        }
    }

    pub(crate) fn fetched(at: *const u8, len: usize) {
        WATCHER.with_borrow_mut(|slot| {
            if let Some(watcher) = slot {
                watcher(at.cast_mut(), len);
            }
        });
    }
}
