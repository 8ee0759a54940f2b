//! How a queue waits: by interrupt or by polling, always with a deadline, and never fooled by an answer without interrupt.

use super::super::GuestError;
use super::{Done, GuestQueue};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

impl GuestQueue {
    /// Waits for at least one answer, by interrupt or by polling (see [`set_polling`](Self::set_polling)).
    ///
    /// # Errors
    /// As [`complete`](Self::complete); [`GuestError::Timeout`] after the guest's deadline;
    /// [`GuestError::LostInterrupt`] if an answer is there and its interrupt is not.
    pub fn wait(&mut self) -> Result<Vec<Done>, GuestError> {
        self.wait_for(self.deadline)
    }

    /// As [`wait`](Self::wait), with a deadline of its own.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_for(&mut self, after: Duration) -> Result<Vec<Done>, GuestError> {
        let until = Instant::now() + after;
        // Bound: the deadline.
        loop {
            let done = self.complete()?;
            if !done.is_empty() {
                return Ok(done);
            }
            if self.polling {
                std::thread::yield_now();
                if Instant::now() < until {
                    continue;
                }
            } else if self.sleep(until)? {
                continue;
            }
            let (queue, what) = (self.index, format!("answer on queue {}", self.index));
            return Err(match self.has_answer() {
                false => GuestError::Timeout { what, after },
                true => GuestError::LostInterrupt { queue, after },
            });
        }
    }

    /// Waits until nothing is outstanding; the answers in order.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn drain(&mut self) -> Result<Vec<Done>, GuestError> {
        let mut all = Vec::new();
        while self.outstanding() > 0 {
            all.extend(self.wait()?);
        }
        Ok(all)
    }

    /// Polls the used ring instead of sleeping on interrupts, and asks the device for none where it can.
    pub fn set_polling(&mut self, polling: bool) {
        self.polling = polling;
        if self.event_idx {
            // As far away as positions get: the device will not pass it for 65535 answers.
            self.wires
                .ring
                .set_used_event(self.next_used.wrapping_sub(1));
        } else {
            self.wires.ring.set_no_interrupt(polling);
        }
    }

    /// Whether an interrupt is pending; takes it.
    pub fn take_interrupt(&self) -> bool {
        self.wires.call.read().is_ok()
    }

    /// Waits until the device reports a broken queue through the error descriptor.
    ///
    /// # Errors
    /// [`GuestError::Timeout`].
    pub fn wait_broken(&self, after: Duration) -> Result<(), GuestError> {
        if wait_readable(borrow(&self.wires.error), Instant::now() + after)? {
            return Ok(());
        }
        Err(GuestError::Timeout {
            what: format!("error of queue {}", self.index),
            after,
        })
    }

    /// Sleeps until an interrupt or the deadline; false at the deadline.
    fn sleep(&mut self, until: Instant) -> Result<bool, GuestError> {
        if self.arm() {
            return Ok(true);
        }
        let woken = wait_readable(borrow(&self.wires.call), until)?;
        // Nobody else takes interrupts from this queue, so a readable eventfd stays readable.
        Ok(woken && self.take_interrupt())
    }

    /// Asks for an interrupt at the next answer; true if one is there already, so do not sleep.
    fn arm(&mut self) -> bool {
        if self.event_idx {
            self.wires.ring.set_used_event(self.next_used);
        } else {
            self.wires.ring.set_no_interrupt(false);
        }
        // The device stores used.idx, then loads our wish; we store our wish, then load used.idx.
        fence(Ordering::SeqCst);
        self.has_answer()
    }

    fn has_answer(&self) -> bool {
        self.wires.ring.used_idx() != self.next_used
    }
}

/// Waits until one of the queues has an answer to take; queues with nothing outstanding are not waited for.
///
/// # Errors
/// As [`GuestQueue::wait_for`].
pub fn wait_any(queues: &mut [GuestQueue], after: Duration) -> Result<(), GuestError> {
    let until = Instant::now() + after;
    // Bound: the deadline.
    loop {
        let mut ready = false;
        for queue in queues.iter_mut() {
            ready |= if queue.polling {
                queue.has_answer()
            } else {
                queue.arm()
            };
        }
        if ready {
            return Ok(());
        }
        if queues.iter().any(|queue| queue.polling) {
            std::thread::yield_now();
        } else if wait_readable_any(queues, until)? {
            queues.iter().for_each(|queue| _ = queue.take_interrupt());
            continue;
        }
        if Instant::now() < until {
            continue;
        }
        return match queues.iter().find(|queue| queue.has_answer()) {
            Some(queue) => Err(GuestError::LostInterrupt {
                queue: queue.index,
                after,
            }),
            None => Err(GuestError::Timeout {
                what: "answer on any queue".to_owned(),
                after,
            }),
        };
    }
}

#[allow(unsafe_code)]
pub(in crate::frontend) fn borrow(owner: &impl AsRawFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open for as long as its owner is borrowed.
    unsafe { BorrowedFd::borrow_raw(owner.as_raw_fd()) }
}

fn wait_readable_any(queues: &[GuestQueue], until: Instant) -> Result<bool, GuestError> {
    let mut fds: Vec<_> = queues
        .iter()
        .map(|queue| PollFd::from_borrowed_fd(borrow(&queue.wires.call), PollFlags::IN))
        .collect();
    poll_until(&mut fds, until)
}

/// Waits until a descriptor is readable; false at the deadline.
pub(in crate::frontend) fn wait_readable(
    fd: BorrowedFd<'_>,
    until: Instant,
) -> Result<bool, GuestError> {
    poll_until(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], until)
}

/// As [`wait_readable`], for whatever owns a descriptor.
pub(crate) fn wait_fd(owner: &impl AsRawFd, until: Instant) -> Result<bool, GuestError> {
    wait_readable(borrow(owner), until)
}

fn poll_until(fds: &mut [PollFd<'_>], until: Instant) -> Result<bool, GuestError> {
    // Bound: the deadline; a signal may cut a wait short.
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).expect("a deadline fits in a timespec");
        match poll(fds, Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(GuestError::system("poll")(errno)),
        }
    }
}
