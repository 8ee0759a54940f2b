//! Whether the drive behind a ring is there. Loss is a state and no accident: requests wait in the order they came, and go
//! on when the same drive is back.

use holdfast_bdev::{BlockDevice, IoStatus};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

/// What stands behind a ring.
#[derive(Clone, Debug)]
pub(crate) enum Presence {
    /// A device to be used from now on.
    Here(Arc<dyn BlockDevice>),
    /// The drive has gone. Requests wait until this moment; without one they fail at once.
    Lost(Option<Instant>),
    /// The drive is there, and what failed on it has failed for good.
    Sound,
}

/// Tells somebody outside the reactor that something has happened. Must not block.
#[derive(Clone)]
pub(crate) struct Notice(Arc<dyn Fn() + Send + Sync>);

impl Notice {
    pub(crate) fn new(tell: impl Fn() + Send + Sync + 'static) -> Notice {
        Notice(Arc::new(tell))
    }

    pub(crate) fn tell(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notice")
    }
}

/// Whether a request that ended like this may have met a drive that is gone.
pub(super) fn may_be_loss(status: IoStatus) -> bool {
    let errnos = [
        libc::EIO,
        libc::ENODEV,
        libc::ENXIO,
        libc::ENOMEDIUM,
        libc::ESHUTDOWN,
        libc::ETIMEDOUT,
        // A drive that is being removed has a size of 0, and a write past that finds no space.
        libc::ENOSPC,
    ];
    matches!(status, IoStatus::Failed(errno) if errnos.contains(&errno))
}
