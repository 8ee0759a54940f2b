//! One region of guest memory: a checked, owned mapping. Dropping it is the only way to unmap.
#![allow(unsafe_code)]

use super::MemError;
use super::guard::Guard;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::ptr::NonNull;

/// Where a region lies in the three spaces that speak of it. All values in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RegionSpec {
    /// First guest-physical address; buffers use this space.
    pub guest_addr: u64,
    /// First address in the front end's process; ring addresses use this space.
    pub user_addr: u64,
    /// Length of the region.
    pub size: u64,
    /// Where the region begins in its file.
    pub fd_offset: u64,
}

impl fmt::Display for RegionSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "guest {:#x} user {:#x} size {:#x} offset {:#x}",
            self.guest_addr, self.user_addr, self.size, self.fd_offset
        )
    }
}

/// A mapped region of guest memory.
///
/// Shared by everybody who may still touch it through `Arc`; the last one unmaps. There is no other way to unmap, so a
/// request in flight can never point into nothing.
#[derive(Debug)]
pub struct MemRegion {
    spec: RegionSpec,
    /// Start of the mapping; the region starts `lead` bytes later.
    map: NonNull<u8>,
    map_len: usize,
    lead: usize,
    /// Watches over the mapping. Goes first in `drop`.
    guard: Option<Guard>,
    /// Kept open: a successor process and fixed buffers need the file, not only the mapping.
    file: Option<File>,
}

// SAFETY: a region hands out raw pointers only; whoever dereferences them uses atomics (see `word`) or the kernel.
unsafe impl Send for MemRegion {}
// SAFETY: as above; all methods take `&self` and change nothing.
unsafe impl Sync for MemRegion {}

impl MemRegion {
    /// Maps `spec.size` bytes of `fd` from `spec.fd_offset`, shared and writable.
    ///
    /// # Errors
    /// Refuses empty or wrapping ranges, anything but a regular file, a file that ends too early, and, with
    /// `require_sealed`, a file that its owner could still shrink.
    pub fn map(spec: RegionSpec, fd: OwnedFd, require_sealed: bool) -> Result<MemRegion, MemError> {
        check_ranges(&spec)?;
        let file = File::from(fd);
        // Seals first: once SHRINK is sealed, the length read after it can only grow.
        if require_sealed && !is_sealed_against_shrinking(file.as_raw_fd()) {
            return Err(MemError::NotSealed(spec));
        }
        let page = check_file(&spec, &file)?;
        let lead = spec.fd_offset % page;
        let map_len = (lead + spec.size)
            .checked_next_multiple_of(page)
            .and_then(|len| usize::try_from(len).ok())
            .ok_or(MemError::TooLarge(spec))?;
        let offset = i64::try_from(spec.fd_offset - lead).map_err(|_| MemError::TooLarge(spec))?;
        let flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
        let map = mmap(&spec, map_len, flags, file.as_raw_fd(), offset)?;
        let mut region = MemRegion {
            spec,
            map,
            map_len,
            lead: usize::try_from(lead).unwrap_or_default(),
            guard: None,
            file: Some(file),
        };
        let page = usize::try_from(page).map_err(|_| MemError::TooLarge(spec))?;
        region.guard =
            Some(Guard::new(map.as_ptr(), map_len, page).ok_or(MemError::Unguarded(spec))?);
        Ok(region)
    }

    /// Maps private zeroed memory under the addresses of `spec`; for tests.
    ///
    /// # Errors
    /// As [`MemRegion::map`], without what concerns the file.
    pub fn anonymous(spec: RegionSpec) -> Result<MemRegion, MemError> {
        check_ranges(&spec)?;
        let map_len = usize::try_from(spec.size).map_err(|_| MemError::TooLarge(spec))?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let map = mmap(&spec, map_len, flags, -1, 0)?;
        Ok(MemRegion {
            spec,
            map,
            map_len,
            lead: 0,
            guard: None,
            file: None,
        })
    }

    /// The addresses of this region.
    pub fn spec(&self) -> &RegionSpec {
        &self.spec
    }

    /// The file behind this region; none for anonymous memory.
    pub fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    /// Whether memory of this region has vanished: its file was cut short. What is read there is zeros.
    pub fn has_vanished(&self) -> bool {
        self.guard.as_ref().is_some_and(Guard::is_hit)
    }

    /// Where the region's first byte is in this process. It stays there while the region lives.
    pub fn host_addr(&self) -> *mut u8 {
        // SAFETY: `lead < map_len` by construction, so the sum stays inside the mapping.
        unsafe { self.map.as_ptr().add(self.lead) }
    }
}

impl Drop for MemRegion {
    fn drop(&mut self) {
        self.guard = None;
        // SAFETY: map and map_len come from the mmap of the constructor, and nobody else unmaps.
        // It can only fail for arguments that the constructor ruled out, so the result says nothing.
        unsafe { libc::munmap(self.map.as_ptr().cast(), self.map_len) };
    }
}

fn check_ranges(spec: &RegionSpec) -> Result<(), MemError> {
    if spec.size == 0 {
        return Err(MemError::Empty(*spec));
    }
    // A range may not even touch the last byte of the space, so that every end is a number.
    for start in [spec.guest_addr, spec.user_addr, spec.fd_offset] {
        start.checked_add(spec.size).ok_or(MemError::Wraps(*spec))?;
    }
    if isize::try_from(spec.size).is_err() {
        return Err(MemError::TooLarge(*spec));
    }
    Ok(())
}

/// Checks kind and length of the file; returns its page size, which is the huge page on hugetlbfs.
fn check_file(spec: &RegionSpec, file: &File) -> Result<u64, MemError> {
    let system = |step, source| MemError::System {
        spec: *spec,
        step,
        source,
    };
    let metadata = file.metadata().map_err(|e| system("fstat", e))?;
    if !metadata.is_file() {
        return Err(MemError::NotAFile(*spec));
    }
    let needed = spec.fd_offset + spec.size;
    if metadata.len() < needed {
        return Err(MemError::FileTooShort {
            spec: *spec,
            needed,
            actual: metadata.len(),
        });
    }
    // SAFETY: statfs is plain data, for which all zeros is a value; fstatfs writes only into it.
    let fs = unsafe {
        let mut fs: libc::statfs = std::mem::zeroed();
        if libc::fstatfs(file.as_raw_fd(), &raw mut fs) != 0 {
            return Err(system("fstatfs", io::Error::last_os_error()));
        }
        fs
    };
    // C libraries disagree on the sign of these.
    if i128::from(fs.f_type) == i128::from(libc::HUGETLBFS_MAGIC) {
        return Ok(metadata.blksize().max(page_size()));
    }
    Ok(page_size())
}

fn page_size() -> u64 {
    // SAFETY: sysconf has no memory effects.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).unwrap_or(4096)
}

fn is_sealed_against_shrinking(fd: RawFd) -> bool {
    // SAFETY: F_GET_SEALS takes no argument and has no memory effects. Files that know no seals answer EINVAL.
    let seals = unsafe { libc::fcntl(fd, libc::F_GET_SEALS) };
    seals >= 0 && seals & libc::F_SEAL_SHRINK != 0
}

fn mmap(
    spec: &RegionSpec,
    len: usize,
    flags: libc::c_int,
    fd: RawFd,
    offset: i64,
) -> Result<NonNull<u8>, MemError> {
    let system = |step| MemError::System {
        spec: *spec,
        step,
        source: io::Error::last_os_error(),
    };
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory of ours.
    let map = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, fd, offset) };
    if map == libc::MAP_FAILED {
        return Err(system("mmap"));
    }
    // Guest data does not belong into our core dumps. Best effort: an old kernel may not know the advice.
    // SAFETY: the range is the mapping just made.
    unsafe { libc::madvise(map, len, libc::MADV_DONTDUMP) };
    NonNull::new(map.cast()).ok_or_else(|| system("mmap"))
}
