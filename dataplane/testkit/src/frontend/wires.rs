//! What guest and queue share: the ring, and the eventfds that go with it.

use super::GuestError;
use super::ring::DriverRing;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// One queue as the back end sees it.
#[derive(Debug)]
pub(crate) struct Wires {
    pub(crate) ring: DriverRing,
    pub(crate) kick: EventFd,
    pub(crate) call: EventFd,
    pub(crate) error: EventFd,
}

impl Wires {
    pub(crate) fn new(ring: DriverRing) -> Result<Wires, GuestError> {
        let eventfd = || {
            let fd = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC);
            fd.map_err(GuestError::io("eventfd"))
        };
        Ok(Wires {
            ring,
            kick: eventfd()?,
            call: eventfd()?,
            error: eventfd()?,
        })
    }
}
