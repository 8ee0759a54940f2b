//! Why a store could not do as asked.

use holdfast_api::NameError;
use std::io;
use std::path::PathBuf;

/// Why a store could not do as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The name cannot name an object.
    #[error(transparent)]
    InvalidName(#[from] NameError),
    /// An object of that name is there.
    #[error("{kind} {name:?} already exists")]
    AlreadyExists {
        /// Kind of the object.
        kind: String,
        /// Its name.
        name: String,
    },
    /// No object of that name is there.
    #[error("{kind} {name:?} does not exist")]
    NotFound {
        /// Kind of the object.
        kind: String,
        /// Its name.
        name: String,
    },
    /// The object is not the one that was read: somebody wrote it, or made it anew.
    #[error("{kind} {name:?} changed since it was read; read it again and repeat the change")]
    Conflict {
        /// Kind of the object.
        kind: String,
        /// Its name.
        name: String,
    },
    /// The manifest is there and is not what it should be.
    #[error("{}: {problem}; repair the manifest or move it away", path.display())]
    Damaged {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The Kubernetes API did not answer, or not in time. A write may have taken effect all the same: read before repeating it.
    #[error("the Kubernetes API is not available to {what}: {cause}; it is worth another try")]
    Unavailable {
        /// What was tried, on which object.
        what: String,
        /// Why there is no answer.
        cause: String,
    },
    /// The Kubernetes API does not let us do this.
    #[error(
        "the Kubernetes API does not allow to {what}: {message}; give this service account the chart's roles"
    )]
    Denied {
        /// What was tried, on which object.
        what: String,
        /// What the API says.
        message: String,
    },
    /// The object breaks a rule of its kind.
    #[error("the Kubernetes API refuses to {what}: {message}")]
    Rejected {
        /// What was tried, on which object.
        what: String,
        /// What the API says, with the field.
        message: String,
    },
    /// The object is there and is not what this version understands.
    #[error("cannot understand {kind} {name:?}: {problem}; was it written by a newer version?")]
    Unreadable {
        /// Kind of the object.
        kind: String,
        /// Its name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Another process has the store.
    #[error("{}: another holdfast process uses this directory; stop it or choose another", dir.display())]
    InUse {
        /// The store's directory.
        dir: PathBuf,
    },
    /// The place that keeps the objects failed.
    #[error("cannot {action} {}: {cause}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// Why it failed.
        cause: io::Error,
    },
}
