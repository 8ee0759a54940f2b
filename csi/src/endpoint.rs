//! A CSI endpoint: a unix socket that appears at once with its right mode, replaces a dead one and never a live one.

use std::fs;
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::server::Router;

/// Only the sidecars, which share the driver's user, may call.
const SOCKET_MODE: u32 = 0o600;
/// `sun_path` holds 108 bytes, one of them the final NUL.
const SOCKET_PATH_MAX: usize = 107;

/// Why an endpoint cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// Not a unix socket address that CSI allows.
    #[error("{endpoint:?} is no CSI endpoint: write unix:///absolute/path.sock")]
    Malformed {
        /// What was given.
        endpoint: String,
    },
    /// Longer than the kernel takes.
    #[error(
        "socket path {} is {} bytes long, the limit is {SOCKET_PATH_MAX}; choose a shorter directory",
        path.display(), path.as_os_str().len()
    )]
    TooLong {
        /// The path.
        path: PathBuf,
    },
    /// Somebody serves there.
    #[error("{} is served by another process; stop it or choose another endpoint", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else is there.
    #[error("{} exists and is no socket; move it away or choose another endpoint", path.display())]
    NotASocket {
        /// What is in the way.
        path: PathBuf,
    },
    /// The file system or socket layer refused.
    #[error("cannot {action} {}: {cause}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        cause: io::Error,
    },
    /// Nobody answers.
    #[error("nobody serves {}: {cause}; is the driver running?", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// Why it failed.
        cause: String,
    },
    /// Serving ended early.
    #[error("serving {} failed: {cause}", path.display())]
    Serve {
        /// The socket.
        path: PathBuf,
        /// Why it failed.
        cause: String,
    },
}

/// Serves CSI services on a unix socket until `shutdown` completes; calls under way are answered first.
///
/// # Errors
/// When the endpoint is malformed, in use or cannot be bound.
pub async fn serve(
    endpoint: &str,
    router: Router,
    shutdown: impl Future<Output = ()>,
) -> Result<(), EndpointError> {
    BoundEndpoint::bind(endpoint)?.serve(router, shutdown).await
}

/// A socket that callers can already connect to; they are answered once it is served.
#[derive(Debug)]
pub struct BoundEndpoint {
    file: SocketFile,
    listener: UnixListener,
}

/// The socket's file. Removed with the value, unless a successor has put its own there.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode: the file at the path is ours only while they match.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl BoundEndpoint {
    /// Binds the socket. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// As for [`serve`].
    pub fn bind(endpoint: &str) -> Result<Self, EndpointError> {
        let path = socket_path(endpoint)?;
        refuse_taken(&path)?;
        let beside = path.with_extension("new");
        let failed = |action| failed(action, &path);
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("clear the way for")(error));
            }
            _ => {}
        }
        let listener = UnixListener::bind(&beside).map_err(failed("bind"))?;
        let mode = fs::Permissions::from_mode(SOCKET_MODE);
        fs::set_permissions(&beside, mode).map_err(failed("set the mode of"))?;
        fs::rename(&beside, &path).map_err(failed("put in place"))?;
        let identity = identity(&path).map_err(failed("look at"))?;
        Ok(Self {
            file: SocketFile { path, identity },
            listener,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Serves until `shutdown` completes. The socket goes when this ends or is dropped.
    ///
    /// # Errors
    /// [`EndpointError::Serve`] when serving ends early.
    pub async fn serve(
        self,
        router: Router,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), EndpointError> {
        let path = self.file.path.clone();
        let (_file, incoming) = self.into_incoming();
        let result = router
            .serve_with_incoming_shutdown(incoming, shutdown)
            .await;
        result.map_err(|error| EndpointError::Serve {
            path,
            cause: root(&error),
        })
    }

    /// The callers as they come, for a server with layers around its services. The socket goes when its file is dropped.
    #[must_use]
    pub fn into_incoming(self) -> (SocketFile, UnixListenerStream) {
        (self.file, UnixListenerStream::new(self.listener))
    }
}

/// The path in an endpoint.
pub(crate) fn socket_path(endpoint: &str) -> Result<PathBuf, EndpointError> {
    let path = endpoint
        .strip_prefix("unix://")
        .or_else(|| endpoint.strip_prefix("unix:"))
        .filter(|path| path.starts_with('/') && path.ends_with(".sock"))
        .map(PathBuf::from)
        .ok_or_else(|| EndpointError::Malformed {
            endpoint: endpoint.to_owned(),
        })?;
    if path.as_os_str().len() > SOCKET_PATH_MAX {
        return Err(EndpointError::TooLong { path });
    }
    Ok(path)
}

fn refuse_taken(path: &Path) -> Result<(), EndpointError> {
    let is_socket = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at", path)(error)),
        Ok(metadata) => metadata.file_type().is_socket(),
    };
    if !is_socket {
        return Err(EndpointError::NotASocket {
            path: path.to_owned(),
        });
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        // A full backlog or a refused permission is a server all the same.
        _ => Err(EndpointError::InUse {
            path: path.to_owned(),
        }),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

/// The innermost cause: the layers of the transport around it say nothing more.
pub(crate) fn root(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(inner) = innermost.source() {
        innermost = inner;
    }
    innermost.to_string()
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> EndpointError {
    let path = path.to_owned();
    move |cause| EndpointError::Io {
        action,
        path,
        cause,
    }
}
