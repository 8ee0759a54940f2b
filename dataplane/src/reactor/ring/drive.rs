//! A ring whose drive goes and comes back: what waits, for how long, and in which order it goes on.

use super::Ring;
use crate::reactor::Presence;
use crate::reactor::slots::Slots;
use holdfast_bdev::{Driver, Token};
use holdfast_ring::blk::Status;
use std::time::Instant;

impl Ring {
    /// The drive is not there: the request waits, or fails if waiting is over.
    pub(super) fn wait_for_drive(&mut self, slot: u32, token: Token, slots: &mut Slots) {
        if self.lost_until.is_some() {
            self.put_by(slot, token, slots);
        } else {
            self.answer(slot, Status::IoErr, slots);
        }
    }

    /// Follows what has become of the drive.
    pub(in crate::reactor) fn set_presence(
        &mut self,
        presence: Presence,
        slots: &mut Slots,
        driver: &mut Driver,
    ) {
        match presence {
            Presence::Here(device) => match device.open_channel(driver) {
                Ok(channel) => {
                    self.set_channel(channel);
                    self.lost_until = None;
                    self.go_on(slots);
                }
                Err(error) => {
                    tracing::error!(export = %self.export, queue = self.index, %error,
                        "The drive is back, but this ring cannot use it; its requests go on waiting");
                }
            },
            Presence::Lost(until) => {
                // What is still with the old device keeps that open until it has ended.
                self.channel = None;
                self.lost_until = until;
                self.parked.extend(self.order.take_waiting());
                if until.is_none() {
                    self.fail_parked(slots);
                }
            }
            Presence::Sound => self.fail_parked(slots),
        }
    }

    /// The same drive is back: what waited is done in the order it came.
    fn go_on(&mut self, slots: &mut Slots) {
        let mut all = self.order.take_waiting();
        all.extend(std::mem::take(&mut self.parked));
        for (slot, _) in &all {
            slots.begin_again(*slot);
            self.order.ended(*slot);
        }
        all.make_contiguous()
            .sort_by_key(|(slot, _)| slots.order(*slot));
        self.order.set_waiting(all);
    }

    fn fail_parked(&mut self, slots: &mut Slots) {
        for (slot, _) in std::mem::take(&mut self.parked) {
            self.answer(slot, Status::IoErr, slots);
        }
    }

    /// Until when requests wait; none if none waits.
    pub(in crate::reactor) fn deadline(&self) -> Option<Instant> {
        self.lost_until
    }

    /// Waiting is over for this ring: what waits fails, and so does what comes, until the drive is back.
    pub(in crate::reactor) fn give_up_waiting(&mut self, slots: &mut Slots) {
        tracing::warn!(export = %self.export, queue = self.index, requests = self.parked.len(),
            "The drive did not return in time: requests fail until it does");
        self.lost_until = None;
        self.fail_parked(slots);
    }

    /// A request that waits, for the drive or for the verdict on it. One of a ring that stops is left to a successor;
    /// without an in-flight region there is none, and it fails.
    pub(super) fn put_by(&mut self, slot: u32, token: Token, slots: &mut Slots) {
        if !self.drain.is_stopping() {
            if self.follow_memory(slot, slots) {
                self.parked.push((slot, token));
            }
        } else if self.leave(slot, slots) {
            self.leave_waiting(slots);
        } else {
            self.answer(slot, Status::IoErr, slots);
        }
    }

    /// Leaves a request to a successor; false if there will be none.
    pub(super) fn leave(&mut self, slot: u32, slots: &mut Slots) -> bool {
        let left = self.queue.forget(slots.request(slot).head());
        if left {
            slots.request(slot).reset();
            slots.free(slot);
            self.order.ended(slot);
        }
        left
    }

    /// Guest memory has changed: what waits must not keep the old one, for the session waits for its end and can bring
    /// neither drive nor verdict meanwhile.
    pub(super) fn parked_follow_memory(&mut self, slots: &mut Slots) {
        let mut parked = std::mem::take(&mut self.parked);
        parked.retain(|(slot, _)| self.follow_memory(*slot, slots));
        self.parked = parked;
        let mut waiting = self.order.take_waiting();
        waiting.retain(|(slot, _)| self.follow_memory(*slot, slots));
        self.order.set_waiting(waiting);
    }

    /// Reads a request that no device has again, if guest memory has changed since. False, and it is gone, if that has
    /// broken the ring.
    fn follow_memory(&mut self, slot: u32, slots: &mut Slots) -> bool {
        let request = slots.request(slot);
        if !self.drain.is_older(request.epoch()) {
            return true;
        }
        let read = match self.queue.put_back(request.head()) {
            true => self.queue.pop(request, &self.disk.limits),
            false => Ok(false),
        };
        if let Err(why) = &read {
            self.park(why);
        }
        if read != Ok(true) {
            slots.free(slot);
            self.order.ended(slot);
        }
        self.drain.one_less();
        read == Ok(true)
    }

    /// A request has failed as requests fail on a lost drive: whether it may wait for the drive or a verdict.
    pub(super) fn may_wait(&self) -> bool {
        match (&self.channel, &self.suspect) {
            (Some(_), Some(suspect)) => {
                suspect.tell();
                true
            }
            (Some(_), None) => false,
            (None, _) => self.lost_until.is_some(),
        }
    }
}
