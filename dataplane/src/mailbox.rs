//! Messages to a thread that sleeps on file descriptors: a list under a lock, and a bell that wakes the owner.
//! Only the control plane writes here; no request of a guest passes through.

use crate::bell::Bell;
use crate::sync::{Mutex, MutexGuard, PoisonError};

/// A mailbox with one owner and any number of senders.
pub(crate) struct Mailbox<T> {
    bell: Bell,
    letters: Mutex<Letters<T>>,
}

struct Letters<T> {
    open: bool,
    waiting: Vec<T>,
}

impl<T> Mailbox<T> {
    pub(crate) fn new() -> std::io::Result<Mailbox<T>> {
        Ok(Mailbox {
            bell: Bell::new()?,
            letters: Mutex::new(Letters {
                open: true,
                waiting: Vec::new(),
            }),
        })
    }

    /// Rings while there is a message.
    pub(crate) fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Leaves a message; gives it back if the owner has gone.
    pub(crate) fn send(&self, message: T) -> Result<(), T> {
        let mut letters = self.lock();
        if !letters.open {
            return Err(message);
        }
        letters.waiting.push(message);
        if letters.waiting.len() == 1 {
            self.bell.ring();
        }
        Ok(())
    }

    /// Takes all messages. The bell is silenced first, so that what comes later rings it again.
    pub(crate) fn take(&self) -> Vec<T> {
        self.bell.silence();
        std::mem::take(&mut self.lock().waiting)
    }

    /// The owner goes: nothing more is accepted, and what waits is dropped.
    pub(crate) fn close(&self) {
        let mut letters = self.lock();
        letters.open = false;
        letters.waiting.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Letters<T>> {
        // A panic while holding the lock leaves a list that is still a list.
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> std::fmt::Debug for Mailbox<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mailbox")
    }
}
