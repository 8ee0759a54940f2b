//! The guest's memory: one memfd per region, mapped here and, through the front end, in the back end.
#![allow(unsafe_code)] // A shared mapping that another process writes to at any time.

use super::GuestError;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use vhost::VhostUserMemoryRegionInfo;

/// The page size of every machine this runs on.
pub(crate) const PAGE: u64 = 4096;

/// Where the memory above the hole begins, as on a PC.
const HIGH: u64 = 4 << 30;

/// All regions of a guest. They may be added and removed while queues use the others.
#[derive(Debug)]
pub struct GuestMemory {
    regions: RwLock<Vec<Arc<Region>>>,
    sealed: bool,
}

impl GuestMemory {
    /// `total` bytes, whole pages, in `count` regions of equal size. The first two are neighbours for the guest, so that
    /// buffers may run from one into the other; the rest lie above a hole.
    pub(crate) fn new(total: u64, count: usize, sealed: bool) -> Result<GuestMemory, GuestError> {
        let size = (total / count.max(1) as u64).next_multiple_of(PAGE);
        let mut regions = Vec::new();
        for index in 0..count.max(1) as u64 {
            let at = if index < 2 {
                index * size
            } else {
                HIGH + (index - 2) * (size + PAGE)
            };
            regions.push(Arc::new(Region::new(at, size, sealed)?));
        }
        Ok(GuestMemory {
            regions: RwLock::new(regions),
            sealed,
        })
    }

    /// Adds `size` bytes above everything else; returns the guest address. The back end is not told.
    pub(crate) fn add(&self, size: u64) -> Result<Arc<Region>, GuestError> {
        let mut regions = self.regions.write().unwrap_or_else(PoisonError::into_inner);
        let end = regions
            .iter()
            .map(|r| r.guest_addr + r.size)
            .max()
            .unwrap_or(0);
        let at = (end + PAGE).max(HIGH);
        let region = Arc::new(Region::new(at, size.next_multiple_of(PAGE), self.sealed)?);
        regions.push(Arc::clone(&region));
        Ok(region)
    }

    /// Forgets the region that begins at `guest_addr`.
    pub(crate) fn remove(&self, guest_addr: u64) -> Option<Arc<Region>> {
        let mut regions = self.regions.write().unwrap_or_else(PoisonError::into_inner);
        let at = regions.iter().position(|r| r.guest_addr == guest_addr)?;
        Some(regions.remove(at))
    }

    pub(crate) fn regions(&self) -> Vec<Arc<Region>> {
        self.regions
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Ranges of guest addresses without a hole: address and length, neighbours joined.
    pub fn ranges(&self) -> Vec<(u64, u64)> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for region in self.regions() {
            match ranges.last_mut() {
                Some((at, len)) if *at + *len == region.guest_addr => *len += region.size,
                _ => ranges.push((region.guest_addr, region.size)),
            }
        }
        ranges
    }

    /// Cuts the files behind all regions to nothing, as a hostile owner may. Touching the memory afterwards is fatal to
    /// whoever is not prepared, the test included.
    ///
    /// # Errors
    /// If the memory is sealed against it.
    pub fn cut_off(&self) -> Result<(), GuestError> {
        for region in self.regions() {
            ftruncate(&region.fd, 0).map_err(GuestError::system("cutting guest memory off"))?;
        }
        Ok(())
    }

    /// Copies bytes out of guest memory.
    ///
    /// # Panics
    /// If the range is not all memory: a mistake of the test.
    pub fn read(&self, guest_addr: u64, into: &mut [u8]) {
        let mut rest = into;
        self.pieces(guest_addr, rest.len(), |region, offset, len| {
            let (now, later) = std::mem::take(&mut rest).split_at_mut(len);
            region.read(offset, now);
            rest = later;
        });
    }

    /// Copies bytes into guest memory.
    ///
    /// # Panics
    /// As [`read`](Self::read).
    pub fn write(&self, guest_addr: u64, from: &[u8]) {
        let mut rest = from;
        self.pieces(guest_addr, rest.len(), |region, offset, len| {
            let (now, later) = rest.split_at(len);
            region.write(offset, now);
            rest = later;
        });
    }

    fn pieces(&self, guest_addr: u64, len: usize, mut each: impl FnMut(&Region, usize, usize)) {
        let regions = self.regions.read().unwrap_or_else(PoisonError::into_inner);
        let (mut at, mut rest) = (guest_addr, len);
        // Bound: each turn finishes one region.
        while rest > 0 {
            let region = regions
                .iter()
                .find(|r| at >= r.guest_addr && at - r.guest_addr < r.size)
                .expect("a test touches only memory that its guest has");
            let offset = usize::try_from(at - region.guest_addr).expect("a mapping fits in usize");
            let now = rest.min(region.len() - offset);
            each(region, offset, now);
            at += now as u64;
            rest -= now;
        }
    }
}

/// One mapped memfd.
#[derive(Debug)]
pub(crate) struct Region {
    pub(crate) guest_addr: u64,
    pub(crate) size: u64,
    fd: OwnedFd,
    host: NonNull<u8>,
}

// SAFETY: shared memory, touched through atomics and bounds-checked copies only.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    pub(crate) fn new(guest_addr: u64, size: u64, sealed: bool) -> Result<Region, GuestError> {
        let fd = memfd_create(
            "holdfast-testkit",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
        )
        .map_err(GuestError::system("memfd_create"))?;
        ftruncate(&fd, size).map_err(GuestError::system("ftruncate of guest memory"))?;
        if sealed {
            // What QEMU's memory-backend-memfd does by default.
            let seals = SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
            fcntl_add_seals(&fd, seals).map_err(GuestError::system("sealing guest memory"))?;
        }
        let len = usize::try_from(size).expect("guest memory fits in usize");
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches nothing that exists.
        let host = unsafe {
            mmap(
                std::ptr::null_mut(),
                len,
                protection,
                MapFlags::SHARED,
                &fd,
                0,
            )
            .map_err(GuestError::system("mmap of guest memory"))?
        };
        let host = NonNull::new(host.cast()).expect("mmap never returns null");
        Ok(Region {
            guest_addr,
            size,
            fd,
            host,
        })
    }

    fn len(&self) -> usize {
        usize::try_from(self.size).expect("checked when mapped")
    }

    /// As vhost-user describes it. The user address is the real one, as in QEMU.
    pub(crate) fn info(&self) -> VhostUserMemoryRegionInfo {
        VhostUserMemoryRegionInfo {
            guest_phys_addr: self.guest_addr,
            memory_size: self.size,
            userspace_addr: self.user_addr(),
            mmap_offset: 0,
            mmap_handle: self.fd.as_raw_fd(),
        }
    }

    pub(crate) fn user_addr(&self) -> u64 {
        self.host.as_ptr().expose_provenance() as u64
    }

    /// Where a range of the region is in this process.
    pub(crate) fn at(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= self.len()),
            "inside the region"
        );
        // SAFETY: inside the mapping, as just checked.
        unsafe { self.host.as_ptr().add(offset) }
    }

    pub(crate) fn read(&self, offset: usize, into: &mut [u8]) {
        let from = self.at(offset, into.len());
        // SAFETY: the range was checked; the slice is ours and cannot overlap a mapping that nobody borrows from. The
        // device may write at the same time only if it breaks the rules, and then the bytes are as torn as it made them.
        unsafe { std::ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) };
    }

    pub(crate) fn write(&self, offset: usize, from: &[u8]) {
        let into = self.at(offset, from.len());
        // SAFETY: as in `read`.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), into, from.len()) };
    }

    pub(crate) fn load_u16(&self, offset: usize, order: Ordering) -> u16 {
        assert!(offset.is_multiple_of(2), "words are aligned");
        // SAFETY: in range by `at`; aligned because mappings are and the offset is.
        u16::from_le(unsafe { AtomicU16::from_ptr(self.at(offset, 2).cast()) }.load(order))
    }

    pub(crate) fn store_u16(&self, offset: usize, value: u16, order: Ordering) {
        assert!(offset.is_multiple_of(2), "words are aligned");
        // SAFETY: as in `load_u16`.
        unsafe { AtomicU16::from_ptr(self.at(offset, 2).cast()) }.store(value.to_le(), order);
    }

    pub(crate) fn load_u32(&self, offset: usize) -> u32 {
        assert!(offset.is_multiple_of(4), "words are aligned");
        // SAFETY: as in `load_u16`.
        let word = unsafe { AtomicU32::from_ptr(self.at(offset, 4).cast()) };
        u32::from_le(word.load(Ordering::Relaxed))
    }

    pub(crate) fn store_u64(&self, offset: usize, value: u64) {
        assert!(offset.is_multiple_of(8), "words are aligned");
        // SAFETY: as in `load_u16`.
        let word = unsafe { AtomicU64::from_ptr(self.at(offset, 8).cast()) };
        word.store(value.to_le(), Ordering::Relaxed);
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped; rings and queues hold an Arc and never a pointer.
        // It can only fail for arguments that `new` ruled out.
        let _ = unsafe { munmap(self.host.as_ptr().cast(), self.len()) };
    }
}
