//! The one wait point of a reactor thread: storage submission and completion, readiness of file
//! descriptors, deadlines. Two variants behind one face: io_uring, and a worker pool where that is forbidden.

mod continuation;
mod inbox;
mod passthrough;
mod threads;
mod uring;
mod workers;

use crate::nvme::{Namespace, Request, Seat};
use crate::transfer::Transfer;
use crate::{BdevError, Completion, IoStatus, Token};
use continuation::Core;
use inbox::Inbox;
pub use inbox::Remote;
use passthrough::Passthrough;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use threads::Threads;
use uring::Ring;

/// Which mechanism serves the reactor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DriverKind {
    /// io_uring, or threads where the kernel or the sandbox forbids it.
    #[default]
    Auto,
    /// io_uring or an error.
    Uring,
    /// poll(2) and a pool of worker threads.
    Threads,
}

/// Names one watch of one driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchId(crate::slab::Key);

/// What a call of [`Driver::poll`] or [`Driver::wait`] found. Reuse it: it keeps its capacity.
#[derive(Debug)]
pub struct Events {
    /// Finished requests.
    pub completions: Vec<Completion>,
    /// Keys of watches whose file descriptor is readable (or has failed: reading tells).
    pub ready: Vec<u64>,
}

impl Default for Events {
    fn default() -> Events {
        Events {
            completions: Vec::with_capacity(continuation::DONE_MOSTLY),
            ready: Vec::new(),
        }
    }
}

impl Events {
    /// True if nothing happened.
    pub fn is_empty(&self) -> bool {
        self.completions.is_empty() && self.ready.is_empty()
    }

    /// Forgets everything; [`Driver::poll`] and [`Driver::wait`] do it first.
    pub fn clear(&mut self) {
        self.completions.clear();
        self.ready.clear();
    }
}

/// What a watch reports to: the caller's key, or the driver's own inbox.
#[derive(Clone, Copy, Debug)]
enum Target {
    Caller(u64),
    Inbox,
    /// The ring of an NVMe namespace, which is looked at in any case. Such a watch ends by reporting.
    Bell,
}

#[allow(clippy::large_enum_variant)] // One per reactor; a box would only add an indirection.
enum Backend {
    Uring(Ring),
    Threads(Threads),
}

/// The wait point. Made on its reactor's thread and never leaves it.
///
/// Dropping it waits for every request the kernel still works on: their buffers are in use until then.
pub struct Driver {
    core: Core,
    backend: Backend,
    passthrough: Passthrough,
    inbox: Arc<Inbox>,
    /// Not `Send`: the kernel lets only the thread that made the ring use it.
    _stays: PhantomData<*const ()>,
}

impl Driver {
    /// Sets up the wait point of the calling thread.
    ///
    /// # Errors
    /// [`BdevError::Driver`] if the kernel refuses the mechanism asked for.
    pub fn new(kind: DriverKind) -> Result<Driver, BdevError> {
        let backend = match kind {
            DriverKind::Threads => Backend::Threads(Threads::new()),
            DriverKind::Uring => Backend::Uring(Ring::new()?),
            DriverKind::Auto => match Ring::new() {
                Ok(ring) => Backend::Uring(ring),
                Err(error) => {
                    tracing::warn!(%error, "Using worker threads for storage, which are slower");
                    Backend::Threads(Threads::new())
                }
            },
        };
        let inbox = Arc::new(Inbox::new()?);
        let mut driver = Driver {
            core: Core::new(),
            backend,
            passthrough: Passthrough::default(),
            inbox,
            _stays: PhantomData,
        };
        let bell = driver.inbox.bell();
        driver.watch_for(bell, Target::Inbox);
        Ok(driver)
    }

    /// The mechanism in use; never `Auto`.
    pub fn kind(&self) -> DriverKind {
        match self.backend {
            Backend::Uring(_) => DriverKind::Uring,
            Backend::Threads(_) => DriverKind::Threads,
        }
    }

    /// Reports a request as finished; it surfaces in the next [`Driver::poll`] or [`Driver::wait`].
    /// Channels call this once for each request they were given.
    pub fn complete(&mut self, token: Token, status: IoStatus) {
        self.core.complete(token, status);
    }

    /// Whether the request of this token, submitted just now, is done already, and well: so it is with devices that serve a
    /// request within the call. It surfaces all the same.
    #[inline]
    pub fn has_just_done(&self, token: Token) -> bool {
        self.core.has_just_done(token)
    }

    /// A token to hand out `parts` times (at least once): when it has completed that often, `parent`
    /// completes once, with the worst status.
    pub fn join(&mut self, parent: Token, parts: u32) -> Token {
        self.core.join(parent, parts)
    }

    /// A token for the same request whose completion reaches `parent` no earlier than `by` from now.
    pub fn delay(&mut self, parent: Token, by: Duration) -> Token {
        self.core.delay(parent, by)
    }

    /// A handle through which another thread completes requests of this driver.
    pub fn remote(&self) -> Remote {
        Remote::new(Arc::clone(&self.inbox))
    }

    /// Reports `key` in [`Events::ready`] by every poll or wait while `fd` is readable. Not edge-triggered:
    /// whoever does not read is told again.
    pub fn watch(&mut self, fd: Arc<OwnedFd>, key: u64) -> WatchId {
        self.watch_for(fd, Target::Caller(key))
    }

    /// Ends a watch: no later poll or wait reports it. An id of an ended watch is ignored.
    pub fn unwatch(&mut self, id: WatchId) {
        match &mut self.backend {
            Backend::Uring(ring) => ring.unwatch(id.0),
            Backend::Threads(threads) => threads.unwatch(id.0),
        }
    }

    /// Submits what is queued and takes what has happened. Never blocks.
    ///
    /// # Errors
    /// [`BdevError::Driver`] if the kernel refuses the wait point; it will not recover.
    pub fn poll(&mut self, events: &mut Events) -> Result<(), BdevError> {
        events.clear();
        self.flush()?;
        self.collect(events)
    }

    /// As [`Driver::poll`], but blocks until at least one event or the timeout (`None`: no timeout). What is there without
    /// blocking is returned first; what is queued then is submitted by the next call, together with what follows from it.
    ///
    /// # Errors
    /// [`BdevError::Driver`] if the kernel refuses the wait point; it will not recover.
    pub fn wait(
        &mut self,
        events: &mut Events,
        timeout: Option<Duration>,
    ) -> Result<(), BdevError> {
        if timeout == Some(Duration::ZERO) {
            return self.poll(events);
        }
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        events.clear();
        loop {
            self.collect(events)?;
            let late = || deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if !events.is_empty() || late() {
                return Ok(());
            }
            let until = [deadline, self.core.next_due()].into_iter().flatten().min();
            self.sleep(until)?;
        }
    }

    /// Zero exactly when nothing is under way: no request in the kernel or a worker, none waiting for its
    /// parts or its delay, and no completion that poll or wait has not yet handed out.
    pub fn outstanding(&self) -> usize {
        self.in_flight() + self.core.pending()
    }

    /// Completions that belonged to nothing (any more) and were dropped; anything but 0 is a bug below.
    pub fn stale(&self) -> u64 {
        self.core.stale
    }

    /// Requests that went to the kernel along with an adjacent one, in the same call.
    pub fn merged(&self) -> u64 {
        match &self.backend {
            Backend::Uring(ring) => ring.merged(),
            Backend::Threads(_) => 0,
        }
    }

    /// As [`Driver::join`]; the iovec arrays of the parts live until the last part has completed.
    pub(crate) fn join_keeping(
        &mut self,
        parent: Token,
        parts: u32,
        keep: Vec<Box<[libc::iovec]>>,
    ) -> Token {
        self.core.join_keeping(parent, parts, keep)
    }

    /// Makes sure that [`Driver::start`] can serve; called by channels that will need it when they open.
    pub(crate) fn prepare(&mut self) -> Result<(), BdevError> {
        match &mut self.backend {
            Backend::Uring(_) => Ok(()),
            Backend::Threads(threads) => threads.prepare(&self.inbox),
        }
    }

    /// Hands a storage request to the kernel or a worker, or serves it if it is a copy between memory and memory.
    pub(crate) fn start(&mut self, mut transfer: Transfer) {
        if transfer.is_a_copy() {
            let status = workers::serve(&mut transfer);
            return self.core.complete(transfer.token(), status);
        }
        match &mut self.backend {
            Backend::Uring(ring) => ring.start(transfer),
            Backend::Threads(threads) => threads.start(transfer),
        }
    }

    /// A namespace's place here, for the channels and requests that will need it.
    pub(crate) fn seat(&mut self, namespace: &Arc<Namespace>) -> Result<Arc<Seat>, BdevError> {
        if let Backend::Threads(_) = self.backend {
            return Err(BdevError::Driver {
                what: "NVMe commands without io_uring",
                source: std::io::ErrorKind::Unsupported.into(),
            });
        }
        self.passthrough.seat(namespace)
    }

    /// Hands a request to an NVMe drive, as commands.
    pub(crate) fn start_command(&mut self, request: Request) {
        self.passthrough.start(request);
    }

    fn watch_for(&mut self, fd: Arc<OwnedFd>, target: Target) -> WatchId {
        WatchId(match &mut self.backend {
            Backend::Uring(ring) => ring.watch(fd, target),
            Backend::Threads(threads) => threads.watch(fd, target),
        })
    }

    fn flush(&mut self) -> Result<(), BdevError> {
        self.passthrough.flush()?;
        match &mut self.backend {
            Backend::Uring(ring) => ring.flush(),
            Backend::Threads(_) => Ok(()),
        }
    }

    fn sleep(&mut self, until: Option<Instant>) -> Result<(), BdevError> {
        match &mut self.backend {
            Backend::Uring(ring) => {
                self.passthrough.flush()?;
                self.passthrough
                    .watch(|bell, known| ring.watch_once(bell, known));
                ring.sleep(until)
            }
            Backend::Threads(threads) => threads.sleep(until),
        }
    }

    fn collect(&mut self, events: &mut Events) -> Result<(), BdevError> {
        let bell = match &mut self.backend {
            Backend::Uring(ring) => ring.reap(&mut self.core, &mut events.ready),
            Backend::Threads(threads) => threads.reap(&mut events.ready)?,
        };
        if bell {
            let served = self.inbox.empty_into(&mut self.core);
            if let Backend::Threads(threads) = &mut self.backend {
                threads.served(served);
            }
        }
        if self.passthrough.is_used() {
            self.collect_commands();
        }
        self.core.expire();
        self.core.hand_out(&mut events.completions);
        Ok(())
    }

    /// Takes what NVMe drives have answered, and forgets those that nobody uses any more.
    fn collect_commands(&mut self) {
        for transfer in self.passthrough.reap(&mut self.core) {
            self.start(transfer);
        }
        for unused in self.passthrough.prune() {
            self.unwatch(WatchId(unused));
        }
    }

    /// Requests in the kernel or with a worker, or on their way there.
    pub fn in_flight(&self) -> usize {
        let requests = match &self.backend {
            Backend::Uring(ring) => ring.in_flight(),
            Backend::Threads(threads) => threads.in_flight(),
        };
        requests + self.passthrough.in_flight()
    }
}

/// For poll(2): longer waits than the kernel can express become the longest one it can.
fn timespec(duration: Duration) -> rustix::event::Timespec {
    rustix::event::Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver")
            .field("kind", &self.kind())
            .field("outstanding", &self.outstanding())
            .finish()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.inbox.close();
        for transfer in self.passthrough.drain(&mut self.core) {
            self.start(transfer);
        }
        // Before the fields go: joined requests keep iovec arrays that the kernel may still read.
        match &mut self.backend {
            Backend::Uring(ring) => ring.drain(&mut self.core),
            Backend::Threads(threads) => threads.drain(),
        }
    }
}
