//! How a guest is built: sizes, wishes, and how patient it is.

use super::connection::Connection;
use super::layout::{RingPlace, Slot};
use super::memory::GuestMemory;
use super::queue::GuestQueue;
use super::ring::DriverRing;
use super::wires::Wires;
use super::{Guest, GuestError, Protocol, feature};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Builds a [`Guest`]. What a back end does not offer is not negotiated; ask [`Guest::features`] what came out.
#[derive(Clone, Debug)]
pub struct GuestBuilder {
    pub(super) memory: u64,
    pub(super) regions: usize,
    pub(super) queues: usize,
    pub(super) queue_size: u16,
    pub(super) features: u64,
    pub(super) protocol: Protocol,
    pub(super) sealed: bool,
    pub(super) need_reply: bool,
    pub(super) deadline: Duration,
}

impl Default for GuestBuilder {
    fn default() -> GuestBuilder {
        GuestBuilder {
            memory: 32 << 20,
            regions: 1,
            queues: 1,
            queue_size: 128,
            features: feature::ALL,
            protocol: Protocol::MQ
                | Protocol::CONFIG
                | Protocol::REPLY_ACK
                | Protocol::BACKEND_REQ
                | Protocol::CONFIGURE_MEM_SLOTS
                | Protocol::RESET_DEVICE,
            sealed: true,
            need_reply: true,
            deadline: Duration::from_secs(10),
        }
    }
}

impl GuestBuilder {
    /// Bytes of memory over all regions; rounded up to pages. Default 32 MiB.
    #[must_use]
    pub fn memory(self, bytes: u64) -> Self {
        GuestBuilder {
            memory: bytes,
            ..self
        }
    }

    /// Number of memory regions: the first two adjacent, the rest above a hole. Default 1.
    #[must_use]
    pub fn regions(self, regions: usize) -> Self {
        GuestBuilder { regions, ..self }
    }

    /// Number of queues. Default 1.
    #[must_use]
    pub fn queues(self, queues: usize) -> Self {
        GuestBuilder { queues, ..self }
    }

    /// Descriptors per queue, a power of two. Default 128.
    #[must_use]
    pub fn queue_size(self, size: u16) -> Self {
        GuestBuilder {
            queue_size: size,
            ..self
        }
    }

    /// Virtio features wished for; see [`feature`]. Default [`feature::ALL`].
    #[must_use]
    pub fn features(self, features: u64) -> Self {
        GuestBuilder { features, ..self }
    }

    /// Leaves features out.
    #[must_use]
    pub fn without(self, features: u64) -> Self {
        GuestBuilder {
            features: self.features & !features,
            ..self
        }
    }

    /// Protocol features wished for. Default: all that Holdfast offers but INFLIGHT_SHMFD.
    #[must_use]
    pub fn protocol(self, protocol: Protocol) -> Self {
        GuestBuilder { protocol, ..self }
    }

    /// Negotiates INFLIGHT_SHMFD and keeps the region across connections, as QEMU does.
    #[must_use]
    pub fn inflight(self) -> Self {
        GuestBuilder {
            protocol: self.protocol | Protocol::INFLIGHT_SHMFD,
            ..self
        }
    }

    /// Whether memory is sealed against shrinking. Default yes.
    #[must_use]
    pub fn sealed(self, sealed: bool) -> Self {
        GuestBuilder { sealed, ..self }
    }

    /// Whether every message asks for an acknowledgement, if REPLY_ACK is negotiated. Default yes.
    #[must_use]
    pub fn need_reply(self, need_reply: bool) -> Self {
        GuestBuilder { need_reply, ..self }
    }

    /// How long any one thing may take: the connect, a message, an answer. Default 10 s.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        GuestBuilder { deadline, ..self }
    }

    /// Connects, negotiates, and starts all queues.
    ///
    /// # Errors
    /// [`GuestError`]: nobody listens until the deadline, or the back end refuses a step.
    pub fn connect(self, path: impl AsRef<Path>) -> Result<Guest, GuestError> {
        let mut guest = self.negotiate(path)?;
        guest.start()?;
        Ok(guest)
    }

    /// Connects and negotiates; sends neither memory nor queues. Go on with [`Guest::start`], or step by step.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn negotiate(self, path: impl AsRef<Path>) -> Result<Guest, GuestError> {
        if !self.queue_size.is_power_of_two() || self.queues == 0 {
            let what = format!("{} queues of {} descriptors", self.queues, self.queue_size);
            return Err(GuestError::Invalid { what });
        }
        let memory = Arc::new(GuestMemory::new(self.memory, self.regions, self.sealed)?);
        let connection = Connection::open(path.as_ref(), &self)?;
        let features = connection.offered & self.features;
        let queues = self.queues_in(&memory, features)?;
        Ok(Guest::new(
            self,
            path.as_ref().to_owned(),
            memory,
            queues,
            connection,
        ))
    }

    fn queues_in(
        &self,
        memory: &Arc<GuestMemory>,
        features: u64,
    ) -> Result<(Vec<Arc<Wires>>, Vec<GuestQueue>), GuestError> {
        let rings = self.queues as u64 * RingPlace::bytes(self.queue_size);
        let slots = self.queues as u64 * u64::from(self.queue_size);
        let mut slots = Slot::cut(memory, rings, slots)?.into_iter();
        let first = Arc::clone(&memory.regions()[0]);
        let mut made = (Vec::new(), Vec::new());
        for index in 0..self.queues {
            let place = RingPlace::of(index, self.queue_size);
            let ring = DriverRing::new(Arc::clone(&first), place);
            let wires = Arc::new(Wires::new(ring)?);
            let mine = slots.by_ref().take(usize::from(self.queue_size)).collect();
            let queue = GuestQueue::new(index, Arc::clone(memory), Arc::clone(&wires), mine);
            made.0.push(wires);
            made.1.push(queue.negotiated(features, self.deadline));
        }
        Ok(made)
    }
}
