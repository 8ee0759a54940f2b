//! What one front end has said: features, memory, rings. Owned by its thread, forgotten when the connection ends; the
//! volume, the socket and the other sessions stay.
//!
//! Messages change this state only; after each one [`Session::settle`] starts the rings that have become complete. So the
//! order in which front ends send things does not matter.

mod channel;
mod features;
mod handler;
mod inflight;
mod memory;
mod queue;
mod socket;
mod thread;

pub(crate) use thread::{Command, Export};

use crate::account::Account;
use crate::reactor::{Disk, Notice, Presence, Reactors};
use channel::BackendChannel;
use holdfast_ring::{InflightMap, MemView};
use queue::{Queue, Terms};
use std::path::PathBuf;
use std::sync::Arc;

/// What all sessions of an export have in common.
#[derive(Clone)]
pub(crate) struct Backing {
    /// Name of the export.
    pub(crate) export: Arc<str>,
    pub(crate) account: Arc<Account>,
    pub(crate) presence: Presence,
    /// Whom to tell of failures that may be the drive's loss; none if it cannot be lost.
    pub(crate) suspect: Option<Notice>,
    /// Ends the connection.
    pub(crate) hang_up: Notice,
    /// What the drive prefers to be given, in bytes; a hint for guests.
    pub(crate) optimal_io_bytes: u32,
    pub(crate) reactors: Arc<Reactors>,
    /// Most queues a front end may use.
    pub(crate) queues: u16,
    /// The socket's folder. What a front end is given a descriptor of is made there, so that it has the same label.
    pub(crate) folder: PathBuf,
    /// What guests see, as long as they do not change it.
    pub(crate) disk: Disk,
}

/// The state of one connection.
struct Session {
    backing: Backing,
    /// Virtio features that were agreed on.
    features: u64,
    /// What this guest sees.
    disk: Disk,
    view: Arc<MemView>,
    queues: Vec<Queue>,
    /// Where rings keep what is in flight; kept by the front end while we are away.
    inflight: Option<Arc<InflightMap>>,
    channel: Option<BackendChannel>,
    /// Whether the front end has had its chance to learn the size of the disk from this connection.
    knows_size: bool,
}

impl Session {
    fn new(backing: Backing) -> Session {
        let queues = (0..backing.queues).map(Queue::new).collect();
        Session {
            features: 0,
            disk: backing.disk,
            view: Arc::new(MemView::empty()),
            queues,
            inflight: None,
            channel: None,
            knows_size: false,
            backing,
        }
    }

    /// Starts what is complete and not running yet. Called after every message.
    fn settle(&mut self) {
        for at in 0..self.queues.len() {
            if self.queues[at].wants_to_run(self.features) {
                let terms = Terms {
                    features: self.features,
                    disk: self.disk,
                    view: Arc::clone(&self.view),
                    inflight: self.inflight.clone(),
                };
                self.queues[at].start(&self.backing, terms);
                self.tell_size_once();
            }
        }
    }

    /// A front end that comes back keeps the configuration it read long ago: the disk may have grown while we were away.
    fn tell_size_once(&mut self) {
        if self.channel.is_some() && !std::mem::replace(&mut self.knows_size, true) {
            self.tell_of_config_change();
        }
    }

    /// Takes every ring back. Returns when the last request of this front end has ended.
    fn stop_all(&mut self) {
        let reactors = &self.backing.reactors;
        let pending: Vec<_> = self
            .queues
            .iter_mut()
            .map(|queue| queue.begin_stop(reactors))
            .collect();
        for (queue, answer) in self.queues.iter_mut().zip(pending) {
            queue.finish_stop(&self.backing, answer);
        }
    }

    /// The guest starts over: as after connecting, but for its memory and the connection itself.
    fn reset(&mut self) {
        self.stop_all();
        self.features = 0;
        self.disk = self.backing.disk;
        self.inflight = None;
        self.queues = (0..self.backing.queues).map(Queue::new).collect();
    }

    /// The device has another size: running rings enforce it, the guest is told.
    fn resize(&mut self, size_bytes: u64) {
        self.backing.disk.limits.capacity_bytes = size_bytes;
        self.disk.limits.capacity_bytes = size_bytes;
        self.spread_disk();
        self.tell_of_config_change();
    }

    fn tell_of_config_change(&self) {
        if let Some(channel) = &self.channel
            && let Err(error) = channel.announce_config_change()
        {
            tracing::warn!(export = %self.backing.export, %error,
                "The guest was not told of its disk's size; it learns it when it next reads the configuration");
        }
    }

    /// The drive has gone or come back. What the guest sees of its disk stays.
    fn set_presence(&mut self, presence: &Presence) {
        self.backing.presence = presence.clone();
        for queue in &self.queues {
            queue.set_presence(&self.backing.reactors, presence);
        }
    }

    /// Running rings are told that the drive is there.
    fn acquit(&self) {
        for queue in &self.queues {
            queue.set_presence(&self.backing.reactors, &Presence::Sound);
        }
    }

    /// Lets running rings know what the guest sees now.
    fn spread_disk(&self) {
        for queue in &self.queues {
            queue.set_disk(&self.backing.reactors, self.disk);
        }
    }
}
