//! Rings that wait for a moment: the one at which a lost drive is given up, or the one at which their volume's limits let
//! them go on.

use super::Core;
use crate::clock::now_ns;
use crate::reactor::{Presence, RingId};
use std::time::{Duration, Instant};

impl Core {
    /// How long it is to the first moment that a ring waits for; none if none waits.
    pub(super) fn time_to_deadline(&self) -> Option<Duration> {
        let rings = || self.waiting.iter().filter_map(|id| self.rings.get(*id));
        let drive = rings().filter_map(|ring| ring.deadline()).min();
        let limits = rings().filter_map(|ring| ring.wake_at_ns()).min();
        let to_drive = drive.map(|moment| moment.saturating_duration_since(Instant::now()));
        let to_limits = limits.map(|at| Duration::from_nanos(at.saturating_sub(now_ns())));
        [to_drive, to_limits].into_iter().flatten().min()
    }

    /// Rings whose moment has come fail what waits for a drive, or are looked at again.
    pub(super) fn expire(&mut self) {
        let now = Instant::now();
        for id in std::mem::take(&mut self.waiting) {
            let Some(ring) = self.rings.get_mut(id) else {
                continue;
            };
            if ring.deadline().is_some_and(|deadline| deadline <= now) {
                ring.give_up_waiting(&mut self.slots);
                self.touch(id);
            }
            self.wake_if_due(id);
            self.wait_if_needed(id);
        }
    }

    fn wake_if_due(&mut self, id: RingId) {
        let wake_at_ns = self.rings.get(id).and_then(|ring| ring.wake_at_ns());
        if wake_at_ns.is_some_and(|at| at <= self.slots.now_ns()) {
            self.heat(id);
        }
    }

    /// The limits of a volume have changed: whoever waits for them looks again.
    pub(super) fn wake_all(&mut self) {
        for id in std::mem::take(&mut self.waiting) {
            self.heat(id);
            self.wait_if_needed(id);
        }
    }

    pub(super) fn set_presence(&mut self, id: RingId, presence: Presence) {
        let Some(ring) = self.rings.get_mut(id) else {
            return;
        };
        ring.set_presence(presence, &mut self.slots, &mut self.driver);
        self.wait_if_needed(id);
        self.touch(id);
    }

    /// Notes a ring that waits for a moment.
    pub(super) fn wait_if_needed(&mut self, id: RingId) {
        let waits = self
            .rings
            .get(id)
            .is_some_and(|ring| ring.deadline().is_some() || ring.wake_at_ns().is_some());
        if waits && !self.waiting.contains(&id) {
            self.waiting.push(id);
        }
    }
}
