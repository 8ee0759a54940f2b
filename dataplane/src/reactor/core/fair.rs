//! Fairness between the rings of a reactor. A ring that has one request at a time waits for its neighbours' batches with
//! every request it makes, and each of theirs may be a copy: so while such a ring is looked at, batches are small, and end
//! as soon as it asks for something. Rings that all have more than they are given need none of that: batches are cheaper.

use super::Core;
use crate::reactor::RingId;
use crate::reactor::ring::{BATCH, Found, Ring};

/// Most requests taken at once from a ring beside a light one.
const BATCH_BESIDE: usize = 8;

impl Core {
    /// Finds the light ones among the hot rings. They are served last: what they ask for meanwhile is taken at once, and
    /// answered at the beginning of the next turn, with nobody's request in between.
    pub(super) fn find_light(&mut self) {
        self.light.clear();
        if self.hot.len() > 1 {
            let is_light = |id: &RingId| self.rings.get(*id).is_some_and(|ring| ring.light);
            self.light.extend(self.hot.iter().copied().filter(is_light));
            if !self.light.is_empty() {
                self.hot.sort_unstable_by_key(is_light);
            }
        }
    }

    /// Takes a batch of requests from a ring.
    pub(super) fn take(&mut self, id: RingId) -> Found {
        let alone = self.light.iter().all(|light| *light == id);
        let Some(ring) = self.rings.get_mut(id) else {
            return Found::Nothing;
        };
        match alone {
            true => ring.serve(BATCH, id, &mut self.slots, &mut self.driver),
            false => self.take_beside(id),
        }
    }

    /// Takes one request at a time, with a look at one light ring after each: that costs the same however many there are.
    fn take_beside(&mut self, id: RingId) -> Found {
        let mut taken = 0;
        while taken < BATCH_BESIDE {
            let Some(ring) = self.rings.get_mut(id) else {
                return Found::Nothing;
            };
            let found = ring.serve(1, id, &mut self.slots, &mut self.driver);
            if found != Found::Batch {
                ring.light = taken <= 1;
                return if taken > 0 && found == Found::Nothing {
                    Found::Some
                } else {
                    found
                };
            }
            taken += 1;
            let next = self.light[taken % self.light.len()];
            if next != id && self.rings.get_mut(next).is_some_and(Ring::asks) {
                break;
            }
        }
        Found::Batch
    }
}
