//! One connection to a back end: the codec, a watchdog, and what was negotiated. Gone with the socket.

use super::{BackChannel, GuestBuilder, GuestError, Protocol, feature};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use vhost::VhostBackend;
use vhost::vhost_user::message::VhostUserHeaderFlag;
use vhost::vhost_user::{Frontend, VhostUserFrontend};

/// Pause between two attempts to connect: QEMU's smallest `reconnect-ms`.
const RETRY: Duration = Duration::from_millis(1);

/// Queues the codec lets through before the back end has said how many it has.
const QUEUES_MAX: u64 = 256;

pub(super) struct Connection {
    pub(super) frontend: Frontend,
    watchdog: Watchdog,
    deadline: Duration,
    pub(super) back: Option<BackChannel>,
    /// Virtio features the back end offers.
    pub(super) offered: u64,
    pub(super) protocol: Protocol,
    /// Queues the back end has.
    pub(super) queues: u64,
    /// Memory regions the back end can hold.
    pub(super) mem_slots: u64,
    /// Guest addresses of the regions it has: like QEMU, only what changed is sent.
    pub(super) sent: Vec<u64>,
}

impl Connection {
    /// Connects and goes through the handshake in QEMU's order, up to but without SET_FEATURES.
    pub(super) fn open(path: &Path, wishes: &GuestBuilder) -> Result<Connection, GuestError> {
        let stream = connect(path, wishes.deadline)?;
        let other = stream
            .try_clone()
            .map_err(GuestError::io("dup of the socket"))?;
        let mut connection = Connection {
            frontend: Frontend::from_stream(stream, QUEUES_MAX),
            watchdog: Watchdog::start(other)?,
            deadline: wishes.deadline,
            back: None,
            offered: 0,
            protocol: Protocol::empty(),
            queues: 1,
            mem_slots: 0,
            sent: Vec::new(),
        };
        connection.offered = connection.ask("GET_FEATURES", |f| f.get_features())?;
        if wishes.features & connection.offered & feature::PROTOCOL_FEATURES != 0 {
            connection.negotiate_protocol(wishes)?;
        }
        connection.ask("SET_OWNER", |f| f.set_owner())?;
        Ok(connection)
    }

    fn negotiate_protocol(&mut self, wishes: &GuestBuilder) -> Result<(), GuestError> {
        let offered = self.ask("GET_PROTOCOL_FEATURES", |f| f.get_protocol_features())?;
        let protocol = offered & wishes.protocol;
        self.ask("SET_PROTOCOL_FEATURES", |f| {
            f.set_protocol_features(protocol)
        })?;
        self.protocol = protocol;
        if protocol.contains(Protocol::REPLY_ACK) && wishes.need_reply {
            self.frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        }
        if protocol.contains(Protocol::MQ) {
            self.queues = self.ask("GET_QUEUE_NUM", |f| f.get_queue_num())?;
        }
        if protocol.contains(Protocol::CONFIGURE_MEM_SLOTS) {
            self.mem_slots = self.ask("GET_MAX_MEM_SLOTS", |f| f.get_max_mem_slots())?;
        }
        if protocol.contains(Protocol::BACKEND_REQ) {
            let back = BackChannel::new(protocol.contains(Protocol::REPLY_ACK))?;
            let peer = back.peer();
            self.ask("SET_BACKEND_REQ_FD", |f| f.set_backend_request_fd(&peer))?;
            self.back = Some(back);
        }
        Ok(())
    }

    /// Sends one message and waits for its answer, if it has one, until the deadline.
    pub(super) fn ask<T>(
        &mut self,
        step: &'static str,
        message: impl FnOnce(&mut Frontend) -> vhost::Result<T>,
    ) -> Result<T, GuestError> {
        self.watchdog.arm(Some(Instant::now() + self.deadline));
        let answer = message(&mut self.frontend);
        if self.watchdog.arm(None) {
            let what = format!("answer to {step}");
            return Err(GuestError::Timeout {
                what,
                after: self.deadline,
            });
        }
        answer.map_err(GuestError::protocol(step))
    }
}

fn connect(path: &Path, deadline: Duration) -> Result<UnixStream, GuestError> {
    let until = Instant::now() + deadline;
    // Bound: the deadline.
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return Ok(stream),
            Err(source) if Instant::now() > until => {
                return Err(GuestError::Connect {
                    path: path.to_owned(),
                    source,
                });
            }
            // A socket that is not there yet cannot be waited on.
            Err(_) => thread::sleep(RETRY),
        }
    }
}

/// Hangs up when a message takes too long: the codec itself waits for ever.
struct Watchdog {
    shared: Arc<(Mutex<Watch>, Condvar)>,
}

#[derive(Default)]
struct Watch {
    until: Option<Instant>,
    barked: bool,
    over: bool,
}

impl Watchdog {
    fn start(stream: UnixStream) -> Result<Watchdog, GuestError> {
        let shared = Arc::new((Mutex::new(Watch::default()), Condvar::new()));
        let theirs = Arc::clone(&shared);
        thread::Builder::new()
            .name("testkit-watchdog".to_owned())
            .spawn(move || watch(&theirs.0, &theirs.1, &stream))
            .map_err(GuestError::io("spawn of the watchdog"))?;
        Ok(Watchdog { shared })
    }

    /// Sets or clears the deadline; true if it has passed before.
    fn arm(&self, until: Option<Instant>) -> bool {
        let mut watch = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        watch.until = until;
        self.shared.1.notify_one();
        watch.barked
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.shared
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .over = true;
        self.shared.1.notify_one();
    }
}

fn watch(state: &Mutex<Watch>, changed: &Condvar, stream: &UnixStream) {
    let mut watch = state.lock().unwrap_or_else(PoisonError::into_inner);
    // Bound: ends when the connection is dropped.
    while !watch.over {
        let left = watch
            .until
            .map(|until| until.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            watch.barked = true;
            watch.until = None;
            // Best effort: a socket that is gone already is what we want.
            let _ = stream.shutdown(Shutdown::Both);
        }
        let left = if watch.barked { None } else { left };
        watch = match left {
            Some(left) => {
                changed
                    .wait_timeout(watch, left)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
            None => changed.wait(watch).unwrap_or_else(PoisonError::into_inner),
        };
    }
}
