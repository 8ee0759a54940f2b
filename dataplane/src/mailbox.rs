//! Messages to a thread that sleeps on file descriptors: a list under a lock, and an eventfd that wakes the owner.
//! Only the control plane writes here; no request of a guest passes through.

use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

/// A mailbox with one owner and any number of senders.
pub(crate) struct Mailbox<T> {
    bell: Arc<OwnedFd>,
    letters: Mutex<Letters<T>>,
}

struct Letters<T> {
    open: bool,
    waiting: Vec<T>,
}

impl<T> Mailbox<T> {
    pub(crate) fn new() -> std::io::Result<Mailbox<T>> {
        let bell = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Mailbox {
            bell: Arc::new(bell),
            letters: Mutex::new(Letters {
                open: true,
                waiting: Vec::new(),
            }),
        })
    }

    /// Readable while there is a message.
    pub(crate) fn bell(&self) -> &Arc<OwnedFd> {
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
            // Fails only when the counter is full, and then the bell rings already.
            let _ = rustix::io::write(&*self.bell, &1u64.to_ne_bytes());
        }
        Ok(())
    }

    /// Takes all messages. The bell is silenced first, so that what comes later rings it again.
    pub(crate) fn take(&self) -> Vec<T> {
        let mut count = [0; 8];
        let _ = rustix::io::read(&*self.bell, &mut count); // Fails only if nobody rang.
        std::mem::take(&mut self.lock().waiting)
    }

    /// The owner goes: nothing more is accepted, and what waits is dropped.
    pub(crate) fn close(&self) {
        let mut letters = self.lock();
        letters.open = false;
        letters.waiting.clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Letters<T>> {
        // A panic while holding the lock leaves a list that is still a list.
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> std::fmt::Debug for Mailbox<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mailbox")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn rings(mailbox: &Mailbox<u32>) -> bool {
        let mut polled = [PollFd::new(&**mailbox.bell(), PollFlags::IN)];
        poll(&mut polled, Some(&Timespec::default())).unwrap() == 1
    }

    #[test]
    fn bell_rings_until_messages_are_taken_and_again_for_the_next() {
        let mailbox = Mailbox::new().unwrap();
        assert!(!rings(&mailbox));
        for turn in 0..3 {
            mailbox.send(turn).unwrap();
            mailbox.send(turn + 10).unwrap();
            assert!(rings(&mailbox));
            assert_eq!(mailbox.take(), [turn, turn + 10]);
            assert!(!rings(&mailbox));
        }
    }

    #[test]
    fn message_to_a_gone_owner_comes_back() {
        let mailbox = Mailbox::new().unwrap();
        mailbox.send(1).unwrap();
        mailbox.close();
        assert_eq!(mailbox.send(2), Err(2));
        assert_eq!(mailbox.take(), Vec::<u32>::new());
    }
}
