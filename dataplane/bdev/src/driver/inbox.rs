//! Where other threads leave answers for a reactor: a list under a lock, and an eventfd that wakes it.

use super::continuation::Core;
use crate::{BdevError, Completion, IoStatus, Token};
use rustix::event::EventfdFlags;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(super) enum Message {
    Completed(Completion),
}

struct State {
    open: bool,
    messages: Vec<Message>,
}

pub(super) struct Inbox {
    bell: Arc<OwnedFd>,
    state: Mutex<State>,
}

impl Inbox {
    pub(super) fn new() -> Result<Inbox, BdevError> {
        let bell = rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)
            .map_err(|errno| BdevError::Driver {
                what: "making an eventfd",
                source: errno.into(),
            })?;
        let state = Mutex::new(State {
            open: true,
            messages: Vec::new(),
        });
        Ok(Inbox {
            bell: Arc::new(bell),
            state,
        })
    }

    pub(super) fn bell(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.bell)
    }

    /// Takes everything. The bell is silenced first, so that what comes later rings it again.
    pub(super) fn empty_into(&self, core: &mut Core) {
        let mut count = [0u8; 8];
        let _ = rustix::io::read(&*self.bell, &mut count); // Fails only if nobody rang.
        let messages = std::mem::take(&mut self.lock().messages);
        for message in messages {
            match message {
                Message::Completed(completion) => {
                    core.complete(completion.token, completion.status);
                }
            }
        }
    }

    /// Nothing more is accepted: the driver is gone.
    pub(super) fn close(&self) {
        self.lock().open = false;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while holding the lock leaves a list that is still a list.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self, state: &mut State, message: Message) {
        state.messages.push(message);
        if state.messages.len() == 1 {
            let _ = rustix::io::write(&*self.bell, &1u64.to_ne_bytes()); // Fails only if it rings already.
        }
    }
}

/// Completes requests of a driver from any thread.
#[derive(Clone)]
pub struct Remote(Arc<Inbox>);

impl Remote {
    pub(super) fn new(inbox: Arc<Inbox>) -> Remote {
        Remote(inbox)
    }

    /// As [`Driver::complete`](crate::Driver::complete), and wakes the reactor. Does nothing if the driver
    /// is gone.
    pub fn complete(&self, token: Token, status: IoStatus) {
        self.complete_with(token, || status);
    }

    /// Runs `work` and completes with its result, unless the driver is gone; it cannot go while `work` runs.
    pub(crate) fn complete_with(&self, token: Token, work: impl FnOnce() -> IoStatus) {
        let mut state = self.0.lock();
        if state.open {
            let status = work();
            self.0
                .leave(&mut state, Message::Completed(Completion { token, status }));
        }
    }
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Remote")
    }
}
