//! The directory of a session: what a virtual machine gets to see. It holds the socket, and a placeholder where KubeVirt
//! expects a disk image.
//!
//! The placeholder is there to be replaced, and to fail safely when nobody did: a read-only file of root with the volume's
//! size, so that KubeVirt neither makes an image of its own nor lets a machine write to this one. The directory belongs to
//! the machine's user, who may put anything in it; so nothing found in it is followed, written to or trusted.

use holdfast_api::short_id;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, chmodat, chownat, fchmod, fcntl_setfl,
    ftruncate, mkdirat, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// What KubeVirt looks for in a volume with a file system.
const PLACEHOLDER: &str = "disk.img";
/// The placeholder before it is complete.
const UNFINISHED: &str = ".disk.img.new";
/// Nobody writes to it, not even its owner.
const PLACEHOLDER_MODE: Mode = Mode::from_raw_mode(0o444);
/// Others may pass through to their own session, and not see whose there are.
const PARENT_MODE: Mode = Mode::from_raw_mode(0o711);
/// For the machine's user and group only.
const SESSION_MODE: Mode = Mode::from_raw_mode(0o750);

/// Where sessions have their directories.
#[derive(Debug, Clone)]
pub(crate) struct SessionDirs {
    parent: PathBuf,
    owner: Option<(u32, u32)>,
}

impl SessionDirs {
    pub(crate) fn new(state_dir: &Path, owner: Option<(u32, u32)>) -> SessionDirs {
        SessionDirs {
            parent: state_dir.join("v"),
            owner,
        }
    }

    /// The socket of a volume. The path is the same for the life of the volume on this node.
    pub(crate) fn socket(&self, volume: &str) -> PathBuf {
        self.path(volume).join("v.sock")
    }

    /// Makes the directory and the placeholder as they must be, whatever is there.
    pub(crate) fn prepare(&self, volume: &str, size_bytes: u64) -> io::Result<()> {
        std::fs::create_dir_all(&self.parent)?;
        chmodat(CWD, &self.parent, PARENT_MODE, AtFlags::empty())?;
        let path = self.path(volume);
        match mkdirat(CWD, &path, SESSION_MODE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        // The parent is ours alone, so the name cannot have been swapped for a link.
        let (uid, gid) = match self.owner {
            Some((uid, gid)) => (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))),
            None => (None, None),
        };
        chownat(CWD, &path, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        chmodat(CWD, &path, SESSION_MODE, AtFlags::empty())?;
        let dir = self.open(volume)?;
        if !is_placeholder(&dir, size_bytes)? {
            make_placeholder(&dir, size_bytes)?;
        }
        Ok(())
    }

    /// The directory as a handle to mount.
    pub(crate) fn open(&self, volume: &str) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(CWD, self.path(volume), flags, Mode::empty())?)
    }

    /// Removes the directory with all that is in it. Links in it are removed, not followed.
    pub(crate) fn remove(&self, volume: &str) -> io::Result<()> {
        match std::fs::remove_dir_all(self.path(volume)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn path(&self, volume: &str) -> PathBuf {
        self.parent.join(short_id(volume))
    }
}

/// Whether the placeholder is exactly as we would make it.
fn is_placeholder(dir: &OwnedFd, size_bytes: u64) -> io::Result<bool> {
    let found = match statat(dir, PLACEHOLDER, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => found,
        Err(Errno::NOENT) => return Ok(false),
        Err(errno) => return Err(errno.into()),
    };
    Ok(
        FileType::from_raw_mode(found.st_mode) == FileType::RegularFile
            && Mode::from_raw_mode(found.st_mode) == PLACEHOLDER_MODE
            && found.st_uid == rustix::process::geteuid().as_raw()
            && u64::try_from(found.st_size) == Ok(size_bytes),
    )
}

/// Makes a new file and moves it into place; what had the name before is never opened.
fn make_placeholder(dir: &OwnedFd, size_bytes: u64) -> io::Result<()> {
    for name in [UNFINISHED, PLACEHOLDER] {
        clear(dir, name)?;
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = openat(dir, UNFINISHED, flags, PLACEHOLDER_MODE)?;
    ftruncate(&file, size_bytes)?;
    fchmod(&file, PLACEHOLDER_MODE)?;
    // KubeVirt opens it so before a start, and gives up if that fails and the disk says `cache: none`.
    if fcntl_setfl(&file, OFlags::DIRECT).is_err() {
        tracing::warn!(
            "The state directory's file system takes no direct I/O: KubeVirt will not start machines whose disk says \
             `cache: none`; put the directory on another file system, or leave `cache` out"
        );
    }
    Ok(renameat(dir, UNFINISHED, dir, PLACEHOLDER)?)
}

/// Takes away what is not ours: a file, a link, or an empty directory.
fn clear(dir: &OwnedFd, name: &str) -> io::Result<()> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => Ok(unlinkat(dir, name, AtFlags::REMOVEDIR)?),
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
