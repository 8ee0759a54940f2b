//! What wakes a thread that sleeps on file descriptors.

use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// An eventfd: once rung, it is readable until it is silenced.
pub(crate) struct Bell(Arc<OwnedFd>);

impl Bell {
    pub(crate) fn new() -> std::io::Result<Bell> {
        let fd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Bell(Arc::new(fd)))
    }

    /// What the sleeper waits for.
    pub(crate) fn fd(&self) -> &Arc<OwnedFd> {
        &self.0
    }

    pub(crate) fn ring(&self) {
        // Fails only when the counter is full, and then the bell rings already.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }

    pub(crate) fn silence(&self) {
        // Fails only if nobody rang.
        let _ = rustix::io::read(&*self.0, &mut [0u8; 8]);
    }
}

#[cfg(test)]
mod tests {
    use crate::mailbox::Mailbox;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn rings(mailbox: &Mailbox<u32>) -> bool {
        let mut polled = [PollFd::new(&**mailbox.bell().fd(), PollFlags::IN)];
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
