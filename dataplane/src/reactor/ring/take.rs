//! Taking requests off the ring, in batches.
//!
//! Where reads are copies, one of them is kept back until the next request is known: so that the device can be told what it
//! will read next, and the lines of that come while it copies. Nothing else changes: the read goes before what came after it.

use super::{Found, Ring};
use crate::reactor::RingId;
use crate::reactor::slots::Slots;
use holdfast_bdev::{Driver, IoChannel, Token};
use holdfast_ring::blk::Kind;

/// A read that was taken and is not with the device yet.
type KeptBack = Option<(u32, Token)>;

impl Ring {
    pub(super) fn set_channel(&mut self, channel: Box<dyn IoChannel>) {
        self.looks_ahead = channel.is_memory();
        self.channel = Some(channel);
    }

    /// Takes up to `most` requests and hands them to the device.
    pub(in crate::reactor) fn serve(
        &mut self,
        most: u32,
        id: RingId,
        slots: &mut Slots,
        driver: &mut Driver,
    ) -> Found {
        if self.is_parked() {
            return Found::Nothing;
        }
        if !self.order.is_free() {
            return self.serve_waiting(id, slots, driver);
        }
        match self.looks_ahead {
            false => self.take::<false>(most, id, &mut None, slots, driver),
            true => {
                let mut kept = None;
                let found = self.take::<true>(most, id, &mut kept, slots, driver);
                self.let_go(&mut kept, slots, driver);
                found
            }
        }
    }

    /// With `AHEAD`, a read may be left in `kept`. Without, nothing of that is in the way of others.
    fn take<const AHEAD: bool>(
        &mut self,
        most: u32,
        id: RingId,
        kept: &mut KeptBack,
        slots: &mut Slots,
        driver: &mut Driver,
    ) -> Found {
        let limited = self.account.meter().is_limited();
        for taken in 0..most {
            if limited && !self.has_place(slots.now_ns()) {
                return Found::NotYet;
            }
            let slot = slots.vacant();
            match self.queue.pop(slots.request(slot), &self.disk.limits) {
                Ok(true) => {
                    let token = slots.fill(slot, id);
                    if limited {
                        self.use_place(slots.request(slot).moves_bytes(), slots.now_ns());
                    }
                    let ahead = AHEAD && self.foresee(slot, slots);
                    if AHEAD {
                        self.let_go(kept, slots, driver);
                    }
                    // On a drive that is lost, everything waits in the order it came.
                    if self.order.must_wait(slots.request(slot)) && self.channel.is_some() {
                        self.order.hold(slot, token);
                        return Found::NotYet;
                    }
                    match ahead {
                        true => *kept = Some((slot, token)),
                        false => self.dispatch(slot, token, slots, driver),
                    }
                }
                Ok(false) => {
                    self.light = taken <= 1;
                    return if taken == 0 {
                        Found::Nothing
                    } else {
                        Found::Some
                    };
                }
                Err(error) => {
                    self.park(&error);
                    return Found::Some;
                }
            }
        }
        self.light = false;
        Found::Batch
    }

    /// Tells the device of a read that it will be asked for; whether it is one.
    fn foresee(&mut self, slot: u32, slots: &mut Slots) -> bool {
        let request = slots.request(slot);
        match (&mut self.channel, request.kind()) {
            (Some(channel), Kind::In) => {
                channel.expect(request.offset_bytes(), request.data_len());
                true
            }
            _ => false,
        }
    }

    fn let_go(&mut self, kept: &mut KeptBack, slots: &mut Slots, driver: &mut Driver) {
        if let Some((slot, token)) = kept.take() {
            self.dispatch(slot, token, slots, driver);
        }
    }
}
