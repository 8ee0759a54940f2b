//! What a medium demands and offers: alignment of O_DIRECT, block size, size, discard.

use super::UringOptions;
use super::open::Opened;
use crate::device::SIZE_MAX;
use crate::transfer::{Buffer, Medium};
use crate::{BdevError, Info};
use rustix::fs::{AtFlags, FallocateFlags, OFlags, SeekFrom, StatxFlags, major, minor};
use std::os::fd::OwnedFd;
use std::path::Path;

pub(super) struct Geometry {
    pub(super) info: Info,
    pub(super) direct: bool,
    align: Align,
    memory: bool,
}

/// What O_DIRECT demands, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Align {
    address: u32,
    offset: u32,
}

const NO_ALIGN: Align = Align {
    address: 1,
    offset: 1,
};

impl Geometry {
    pub(super) fn medium(&self, fd: OwnedFd) -> Medium {
        Medium {
            fd,
            address_align: self.align.address as usize,
            length_align: self.align.offset as usize,
            memory: self.memory,
        }
    }
}

pub(super) fn find(
    path: &Path,
    opened: &Opened,
    options: UringOptions,
) -> Result<Geometry, BdevError> {
    let failed = |source| BdevError::Open {
        path: path.to_owned(),
        source,
    };
    let direct = if opened.direct {
        direct_align(opened)
    } else {
        None
    };
    if opened.direct && direct.is_none() {
        stop_direct(path, &opened.fd).map_err(failed)?;
    }
    let align = direct.unwrap_or(NO_ALIGN);
    let block_size = block_size(path, smallest_block(opened, align), options.block_size)?;
    let found = size_bytes(&opened.fd).map_err(failed)?;
    let block = u64::from(block_size);
    let size_bytes = found / block * block;
    if size_bytes == 0 {
        return Err(BdevError::TooSmall {
            path: path.to_owned(),
            size: found,
            block_size,
        });
    }
    if size_bytes > SIZE_MAX {
        return Err(BdevError::Invalid {
            what: format!("{} of {size_bytes} bytes", path.display()),
            why: "a device has at most 1 PiB".to_owned(),
        });
    }
    let info = Info {
        block_size,
        size_bytes,
        optimal_io_bytes: optimal_io_bytes(opened).max(block_size),
        read_only: options.readonly,
        discard: !options.readonly && discards(opened, found),
        write_zeroes: !options.readonly,
        flush: true,
        kind: "uring",
    };
    Ok(Geometry {
        info,
        direct: direct.is_some(),
        align,
        memory: !opened.is_device && is_memory(&opened.fd),
    })
}

/// A file of tmpfs or ramfs. Other file systems without non-blocking calls may block, so they are not called directly.
fn is_memory(fd: &OwnedFd) -> bool {
    const RAMFS_MAGIC: i64 = 0x8584_58f6;
    rustix::fs::fstatfs(fd).is_ok_and(|fs| [libc::TMPFS_MAGIC, RAMFS_MAGIC].contains(&fs.f_type))
}

/// The size of a file, or of the medium of a device.
pub(super) fn size_bytes(fd: &OwnedFd) -> std::io::Result<u64> {
    Ok(rustix::fs::seek(fd, SeekFrom::End(0))?)
}

/// What the file system says, else what works; `None` if nothing we can live with does.
fn direct_align(opened: &Opened) -> Option<Align> {
    let told = StatxFlags::from_bits_retain(libc::STATX_DIOALIGN);
    let stat = rustix::fs::statx(&opened.fd, c"", AtFlags::EMPTY_PATH, told).ok();
    let stat = stat.filter(|stat| stat.stx_mask & libc::STATX_DIOALIGN != 0);
    let align = match stat {
        Some(stat) => Align {
            address: stat.stx_dio_mem_align,
            offset: stat.stx_dio_offset_align,
        },
        None => try_align(opened)?,
    };
    let usable = |align: u32| align.is_power_of_two() && align <= BLOCK_MAX;
    (usable(align.address) && usable(align.offset)).then_some(align)
}

/// Old kernels do not tell, nor do file systems that take everything: the smallest read that succeeds, to an
/// address that is a multiple of nothing larger, decides.
fn try_align(opened: &Opened) -> Option<Align> {
    let mut buffer = Buffer::new();
    [1, BLOCK_MIN, BLOCK_MAX].into_iter().find_map(|align| {
        let len = align as usize;
        let read = rustix::io::pread(&opened.fd, &mut buffer.bytes()[len..2 * len], 0);
        (read == Ok(len)).then_some(Align {
            address: align,
            offset: align,
        })
    })
}

fn stop_direct(path: &Path, fd: &OwnedFd) -> std::io::Result<()> {
    tracing::warn!(path = %path.display(), "O_DIRECT does not work here: using the page cache");
    let flags = rustix::fs::fcntl_getfl(fd)?;
    Ok(rustix::fs::fcntl_setfl(fd, flags - OFlags::DIRECT)?)
}

fn smallest_block(opened: &Opened, align: Align) -> u32 {
    let sector = if opened.is_device {
        rustix::fs::ioctl_blksszget(&opened.fd).ok()
    } else {
        None
    };
    sector.unwrap_or(BLOCK_MIN).max(align.offset).max(BLOCK_MIN)
}

/// The block size asked for, or the smallest; 512 or 4096 in any case.
fn block_size(path: &Path, smallest: u32, asked: Option<u32>) -> Result<u32, BdevError> {
    let smallest = if smallest > BLOCK_MIN {
        smallest.max(BLOCK_MAX)
    } else {
        BLOCK_MIN
    };
    let chosen = asked.unwrap_or(smallest);
    let known = chosen == BLOCK_MIN || chosen == BLOCK_MAX;
    if known && chosen >= smallest {
        return Ok(chosen);
    }
    Err(BdevError::Invalid {
        what: format!("block size {chosen} of {}", path.display()),
        why: if smallest > BLOCK_MAX {
            format!("it needs {smallest}; only {BLOCK_MIN} and {BLOCK_MAX} are known")
        } else {
            format!("it must be {BLOCK_MIN} or {BLOCK_MAX}, and at least {smallest} here")
        },
    })
}

fn optimal_io_bytes(opened: &Opened) -> u32 {
    let told = if opened.is_device {
        queue_limit(opened, "optimal_io_size")
    } else {
        u64::try_from(opened.stat.st_blksize).ok()
    };
    // What does not look like a size is not believed: some bridges tell 33553920.
    let sane = |size: &u64| size.is_power_of_two() && (4096..=1 << 20).contains(size);
    told.filter(sane)
        .and_then(|size| u32::try_from(size).ok())
        .unwrap_or(4096)
}

/// Files: punching a hole past the end changes nothing and tells. Devices: fallocate(2) works if they can
/// write zeros by themselves.
fn discards(opened: &Opened, size_bytes: u64) -> bool {
    if opened.is_device {
        return queue_limit(opened, "write_zeroes_max_bytes").is_some_and(|bytes| bytes > 0);
    }
    let past = size_bytes.next_multiple_of(u64::from(BLOCK_MAX));
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&opened.fd, punch, past, u64::from(BLOCK_MAX)).is_ok()
}

/// A number from the device's request queue, which for a partition is that of its disk.
fn queue_limit(opened: &Opened, name: &str) -> Option<u64> {
    let number = opened.stat.st_rdev;
    let device = format!("/sys/dev/block/{}:{}", major(number), minor(number));
    let device = std::fs::canonicalize(device).ok()?;
    let queues = [device.join("queue"), device.join("../queue")];
    let text = queues
        .iter()
        .find_map(|queue| std::fs::read_to_string(queue.join(name)).ok())?;
    text.trim().parse().ok()
}

const BLOCK_MIN: u32 = 512;
const BLOCK_MAX: u32 = 4096;
