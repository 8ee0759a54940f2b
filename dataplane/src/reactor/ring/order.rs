//! The order of requests that change the same bytes: one that does waits until the older one has been answered, and behind
//! it waits all that is new in the ring. Requests that are done again, those of a former owner of the ring and those that
//! waited for a drive, come first, in the order they were taken. Without any of that, all this is a look at two empty lists.

use super::{Found, Ring};
use crate::reactor::RingId;
use crate::reactor::slots::Slots;
use holdfast_bdev::{Driver, Token};
use holdfast_ring::blk::{Kind, Request};
use std::collections::VecDeque;

/// Bytes of the device that a request under way changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    slot: u32,
    start: u64,
    end: u64,
}

/// What is under way, and what must wait for it.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// A former owner's requests have not been read from the ring yet.
    unread: bool,
    /// Taken and not given to the device yet, oldest first. The first waits for something that is under way, or for the
    /// verdict on the drive; or nothing waits.
    waiting: VecDeque<(u32, Token)>,
    /// Given to a device that has not done it within the call, and not answered yet. None overlaps another.
    under_way: Vec<Change>,
    /// The ring was looked at in vain meanwhile.
    held_back: bool,
}

impl Order {
    /// The queue has requests of a former owner.
    pub(super) fn expect(&mut self) {
        self.unread = true;
    }

    /// Whether new requests may be taken.
    #[inline]
    pub(super) fn is_free(&self) -> bool {
        self.waiting.is_empty() && !self.unread
    }

    /// Whether a request must wait for an older one.
    #[inline]
    pub(super) fn must_wait(&self, request: &Request) -> bool {
        !self.under_way.is_empty() && changes(request).any(|(start, end)| self.overlaps(start, end))
    }

    fn overlaps(&self, start: u64, end: u64) -> bool {
        let mut older = self.under_way.iter();
        older.any(|theirs| start < theirs.end && theirs.start < end)
    }

    /// The newest request waits, and nothing more is taken before it has gone on.
    #[cold]
    pub(super) fn hold(&mut self, slot: u32, token: Token) {
        self.waiting.push_back((slot, token));
        self.held_back = true;
    }

    /// The device has been given a request and is not done with it.
    pub(super) fn began(&mut self, slot: u32, request: &Request) {
        let changes = changes(request).map(|(start, end)| Change { slot, start, end });
        self.under_way.extend(changes);
    }

    /// A request has been answered or left, or is to be done from its beginning.
    pub(super) fn ended(&mut self, slot: u32) {
        let mut at = 0;
        while let Some(change) = self.under_way.get(at) {
            if change.slot == slot {
                self.under_way.swap_remove(at);
            } else {
                at += 1;
            }
        }
    }

    /// Takes out what the device has not been given.
    pub(super) fn take_waiting(&mut self) -> VecDeque<(u32, Token)> {
        std::mem::take(&mut self.waiting)
    }

    pub(super) fn set_waiting(&mut self, waiting: VecDeque<(u32, Token)>) {
        self.waiting = waiting;
    }

    /// The next request that need not wait any more.
    fn next(&mut self, slots: &mut Slots) -> Option<(u32, Token)> {
        let (slot, _) = *self.waiting.front()?;
        match self.must_wait(slots.request(slot)) {
            true => None,
            false => self.waiting.pop_front(),
        }
    }
}

impl Ring {
    /// Reads what a former owner has left, and does what may be done of all that waits; new requests have to wait.
    #[cold]
    pub(super) fn serve_waiting(
        &mut self,
        id: RingId,
        slots: &mut Slots,
        driver: &mut Driver,
    ) -> Found {
        if std::mem::take(&mut self.order.unread) {
            self.read_again(id, slots);
        }
        self.advance(slots, driver);
        if self.order.is_free() {
            return Found::Batch;
        }
        self.order.held_back = true;
        Found::NotYet
    }

    fn read_again(&mut self, id: RingId, slots: &mut Slots) {
        // Bound: each turn takes one off the queue's list.
        while self.queue.replays() > 0 {
            let slot = slots.vacant();
            match self.queue.pop(slots.request(slot), &self.disk.limits) {
                Ok(true) => self.order.waiting.push_back((slot, slots.fill(slot, id))),
                Ok(false) => return,
                Err(why) => return self.park(&why),
            }
        }
    }

    /// Does what may be done now. Called whenever something of this ring has ended.
    #[inline]
    pub(in crate::reactor) fn go_on_waiting(&mut self, slots: &mut Slots, driver: &mut Driver) {
        if !self.order.waiting.is_empty() {
            self.advance(slots, driver);
        }
    }

    #[cold]
    fn advance(&mut self, slots: &mut Slots, driver: &mut Driver) {
        // An older request may wait for the verdict on the drive: what is behind it waits for the same.
        while self.channel.is_none() || self.parked.is_empty() {
            let Some((slot, token)) = self.order.next(slots) else {
                return;
            };
            self.dispatch(slot, token, slots, driver);
        }
    }

    /// Whether new requests may be taken again and somebody has looked for them in vain.
    #[inline]
    pub(in crate::reactor) fn is_free_again(&mut self) -> bool {
        self.order.held_back && self.order.is_free() && std::mem::take(&mut self.order.held_back)
    }

    /// A request is left to a successor, which does it again: so everything behind it is left as well.
    pub(super) fn leave_waiting(&mut self, slots: &mut Slots) {
        for (slot, _) in self.order.take_waiting() {
            self.leave(slot, slots);
        }
    }
}

/// Whether a request of this kind changes bytes of the device.
#[inline]
pub(super) fn is_change(kind: Kind) -> bool {
    matches!(kind, Kind::Out | Kind::Discard | Kind::WriteZeroes { .. })
}

/// The first byte of each range that a request changes, and the one behind the range.
fn changes(request: &Request) -> impl Iterator<Item = (u64, u64)> + '_ {
    let start = request.offset_bytes();
    let (data, ranges) = match request.kind() {
        Kind::Out => (
            Some((start, start.saturating_add(request.data_len()))),
            &[][..],
        ),
        kind if is_change(kind) => (None, request.ranges()),
        _ => (None, &[][..]),
    };
    let ranges = ranges.iter().map(|range| {
        let start = range.offset_bytes;
        (start, start.saturating_add(range.len_bytes))
    });
    data.into_iter().chain(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn under_way(changes: &[(u32, u64, u64)]) -> Order {
        let change = |&(slot, start, end)| Change { slot, start, end };
        Order {
            under_way: changes.iter().map(change).collect(),
            ..Order::default()
        }
    }

    #[test]
    fn ranges_that_touch_do_not_overlap() {
        let order = under_way(&[(0, 4096, 8192), (1, 512, 1024)]);
        for (start, end) in [(0, 512), (1024, 4096), (8192, 8704)] {
            assert!(!order.overlaps(start, end), "{start}..{end}");
        }
        for (start, end) in [(0, 513), (1023, 1024), (600, 601), (0, 9999), (8191, 8192)] {
            assert!(order.overlaps(start, end), "{start}..{end}");
        }
    }

    #[test]
    fn request_that_ends_takes_all_its_ranges_along_and_no_others() {
        let mut order = under_way(&[(7, 0, 1), (8, 1, 2), (7, 2, 3), (7, 3, 4), (9, 4, 5)]);
        order.ended(7);
        let mut left: Vec<u32> = order.under_way.iter().map(|change| change.slot).collect();
        left.sort_unstable();
        assert_eq!(left, [8, 9]);
    }
}
