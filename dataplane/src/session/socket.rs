//! The listening socket of an export: made under another name and moved into place, so that whoever finds it at its path
//! finds it complete, and removed only while it is ours.

use crate::{EngineError, ExportSpec};
use holdfast_crash::crash_point;
use rustix::fs::{AtFlags, Mode, OFlags, chownat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::{Gid, Uid};
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Longest path that fits `sockaddr_un`, in bytes, without the final zero.
const PATH_MAX: usize = 107;

/// A socket that listens at its path. Dropping it removes the path.
#[derive(Debug)]
pub(super) struct Socket {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl Socket {
    /// Listens at the path of `spec`. A dead socket there is replaced, a living one is not.
    pub(super) fn listen(spec: &ExportSpec) -> Result<Socket, EngineError> {
        let path = &spec.socket;
        let len = path.as_os_str().len();
        if len > PATH_MAX {
            let path = path.clone();
            return Err(EngineError::SocketPathTooLong { path, len });
        }
        if is_served(path) {
            return Err(EngineError::SocketInUse { path: path.clone() });
        }
        let failed = |step| {
            move |source| EngineError::Socket {
                path: path.clone(),
                step,
                source,
            }
        };
        let (folder, name) = split(path).map_err(failed("bind"))?;
        let open = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder_fd = rustix::fs::open(folder, open, Mode::empty())
            .map_err(|errno| failed("open the folder of")(errno.into()))?;
        // By way of the folder's descriptor: the other name may be longer than the kernel takes.
        let other = PathBuf::from(format!(
            "/proc/self/fd/{}/.{name}.new",
            folder_fd.as_raw_fd()
        ));
        let _ = std::fs::remove_file(&other); // What a killed predecessor left.
        let listener = UnixListener::bind(&other).map_err(failed("bind"))?;
        let settled = settle(&other, spec).and_then(|inode| {
            crash_point!("listen.bound");
            std::fs::rename(&other, path)?;
            crash_point!("listen.named");
            Ok(inode)
        });
        match settled {
            Ok(inode) => Ok(Socket {
                listener,
                path: path.clone(),
                inode,
            }),
            Err(error) => {
                let _ = std::fs::remove_file(&other);
                Err(failed("set up")(error))
            }
        }
    }

    pub(super) fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.listener.accept()?.0)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path).is_ok_and(|m| m.ino() == self.inode);
        if ours {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Whether somebody listens there. Does not wait: one whose queue is full listens as well.
fn is_served(path: &Path) -> bool {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
    let (Ok(socket), Ok(address)) = (socket, SocketAddrUnix::new(path)) else {
        return false;
    };
    matches!(connect(&socket, &address), Ok(()) | Err(Errno::AGAIN))
}

fn split(path: &Path) -> io::Result<(&Path, &str)> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "no file name in UTF-8");
    let name = path.file_name().and_then(|name| name.to_str());
    let folder = path.parent().ok_or_else(invalid)?;
    let here = folder.as_os_str().is_empty();
    Ok((
        if here { Path::new(".") } else { folder },
        name.ok_or_else(invalid)?,
    ))
}

/// Gives the socket its owner and mode, and tells which one it is. The folder may belong to a hostile front end, so what
/// is changed is held by a descriptor and known to be a socket: a link put in its place would hand out another file.
fn settle(path: &Path, spec: &ExportSpec) -> io::Result<u64> {
    let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let held = File::from(rustix::fs::open(path, look, Mode::empty())?);
    let metadata = held.metadata()?;
    if !metadata.file_type().is_socket() {
        return Err(io::Error::other("something else was put in its place"));
    }
    if let Some((user, group)) = spec.owner {
        let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
        chownat(&held, "", Some(user), Some(group), AtFlags::EMPTY_PATH)?;
    }
    let by_descriptor = format!("/proc/self/fd/{}", held.as_raw_fd());
    std::fs::set_permissions(by_descriptor, Permissions::from_mode(spec.mode))?;
    Ok(metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Source;

    #[test]
    fn link_in_the_place_of_the_socket_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (secret, link) = (dir.path().join("secret"), dir.path().join("link"));
        std::fs::write(&secret, "").unwrap();
        std::fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&secret, &link).unwrap();
        let spec = ExportSpec::new("e", Source::Device("d".into()), &link);
        let spec = ExportSpec {
            mode: 0o666,
            owner: Some((107, 107)),
            ..spec
        };
        assert!(settle(&link, &spec).is_err());
        let metadata = std::fs::metadata(&secret).unwrap();
        assert_eq!(
            metadata.mode() & 0o777,
            0o600,
            "another file was handed out"
        );
        assert_ne!(metadata.uid(), 107);
    }
}
