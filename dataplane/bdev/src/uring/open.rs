//! Opening and locking: nothing but a regular file or an unused block device, and nobody else at a time.

use super::holder;
use crate::BdevError;
use holdfast_crash::crash_point;
use rustix::fs::{FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::fs::OpenOptions;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What was opened, and is locked.
pub(super) struct Opened {
    pub(super) fd: OwnedFd,
    pub(super) stat: Stat,
    /// Opened with O_DIRECT.
    pub(super) direct: bool,
    /// A block device rather than a file.
    pub(super) is_device: bool,
}

pub(super) fn open(path: &Path, readonly: bool) -> Result<Opened, BdevError> {
    // First a look that opens nothing: opening a pipe would block, and some devices act on being opened.
    let look = OFlags::PATH | OFlags::CLOEXEC;
    let looked = rustix::fs::open(path, look, Mode::empty()).map_err(|e| refused(path, e))?;
    let stat = rustix::fs::fstat(&looked).map_err(|e| refused(path, e))?;
    let is_device = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => false,
        FileType::BlockDevice => true,
        other => return Err(not_a_medium(path, other)),
    };
    let mut flags = if readonly {
        OFlags::RDONLY
    } else {
        OFlags::RDWR
    };
    flags |= OFlags::CLOEXEC;
    if is_device {
        flags |= OFlags::EXCL; // On a block device: refuse if mounted or otherwise claimed.
    }
    let (fd, direct) = patiently(path, &stat, || reopen(&looked, flags))?;
    if !direct {
        tracing::warn!(path = %path.display(), "No O_DIRECT here: data goes through the page cache");
    }
    crash_point!("device.opened");
    lock(path, &fd, &stat)?;
    crash_point!("device.locked");
    Ok(Opened {
        fd,
        stat,
        direct,
        is_device,
    })
}

/// Makes the file, and both it and its name durable.
pub(super) fn create(path: &Path, size_bytes: u64) -> Result<(), BdevError> {
    let failed = |source| BdevError::Open {
        path: path.to_owned(),
        source,
    };
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    let sized = file.set_len(size_bytes).and_then(|()| file.sync_all());
    sized.and_then(|()| sync_parent(path)).map_err(|source| {
        let _ = std::fs::remove_file(path); // The first error is the one to tell.
        failed(source)
    })
}

fn sync_parent(path: &Path) -> std::io::Result<()> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    std::fs::File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// Opens what was looked at, whatever its name leads to by now.
fn reopen(looked: &OwnedFd, flags: OFlags) -> Result<(OwnedFd, bool), Errno> {
    let path = PathBuf::from(format!("/proc/self/fd/{}", looked.as_raw_fd()));
    match rustix::fs::open(&path, flags | OFlags::DIRECT, Mode::empty()) {
        Err(Errno::INVAL) => Ok((rustix::fs::open(&path, flags, Mode::empty())?, false)),
        other => Ok((other?, true)),
    }
}

/// The lock belongs to the open file description: requests under way keep it after a kill, so a successor
/// cannot overtake them. It waits for them here.
fn lock(path: &Path, fd: &OwnedFd, stat: &Stat) -> Result<(), BdevError> {
    patiently(path, stat, || {
        rustix::fs::flock(fd, FlockOperation::NonBlockingLockExclusive)
    })
}

/// Tries until whoever is in the way has gone. Requests of a killed process keep a block device claimed as they keep a
/// lock, so opening it has to wait for them as well.
fn patiently<T>(
    path: &Path,
    stat: &Stat,
    mut attempt: impl FnMut() -> Result<T, Errno>,
) -> Result<T, BdevError> {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(done) => return Ok(done),
            Err(Errno::WOULDBLOCK | Errno::BUSY | Errno::TXTBSY) => {}
            Err(errno) => return Err(refused(path, errno)),
        }
        if !may_go(stat, start.elapsed()) {
            return Err(busy(path, stat));
        }
        std::thread::sleep(RETRY);
    }
}

/// Whether a holder that has been waited for so long may still go by itself.
fn may_go(stat: &Stat, waited: Duration) -> bool {
    let patience = match waited < LIVING_PATIENCE || holder::lives(stat) {
        true => LIVING_PATIENCE,
        false => DEAD_PATIENCE,
    };
    waited < patience && !holder::is_claimed(stat)
}

/// How long a living holder is waited for: udev locks a device for a moment to look at it, whenever somebody who could
/// write has closed it.
const LIVING_PATIENCE: Duration = Duration::from_millis(500);
/// How long requests of a dead holder are waited for; the kernel gives up on a drive before that.
const DEAD_PATIENCE: Duration = Duration::from_secs(60);
/// Short, for guests are waiting.
const RETRY: Duration = Duration::from_millis(1);

fn busy(path: &Path, stat: &Stat) -> BdevError {
    let path = path.to_owned();
    match holder::mount_point(stat) {
        Some(mount_point) => BdevError::Mounted { path, mount_point },
        None => BdevError::InUse {
            path,
            holder: holder::describe(stat),
        },
    }
}

fn refused(path: &Path, errno: Errno) -> BdevError {
    BdevError::Open {
        path: path.to_owned(),
        source: errno.into(),
    }
}

fn not_a_medium(path: &Path, kind: FileType) -> BdevError {
    let what = match kind {
        FileType::Directory => "a folder",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice => "a character device",
        _ => "neither a file nor a device",
    };
    BdevError::NotAFileOrDevice {
        path: path.to_owned(),
        what,
    }
}
