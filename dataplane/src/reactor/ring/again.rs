//! Requests that are done again: those of a former owner of the ring, and those that waited for a drive. They go to the
//! device in the order they were taken, none overtakes an older one that changes the same bytes, and nothing new is taken
//! from the ring before they are through. Without any, all of this is a look at an empty list.

use super::{Found, Ring};
use crate::reactor::RingId;
use crate::reactor::slots::Slots;
use holdfast_bdev::{Driver, Token};
use holdfast_ring::blk::{Kind, Request};
use std::collections::VecDeque;
use std::ops::Range;

/// Bytes of the device that a request changes.
type Changes = Vec<Range<u64>>;

/// What is still to be done again.
#[derive(Debug, Default)]
pub(super) struct Again {
    /// A former owner's requests have not been read from the ring yet.
    unread: bool,
    /// Read and not given to the device yet, oldest first. The first waits for something that is under way, or for the
    /// verdict on the drive; or nothing waits.
    waiting: VecDeque<(u32, Token)>,
    /// With the device, by slot.
    under_way: Vec<(u32, Changes)>,
    /// The ring was looked at in vain meanwhile.
    held_back: bool,
}

impl Again {
    /// The queue has requests of a former owner.
    pub(super) fn expect(&mut self) {
        self.unread = true;
    }

    #[inline]
    pub(super) fn is_idle(&self) -> bool {
        self.under_way.is_empty() && self.waiting.is_empty() && !self.unread
    }

    /// A request has been answered or put by, perhaps one of these.
    #[inline]
    pub(super) fn ended(&mut self, slot: u32) {
        if !self.under_way.is_empty() {
            self.under_way.retain(|(of, _)| *of != slot);
        }
    }

    /// Takes out what the device has not been given.
    pub(super) fn take_waiting(&mut self) -> VecDeque<(u32, Token)> {
        std::mem::take(&mut self.waiting)
    }

    pub(super) fn set_waiting(&mut self, waiting: VecDeque<(u32, Token)>) {
        self.waiting = waiting;
    }

    /// The next request, which is under way from now on; none if it must wait for an older one.
    fn next(&mut self, slots: &mut Slots) -> Option<(u32, Token)> {
        let (slot, token) = *self.waiting.front()?;
        let changes = changes(slots.request(slot));
        let mut older = self.under_way.iter();
        if older.any(|(_, theirs)| overlap(theirs, &changes)) {
            return None;
        }
        self.waiting.pop_front();
        self.under_way.push((slot, changes));
        Some((slot, token))
    }
}

impl Ring {
    /// Reads what a former owner has left, and does what may be done of it; new requests have to wait.
    #[cold]
    pub(super) fn serve_again(
        &mut self,
        id: RingId,
        slots: &mut Slots,
        driver: &mut Driver,
    ) -> Found {
        if std::mem::take(&mut self.again.unread) {
            self.read_again(id, slots);
        }
        self.advance(slots, driver);
        if self.again.is_idle() {
            return Found::Batch;
        }
        self.again.held_back = true;
        Found::NotYet
    }

    fn read_again(&mut self, id: RingId, slots: &mut Slots) {
        // Bound: each turn takes one off the queue's list.
        while self.queue.replays() > 0 {
            let slot = slots.vacant();
            match self.queue.pop(slots.request(slot), &self.disk.limits) {
                Ok(true) => self.again.waiting.push_back((slot, slots.fill(slot, id))),
                Ok(false) => return,
                Err(why) => return self.park(&why),
            }
        }
    }

    /// Does what may be done now. Called whenever something of this ring has ended.
    #[inline]
    pub(in crate::reactor) fn go_on_again(&mut self, slots: &mut Slots, driver: &mut Driver) {
        if !self.again.waiting.is_empty() {
            self.advance(slots, driver);
        }
    }

    #[cold]
    fn advance(&mut self, slots: &mut Slots, driver: &mut Driver) {
        // An older request may wait for the verdict on the drive: what is behind it waits for the same.
        while self.channel.is_none() || self.parked.is_empty() {
            let Some((slot, token)) = self.again.next(slots) else {
                return;
            };
            self.dispatch(slot, token, slots, driver);
        }
    }

    /// Whether new requests may be taken again and somebody has looked for them in vain.
    #[inline]
    pub(in crate::reactor) fn is_free_again(&mut self) -> bool {
        self.again.held_back && self.again.is_idle() && std::mem::take(&mut self.again.held_back)
    }

    /// A request is left to a successor, which does it again: so everything behind it is left as well.
    pub(super) fn leave_waiting(&mut self, slots: &mut Slots) {
        for (slot, _) in self.again.take_waiting() {
            self.leave(slot, slots);
        }
    }
}

fn changes(request: &Request) -> Changes {
    let start = request.offset_bytes();
    match request.kind() {
        Kind::Out => std::iter::once(start..start.saturating_add(request.data_len())).collect(),
        Kind::Discard | Kind::WriteZeroes { .. } => {
            let ranges = request.ranges().iter();
            let bytes = |range: &holdfast_ring::blk::BlkRange| {
                range.offset_bytes..range.offset_bytes.saturating_add(range.len_bytes)
            };
            ranges.map(bytes).collect()
        }
        Kind::In | Kind::Flush | Kind::GetId | Kind::Rejected(_) => Vec::new(),
    }
}

fn overlap(these: &[Range<u64>], those: &[Range<u64>]) -> bool {
    let meet = |a: &Range<u64>, b: &Range<u64>| a.start < b.end && b.start < a.end;
    these.iter().any(|a| those.iter().any(|b| meet(a, b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_do_not_overlap() {
        let first = std::slice::from_ref(&(0..512));
        assert!(!overlap(first, std::slice::from_ref(&(512..1024))));
        assert!(overlap(first, std::slice::from_ref(&(511..1024))));
        assert!(overlap(
            &[4096..8192, 0..512],
            std::slice::from_ref(&(100..200))
        ));
        assert!(!overlap(&[], first));
    }
}
