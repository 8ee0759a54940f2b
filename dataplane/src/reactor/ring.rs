//! A ring while a reactor serves it: requests in, answers out, and what is left to do when it must stop.

mod drive;
mod order;
mod setup;
mod submit;
mod take;
mod throttle;
mod wishes;

use self::order::{Order, is_change};
pub(crate) use self::setup::{Disk, RingSetup};
use self::submit::submit;
use self::throttle::Throttle;
use super::drain::Drain;
use super::presence::may_be_loss;
use super::slots::Slots;
use super::spin::Spin;
use super::{Notice, PeerEvent, Presence, Reply, RingEnd, Swap};
use crate::account::{Account, Tally};
use crate::events::ExportChange;
use holdfast_bdev::{Driver, IoChannel, IoStatus, Token, WatchId};
use holdfast_crash::crash_point;
use holdfast_ring::blk::{Kind, Status};
use holdfast_ring::{MemView, QueueError, SplitQueue};
use std::sync::Arc;
use std::time::Instant;

/// Most requests taken from one ring before the others get their turn.
pub(super) const BATCH: u32 = 32;

/// A ring that is being served. Never leaves its thread.
pub(super) struct Ring {
    export: Arc<str>,
    account: Arc<Account>,
    index: u16,
    queue: SplitQueue,
    /// The way to the device; none while the drive is lost.
    channel: Option<Box<dyn IoChannel>>,
    /// Reads are copies: the device is told of each before the one in front of it is done.
    looks_ahead: bool,
    suspect: Option<Notice>,
    hang_up: Notice,
    /// Requests that wait for the drive, or for the verdict on it, in the order they came.
    parked: Vec<(u32, Token)>,
    /// With the drive lost: until when requests wait; without a moment they fail at once.
    lost_until: Option<Instant>,
    disk: Disk,
    pub(super) kick: Option<PeerEvent>,
    pub(super) watch: Option<WatchId>,
    call: Option<PeerEvent>,
    err: Option<PeerEvent>,
    /// In the reactor's list of rings to look at.
    pub(super) hot: bool,
    /// In the reactor's list of rings with answers to publish.
    pub(super) touched: bool,
    /// Had one request at most when it was last looked at.
    pub(super) light: bool,
    pub(super) spin: Spin,
    drain: Drain,
    order: Order,
    throttle: Throttle,
    /// Serving it failed in a way that is a bug of ours, or its memory has vanished.
    given_up: bool,
}

/// What a look at a ring found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    /// Everything there was.
    Some,
    /// A full batch; there may be more.
    Batch,
    /// There is more that may not be taken yet. The ring is looked at again when it may; no kick is needed.
    NotYet,
}

impl Ring {
    /// Takes a ring over, or says why it cannot be served.
    pub(super) fn new(setup: RingSetup, driver: &mut Driver) -> Result<Ring, String> {
        let RingSetup {
            layout,
            features,
            base,
            view,
            inflight,
            presence,
            ..
        } = setup;
        let queue = match inflight {
            Some(slot) => SplitQueue::with_inflight(view, layout, features, slot),
            None => SplitQueue::new(view, layout, features, base),
        }
        .map_err(|error| error.to_string())?;
        let mut ring = Ring {
            export: setup.export,
            account: setup.account,
            index: setup.index,
            queue,
            channel: None,
            looks_ahead: false,
            suspect: setup.suspect,
            hang_up: setup.hang_up,
            parked: Vec::new(),
            lost_until: None,
            disk: setup.disk,
            kick: setup.kick,
            watch: None,
            call: setup.call,
            err: setup.err,
            hot: false,
            touched: false,
            light: false,
            spin: Spin::default(),
            drain: Drain::default(),
            order: Order::default(),
            throttle: Throttle::default(),
            given_up: false,
        };
        match presence {
            Presence::Here(device) => {
                let channel = device.open_channel(driver);
                ring.set_channel(channel.map_err(|error| error.to_string())?);
            }
            Presence::Lost(until) => ring.lost_until = until,
            Presence::Sound => {}
        }
        ring.expect_replays();
        Ok(ring)
    }

    /// Hands one request to the device, or answers it if no device is needed.
    fn dispatch(&mut self, slot: u32, token: Token, slots: &mut Slots, driver: &mut Driver) {
        crash_point!("dispatch.before");
        let request = slots.request(slot);
        match request.kind() {
            Kind::GetId => {
                request.write_data(&self.disk.serial);
                self.answer(slot, Status::Ok, slots);
            }
            Kind::Rejected(status) => self.answer(slot, status, slots),
            kind => match &mut self.channel {
                Some(channel) => {
                    submit(channel.as_mut(), kind, request, token, driver);
                    // With writethrough it is not over before it is durable.
                    if is_change(kind) && (self.disk.writethrough || !driver.has_just_done(token)) {
                        self.order.began(slot, request);
                    }
                }
                None => self.wait_for_drive(slot, token, slots),
            },
        }
        crash_point!("dispatch.after");
    }

    /// The device is done with a request: it is answered, made durable first, or put by.
    pub(super) fn complete(
        &mut self,
        slot: u32,
        token: Token,
        status: IoStatus,
        slots: &mut Slots,
        driver: &mut Driver,
    ) {
        if status == IoStatus::Failed(libc::EFAULT) {
            // The kernel met a hole where we would have been signalled.
            self.condemn();
        }
        if may_be_loss(status) && self.may_wait() {
            return self.put_by(slot, token, slots);
        }
        let Some((_, _, entry)) = slots.find(token) else {
            return;
        };
        let changes = matches!(entry.request.kind(), Kind::Out | Kind::WriteZeroes { .. });
        let durable = !self.disk.writethrough || !changes || entry.flushing;
        if status != IoStatus::Ok || durable {
            return self.answer(slot, answer_to(status), slots);
        }
        entry.flushing = true;
        match &mut self.channel {
            Some(channel) => {
                let request = &entry.request;
                submit(channel.as_mut(), Kind::Flush, request, token, driver);
            }
            None => self.wait_for_drive(slot, token, slots),
        }
    }

    pub(super) fn answer(&mut self, slot: u32, status: Status, slots: &mut Slots) {
        let latency_ns = slots.age_ns(slot);
        let request = slots.request(slot);
        self.tally().answered(request, status, latency_ns);
        if status == Status::IoErr && !matches!(request.kind(), Kind::Rejected(_)) {
            self.account.error(self.index);
        }
        let (older, changes) = (
            self.drain.is_older(request.epoch()),
            is_change(request.kind()),
        );
        let (head, used_len) = (request.head(), request.finish(status));
        crash_point!("answer.finished");
        self.queue.push(head, used_len);
        slots.free(slot);
        if changes {
            self.order.ended(slot);
        }
        if older {
            self.drain.one_less();
        }
    }

    /// Shows the guest its answers, and interrupts it if it wants that.
    pub(super) fn publish(&mut self) {
        self.tally()
            .under_way(self.queue.outstanding(), self.parked.len());
        if self.queue.publish() {
            crash_point!("interrupt.before");
            self.interrupt();
            crash_point!("interrupt.after");
        }
    }

    /// Interrupts the guest, asked or not.
    pub(super) fn interrupt(&self) {
        if let Some(call) = &self.call {
            call.signal();
        }
    }

    /// Follows a change of guest memory.
    pub(super) fn swap_view(&mut self, view: Arc<MemView>, reply: Reply<Swap>, slots: &mut Slots) {
        crash_point!("swap-view.asked");
        let (was_sound, epoch) = (self.queue.poison().is_none(), view.epoch());
        match self.queue.swap_view(view) {
            Err(error) if was_sound => self.park(&error),
            _ => {}
        }
        crash_point!("swap-view.done");
        self.drain.swap(epoch, self.queue.outstanding(), reply);
        self.parked_follow_memory(slots);
    }

    pub(super) fn set_call(&mut self, call: Option<PeerEvent>) {
        self.call = call;
        // What was published before may have been announced to nobody.
        self.interrupt();
    }

    pub(super) fn set_err(&mut self, err: Option<PeerEvent>) {
        self.err = err;
    }

    pub(super) fn set_disk(&mut self, disk: Disk) {
        self.disk = disk;
    }

    /// Takes no more requests; whoever asked is told when the last has been answered.
    /// What waits for a drive is left to a successor; without an in-flight region there is none, and it fails.
    pub(super) fn stop(&mut self, reply: Reply<RingEnd>, slots: &mut Slots) {
        crash_point!("stop.asked");
        self.drain.begin_stop(reply);
        for (slot, token) in std::mem::take(&mut self.parked) {
            self.put_by(slot, token, slots);
        }
    }

    /// Whether a stop was asked for and nothing is under way any more.
    pub(super) fn has_ended(&self) -> bool {
        self.drain.has_ended(self.queue.outstanding())
    }

    /// Gives the ring back.
    pub(super) fn end(mut self) {
        self.publish();
        self.leave_place();
        crash_point!("stop.drained");
        let end = RingEnd {
            last_avail: self.queue.last_avail(),
        };
        self.drain.end(end);
    }

    /// The guest broke a rule; the queue takes no more work for good.
    fn park(&mut self, why: &QueueError) {
        tracing::warn!(export = %self.export, queue = self.index, %why, "Parked a ring");
        if let Some(err) = &self.err {
            err.signal();
        }
    }

    /// Ends the session if memory this ring stands on has vanished.
    pub(super) fn check_memory(&mut self) {
        if self.queue.has_vanished() {
            self.condemn();
        }
    }

    /// The guest's memory is not what it was: nothing more is taken from it, and its session ends.
    fn condemn(&mut self) {
        if !std::mem::replace(&mut self.given_up, true) {
            tracing::warn!(export = %self.export, queue = self.index,
                "Memory of a guest has vanished under its disk: its session ends");
            self.hang_up.tell();
        }
    }

    /// Takes no more work because of a bug of ours.
    pub(super) fn give_up(&mut self) {
        self.given_up = true;
        self.hot = false;
        if let Some(err) = &self.err {
            err.signal();
        }
    }

    /// Requests taken and not answered.
    pub(super) fn under_way(&self) -> u16 {
        self.queue.outstanding()
    }

    fn tally(&self) -> &Tally {
        self.account.tally(self.index)
    }

    fn expect_replays(&mut self) {
        let requests = self.queue.replays() as u64;
        if requests > 0 {
            self.order.expect();
            self.tally().replayed(requests);
            self.account.tell(ExportChange::Replayed { requests });
        }
    }

    fn is_parked(&self) -> bool {
        self.given_up || self.drain.is_stopping() || self.queue.poison().is_some()
    }
}

fn answer_to(status: IoStatus) -> Status {
    match status {
        IoStatus::Ok => Status::Ok,
        IoStatus::Unsupported => Status::Unsupp,
        IoStatus::OutOfRange | IoStatus::Failed(_) => Status::IoErr,
    }
}
