//! Requests under way, and the tokens under which their completions come back. A slot's generation changes when it is
//! freed, so that a late completion finds nothing instead of another guest's request.

use super::RingId;
use crate::clock::Clock;
use holdfast_bdev::Token;
use holdfast_ring::blk::Request;
use std::cell::Cell;

/// Generations count in this many bits: bit 63 of a token belongs to the driver.
const GENERATION_MASK: u32 = (1 << 31) - 1;

/// One request under way.
pub(super) struct Slot {
    generation: u32,
    /// The ring it came from; none while the slot is free.
    ring: Option<RingId>,
    /// Kept when the slot is free: it is popped into again without allocating.
    pub(super) request: Request,
    /// The data has been written, and the flush that makes it durable is under way.
    pub(super) flushing: bool,
    /// When the reactor looked at the ring and found it.
    taken_at_ns: u64,
    /// Its place in the order in which the reactor took requests.
    order: u64,
}

/// All requests of a reactor. Grows to the largest number that was ever under way, which the rings' sizes bound.
#[derive(Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// When this turn of the reactor first asked, 0 before: one look at the clock for all that is taken and answered in
    /// it, and none in a turn without.
    now_ns: Cell<u64>,
    clock: Clock,
    /// Requests taken so far.
    taken: u64,
    /// Completions that belonged to nothing; anything but 0 is a bug below.
    pub(super) stale: u64,
}

impl Slots {
    /// A free slot to pop into. It stays free until [`Slots::fill`].
    #[inline]
    pub(super) fn vacant(&mut self) -> u32 {
        match self.free.last() {
            Some(slot) => *slot,
            None => self.grow(),
        }
    }

    #[cold]
    fn grow(&mut self) -> u32 {
        let slot = u32::try_from(self.slots.len()).expect("rings are smaller than 2^32");
        self.slots.push(Slot {
            generation: 0,
            ring: None,
            request: Request::new(),
            flushing: false,
            taken_at_ns: 0,
            order: 0,
        });
        self.free.push(slot);
        slot
    }

    /// The slot from [`Slots::vacant`] now holds a request of `ring`; returns its token.
    #[inline]
    pub(super) fn fill(&mut self, slot: u32, ring: RingId) -> Token {
        debug_assert_eq!(self.free.last(), Some(&slot));
        self.free.pop();
        let now = self.now_ns();
        let entry = &mut self.slots[slot as usize];
        entry.ring = Some(ring);
        entry.flushing = false;
        entry.taken_at_ns = now;
        entry.order = self.taken;
        self.taken += 1;
        Token(u64::from(entry.generation) << 32 | u64::from(slot))
    }

    /// A request is to be done from its beginning.
    pub(super) fn begin_again(&mut self, slot: u32) {
        self.slots[slot as usize].flushing = false;
    }

    /// The place of a request in the order in which requests were taken.
    pub(super) fn order(&self, slot: u32) -> u64 {
        self.slots[slot as usize].order
    }

    /// A turn of the reactor begins.
    pub(super) fn begin_turn(&mut self) {
        self.now_ns.set(0);
    }

    /// The time of this turn.
    #[inline]
    pub(super) fn now_ns(&self) -> u64 {
        if self.now_ns.get() == 0 {
            self.now_ns.set(self.clock.now_ns());
        }
        self.now_ns.get()
    }

    /// How long ago a request was taken.
    #[inline]
    pub(super) fn age_ns(&self, slot: u32) -> u64 {
        let taken_at_ns = self.slots[slot as usize].taken_at_ns;
        self.now_ns().saturating_sub(taken_at_ns)
    }

    #[inline]
    pub(super) fn request(&mut self, slot: u32) -> &mut Request {
        &mut self.slots[slot as usize].request
    }

    /// The ring and the request that a completion belongs to; none, and counted, if it belongs to nothing.
    #[inline]
    #[allow(clippy::cast_possible_truncation)] // Takes the token apart.
    pub(super) fn find(&mut self, token: Token) -> Option<(u32, RingId, &mut Slot)> {
        let (slot, generation) = (token.0 as u32, (token.0 >> 32) as u32);
        match self.slots.get_mut(slot as usize) {
            Some(entry) if entry.generation == generation && entry.ring.is_some() => {
                entry.ring.map(|ring| (slot, ring, entry))
            }
            _ => {
                self.stale += 1;
                report_stale(token);
                None
            }
        }
    }

    /// Frees a slot whose request has been answered.
    #[inline]
    pub(super) fn free(&mut self, slot: u32) {
        let entry = &mut self.slots[slot as usize];
        entry.ring = None;
        entry.generation = (entry.generation + 1) & GENERATION_MASK;
        self.free.push(slot);
    }
}

/// Out of the way of those that belong to something.
#[cold]
fn report_stale(token: Token) {
    tracing::error!(?token, "Dropped a completion that belongs to no request");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_of_an_answered_request_finds_nothing() {
        let mut slots = Slots::default();
        let slot = slots.vacant();
        let token = slots.fill(slot, RingId::default());
        assert!(slots.find(token).is_some());
        slots.free(slot);
        assert!(slots.find(token).is_none());
        let again = slots.vacant();
        let next = slots.fill(again, RingId::default());
        assert_eq!(again, slot, "the slot is used again");
        assert!(
            slots.find(token).is_none(),
            "the old token still finds nothing"
        );
        assert!(slots.find(next).is_some());
        assert_eq!(slots.stale, 2);
    }
}
