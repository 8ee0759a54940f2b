//! What can go wrong on a node, and the one place where it becomes a gRPC code.

use crate::path::PathError;
use holdfast_dataplane::{EngineError, ErrorKind};
use holdfast_kubevirt::Refusal;
use holdfast_store::StoreError;
use std::io;
use std::path::PathBuf;
use tonic::{Code, Status};

/// Errors of the agent and the node service.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// A field of a call that must be there is not.
    #[error("{field} is missing; set it")]
    Missing {
        /// Its name in the call.
        field: &'static str,
    },
    /// The configuration cannot work.
    #[error("{what}: {why}")]
    Config {
        /// The setting and its value.
        what: String,
        /// The rule and the remedy.
        why: String,
    },
    /// No volume has this id.
    #[error("there is no volume {id:?}; list the volumes and check the id")]
    UnknownVolume {
        /// The id given.
        id: String,
    },
    /// The volume is not where the call says.
    #[error("volume {id:?} is not at {path:?}; give the path it is staged or published at")]
    NotAtPath {
        /// The volume.
        id: String,
        /// The path given.
        path: String,
    },
    /// The volume lies on another node's drive.
    #[error("volume {id:?} lives on node {node:?}; use it there")]
    OtherNode {
        /// The volume.
        id: String,
        /// Its node.
        node: String,
    },
    /// The volume is on its way out.
    #[error("volume {id:?} is being deleted; it cannot be staged any more")]
    BeingDeleted {
        /// The volume.
        id: String,
    },
    /// A session of the volume is on its way out.
    #[error("volume {id:?} is still being unstaged; repeat the call later")]
    BeingUnstaged {
        /// The volume.
        id: String,
    },
    /// Others write the session all the time.
    #[error(
        "the session of volume {id:?} is written by others without a pause; repeat the call later"
    )]
    BeingWritten {
        /// The volume.
        id: String,
    },
    /// Staged, but with other arguments.
    #[error("volume {id:?} is staged already as {there}; unstage it first")]
    StagedDifferently {
        /// The volume.
        id: String,
        /// What was staged.
        there: String,
    },
    /// Staged, but at another path.
    #[error("volume {id:?} is staged at {path:?}; unstage it there first, or use that path")]
    StagedElsewhere {
        /// The volume.
        id: String,
        /// Where it is staged.
        path: String,
    },
    /// Not staged where the call says.
    #[error("volume {id:?} is not staged at {path:?}; call NodeStageVolume first")]
    NotStaged {
        /// The volume.
        id: String,
        /// The path given.
        path: String,
    },
    /// The target is taken by the same volume with other arguments.
    #[error("volume {id:?} is published at {target:?} already as {there}; unpublish it first")]
    PublishedDifferently {
        /// The volume.
        id: String,
        /// The target.
        target: String,
        /// How it is published.
        there: String,
    },
    /// The access mode allows one target, and there is one.
    #[error("volume {id:?} is published at {target:?} and its access mode allows one place only")]
    PublishedElsewhere {
        /// The volume.
        id: String,
        /// Where it is published.
        target: String,
    },
    /// The volume is still in use.
    #[error("volume {id:?} is published at {targets}; unpublish it there first")]
    StillPublished {
        /// The volume.
        id: String,
        /// Where.
        targets: String,
    },
    /// The volume is smaller than the caller believes.
    #[error(
        "volume {id:?} has {size_bytes} bytes, not {wanted_bytes}; call ControllerExpandVolume first"
    )]
    NotExpanded {
        /// The volume.
        id: String,
        /// Its size in bytes.
        size_bytes: u64,
        /// The size asked for, in bytes.
        wanted_bytes: u64,
    },
    /// The volume is larger than the caller allows.
    #[error(
        "volume {id:?} has {size_bytes} bytes, more than the limit of {limit_bytes}; a volume never shrinks"
    )]
    TooLarge {
        /// The volume.
        id: String,
        /// Its size in bytes.
        size_bytes: u64,
        /// The limit given, in bytes.
        limit_bytes: u64,
    },
    /// The pool of a drive was never open in this process.
    #[error(
        "pool {pool:?} is not open: {why}; it is opened by itself once its drive is at {}", path.display()
    )]
    NotOpened {
        /// The pool.
        pool: String,
        /// Where its drive is expected.
        path: PathBuf,
        /// What its status says.
        why: String,
    },
    /// The pool's drive is there, under another path than the one given.
    #[error(
        "pool {pool:?} is open at {}; leave the path out, or remove the drive there first", path.display()
    )]
    OpenElsewhere {
        /// The pool.
        pool: String,
        /// Where its drive is.
        path: PathBuf,
    },
    /// The agent has not done its part in time.
    #[error("{what} did not happen in time: {why}; repeat the call")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// What the agent last said about it.
        why: String,
    },
    /// A virtual machine's pod may not have the volume, or not yet.
    #[error(transparent)]
    NotAdmitted(#[from] Refusal),
    /// A path from the caller.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The directory of a session.
    #[error("cannot prepare the session directory of volume {id:?} below {}: {source}", dir.display())]
    SessionDir {
        /// The volume.
        id: String,
        /// The state directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What was asked for would be forgotten by the next start.
    #[error(
        "cannot remember what becomes of the drive of pool {pool:?} in {}: {source}; make room there, or make it writable, and repeat the call", path.display()
    )]
    NotRemembered {
        /// The pool.
        pool: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl NodeError {
    /// The gRPC code of this error: the only place that knows.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            NodeError::Missing { .. } | NodeError::Config { .. } => Code::InvalidArgument,
            NodeError::UnknownVolume { .. } | NodeError::NotAtPath { .. } => Code::NotFound,
            NodeError::StagedDifferently { .. } | NodeError::PublishedDifferently { .. } => {
                Code::AlreadyExists
            }
            NodeError::OtherNode { .. }
            | NodeError::BeingDeleted { .. }
            | NodeError::StagedElsewhere { .. }
            | NodeError::NotStaged { .. }
            | NodeError::PublishedElsewhere { .. }
            | NodeError::StillPublished { .. }
            | NodeError::NotExpanded { .. }
            | NodeError::NotOpened { .. }
            | NodeError::OpenElsewhere { .. } => Code::FailedPrecondition,
            NodeError::NotAdmitted(refusal) if refusal.may_pass() => Code::Unavailable,
            NodeError::NotAdmitted(_) => Code::FailedPrecondition,
            NodeError::TooLarge { .. } => Code::OutOfRange,
            NodeError::BeingUnstaged { .. } | NodeError::BeingWritten { .. } => Code::Aborted,
            NodeError::TimedOut { .. } => Code::DeadlineExceeded,
            NodeError::Path(PathError::Invalid { .. }) => Code::InvalidArgument,
            NodeError::Path(PathError::Occupied { .. }) => Code::FailedPrecondition,
            NodeError::Store(StoreError::Conflict { .. }) => Code::Aborted,
            NodeError::Engine(error) => match error.kind() {
                ErrorKind::InvalidArgument => Code::InvalidArgument,
                ErrorKind::NotFound => Code::NotFound,
                ErrorKind::AlreadyExists => Code::AlreadyExists,
                ErrorKind::FailedPrecondition => Code::FailedPrecondition,
                ErrorKind::NoSpace => Code::ResourceExhausted,
                ErrorKind::OutOfRange => Code::OutOfRange,
                ErrorKind::Unavailable => Code::Unavailable,
                ErrorKind::Internal => Code::Internal,
            },
            NodeError::Path(PathError::Io { .. })
            | NodeError::SessionDir { .. }
            | NodeError::NotRemembered { .. }
            | NodeError::Store(_) => Code::Internal,
        }
    }
}

impl From<NodeError> for Status {
    fn from(error: NodeError) -> Status {
        Status::new(error.code(), error.to_string())
    }
}
