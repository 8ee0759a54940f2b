//! What can go wrong on the driver's side. Each of these is a finding of a test, so each says what was expected.

use std::path::PathBuf;
use std::time::Duration;

/// Why a front end could not do what a test asked of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuestError {
    /// Nobody listens, or did not until the deadline.
    #[error("cannot connect to {}: {source}; is the back end listening there?", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The last cause.
        source: std::io::Error,
    },
    /// A vhost-user message failed: the back end refused it, hung up, or did not answer in time.
    #[error("{step} failed: {source}")]
    Protocol {
        /// The message.
        step: &'static str,
        /// What the codec said.
        source: vhost::Error,
    },
    /// The kernel refused.
    #[error("{step} failed: {source}")]
    System {
        /// The system call.
        step: &'static str,
        /// What it said.
        source: std::io::Error,
    },
    /// A test asked for something the guest was not built for.
    #[error("{what}; change the guest's builder")]
    Invalid {
        /// What does not fit.
        what: String,
    },
    /// There is no connection.
    #[error("the guest is not connected; call reconnect first")]
    NotConnected,
    /// All descriptors are taken.
    #[error(
        "queue {queue} has {free} free descriptors, the request needs {needed}; complete some first"
    )]
    QueueFull {
        /// The queue.
        queue: usize,
        /// Descriptors left.
        free: usize,
        /// Descriptors needed.
        needed: usize,
    },
    /// Nothing came in time.
    #[error("no {what} within {after:?}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        after: Duration,
    },
    /// Answers are in the ring, an interrupt was asked for, and none came.
    #[error("queue {queue} has answers in its used ring, but no interrupt came within {after:?}")]
    LostInterrupt {
        /// The queue.
        queue: usize,
        /// How long it was waited for.
        after: Duration,
    },
    /// The device answered a head that is not with it.
    #[error("queue {queue}: the device used head {head}, which is not outstanding")]
    NotOutstanding {
        /// The queue.
        queue: usize,
        /// The id in the used element.
        head: u32,
    },
    /// `used.idx` ran ahead of everything that was ever made available.
    #[error("queue {queue}: used.idx {used_idx} is ahead of avail.idx {avail_idx}")]
    UsedIndexJumped {
        /// The queue.
        queue: usize,
        /// What the device stored.
        used_idx: u16,
        /// What the driver has made available.
        avail_idx: u16,
    },
    /// The request was answered with an error status.
    #[error("{op} was answered with status {status}")]
    Status {
        /// The request.
        op: String,
        /// `1` IOERR, `2` UNSUPP, `0xff` not written.
        status: u8,
    },
    /// The device claims to have written more, or less, than the request allows.
    #[error("{op} was answered with used length {found}, expected {expected}")]
    UsedLength {
        /// The request.
        op: String,
        /// In the used element.
        found: u32,
        /// By virtio 1.x section 2.7.8.
        expected: u32,
    },
}

impl GuestError {
    pub(crate) fn system(step: &'static str) -> impl FnOnce(rustix::io::Errno) -> GuestError {
        move |errno| GuestError::System {
            step,
            source: errno.into(),
        }
    }

    pub(crate) fn io(step: &'static str) -> impl FnOnce(std::io::Error) -> GuestError {
        move |source| GuestError::System { step, source }
    }

    pub(crate) fn protocol(step: &'static str) -> impl FnOnce(vhost::Error) -> GuestError {
        move |source| GuestError::Protocol { step, source }
    }
}
