//! A ring whose volume has limits: what it has no place for yet stays where the guest has put it, in the ring. So a stop,
//! a kill or a lost drive finds nothing there that it would have to care for.

use super::Ring;
use crate::limits::Place;

/// A ring that must wait looks again after this long at the earliest: many requests then pass at one waking.
const PAUSE_NS: u64 = 1_000_000;

/// How a ring stands with the meter of its volume.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    /// The place of the next request.
    place: Option<Place>,
    /// When to look at the ring again.
    wake_at_ns: Option<u64>,
}

impl Ring {
    /// Whether the next request may be taken now. An empty ring takes no place: others would wait for nothing.
    #[cold]
    pub(super) fn has_place(&mut self, now_ns: u64) -> bool {
        if self.queue.has_more() != Ok(true) {
            return true; // The pop finds out, and tells.
        }
        let place = self.account.meter().place(self.throttle.place, now_ns);
        self.throttle.place = Some(place);
        if place.at_ns <= now_ns {
            return true;
        }
        self.throttle.wake_at_ns = Some(place.at_ns.max(now_ns + PAUSE_NS));
        false
    }

    /// A request of so many bytes was taken with its place.
    #[cold]
    pub(super) fn use_place(&mut self, bytes: u64, now_ns: u64) {
        self.throttle.place = None;
        self.account.meter().charge(bytes, now_ns);
    }

    /// The ring leaves.
    pub(super) fn leave_place(&mut self) {
        if let Some(place) = self.throttle.place.take() {
            self.account.meter().give_back(place);
        }
    }

    /// When the ring is to be looked at again, if it waits for its volume's limits.
    pub(in crate::reactor) fn wake_at_ns(&self) -> Option<u64> {
        self.throttle.wake_at_ns
    }

    /// The ring is looked at.
    pub(in crate::reactor) fn wake(&mut self) {
        self.throttle.wake_at_ns = None;
    }
}
