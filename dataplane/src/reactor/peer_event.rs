//! An eventfd that came from a front end. It may be anything, and its flags are shared with the peer, so it is looked at
//! before it is used, and nothing here can block a reactor.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

/// A kick, call or error descriptor of a ring.
#[derive(Clone, Debug)]
pub(crate) struct PeerEvent(Arc<OwnedFd>);

impl PeerEvent {
    /// Takes a received descriptor if it is an eventfd, and makes it non-blocking: front ends differ in that.
    ///
    /// # Errors
    /// If it is something else: a pipe, a file or a socket would be readable for ever or block its reader.
    pub(crate) fn new(file: File) -> io::Result<PeerEvent> {
        let fd = OwnedFd::from(file);
        let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
        if link.as_os_str() != "anon_inode:[eventfd]" {
            let what = format!("{} is no eventfd", link.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let flags = fcntl_getfl(&fd)?;
        if !flags.contains(OFlags::NONBLOCK) {
            fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        }
        Ok(PeerEvent(Arc::new(fd)))
    }

    /// What a driver watches.
    pub(crate) fn fd(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.0)
    }

    /// Wakes the peer. A counter that is full wakes it as well.
    pub(crate) fn signal(&self) {
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }

    /// Takes the count, so that the descriptor is readable only after another kick.
    pub(crate) fn silence(&self) {
        // A peer may have read its own kick, and may have made the descriptor blocking again: this never blocks.
        let (mut count, at_no_place) = ([0u8; 8], u64::MAX);
        let mut into = [IoSliceMut::new(&mut count)];
        let read = preadv2(&*self.0, &mut into, at_no_place, ReadWriteFlags::NOWAIT);
        if read == Err(Errno::OPNOTSUPP) {
            self.silence_slowly();
        }
    }

    /// For kernels whose eventfds know no NOWAIT.
    #[cold]
    fn silence_slowly(&self) {
        let mut polled = [PollFd::new(&*self.0, PollFlags::IN)];
        if poll(&mut polled, Some(&Timespec::default())) == Ok(1) {
            let _ = rustix::io::read(&*self.0, &mut [0u8; 8]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};

    #[test]
    fn descriptor_that_is_no_eventfd_is_refused_by_name() {
        let null = File::open("/dev/null").unwrap();
        let error = PeerEvent::new(null).unwrap_err();
        assert!(error.to_string().contains("/dev/null"), "{error}");
    }

    #[test]
    fn blocking_eventfd_never_blocks_us() {
        let fd = eventfd(0, EventfdFlags::empty()).unwrap();
        let event = PeerEvent::new(File::from(fd)).unwrap();
        event.silence();
        rustix::io::write(&*event.0, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        event.signal();
        event.silence();
        event.silence();
    }
}
