//! The thread of an export: waits for a front end, lives its session, and waits for the next. One at a time: a front end
//! that comes while the last one's requests are still ending is held in the socket's queue until they have.

use super::channel::BackendChannel;
use super::socket::Socket;
use super::{Backing, Session};
use crate::events::ExportChange;
use crate::mailbox::Mailbox;
use crate::reactor::{Notice, Presence};
use crate::{EngineError, ExportSpec};
use holdfast_crash::crash_point;
use rustix::event::{PollFd, PollFlags, poll};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use vhost::vhost_user::{BackendReqHandler, Error};

/// What the engine tells an export.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    /// The device has this many bytes now.
    Resize(u64),
    /// The drive has gone or come back.
    SetPresence(Presence),
    /// The drive is there: what failed has failed for good.
    Acquit,
    /// End: hang up, finish what is under way, remove the socket.
    Quit,
}

/// The engine's end of an export. The thread goes on until it is told to quit, and then until its last request has ended.
#[derive(Debug)]
pub(crate) struct Export {
    mailbox: Arc<Mailbox<Command>>,
    line: Arc<Line>,
    ended: Mutex<Receiver<()>>,
}

/// The connection as others may touch it: to see whether there is one, and to hang up.
#[derive(Debug, Default)]
struct Line(Mutex<Option<UnixStream>>);

impl Line {
    fn hang_up(&self) {
        if let Some(connection) = &*self.lock() {
            let _ = connection.shutdown(Shutdown::Both); // It may be gone already.
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<UnixStream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Export {
    /// Listens, and starts the thread that serves.
    pub(crate) fn start(
        spec: &ExportSpec,
        backing: impl FnOnce(Notice) -> Backing,
    ) -> Result<Export, EngineError> {
        let failed = |source| EngineError::Thread {
            what: "session",
            source,
        };
        let socket = Socket::listen(spec)?;
        let mailbox = Arc::new(Mailbox::new().map_err(failed)?);
        let line = Arc::new(Line::default());
        let (end, ended) = channel();
        let their_line = Arc::clone(&line);
        let host = Host {
            backing: backing(Notice::new(move || their_line.hang_up())),
            socket,
            mailbox: Arc::clone(&mailbox),
            line: Arc::clone(&line),
            _end: end,
        };
        std::thread::Builder::new()
            .name(format!("export-{}", spec.name))
            .spawn(move || host.run())
            .map_err(failed)?;
        Ok(Export {
            mailbox,
            line,
            ended: Mutex::new(ended),
        })
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.line.lock().is_some()
    }

    /// Leaves a command; for `Quit` it also hangs up, so that a front end that is silent in the middle of a message
    /// cannot hold the thread.
    pub(crate) fn tell(&self, command: Command) {
        let quit = matches!(command, Command::Quit);
        let _ = self.mailbox.send(command); // A thread that has ended needs no command.
        if quit {
            self.line.hang_up();
        }
    }

    /// Waits for the thread to end after `Quit`; false if it still waits for its device.
    pub(crate) fn wait_ended(&self, patience: Duration) -> bool {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.recv_timeout(patience) == Err(RecvTimeoutError::Disconnected)
    }
}

/// The thread's side.
struct Host {
    backing: Backing,
    socket: Socket,
    mailbox: Arc<Mailbox<Command>>,
    line: Arc<Line>,
    /// Dropped with the host, which tells the engine that it is gone.
    _end: Sender<()>,
}

impl Host {
    fn run(mut self) {
        while !self.has_to_quit(None) {
            match wait(&[self.socket.as_fd(), self.mailbox.bell().fd().as_fd()]) {
                Ok([true, _]) => match self.socket.accept() {
                    Ok(connection) => self.host(connection),
                    Err(error) => {
                        tracing::warn!(export = %self.backing.export, %error, "A front end could not be let in");
                    }
                },
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(export = %self.backing.export, %error, "An export ends: it cannot wait any more");
                    return;
                }
            }
        }
        self.mailbox.close();
    }

    /// Lives one session, from the first message to the end of the last request.
    fn host(&mut self, connection: UnixStream) {
        let export = Arc::clone(&self.backing.export);
        tracing::info!(%export, "A front end has connected");
        let session = Arc::new(Mutex::new(Session::new(self.backing.clone())));
        *self.line.lock() = connection.try_clone().ok();
        self.backing.account.session_begins();
        crash_point!("session.accepted");
        let conversation = AssertUnwindSafe(|| self.converse(connection, &session));
        match catch_unwind(conversation) {
            Ok(why) => tracing::info!(%export, %why, "A front end has gone"),
            Err(_) => tracing::error!(%export, "A session ended by a bug; its volume stays"),
        }
        crash_point!("session.over");
        *self.line.lock() = None;
        self.backing.account.tell(ExportChange::Disconnected);
        lock(&session).stop_all();
    }

    /// Handles messages until the connection ends; returns why it did.
    fn converse(&mut self, connection: UnixStream, session: &Arc<Mutex<Session>>) -> String {
        let Ok(ours) = connection.try_clone() else {
            return "no file descriptor left for it".into();
        };
        let mut handler = BackendReqHandler::from_stream(connection, Arc::clone(session));
        loop {
            if self.has_to_quit(Some(session)) {
                let _ = self.mailbox.send(Command::Quit); // Seen again by `run`.
                return "the export ends".into();
            }
            match wait(&[ours.as_fd(), self.mailbox.bell().fd().as_fd()]) {
                Ok([true, _]) => {}
                Ok(_) => continue,
                Err(error) => return error.to_string(),
            }
            let channel = BackendChannel::coming_in(ours.as_fd());
            match handler.handle_request() {
                Ok(()) => {}
                Err(Error::SocketRetry(_)) => continue,
                Err(error) => return error.to_string(),
            }
            let mut session = lock(session);
            if channel.is_some() {
                session.channel = channel;
            }
            session.settle();
        }
    }

    /// Carries out what the engine has left; true if that was to quit.
    fn has_to_quit(&mut self, session: Option<&Arc<Mutex<Session>>>) -> bool {
        let mut quit = false;
        for command in self.mailbox.take() {
            match command {
                Command::Resize(size_bytes) => {
                    self.backing.disk.limits.capacity_bytes = size_bytes;
                    if let Some(session) = session {
                        lock(session).resize(size_bytes);
                    }
                }
                Command::SetPresence(presence) => {
                    if let Some(session) = session {
                        lock(session).set_presence(&presence);
                    }
                    self.backing.presence = presence;
                }
                Command::Acquit => {
                    if let Some(session) = session {
                        lock(session).acquit();
                    }
                }
                Command::Quit => quit = true,
            }
        }
        quit
    }
}

/// Blocks until one of two descriptors is readable or has failed; tells which.
fn wait(fds: &[BorrowedFd<'_>; 2]) -> std::io::Result<[bool; 2]> {
    let mut polled = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    match poll(&mut polled, None) {
        Ok(_) => Ok([0, 1].map(|at: usize| !polled[at].revents().is_empty())),
        Err(rustix::io::Errno::INTR) => Ok([false, false]),
        Err(errno) => Err(errno.into()),
    }
}

/// After a panic the state is still good enough to stop its rings, which is all that is done with it then.
fn lock(session: &Mutex<Session>) -> MutexGuard<'_, Session> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}
