//! What can go wrong in the engine: what failed, on which object, why, and what to do about it.

use crate::Source;
use holdfast_bdev::BdevError;
use holdfast_pool::PoolError;
use std::io;
use std::path::PathBuf;

/// Errors of the engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// No object of that kind has that name.
    #[error("there is no {kind} named {name:?}; list what is there and check the spelling")]
    NotFound {
        /// `pool`, `volume`, `device`, `export`.
        kind: &'static str,
        /// The name asked for.
        name: String,
    },
    /// The name is taken by an object that differs.
    #[error(
        "{kind} {name:?} exists already and differs: {difference}; remove it first, or ask for what is there"
    )]
    AlreadyExists {
        /// `pool`, `device`, `export`.
        kind: &'static str,
        /// The name.
        name: String,
        /// What differs.
        difference: String,
    },
    /// The object is in use.
    #[error("{kind} {name:?} is in use by {by}; end that first")]
    Busy {
        /// `pool`, `volume`, `device`.
        kind: &'static str,
        /// The name.
        name: String,
        /// Who uses it.
        by: String,
    },
    /// The export is ending, but requests of it are still with the device.
    #[error(
        "export {name:?} is ending: requests are still with its device, and guest memory stays mapped until they end; the export goes by itself then, ask again"
    )]
    Draining {
        /// The export.
        name: String,
    },
    /// The drive of the pool is lost.
    #[error(
        "the drive of pool {name:?} is lost; put it back, or see the kernel log for why it went"
    )]
    Lost {
        /// The pool.
        name: String,
    },
    /// The engine has been stopped.
    #[error("the engine is stopping; nothing new is accepted")]
    Stopping,
    /// The path of a socket does not fit `sockaddr_un`.
    #[error("socket path {} has {len} bytes, the kernel allows 107; use a shorter state directory", path.display())]
    SocketPathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        len: usize,
    },
    /// The socket could not be made.
    #[error("cannot {step} socket {}: {source}", path.display())]
    Socket {
        /// The path.
        path: PathBuf,
        /// `bind`, `listen on`, ...
        step: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// Somebody else serves this socket.
    #[error("socket {} is served by another process; stop it, or choose another path", path.display())]
    SocketInUse {
        /// The path.
        path: PathBuf,
    },
    /// A value of a request that cannot be.
    #[error("{what}: {why}")]
    Invalid {
        /// The object and value.
        what: String,
        /// The rule.
        why: String,
    },
    /// A pool refused.
    #[error("pool {name:?}: {source}")]
    Pool {
        /// Name of the pool in this engine.
        name: String,
        /// The cause.
        source: PoolError,
    },
    /// A device refused.
    #[error("device of {name:?}: {source}")]
    Device {
        /// Name of the pool or device in this engine.
        name: String,
        /// The cause.
        source: BdevError,
    },
    /// A thread could not be started.
    #[error("cannot start a {what} thread: {source}; check the limits on threads and memory")]
    Thread {
        /// Which.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
}

/// Classes of errors, for callers that answer with a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request can never succeed as it is.
    InvalidArgument,
    /// The object is not there.
    NotFound,
    /// The name is taken by something else.
    AlreadyExists,
    /// The state of the object forbids it now.
    FailedPrecondition,
    /// There is no room.
    NoSpace,
    /// A size that cannot be given.
    OutOfRange,
    /// Try again later.
    Unavailable,
    /// Everything else.
    Internal,
}

impl EngineError {
    /// The class of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            EngineError::NotFound { .. } => ErrorKind::NotFound,
            EngineError::AlreadyExists { .. } => ErrorKind::AlreadyExists,
            EngineError::Busy { .. } | EngineError::SocketInUse { .. } => {
                ErrorKind::FailedPrecondition
            }
            EngineError::Draining { .. } | EngineError::Lost { .. } | EngineError::Stopping => {
                ErrorKind::Unavailable
            }
            EngineError::SocketPathTooLong { .. } | EngineError::Invalid { .. } => {
                ErrorKind::InvalidArgument
            }
            EngineError::Socket { .. } | EngineError::Thread { .. } => ErrorKind::Internal,
            EngineError::Pool { source, .. } => pool_kind(source),
            EngineError::Device { source, .. } => device_kind(source),
        }
    }

    pub(crate) fn not_found(kind: &'static str, name: &str) -> EngineError {
        EngineError::NotFound {
            kind,
            name: name.to_owned(),
        }
    }

    pub(crate) fn source_busy(source: &Source, by: &str) -> EngineError {
        let (kind, name) = match source {
            Source::Device(name) => ("device", name.clone()),
            Source::Volume { pool, id } => ("volume", format!("{pool}/{id}")),
        };
        EngineError::Busy {
            kind,
            name,
            by: by.to_owned(),
        }
    }
}

fn pool_kind(error: &PoolError) -> ErrorKind {
    match error {
        PoolError::NotFound { .. } => ErrorKind::NotFound,
        PoolError::AlreadyExists { .. } => ErrorKind::AlreadyExists,
        PoolError::NoSpace { .. } | PoolError::TableFull { .. } => ErrorKind::NoSpace,
        PoolError::InvalidSize { .. } | PoolError::InvalidId { .. } => ErrorKind::InvalidArgument,
        PoolError::CannotShrink { .. } => ErrorKind::OutOfRange,
        PoolError::Device { .. } | PoolError::TableWrite { .. } => ErrorKind::Unavailable,
        _ => ErrorKind::FailedPrecondition,
    }
}

fn device_kind(error: &BdevError) -> ErrorKind {
    match error {
        BdevError::Invalid { .. } | BdevError::Spec { .. } | BdevError::TooSmall { .. } => {
            ErrorKind::InvalidArgument
        }
        BdevError::Open { .. } | BdevError::Io { .. } => ErrorKind::Unavailable,
        _ => ErrorKind::FailedPrecondition,
    }
}
