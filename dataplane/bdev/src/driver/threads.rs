//! The variant without io_uring: poll(2) for readiness, worker threads for storage.

use super::Target;
use super::inbox::Inbox;
use super::workers::Workers;
use crate::BdevError;
use crate::slab::{Key, Slab};
use crate::transfer::Transfer;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

struct Watch {
    fd: Arc<OwnedFd>,
    target: Target,
}

pub(super) struct Threads {
    watches: Slab<Watch>,
    /// Started by the first channel that needs them.
    workers: Option<Workers>,
    /// Requests whose answers have not been taken from the inbox.
    in_flight: usize,
}

impl Threads {
    pub(super) fn new() -> Threads {
        Threads {
            watches: Slab::new(),
            workers: None,
            in_flight: 0,
        }
    }

    pub(super) fn prepare(&mut self, inbox: &Arc<Inbox>) -> Result<(), BdevError> {
        if self.workers.is_none() {
            self.workers = Some(Workers::start(inbox)?);
        }
        Ok(())
    }

    /// [`Threads::prepare`] has been called.
    pub(super) fn start(&mut self, transfer: Transfer) {
        let workers = self.workers.as_ref();
        workers
            .expect("opening the channel started workers")
            .push(transfer);
        self.in_flight += 1;
    }

    pub(super) fn served(&mut self, count: usize) {
        self.in_flight -= count;
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Waits for everything that a worker has begun and forgets the rest.
    pub(super) fn drain(&mut self) {
        self.workers = None;
    }

    pub(super) fn watch(&mut self, fd: Arc<OwnedFd>, target: Target) -> Key {
        self.watches.insert(Watch { fd, target })
    }

    pub(super) fn unwatch(&mut self, key: Key) {
        self.watches.remove(key);
    }

    /// Blocks until a watched descriptor is readable or the time has come.
    pub(super) fn sleep(&mut self, until: Option<Instant>) -> Result<(), BdevError> {
        let mut polled = self.polled();
        let timeout =
            until.map(|until| super::timespec(until.saturating_duration_since(Instant::now())));
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(failed(errno)),
        }
    }

    /// Notes the keys of readable descriptors; true if the inbox is among them.
    pub(super) fn reap(&mut self, ready: &mut Vec<u64>) -> Result<bool, BdevError> {
        let mut polled = self.polled();
        match poll(&mut polled, Some(&Timespec::default())) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(false),
            Err(errno) => return Err(failed(errno)),
        }
        let mut bell = false;
        for (polled, (_, watch)) in polled.iter().zip(self.watches.iter()) {
            match watch.target {
                _ if polled.revents().is_empty() => {}
                Target::Caller(key) => ready.push(key),
                Target::Inbox => bell = true,
                Target::Bell => {}
            }
        }
        Ok(bell)
    }

    fn polled(&self) -> Vec<PollFd<'_>> {
        self.watches
            .iter()
            .map(|(_, watch)| PollFd::new(&*watch.fd, PollFlags::IN))
            .collect()
    }
}

fn failed(errno: Errno) -> BdevError {
    BdevError::Driver {
        what: "waiting with poll(2)",
        source: errno.into(),
    }
}
