//! Requests for places that follow each other go to the kernel as one call, for most of what a request costs there it costs
//! once. Only what is handed over together is merged, so nobody waits for a neighbour that may not come.
//!
//! A merged call that does not do all it was asked for counts for nothing: each of its requests is then made for itself, so
//! that an error meets the request it belongs to. Until then all of them are under way, so nothing that must not come
//! between has come between.

use super::{HAND_OVER, KIND_GROUP, Ring, entry, tag};
use crate::driver::continuation::Core;
use crate::slab::{Key, Slab};
use crate::transfer::{Call, Span};
use io_uring::types;
use std::os::fd::RawFd;

/// Most requests in one call.
const MOST: usize = HAND_OVER;
/// Longer requests cost little more than their data does.
const LONGEST: usize = 64 << 10;
/// Arrays of buffers that the kernel has not taken yet.
const ARRAYS: usize = 32;

const NOTHING: libc::iovec = libc::iovec {
    iov_base: std::ptr::null_mut(),
    iov_len: 0,
};

/// Requests for adjacent places of one file, in their order.
#[derive(Clone, Copy)]
struct Group {
    fd: RawFd,
    writes: bool,
    start: u64,
    end: u64,
    requests: [Option<(Key, libc::iovec)>; MOST],
}

/// What is merged, and what is being merged.
pub(super) struct Merge {
    /// Takes more until the next call.
    open: Option<Group>,
    /// In the kernel, or on their way there.
    called: Slab<Group>,
    /// The kernel copies an array when it takes the entry that names it.
    arrays: Box<[[libc::iovec; MOST]; ARRAYS]>,
    named: usize,
    /// Requests that went along with another.
    pub(super) merged: u64,
}

impl Merge {
    pub(super) fn new() -> Merge {
        Merge {
            open: None,
            called: Slab::new(),
            arrays: Box::new([[NOTHING; MOST]; ARRAYS]),
            named: 0,
            merged: 0,
        }
    }
}

impl Group {
    /// Of one request, if it may be merged at all.
    fn of(key: Key, fd: RawFd, call: &Call) -> Option<Group> {
        let (part, start, writes) = match *call {
            Call::Read(Span::One(part), at) => (part, at, false),
            Call::Write(Span::One(part), at) => (part, at, true),
            _ => return None,
        };
        let mut requests = [None; MOST];
        requests[0] = Some((key, part));
        (part.iov_len <= LONGEST).then_some(Group {
            fd,
            writes,
            start,
            end: start + part.iov_len as u64,
            requests,
        })
    }

    /// Takes the requests of another in; false if they do not follow, or there is no place.
    fn take(&mut self, next: &Group) -> bool {
        let follows = (self.fd, self.writes, self.end) == (next.fd, next.writes, next.start);
        match self.requests.iter_mut().find(|place| place.is_none()) {
            Some(place) if follows => {
                *place = next.requests[0];
                self.end = next.end;
                true
            }
            _ => false,
        }
    }

    fn requests(&self) -> impl Iterator<Item = (Key, libc::iovec)> {
        self.requests.into_iter().flatten()
    }
}

impl Ring {
    /// Makes the first call of a request: alone, or along with those that came just before or are yet to come.
    pub(super) fn join(&mut self, key: Key) {
        let Some(transfer) = self.requests.get_mut(key) else {
            return;
        };
        let call = transfer.first_call();
        let alone = call.and_then(|call| Group::of(key, transfer.fd(), &call));
        if let (Some(next), Some(open)) = (&alone, &mut self.merge.open)
            && open.take(next)
        {
            return;
        }
        self.close();
        self.merge.open = alone;
        if alone.is_none() {
            self.issue(key);
        }
    }

    /// What is being merged is complete.
    pub(super) fn close(&mut self) {
        let Some(group) = self.merge.open.take() else {
            return;
        };
        if self.backlog.is_empty() && self.ring.submission().is_empty() {
            self.merge.named = 0;
        }
        let count = group.requests().count();
        let free = self.merge.arrays.get_mut(self.merge.named);
        let (Some(array), true) = (free, count > 1) else {
            return group.requests().for_each(|(key, _)| self.issue(key));
        };
        for (place, (_, part)) in array.iter_mut().zip(group.requests()) {
            *place = part;
        }
        let span = Span::Many(array.as_ptr(), u32::try_from(count).unwrap_or(0));
        let call = match group.writes {
            false => Call::Read(span, group.start),
            true => Call::Write(span, group.start),
        };
        self.merge.named += 1;
        self.merge.merged += count as u64 - 1;
        let key = self.merge.called.insert(group);
        self.push(entry(&call, types::Fd(group.fd)).user_data(tag(KIND_GROUP, key)));
    }

    /// A merged call has ended.
    pub(super) fn group_came_back(&mut self, key: Key, result: i32, core: &mut Core) {
        let Some(group) = self.merge.called.remove(key) else {
            core.stale += 1;
            return;
        };
        let whole = u64::try_from(result) == Ok(group.end - group.start);
        for (key, part) in group.requests() {
            match i32::try_from(part.iov_len) {
                Ok(len) if whole => self.call_came_back(key, len, core),
                _ => self.issue(key),
            }
        }
    }
}
