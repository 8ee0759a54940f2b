//! Where other threads leave answers for a reactor: a list under a lock, and an eventfd that wakes it.

use super::continuation::Core;
use crate::{BdevError, Completion, IoStatus, Token};
use rustix::event::EventfdFlags;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

struct State {
    open: bool,
    answers: Vec<Completion>,
    /// How many of the answers are for requests that a worker served.
    served: usize,
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
            answers: Vec::new(),
            served: 0,
        });
        Ok(Inbox {
            bell: Arc::new(bell),
            state,
        })
    }

    pub(super) fn bell(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.bell)
    }

    /// Takes everything; returns how many of the answers came from workers. The bell is silenced first, so
    /// that what comes later rings it again.
    pub(super) fn empty_into(&self, core: &mut Core) -> usize {
        let mut count = [0u8; 8];
        let _ = rustix::io::read(&*self.bell, &mut count); // Fails only if nobody rang.
        let mut state = self.lock();
        let answers = std::mem::take(&mut state.answers);
        let served = std::mem::take(&mut state.served);
        drop(state);
        for answer in answers {
            core.complete(answer.token, answer.status);
        }
        served
    }

    /// The answer of a worker.
    pub(super) fn served(&self, token: Token, status: IoStatus) {
        let mut state = self.lock();
        state.served += 1;
        self.leave(&mut state, Completion { token, status });
    }

    /// Nothing more is accepted: the driver is gone.
    pub(super) fn close(&self) {
        self.lock().open = false;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while holding the lock leaves a list that is still a list.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self, state: &mut State, answer: Completion) {
        if !state.open {
            return;
        }
        state.answers.push(answer);
        if state.answers.len() == 1 {
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
        let mut state = self.0.lock();
        self.0.leave(&mut state, Completion { token, status });
    }
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Remote")
    }
}
