//! The only file that touches paths a caller names: publishing a session's directory at a target, and taking it back.
//!
//! A target is text from outside. It is resolved once, component by component, without following a single symbolic link
//! (`openat2`), and from then on only descriptors are used, so that nobody can swap a component in between. Whether
//! something is mounted is asked of the kernel by descriptor (`statx`), never concluded from what was done before.

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags, mkdirat, openat,
    openat2, statx, unlinkat,
};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// The kernel's limit on a path, without its final NUL.
const PATH_BYTES_MAX: usize = 4095;
/// The kernel's limit on one component.
const NAME_BYTES_MAX: usize = 255;
/// Most mounts taken off one target. A target has one; more means somebody else mounts there.
const STACK_MAX: usize = 8;
/// Mode of a target directory; what is mounted on it brings its own.
const TARGET_MODE: Mode = Mode::from_raw_mode(0o750);

/// Why a path from a caller was not used.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// The text can never name a target.
    #[error("{path:?} cannot be a target: {why}")]
    Invalid {
        /// What was given.
        path: String,
        /// The rule it breaks.
        why: String,
    },
    /// Something else is where the volume should be, or be taken from.
    #[error("{path} is {what}; remove it, or use another target")]
    Occupied {
        /// The target.
        path: String,
        /// What is there.
        what: &'static str,
    },
    /// The kernel refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which target.
        path: String,
        /// Why it failed.
        source: std::io::Error,
    },
}

/// A target path that passed the rules of text: absolute, no `..`, no NUL, lengths the kernel takes. Nothing was looked up yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TargetPath(PathBuf);

impl TargetPath {
    /// Checks and normalises the text: doubled slashes, `.` and a final slash go.
    ///
    /// # Errors
    /// [`PathError::Invalid`] with the rule that is broken.
    pub(crate) fn parse(text: &str) -> Result<TargetPath, PathError> {
        let refuse = |why: &str| PathError::Invalid {
            path: text.chars().take(128).collect(),
            why: why.to_owned(),
        };
        if text.len() > PATH_BYTES_MAX {
            return Err(refuse("it is longer than 4095 bytes"));
        }
        if text.contains('\0') {
            return Err(refuse("it contains a NUL byte"));
        }
        if !text.starts_with('/') {
            return Err(refuse("it must be absolute"));
        }
        let mut clean = PathBuf::from("/");
        for component in Path::new(text).components() {
            match component {
                Component::ParentDir => return Err(refuse("it contains '..'")),
                Component::Normal(name) if name.len() > NAME_BYTES_MAX => {
                    return Err(refuse("a component is longer than 255 bytes"));
                }
                Component::Normal(name) => clean.push(name),
                _ => {}
            }
        }
        if clean.parent().is_none() {
            return Err(refuse("it is the root directory"));
        }
        Ok(TargetPath(clean))
    }

    /// The normalised text, as it is recorded.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        self.0.to_string_lossy().into_owned()
    }
}

/// The tree that targets lie in.
#[derive(Debug)]
pub(crate) struct Targets {
    prefix: PathBuf,
    root: OwnedFd,
}

impl Targets {
    /// Only paths below `root` are taken from now on. The operator named `root`, so links in it are followed.
    ///
    /// # Errors
    /// When the directory cannot be opened.
    pub(crate) fn below(root: &Path) -> Result<Targets, PathError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(CWD, root, flags, Mode::empty()).map_err(failed("open", root))?;
        Ok(Targets {
            prefix: root.to_owned(),
            root: fd,
        })
    }

    /// Whether `target` could show the directory `source`, or does already. Changes nothing.
    ///
    /// # Errors
    /// Those of [`publish`](Targets::publish), as far as they can be foreseen.
    pub(crate) fn check(
        &self,
        source: BorrowedFd<'_>,
        target: &TargetPath,
    ) -> Result<(), PathError> {
        let place = self.place(target)?;
        match place.open()? {
            Some(spot) => place.is_vacant(&spot, source).map(drop),
            None => Ok(()),
        }
    }

    /// Makes `target` show the directory `source`, and nothing more if it does already.
    ///
    /// # Errors
    /// [`PathError::Occupied`] if something else is there; errors of the kernel. Nothing is mounted then.
    pub(crate) fn publish(
        &self,
        source: BorrowedFd<'_>,
        target: &TargetPath,
    ) -> Result<(), PathError> {
        let place = self.place(target)?;
        match mkdirat(&place.parent, &place.name, TARGET_MODE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(place.io("make")(errno)),
        }
        let spot = place
            .open()?
            .ok_or_else(|| place.io("open")(Errno::NOENT))?;
        if !place.is_vacant(&spot, source)? {
            return Ok(());
        }
        let clone = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH;
        let tree = open_tree(source, c"", clone).map_err(place.io("clone the directory for"))?;
        let by_fd =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&tree, c"", &spot, c"", by_fd).map_err(place.io("mount on"))
    }

    /// Takes the directory `source` away from `target` and removes the target. With `recorded` the target is known to be
    /// ours, so it is removed also when nothing is mounted on it; otherwise what is not ours stays untouched.
    ///
    /// # Errors
    /// [`PathError::Occupied`] if a recorded target holds something else; errors of the kernel.
    pub(crate) fn retract(
        &self,
        source: Option<BorrowedFd<'_>>,
        target: &TargetPath,
        recorded: bool,
    ) -> Result<(), PathError> {
        let Some(place) = self.resolve(target)? else {
            return Ok(());
        };
        let mut ours = recorded;
        for _ in 0..STACK_MAX {
            let Some(spot) = place.open()? else {
                return Ok(());
            };
            let found = mounted(spot.as_fd(), source).map_err(place.io("look at"))?;
            drop(spot); // An open descriptor would keep the mount busy.
            match found {
                Mounted::Ours => place.unmount()?,
                Mounted::Nothing if ours => return place.remove(),
                Mounted::Foreign if ours => {
                    return Err(place.occupied("where something else is mounted"));
                }
                Mounted::Nothing | Mounted::Foreign => return Ok(()),
            }
            ours = true;
        }
        Err(place.occupied("mounted over and over again by somebody else"))
    }

    /// Whether `target` shows the directory `source`.
    ///
    /// # Errors
    /// When a component is a symbolic link, or the kernel refuses.
    pub(crate) fn shows(
        &self,
        source: BorrowedFd<'_>,
        target: &TargetPath,
    ) -> Result<bool, PathError> {
        let Some(place) = self.resolve(target)? else {
            return Ok(false);
        };
        let Some(spot) = place.open()? else {
            return Ok(false);
        };
        let found = mounted(spot.as_fd(), Some(source)).map_err(place.io("look at"))?;
        Ok(matches!(found, Mounted::Ours))
    }

    /// The target in its directory, which must be there.
    fn place(&self, target: &TargetPath) -> Result<Place, PathError> {
        self.resolve(target)?.ok_or_else(|| PathError::Io {
            action: "find the directory that shall hold",
            path: target.text(),
            source: Errno::NOENT.into(),
        })
    }

    /// Opens the directory that holds the target; none if it is not there.
    fn resolve(&self, target: &TargetPath) -> Result<Option<Place>, PathError> {
        let outside = || PathError::Invalid {
            path: target.text(),
            why: format!("it does not lie below {}", self.prefix.display()),
        };
        let inside = target.0.strip_prefix(&self.prefix).map_err(|_| outside())?;
        let name = inside.file_name().ok_or_else(outside)?.to_owned();
        let parent = match inside.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let found = self::open_beneath(self.root.as_fd(), parent.as_os_str());
        let parent = match found {
            Ok(parent) => parent,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(explain(&target.0, errno)),
        };
        Ok(Some(Place {
            parent,
            name,
            path: target.0.clone(),
        }))
    }
}

/// A target whose parent is held by descriptor.
struct Place {
    parent: OwnedFd,
    name: OsString,
    path: PathBuf,
}

impl Place {
    /// The target itself, if it is there.
    fn open(&self) -> Result<Option<OwnedFd>, PathError> {
        match open_beneath(self.parent.as_fd(), &self.name) {
            Ok(spot) => Ok(Some(spot)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(explain(&self.path, errno)),
        }
    }

    /// True if nothing is in the way, false if the volume is there already.
    fn is_vacant(&self, spot: &OwnedFd, source: BorrowedFd<'_>) -> Result<bool, PathError> {
        match mounted(spot.as_fd(), Some(source)).map_err(self.io("look at"))? {
            Mounted::Ours => Ok(false),
            Mounted::Foreign => Err(self.occupied("where something else is mounted")),
            Mounted::Nothing if is_empty(spot).map_err(self.io("read"))? => Ok(true),
            Mounted::Nothing => Err(self.occupied("a directory with files in it")),
        }
    }

    /// The kernel unmounts by path only. The path given here has two components: our own descriptor, which nobody can swap,
    /// and a name that is not followed.
    fn unmount(&self) -> Result<(), PathError> {
        let mut path = OsString::from(format!("/proc/self/fd/{}/", self.parent.as_raw_fd()));
        path.push(&self.name);
        match unmount(&path, UnmountFlags::NOFOLLOW) {
            Err(Errno::BUSY) => unmount(&path, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH),
            other => other,
        }
        .map_err(self.io("unmount"))
    }

    fn remove(&self) -> Result<(), PathError> {
        match unlinkat(&self.parent, &self.name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::NOTEMPTY) => Err(self.occupied("a directory with files in it")),
            Err(errno) => Err(self.io("remove")(errno)),
        }
    }

    fn occupied(&self, what: &'static str) -> PathError {
        PathError::Occupied {
            path: self.path.to_string_lossy().into_owned(),
            what,
        }
    }

    fn io(&self, action: &'static str) -> impl FnOnce(Errno) -> PathError + use<> {
        failed(action, &self.path)
    }
}

enum Mounted {
    Nothing,
    Ours,
    Foreign,
}

/// What is mounted on a directory: a bind mount of `source` has its device and inode, and is the root of a mount.
fn mounted(spot: BorrowedFd<'_>, source: Option<BorrowedFd<'_>>) -> Result<Mounted, Errno> {
    let look = |fd| statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS);
    let seen = look(spot)?;
    if !seen.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Ok(Mounted::Nothing);
    }
    let identity = |s: &rustix::fs::Statx| (s.stx_dev_major, s.stx_dev_minor, s.stx_ino);
    match source {
        Some(source) if identity(&look(source)?) == identity(&seen) => Ok(Mounted::Ours),
        _ => Ok(Mounted::Foreign),
    }
}

fn is_empty(dir: &OwnedFd) -> Result<bool, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let readable = openat(dir, c".", flags, Mode::empty())?;
    for entry in rustix::fs::Dir::new(readable)? {
        let name = entry?.file_name().to_owned();
        if name.to_bytes() != b"." && name.to_bytes() != b".." {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Opens a directory without following any link, as a mere handle.
fn open_beneath(root: BorrowedFd<'_>, path: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let rules = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        match openat2(root, path.as_bytes(), flags, Mode::empty(), rules) {
            // A rename somewhere raced with the look-up; the kernel asks to try again.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Says which rule a look-up broke.
fn explain(path: &Path, errno: Errno) -> PathError {
    let why = match errno {
        Errno::LOOP => "a component is a symbolic link; links are not followed",
        Errno::NOTDIR => "a component is not a directory",
        Errno::NAMETOOLONG => "it is too long",
        Errno::XDEV => "it leads out of its tree",
        other => return failed("open", path)(other),
    };
    PathError::Invalid {
        path: path.to_string_lossy().into_owned(),
        why: why.to_owned(),
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(Errno) -> PathError + use<> {
    let path = path.to_string_lossy().into_owned();
    move |errno| PathError::Io {
        action,
        path,
        source: errno.into(),
    }
}

#[cfg(test)]
mod tests;
