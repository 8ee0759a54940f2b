//! What a ring brings along on its way to a reactor.

use crate::account::Account;
use crate::reactor::{Notice, PeerEvent, Presence};
use holdfast_ring::blk::Limits;
use holdfast_ring::{InflightSlot, MemView, QueueFeatures, QueueLayout};
use std::sync::Arc;

/// What a guest's requests are measured by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Disk {
    pub(crate) limits: Limits,
    /// A write is answered only when it is durable.
    pub(crate) writethrough: bool,
    /// The answer to GET_ID, padded with zeros.
    pub(crate) serial: [u8; 20],
}

/// A ring on its way to a reactor: everything that is needed to serve it, by value.
pub(crate) struct RingSetup {
    /// Name of the export, for the log.
    pub(crate) export: Arc<str>,
    pub(crate) account: Arc<Account>,
    /// Number of the queue.
    pub(crate) index: u16,
    pub(crate) layout: QueueLayout,
    pub(crate) features: QueueFeatures,
    /// Position of the next element to take.
    pub(crate) base: u16,
    pub(crate) view: Arc<MemView>,
    /// Where a successor finds what is in flight. With it, `base` counts for nothing.
    pub(crate) inflight: Option<InflightSlot>,
    /// None: the front end wants to be polled.
    pub(crate) kick: Option<PeerEvent>,
    pub(crate) call: Option<PeerEvent>,
    pub(crate) err: Option<PeerEvent>,
    pub(crate) presence: Presence,
    /// Whom to tell of failures that may be the drive's loss; none if it cannot be lost.
    pub(crate) suspect: Option<Notice>,
    /// Whom to tell that the session must end.
    pub(crate) hang_up: Notice,
    pub(crate) disk: Disk,
}
