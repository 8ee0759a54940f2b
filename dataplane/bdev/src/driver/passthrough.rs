//! Rings for NVMe commands, beside the driver's own: their entries are twice as large, which no other request should pay
//! for. One for each namespace, so that a ring's end is the end of its commands.
#![allow(unsafe_code)] // Submission hands addresses to the kernel.

use super::continuation::Core;
use super::uring::{DRAIN_RETRY, tolerate};
use crate::BdevError;
use crate::nvme::{Namespace, Next, Request, Seat};
use crate::slab::{Key, Slab};
use crate::transfer::Transfer;
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};

/// Submission entries; when full, the queue is handed to the kernel early.
const ENTRIES: u32 = 256;
/// Completion entries. More outstanding requests than this are kept by the kernel (NODROP).
const COMPLETION_ENTRIES: u32 = 2048;
/// Where the character device is among the ring's files; see [`Seat::descriptors`].
const GENERIC: types::Fixed = types::Fixed(1);

/// All rings of one driver: as many as it has drives by this way, which are few.
#[derive(Default)]
pub(super) struct Passthrough {
    rings: Vec<Ring>,
}

struct Ring {
    ring: IoUring<squeue::Entry128, cqueue::Entry32>,
    /// Readable when there are completions.
    bell: Arc<OwnedFd>,
    /// The driver's watch of the bell, which ends by ringing.
    watch: Option<Key>,
    /// Gone with the last channel and request.
    seat: Weak<Seat>,
    requests: Slab<Request>,
    /// Entries that did not fit into the submission queue.
    backlog: VecDeque<squeue::Entry128>,
    /// Completions taken off the ring, while they are looked at.
    taken: Vec<(u64, i32)>,
}

impl Passthrough {
    /// The namespace's place here; makes a ring if there is none.
    pub(super) fn seat(&mut self, namespace: &Arc<Namespace>) -> Result<Arc<Seat>, BdevError> {
        let mut seats = self.rings.iter().filter_map(|ring| ring.seat.upgrade());
        if let Some(seat) = seats.find(|seat| seat.is_of(namespace)) {
            return Ok(seat);
        }
        let seat = Arc::new(Seat::new(namespace));
        let ring = Ring::new(&seat).map_err(|source| BdevError::Driver {
            what: "setting up io_uring for NVMe commands (kernel 5.19 or later is needed)",
            source,
        })?;
        self.rings.push(ring);
        Ok(seat)
    }

    pub(super) fn is_used(&self) -> bool {
        !self.rings.is_empty()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.rings.iter().map(|ring| ring.requests.len()).sum()
    }

    /// Takes a request; the next flush hands its command to the kernel.
    pub(super) fn start(&mut self, request: Request) {
        let seat = Arc::as_ptr(request.seat());
        let ring = self
            .rings
            .iter_mut()
            .find(|ring| ring.seat.as_ptr() == seat);
        let ring = ring.expect("a ring lives as long as requests for it");
        let key = ring.requests.insert(request);
        ring.issue(key);
    }

    /// Hands queued commands to the kernel and lets it post completions, without blocking.
    pub(super) fn flush(&mut self) -> Result<(), BdevError> {
        self.rings.iter_mut().try_for_each(Ring::flush)
    }

    /// Looks at what the kernel has posted. Returns the requests that the block path has to serve.
    pub(super) fn reap(&mut self, core: &mut Core) -> Vec<Transfer> {
        let mut block = Vec::new();
        for ring in &mut self.rings {
            ring.reap(core, &mut block);
        }
        block
    }

    /// Calls `watch` for each ring that commands are with, so that it wakes the driver once. The key is that of the
    /// ring's last watch.
    pub(super) fn watch(&mut self, mut watch: impl FnMut(&Arc<OwnedFd>, Option<Key>) -> Key) {
        let busy = |ring: &&mut Ring| ring.requests.len() > 0;
        for ring in self.rings.iter_mut().filter(busy) {
            ring.watch = Some(watch(&ring.bell, ring.watch));
        }
    }

    /// Forgets rings that nobody uses any more; their drives are free at once. Returns their watches.
    pub(super) fn prune(&mut self) -> Vec<Key> {
        let unused = |ring: &mut Ring| ring.seat.strong_count() == 0;
        let unused: Vec<Ring> = self.rings.extract_if(.., unused).collect();
        unused.iter().filter_map(Ring::retire).collect()
    }

    /// Waits until the kernel is done with all buffers. No timeout: it touches them until it says otherwise.
    pub(super) fn drain(&mut self, core: &mut Core) -> Vec<Transfer> {
        let mut block = Vec::new();
        for ring in &mut self.rings {
            ring.drain(core, &mut block);
            ring.retire();
        }
        block
    }
}

impl Ring {
    fn new(seat: &Arc<Seat>) -> io::Result<Ring> {
        // Completions wait for our next system call, in whichever ring that is. Deferring them to calls of this one would
        // take another call for each wake.
        let mut builder = IoUring::<squeue::Entry128, cqueue::Entry32>::builder();
        let builder = builder.setup_cqsize(COMPLETION_ENTRIES).setup_clamp();
        let builder = builder.setup_submit_all();
        let ring = builder
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .build(ENTRIES)?;
        // The ring holds both devices open until its last command has come back, also if this process is killed: with the
        // block device it holds the lock that a successor waits for.
        ring.submitter().register_files(&seat.descriptors())?;
        Ok(Ring {
            bell: Arc::new(duplicate(&ring)?),
            ring,
            watch: None,
            seat: Arc::downgrade(seat),
            requests: Slab::new(),
            backlog: VecDeque::new(),
            taken: Vec::with_capacity(ENTRIES as usize),
        })
    }

    /// Makes the next command of a request.
    fn issue(&mut self, key: Key) {
        let Some(request) = self.requests.get_mut(key) else {
            return;
        };
        let (kind, command) = request.command();
        let entry = opcode::UringCmd80::new(GENERIC, kind).cmd(command.bytes());
        let entry = entry.build().user_data(key.pack());
        // SAFETY: whatever the command points to is owned by a request of the slab until its completion has been seen, or
        // vouched for by the maker of the request until then.
        let pushed =
            self.backlog.is_empty() && unsafe { self.ring.submission().push(&entry) }.is_ok();
        if !pushed {
            self.backlog.push_back(entry);
        }
    }

    fn flush(&mut self) -> Result<(), BdevError> {
        loop {
            self.fill();
            let mut queue = self.ring.submission();
            queue.sync();
            if queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() {
                return Ok(());
            }
            drop(queue);
            match self.ring.submit() {
                Ok(_) if self.backlog.is_empty() => return Ok(()),
                Ok(_) => {}
                Err(error) => return tolerate(error),
            }
        }
    }

    /// Moves what waits outside into the submission queue, as far as it fits.
    fn fill(&mut self) {
        while let Some(entry) = self.backlog.front() {
            // SAFETY: as in `issue`.
            if unsafe { self.ring.submission().push(entry) }.is_err() {
                return;
            }
            self.backlog.pop_front();
        }
    }

    fn reap(&mut self, core: &mut Core, block: &mut Vec<Transfer>) {
        let mut taken = std::mem::take(&mut self.taken);
        let entries = self.ring.completion();
        taken.extend(entries.map(|entry| (entry.user_data(), entry.result())));
        for (data, result) in taken.drain(..) {
            self.command_came_back(Key::unpack(data), result, core, block);
        }
        self.taken = taken;
    }

    fn command_came_back(
        &mut self,
        key: Key,
        result: i32,
        core: &mut Core,
        block: &mut Vec<Transfer>,
    ) {
        let Some(request) = self.requests.get_mut(key) else {
            core.stale += 1;
            return;
        };
        match request.advance(result) {
            Next::Command => self.issue(key),
            Next::Complete(status) => {
                let token = request.token();
                self.requests.remove(key);
                core.complete(token, status);
            }
            Next::Block => block.extend(self.requests.remove(key).map(Request::into_transfer)),
        }
    }

    fn drain(&mut self, core: &mut Core, block: &mut Vec<Transfer>) {
        while self.requests.len() > 0 {
            self.fill();
            if let Err(error) = self.ring.submit_and_wait(1).map(drop).or_else(tolerate) {
                tracing::error!(%error, "Waiting for NVMe commands the kernel still works on");
                std::thread::sleep(DRAIN_RETRY);
            }
            self.reap(core, block);
        }
    }

    /// Lets go of the devices now: the kernel takes its time with the ring itself.
    fn retire(&self) -> Option<Key> {
        if let Err(error) = self.ring.submitter().unregister_files() {
            tracing::error!(%error, "An NVMe drive stays locked until this process ends");
        }
        self.watch
    }
}

fn duplicate(ring: &impl AsRawFd) -> io::Result<OwnedFd> {
    // SAFETY: the ring has its descriptor open as long as it lives.
    unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) }.try_clone_to_owned()
}
