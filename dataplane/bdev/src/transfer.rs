//! One request on its way through the kernel: which call comes next, and what its answer means. Both driver
//! variants run the same steps, one through io_uring and one on worker threads.
#![allow(unsafe_code)] // Reads the caller's iovec arrays, and names buffers to the kernel.

mod bounce;

use crate::slab::Key;
use crate::{Io, IoStatus, Op, Token};
pub(crate) use bounce::{BUFFER_LEN, BUFFERS_MAX, Buffer, Lane};
use bounce::{gather, scatter};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

/// The open file description of a device, which carries its lock, and what it demands of buffers.
/// Requests keep it open: the lock is gone only when the last of them has come back from the kernel.
#[derive(Debug)]
pub(crate) struct Medium {
    pub(crate) fd: OwnedFd,
    /// Buffer addresses must be multiples of this; 1 if the kernel copies anyway.
    pub(crate) address_align: usize,
    /// Buffer lengths must be multiples of this.
    pub(crate) length_align: usize,
    /// The medium is memory: a plain call is a copy and ends before anybody else could have been asked.
    pub(crate) memory: bool,
}

impl Medium {
    fn takes(&self, part: &libc::iovec) -> bool {
        (part.iov_base as usize).is_multiple_of(self.address_align)
            && part.iov_len.is_multiple_of(self.length_align)
    }
}

/// Buffers of a call.
#[derive(Clone, Copy)]
pub(crate) enum Span {
    /// One buffer, of at most [`CALL_MAX`] bytes.
    One(libc::iovec),
    /// An array of up to [`IOVECS_MAX`] buffers that lives as long as the transfer.
    Many(*const libc::iovec, u32),
}

/// The next thing to ask the kernel for.
pub(crate) enum Call {
    Read(Span, u64),
    Write(Span, u64),
    Sync,
    Allocate { mode: i32, offset: u64, len: u64 },
}

/// How the request is served.
enum Route {
    /// From and to the caller's buffers.
    Direct,
    /// Through a buffer of ours, a piece at a time; `None` until one is free.
    Bounce(Option<Buffer>),
    Sync,
    /// fallocate(2) with this mode.
    Allocate(i32),
    /// Zeros written as data, because the medium knows no better way.
    Zeros,
}

pub(crate) struct Transfer {
    lane: Arc<Lane>,
    io: Io,
    done: u64,
    retries: u8,
    route: Route,
    /// The array of the call under way, where the caller's own does not serve.
    iovecs: Vec<libc::iovec>,
}

// SAFETY: the pointers inside name memory that the maker of the request vouched for on any thread (see
// `Io`), memory of `bounce`, which travels along, or immutable statics.
unsafe impl Send for Transfer {}

impl Transfer {
    /// `io` has passed `Info::check`, and is not empty unless it is a flush.
    pub(crate) fn new(lane: &Arc<Lane>, io: Io) -> Transfer {
        let punch = libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE;
        let zero = libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_ZERO_RANGE;
        // SAFETY: the request is not complete yet.
        let iovecs = unsafe { io.iovecs() };
        let fits = || iovecs.iter().all(|part| lane.medium.takes(part));
        let route = match io.op() {
            Op::Read | Op::Write if fits() => Route::Direct,
            Op::Read | Op::Write => Route::Bounce(None),
            Op::Flush => Route::Sync,
            Op::Discard | Op::WriteZeroes { may_unmap: true } => Route::Allocate(punch),
            Op::WriteZeroes { may_unmap: false } => Route::Allocate(zero),
        };
        Transfer {
            lane: Arc::clone(lane),
            io,
            done: 0,
            retries: 0,
            route,
            iovecs: Vec::new(),
        }
    }

    pub(crate) fn token(&self) -> Token {
        self.io.token()
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.lane.medium.fd.as_raw_fd()
    }

    /// True if the reactor itself makes the calls. io_uring has no way to try such a medium without blocking and would
    /// hand every request to a kernel thread, which costs many times the copy.
    pub(crate) fn is_a_copy(&self) -> bool {
        let plain = matches!(self.route, Route::Direct | Route::Sync);
        self.lane.medium.memory && plain && self.io.len() <= COPY_MAX
    }

    /// True if [`Transfer::call`] may be asked. False if all bounce buffers of the lane are taken: then the
    /// lane has noted `key`, and [`Transfer::finish`] of the request that frees one returns it.
    pub(crate) fn is_ready(&mut self, key: Option<Key>) -> bool {
        if let Route::Bounce(buffer @ None) = &mut self.route {
            *buffer = self.lane.take(key);
            return buffer.is_some();
        }
        true
    }

    /// True if the request was never handed to the kernel, for want of a buffer.
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.route, Route::Bounce(None))
    }

    /// The call that does all of a read or write at once; none if there is no such call.
    pub(crate) fn first_call(&mut self) -> Option<Call> {
        match self.route {
            Route::Direct if self.io.len() <= CALL_MAX as u64 => Some(self.call()),
            _ => None,
        }
    }

    pub(crate) fn call(&mut self) -> Call {
        let at = self.io.offset() + self.done;
        let span = match &mut self.route {
            Route::Sync => return Call::Sync,
            Route::Allocate(mode) => {
                let (mode, len) = (*mode, self.io.len());
                return Call::Allocate {
                    mode,
                    offset: at,
                    len,
                };
            }
            Route::Zeros => return Call::Write(self.zeros(), at),
            Route::Direct => self.rest(),
            Route::Bounce(buffer) => {
                let buffer = buffer.as_mut().expect("is_ready was asked first");
                let piece = piece(self.io.len() - self.done);
                if self.io.op() == Op::Write {
                    // SAFETY: the request is not complete yet.
                    unsafe { gather(self.io.iovecs(), self.done, &mut buffer.bytes()[..piece]) };
                }
                Span::One(buffer.iovec(piece))
            }
        };
        match self.io.op() {
            Op::Read => Call::Read(span, at),
            _ => Call::Write(span, at),
        }
    }

    /// Takes the kernel's answer (bytes moved, or a negative error number). `None`: make another call.
    pub(crate) fn advance(&mut self, result: i32) -> Option<IoStatus> {
        match u64::try_from(result) {
            Err(_) => self.refused(-result),
            Ok(_) if matches!(self.route, Route::Sync | Route::Allocate(_)) => Some(IoStatus::Ok),
            // The medium ends before the size it told: truncated behind our back.
            Ok(0) => Some(IoStatus::Failed(libc::EIO)),
            Ok(moved) => self.moved(moved.min(self.io.len() - self.done)),
        }
    }

    /// Gives the bounce buffer back; the key of a request that waited for it may go on now.
    pub(crate) fn finish(self) -> Option<Key> {
        match self.route {
            Route::Bounce(Some(buffer)) => self.lane.give_back(buffer),
            _ => None,
        }
    }

    #[allow(clippy::cast_possible_truncation)] // A piece fits into a buffer.
    fn moved(&mut self, moved: u64) -> Option<IoStatus> {
        if let (Route::Bounce(Some(buffer)), Op::Read) = (&mut self.route, self.io.op()) {
            let piece = &buffer.bytes()[..moved as usize];
            // SAFETY: the request is not complete yet.
            unsafe { scatter(piece, self.io.iovecs(), self.done) };
        }
        self.done += moved;
        self.retries = 0;
        (self.done == self.io.len()).then_some(IoStatus::Ok)
    }

    fn refused(&mut self, errno: i32) -> Option<IoStatus> {
        let unknown = matches!(
            errno,
            libc::EOPNOTSUPP | libc::ENOSYS | libc::ENODEV | libc::EINVAL
        );
        match (errno, &self.route) {
            // The range is aligned and was inside: a drive that is being removed has a size of 0.
            (libc::EINVAL, Route::Allocate(_)) if self.io.op() == Op::Discard => {
                Some(IoStatus::Failed(libc::EIO))
            }
            (libc::EINTR | libc::EAGAIN, _) if self.retries < RETRIES_MAX => {
                self.retries += 1;
                None
            }
            (_, Route::Allocate(_)) if unknown && self.io.op() == Op::Discard => {
                Some(IoStatus::Unsupported)
            }
            (_, Route::Allocate(_)) if unknown => {
                self.route = Route::Zeros;
                None
            }
            _ => Some(IoStatus::Failed(errno)),
        }
    }

    /// What is left of the caller's buffers. Copies the array only to go on inside a buffer.
    fn rest(&mut self) -> Span {
        // SAFETY: the request is not complete yet.
        let all = unsafe { self.io.iovecs() };
        let (first, skip) = position(all, self.done);
        let rest = &all[first..all.len().min(first + IOVECS_MAX)];
        let mut head = rest[0];
        if skip > 0 {
            // SAFETY: `position` found the byte inside this buffer.
            head.iov_base = unsafe { head.iov_base.cast::<u8>().add(skip) }.cast();
            head.iov_len -= skip;
        }
        if rest.len() == 1 || head.iov_len > CALL_MAX {
            head.iov_len = head.iov_len.min(CALL_MAX);
            return Span::One(head);
        }
        if skip == 0 {
            return many(rest);
        }
        self.iovecs = rest.to_vec();
        self.iovecs[0] = head;
        many(&self.iovecs)
    }

    fn zeros(&mut self) -> Span {
        let mut left = self.io.len() - self.done;
        self.iovecs.clear();
        while left > 0 && self.iovecs.len() < ZEROS_REPEAT {
            let len = ZEROS
                .0
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            self.iovecs.push(libc::iovec {
                iov_base: ZEROS.0.as_ptr().cast_mut().cast(),
                iov_len: len,
            });
            left -= len as u64;
        }
        many(&self.iovecs)
    }
}

fn many(iovecs: &[libc::iovec]) -> Span {
    let count = u32::try_from(iovecs.len()).expect("at most IOVECS_MAX");
    Span::Many(iovecs.as_ptr(), count)
}

/// The buffer that holds byte `done` of a request that is longer than that, and the byte's place in it.
fn position(iovecs: &[libc::iovec], done: u64) -> (usize, usize) {
    let mut skip = done;
    for (index, part) in iovecs.iter().enumerate() {
        match usize::try_from(skip) {
            Ok(skip) if skip < part.iov_len => return (index, skip),
            _ => skip -= part.iov_len as u64,
        }
    }
    unreachable!("a request is as long as its buffers together")
}

fn piece(left: u64) -> usize {
    usize::try_from(left).map_or(BUFFER_LEN, |left| left.min(BUFFER_LEN))
}

/// The kernel takes no longer arrays (IOV_MAX).
const IOVECS_MAX: usize = 1024;
/// Longer copies would keep other guests of the reactor waiting, about 30 us at most as it is.
pub(crate) const COPY_MAX: u64 = 256 << 10;
/// Longer buffers are moved in several calls; a multiple of every alignment.
const CALL_MAX: usize = 1 << 30;
/// Calls that were interrupted are made again this often in a row.
const RETRIES_MAX: u8 = 100;
/// One call writes up to this many times [`ZEROS`].
const ZEROS_REPEAT: usize = 16;

#[repr(align(4096))]
struct Zeros([u8; 64 << 10]);

static ZEROS: Zeros = Zeros([0; 64 << 10]);

#[cfg(test)]
mod tests;
