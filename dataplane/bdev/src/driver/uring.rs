//! The io_uring variant: one ring per reactor carries storage requests, readiness polls and the wait itself.
//! Tasks run only when this thread asks for it (DEFER_TASKRUN), so a completion never interrupts a turn.
#![allow(unsafe_code)] // Submission hands addresses to the kernel.

mod merge;

use super::Target;
use super::continuation::Core;
use crate::BdevError;
use crate::slab::{Key, Slab};
use crate::transfer::{Call, Span, Transfer};
use io_uring::{IoUring, opcode, squeue, types};
use merge::Merge;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Submission entries; when full, the queue is handed to the kernel early.
const ENTRIES: u32 = 256;
/// Completion entries. More outstanding requests than this are kept by the kernel (NODROP).
const COMPLETION_ENTRIES: u32 = 4096;
/// So many requests are handed to the kernel at once, in the middle of a turn: a drive works on the first while the
/// guest is still asking for the last. One by one they would each cost a call and a doorbell.
const HAND_OVER: usize = 4;
/// How often a driver that cannot wait looks whether it may go.
pub(super) const DRAIN_RETRY: Duration = Duration::from_millis(10);

// The two top bits of user_data say what a completion belongs to; the rest is a slab key.
const KIND_SHIFT: u32 = 62;
const KIND_REQUEST: u64 = 0;
const KIND_WATCH: u64 = 1;
const KIND_REMOVE: u64 = 2;
const KIND_GROUP: u64 = 3;

#[derive(PartialEq, Eq)]
enum WatchState {
    /// Reported; polled again from the next poll or wait on.
    Idle,
    /// The kernel (or the submission queue) holds a poll for it.
    Armed,
    /// Ended, but the poll is not back yet; the descriptor must not be closed before.
    Ending,
}

struct Watch {
    fd: Arc<OwnedFd>,
    target: Target,
    state: WatchState,
}

pub(super) struct Ring {
    ring: IoUring,
    /// Storage requests: in the kernel, on their way there, or waiting for a bounce buffer.
    requests: Slab<Transfer>,
    merge: Merge,
    /// Requests since entries were last handed to the kernel.
    started: usize,
    watches: Slab<Watch>,
    /// Watches to poll again. One-shot polls make readiness level-like: a poll of a readable descriptor
    /// completes at once, in the same system call that submits it.
    idle: Vec<Key>,
    /// Entries that did not fit into the submission queue.
    backlog: VecDeque<squeue::Entry>,
    /// Completions taken off the ring, while they are looked at.
    taken: Vec<(u64, i32)>,
}

impl Ring {
    pub(super) fn new() -> Result<Ring, BdevError> {
        let ring = build().map_err(|source| BdevError::Driver {
            what: "setting up io_uring (is it forbidden by seccomp or kernel.io_uring_disabled?)",
            source,
        })?;
        let params = ring.params();
        if !(params.is_feature_ext_arg()
            && params.is_feature_nodrop()
            && params.is_feature_submit_stable())
        {
            let source = io::Error::from_raw_os_error(libc::ENOSYS);
            return Err(BdevError::Driver {
                what: "setting up io_uring (kernel 5.11 or later is needed)",
                source,
            });
        }
        Ok(Ring {
            ring,
            requests: Slab::new(),
            merge: Merge::new(),
            started: 0,
            watches: Slab::new(),
            idle: Vec::new(),
            backlog: VecDeque::new(),
            taken: Vec::with_capacity(ENTRIES as usize),
        })
    }

    pub(super) fn watch(&mut self, fd: Arc<OwnedFd>, target: Target) -> Key {
        let key = self.watches.insert(Watch {
            fd,
            target,
            state: WatchState::Idle,
        });
        self.idle.push(key);
        key
    }

    /// A watch that ends when it reports; the `known` one if that has not reported yet.
    pub(super) fn watch_once(&mut self, bell: &Arc<OwnedFd>, known: Option<Key>) -> Key {
        let still = known.filter(|key| self.watches.get_mut(*key).is_some());
        still.unwrap_or_else(|| self.watch(Arc::clone(bell), Target::Bell))
    }

    pub(super) fn unwatch(&mut self, key: Key) {
        match self.watches.get_mut(key) {
            Some(watch) if watch.state == WatchState::Armed => {
                watch.state = WatchState::Ending;
                let remove = opcode::PollRemove::new(tag(KIND_WATCH, key)).build();
                self.push(remove.user_data(tag(KIND_REMOVE, key)));
            }
            Some(watch) if watch.state == WatchState::Idle => {
                self.watches.remove(key);
            }
            _ => {}
        }
    }

    /// Polls those descriptors again that were reported since the last call.
    fn rearm(&mut self) {
        while let Some(key) = self.idle.pop() {
            let Some(watch) = self.watches.get_mut(key) else {
                continue;
            };
            watch.state = WatchState::Armed;
            let fd = types::Fd(watch.fd.as_raw_fd());
            let poll = opcode::PollAdd::new(fd, u32::from(libc::POLLIN.unsigned_abs())).build();
            self.push(poll.user_data(tag(KIND_WATCH, key)));
        }
    }

    /// Hands queued entries to the kernel and lets it post completions, without blocking.
    pub(super) fn flush(&mut self) -> Result<(), BdevError> {
        self.rearm();
        self.close();
        self.fill();
        let mut queue = self.ring.submission();
        queue.sync();
        if queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() {
            return Ok(());
        }
        drop(queue);
        self.submit()
    }

    /// Hands queued entries to the kernel and blocks until a completion or the time has come.
    pub(super) fn sleep(&mut self, until: Option<Instant>) -> Result<(), BdevError> {
        self.rearm();
        self.close();
        self.fill();
        self.started = 0;
        if !self.backlog.is_empty() {
            // Else it would wait for completions that need not come.
            self.submit()?;
        }
        let result = match until {
            None => self.ring.submit_and_wait(1),
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now());
                let timeout = types::Timespec::from(left);
                let args = types::SubmitArgs::new().timespec(&timeout);
                self.ring.submitter().submit_with_args(1, &args)
            }
        };
        result.map(|_| ()).or_else(tolerate)
    }

    /// Submits until nothing is left outside the kernel, or it takes no more for now.
    fn submit(&mut self) -> Result<(), BdevError> {
        self.started = 0;
        loop {
            match self.ring.submit() {
                Ok(0) => return Ok(()),
                Ok(_) if self.backlog.is_empty() => return Ok(()),
                Ok(_) => self.fill(),
                Err(error) => return tolerate(error),
            }
        }
    }

    /// Looks at what the kernel has posted; true if the inbox's bell rang.
    pub(super) fn reap(&mut self, core: &mut Core, ready: &mut Vec<u64>) -> bool {
        let mut bell = false;
        let mut taken = std::mem::take(&mut self.taken);
        taken.extend(
            self.ring
                .completion()
                .map(|entry| (entry.user_data(), entry.result())),
        );
        for (data, result) in taken.drain(..) {
            match data >> KIND_SHIFT {
                KIND_WATCH => match self.poll_came_back(Key::unpack(data), result) {
                    Some(Target::Caller(key)) => ready.push(key),
                    Some(Target::Inbox) => bell = true,
                    Some(Target::Bell) | None => {}
                },
                KIND_REQUEST => self.call_came_back(Key::unpack(data), result, core),
                KIND_GROUP => self.group_came_back(Key::unpack(data), result, core),
                _ => {} // The kernel has taken note of a removal.
            }
        }
        self.taken = taken;
        bell
    }

    pub(super) fn in_flight(&self) -> usize {
        self.requests.len()
    }

    pub(super) fn merged(&self) -> u64 {
        self.merge.merged
    }

    /// Takes a storage request; the kernel has it by the next flush or sleep.
    pub(super) fn start(&mut self, transfer: Transfer) {
        let key = self.requests.insert(transfer);
        self.join(key);
        self.started += 1;
        if self.started < HAND_OVER {
            return;
        }
        self.close();
        if let Err(error) = self.submit() {
            // The next flush or sleep meets it again, and can tell the caller.
            tracing::debug!(%error, "The kernel took no requests");
        }
    }

    /// Makes the next call of a request, unless it has to wait for a buffer.
    fn issue(&mut self, key: Key) {
        let Some(transfer) = self.requests.get_mut(key) else {
            return;
        };
        if transfer.is_ready(Some(key)) {
            let entry = entry(&transfer.call(), types::Fd(transfer.fd()));
            self.push(entry.user_data(tag(KIND_REQUEST, key)));
        }
    }

    fn call_came_back(&mut self, key: Key, result: i32, core: &mut Core) {
        let Some(transfer) = self.requests.get_mut(key) else {
            core.stale += 1;
            return;
        };
        let token = transfer.token();
        let Some(status) = transfer.advance(result) else {
            return self.issue(key);
        };
        let next = self.requests.remove(key).and_then(Transfer::finish);
        core.complete(token, status);
        if let Some(next) = next {
            self.issue(next);
        }
    }

    /// Waits until the kernel is done with all buffers. No timeout: it touches them until it says otherwise.
    pub(super) fn drain(&mut self, core: &mut Core) {
        let keys: Vec<Key> = self.requests.iter().map(|(key, _)| key).collect();
        for key in keys {
            if self
                .requests
                .get_mut(key)
                .is_some_and(|transfer| transfer.is_waiting())
            {
                self.requests.remove(key);
            }
        }
        while self.requests.len() > 0 {
            self.idle.clear(); // A watch that is ready, and that nobody serves, would keep us awake.
            if let Err(error) = self.sleep(None) {
                tracing::error!(%error, "Waiting for requests the kernel still works on");
                std::thread::sleep(DRAIN_RETRY);
            }
            self.reap(core, &mut Vec::new());
        }
    }

    fn poll_came_back(&mut self, key: Key, result: i32) -> Option<Target> {
        let watch = self.watches.get_mut(key)?;
        if watch.state == WatchState::Ending || matches!(watch.target, Target::Bell) {
            self.watches.remove(key);
            return None;
        }
        watch.state = WatchState::Idle;
        self.idle.push(key);
        // A poll that failed is reported as well: the owner's read will tell what is wrong.
        (result != -libc::ECANCELED).then_some(watch.target)
    }

    fn push(&mut self, entry: squeue::Entry) {
        // SAFETY: whatever the entry points to is owned by a slab of this ring until its completion has
        // been seen, or vouched for by the maker of the request until then.
        let pushed =
            self.backlog.is_empty() && unsafe { self.ring.submission().push(&entry) }.is_ok();
        if !pushed {
            self.backlog.push_back(entry);
        }
    }

    /// Moves what waits outside into the submission queue, as far as it fits.
    fn fill(&mut self) {
        while let Some(entry) = self.backlog.front() {
            // SAFETY: as in `push`.
            if unsafe { self.ring.submission().push(entry) }.is_err() {
                return;
            }
            self.backlog.pop_front();
        }
    }
}

fn entry(call: &Call, fd: types::Fd) -> squeue::Entry {
    match *call {
        Call::Read(Span::One(part), at) => {
            opcode::Read::new(fd, part.iov_base.cast(), length(part))
                .offset(at)
                .build()
        }
        Call::Read(Span::Many(iov, count), at) => {
            opcode::Readv::new(fd, iov, count).offset(at).build()
        }
        Call::Write(Span::One(part), at) => {
            opcode::Write::new(fd, part.iov_base.cast(), length(part))
                .offset(at)
                .build()
        }
        Call::Write(Span::Many(iov, count), at) => {
            opcode::Writev::new(fd, iov, count).offset(at).build()
        }
        Call::Sync => opcode::Fsync::new(fd)
            .flags(types::FsyncFlags::DATASYNC)
            .build(),
        Call::Allocate { mode, offset, len } => opcode::Fallocate::new(fd, len)
            .offset(offset)
            .mode(mode)
            .build(),
    }
}

fn length(part: libc::iovec) -> u32 {
    u32::try_from(part.iov_len).expect("at most CALL_MAX")
}

fn tag(kind: u64, key: Key) -> u64 {
    kind << KIND_SHIFT | key.pack()
}

/// The best ring this kernel grants: completions deferred to our own calls, else cooperative, else plain.
fn build() -> io::Result<IoUring> {
    let plain = || {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(COMPLETION_ENTRIES).setup_clamp();
        builder
    };
    let (mut deferred, mut cooperative) = (plain(), plain());
    deferred
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all();
    cooperative.setup_coop_taskrun().setup_taskrun_flag();
    let unknown_flag = |error: &io::Error| error.raw_os_error() == Some(libc::EINVAL);
    match deferred.build(ENTRIES) {
        Err(error) if unknown_flag(&error) => match cooperative.build(ENTRIES) {
            Err(error) if unknown_flag(&error) => plain().build(ENTRIES),
            other => other,
        },
        other => other,
    }
}

/// Errors of io_uring_enter that mean "not now": a signal, the timeout, or completions to be reaped first.
pub(super) fn tolerate(error: io::Error) -> Result<(), BdevError> {
    match error.raw_os_error() {
        Some(libc::EINTR | libc::ETIME | libc::EAGAIN | libc::EBUSY) => Ok(()),
        _ => Err(BdevError::Driver {
            what: "io_uring_enter",
            source: error,
        }),
    }
}
