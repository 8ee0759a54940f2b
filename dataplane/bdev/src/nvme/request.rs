//! One request on its way through commands to a namespace: which comes next, and what its answer means.
#![allow(unsafe_code)] // Reads the caller's iovec arrays.

use super::Seat;
use super::command::{self, Answer, BLOCKS_MAX, Command, Range, URING_CMD_IO, URING_CMD_IO_VEC};
use super::namespace::Limits;
use crate::transfer::Transfer;
use crate::{Io, IoStatus, Op, Token};
use std::sync::Arc;

pub(crate) struct Request {
    seat: Arc<Seat>,
    io: Io,
    done: u64,
    /// Bytes of the command under way.
    piece: u64,
    /// The array of the command under way, where the caller's own does not serve.
    iovecs: Vec<libc::iovec>,
    /// In a box, for the drive reads it where it lies.
    range: Option<Box<Range>>,
}

/// What comes after an answer.
pub(crate) enum Next {
    /// Another command.
    Command,
    Complete(IoStatus),
    /// The whole request once more, by the block path.
    Block,
}

impl Request {
    /// The request, or what the block path makes of it if no command serves it. `io` has passed `Info::check`, and is
    /// not empty unless it is a flush.
    pub(super) fn new(seat: &Arc<Seat>, io: Io) -> Result<Request, Transfer> {
        let limits = &seat.namespace.limits;
        // SAFETY: the request is not complete yet.
        let iovecs = unsafe { io.iovecs() };
        let serves = match io.op() {
            Op::Read | Op::Write => fits(iovecs),
            Op::Flush => true,
            Op::Discard => limits.discard_bytes > 0,
            Op::WriteZeroes { .. } => limits.zeroes_bytes > 0,
        };
        if !serves {
            return Err(Transfer::new(&seat.block, io));
        }
        Ok(Request {
            seat: Arc::clone(seat),
            io,
            done: 0,
            piece: 0,
            iovecs: Vec::new(),
            range: None,
        })
    }

    pub(crate) fn seat(&self) -> &Arc<Seat> {
        &self.seat
    }

    pub(crate) fn token(&self) -> Token {
        self.io.token()
    }

    /// The request as the block path serves it.
    pub(crate) fn into_transfer(self) -> Transfer {
        Transfer::new(&self.seat.block, self.io)
    }

    /// The next command, and which of the kernel's two kinds it is.
    pub(crate) fn command(&mut self) -> (u32, Command) {
        let namespace = Arc::clone(&self.seat.namespace);
        let (limits, nsid) = (&namespace.limits, namespace.nsid);
        self.piece = (self.io.len() - self.done).min(most(self.io.op(), limits));
        let first = (self.io.offset() + self.done) >> limits.block_shift;
        let blocks = self.piece >> limits.block_shift;
        let command = match self.io.op() {
            Op::Read => return self.with_buffers(Command::read(nsid, first, blocks)),
            Op::Write => return self.with_buffers(Command::write(nsid, first, blocks)),
            Op::Flush => Command::flush(nsid),
            Op::WriteZeroes { may_unmap } => {
                let deallocate = may_unmap && limits.deallocates_to_zeroes;
                Command::write_zeroes(nsid, first, blocks, deallocate)
            }
            Op::Discard => {
                let range = self.range.insert(Box::new(Range::new(first, blocks)));
                Command::deallocate(nsid, range)
            }
        };
        (URING_CMD_IO, command)
    }

    /// Takes io_uring's answer to the command.
    pub(crate) fn advance(&mut self, result: i32) -> Next {
        match command::answer(result) {
            Answer::Failed(status) => return Next::Complete(status),
            Answer::Undecided => return Next::Block,
            Answer::Done => self.done += self.piece,
        }
        match self.done == self.io.len() {
            true => Next::Complete(IoStatus::Ok),
            false => Next::Command,
        }
    }

    /// The buffers of the piece under way. Copies the caller's array only where the piece is a part of it.
    fn with_buffers(&mut self, command: Command) -> (u32, Command) {
        // SAFETY: the request is not complete yet.
        let all = unsafe { self.io.iovecs() };
        let whole = self.piece == self.io.len();
        if !whole {
            self.iovecs.clear();
            cut(all, self.done, self.piece, &mut self.iovecs);
        }
        match if whole { all } else { &self.iovecs } {
            [one] => (
                URING_CMD_IO,
                command.with_data(one.iov_base as u64, one.iov_len),
            ),
            many => (
                URING_CMD_IO_VEC,
                command.with_data(many.as_ptr() as u64, many.len()),
            ),
        }
    }
}

/// Bytes of one command at most, a multiple of every block size.
fn most(op: Op, limits: &Limits) -> u64 {
    let counted = BLOCKS_MAX << limits.block_shift;
    match op {
        Op::Read | Op::Write => limits.transfer_bytes.min(counted),
        Op::WriteZeroes { .. } => limits.zeroes_bytes.min(counted),
        Op::Discard => limits.discard_bytes,
        Op::Flush => 0,
    }
}

/// Whether a drive takes buffers where they lie: dwords, and a list of pages that only the first may begin inside and
/// only the last may end inside. The kernel would copy others, with memory it has to find first; the block path cuts
/// them instead.
fn fits(iovecs: &[libc::iovec]) -> bool {
    let last = iovecs.len() - 1;
    iovecs.iter().enumerate().all(|(index, part)| {
        let (start, len) = (part.iov_base as usize, part.iov_len);
        let dwords = start.is_multiple_of(4) && len.is_multiple_of(4) && len > 0;
        let begins = index == 0 || start.is_multiple_of(PAGE);
        let ends = index == last || start.wrapping_add(len).is_multiple_of(PAGE);
        dwords && begins && ends
    })
}

/// Bytes `skip..skip + len` of the buffers.
fn cut(all: &[libc::iovec], skip: u64, len: u64, into: &mut Vec<libc::iovec>) {
    let (mut skip, mut left) = (skip, len);
    for part in all {
        let whole = part.iov_len as u64;
        if skip >= whole {
            skip -= whole;
            continue;
        }
        let take = left.min(whole - skip);
        let offset = usize::try_from(skip).expect("inside a buffer");
        into.push(libc::iovec {
            iov_base: part.iov_base.wrapping_byte_add(offset),
            iov_len: usize::try_from(take).expect("no more than a buffer"),
        });
        (skip, left) = (0, left - take);
        if left == 0 {
            return;
        }
    }
}

/// The page size that Linux sets up every NVMe controller with.
pub(super) const PAGE: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn buffers(parts: &[(usize, usize)]) -> Vec<libc::iovec> {
        let part = |&(start, iov_len)| libc::iovec {
            iov_base: std::ptr::without_provenance_mut(start),
            iov_len,
        };
        parts.iter().map(part).collect()
    }

    fn parts(iovecs: &[libc::iovec]) -> Vec<(usize, usize)> {
        let part = |part: &libc::iovec| (part.iov_base as usize, part.iov_len);
        iovecs.iter().map(part).collect()
    }

    #[test]
    fn only_the_ends_of_a_transfer_may_lie_inside_a_page() {
        for taken in [
            &[(0x1004, 512)][..],
            &[(0x1e00, 512), (0x5000, 4096), (0x9000, 512)],
            &[(0x1000, 8192), (0x5000, 4)],
        ] {
            assert!(fits(&buffers(taken)), "{taken:x?}");
        }
        for refused in [
            &[(0x1002, 512)][..],
            &[(0x1000, 510)],
            &[(0x1000, 512), (0x5000, 4096)],
            &[(0x1000, 4096), (0x5200, 512)],
            &[(0x1000, 4096), (0x5000, 512), (0x6000, 4096)],
            &[(0x1000, 4096), (0x5000, 0)],
        ] {
            assert!(!fits(&buffers(refused)), "{refused:x?}");
        }
    }

    #[test]
    fn cut_transfer_has_every_byte_once() {
        let all = buffers(&[(0x1e00, 512), (0x5000, 8192), (0x9000, 1024)]);
        let mut pieces = Vec::new();
        cut(&all, 0, 4096, &mut pieces);
        assert_eq!(parts(&pieces), [(0x1e00, 512), (0x5000, 3584)]);
        pieces.clear();
        cut(&all, 4096, 4096, &mut pieces);
        assert_eq!(parts(&pieces), [(0x5e00, 4096)]);
        pieces.clear();
        cut(&all, 8192, 1536, &mut pieces);
        assert_eq!(parts(&pieces), [(0x6e00, 512), (0x9000, 1024)]);
    }
}
