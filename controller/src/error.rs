//! Why a call could not be answered as wished, and the one place that maps it to a gRPC code.

use holdfast_store::StoreError;
use std::time::Duration;
use tonic::{Code, Status};

#[derive(Debug, thiserror::Error)]
pub(crate) enum ControllerError {
    /// Refused by a check that both CSI services share.
    #[error("{}", .0.message())]
    Refused(#[from] Status),
    #[error("{field} is missing")]
    Missing { field: &'static str },
    #[error("the volume name is {bytes} bytes long; CSI allows 128")]
    NameTooLong { bytes: usize },
    #[error("unknown parameter {name:?}; known are {known}")]
    UnknownParameter { name: String, known: String },
    #[error("parameter {name} is {value:?}; it must be {expected}")]
    BadParameter {
        name: &'static str,
        value: String,
        expected: &'static str,
    },
    #[error("parameter {name} makes no sense here: {why}")]
    Contradiction { name: &'static str, why: String },
    #[error(
        "a volume made from {source_kind} was asked for: snapshots and clones are not served; create an empty volume"
    )]
    ContentSource { source_kind: &'static str },
    #[error("topology key {key:?} is unknown; this driver's volumes are placed by {known}")]
    UnknownTopology { key: String, known: &'static str },
    #[error("pool {pool:?} does not exist; {known}")]
    NoSuchPool { pool: String, known: String },
    #[error(
        "volume {volume:?} cannot exist as described: {message}; change what is asked for and repeat"
    )]
    Impossible { volume: String, message: String },
    #[error("volume {volume:?} does not exist")]
    NotFound { volume: String },
    #[error("volume {volume:?} exists already and differs: {difference}")]
    Differs { volume: String, difference: String },
    #[error("no pool has room for {bytes} bytes: {why}; delete volumes or add a pool")]
    NoRoom { bytes: u64, why: String },
    #[error(
        "volume {volume:?} cannot grow to {bytes} bytes: {why}; free space in its pool or ask for less"
    )]
    CannotGrow {
        volume: String,
        bytes: u64,
        why: String,
    },
    #[error(
        "volume {volume:?} has {actual} bytes, more than the limit of {limit}; volumes never shrink"
    )]
    CannotShrink {
        volume: String,
        actual: u64,
        limit: u64,
    },
    #[error("volume {volume:?} is staged on node {node:?}; unpublish and unstage it first")]
    InUse { volume: String, node: String },
    #[error("volume {volume:?} is being deleted; repeat the call later")]
    Deleting { volume: String },
    #[error("starting_token {token:?} is none of ours; list again from the start")]
    BadToken { token: String },
    #[error("max_entries is negative")]
    NegativeEntries,
    #[error("no pool is ready: {why}; repeat the call later")]
    NoPoolReady { why: String },
    #[error(
        "volume {volume:?} is not {awaited} after {waited:?}: {last}; repeat the call to go on"
    )]
    Deadline {
        volume: String,
        awaited: &'static str,
        waited: Duration,
        last: String,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot {action} {what}: {cause}")]
    Cluster {
        action: &'static str,
        what: String,
        cause: String,
    },
    #[error("{call} is not served by this driver")]
    NotServed { call: &'static str },
}

impl From<ControllerError> for Status {
    fn from(error: ControllerError) -> Self {
        use ControllerError as E;
        let code = match &error {
            E::Refused(status) => status.code(),
            E::Missing { .. }
            | E::NameTooLong { .. }
            | E::UnknownParameter { .. }
            | E::BadParameter { .. }
            | E::ContentSource { .. }
            | E::Contradiction { .. }
            | E::UnknownTopology { .. }
            | E::NoSuchPool { .. }
            | E::Impossible { .. }
            | E::Store(StoreError::Rejected { .. })
            | E::NegativeEntries => Code::InvalidArgument,
            E::NotFound { .. } => Code::NotFound,
            E::Differs { .. } => Code::AlreadyExists,
            E::NoRoom { .. } => Code::ResourceExhausted,
            E::CannotGrow { .. } | E::CannotShrink { .. } => Code::OutOfRange,
            E::InUse { .. } => Code::FailedPrecondition,
            // Somebody else wrote the object between two steps of ours: the caller starts over.
            E::Deleting { .. }
            | E::BadToken { .. }
            | E::Store(StoreError::Conflict { .. } | StoreError::AlreadyExists { .. }) => {
                Code::Aborted
            }
            // Never INTERNAL or PERMISSION_DENIED: sidecars take those as final although a volume may be half made.
            E::NoPoolReady { .. } | E::Store(_) | E::Cluster { .. } => Code::Unavailable,
            E::Deadline { .. } => Code::DeadlineExceeded,
            E::NotServed { .. } => Code::Unimplemented,
        };
        Status::new(code, error.to_string())
    }
}
