//! One queue as its session sees it: what was said about it, and whether a reactor serves it now.

use super::{Backing, features};
use crate::reactor::{
    Disk, Message, PeerEvent, Presence, Reactors, RingEnd, RingKey, RingSetup, Swap,
};
use holdfast_crash::crash_point;
use holdfast_ring::{InflightMap, InflightSlot, MemView, QueueLayout, SplitQueue};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// A stop that takes longer than this is told of in the log.
const SLOW_STOP: Duration = Duration::from_secs(2);

/// Where ring parts lie, as SET_VRING_ADDR gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Addresses {
    pub(super) desc: u64,
    pub(super) avail: u64,
    pub(super) used: u64,
}

/// What all rings of a session are served with.
pub(super) struct Terms {
    pub(super) features: u64,
    pub(super) disk: Disk,
    pub(super) view: Arc<MemView>,
    pub(super) inflight: Option<Arc<InflightMap>>,
}

/// Everything said about one queue.
pub(super) struct Queue {
    index: u16,
    pub(super) size: u16,
    pub(super) addresses: Option<Addresses>,
    /// Position of the next element to take.
    pub(super) base: u16,
    pub(super) enabled: bool,
    /// The kick message has come since the ring was last stopped; its descriptor may be absent.
    kick_seen: bool,
    kick: Option<PeerEvent>,
    call: Option<PeerEvent>,
    err: Option<PeerEvent>,
    running: Option<RingKey>,
    /// It could not be started as it stands. Cleared by the next message about it.
    refused: bool,
}

impl Queue {
    pub(super) fn new(index: u16) -> Queue {
        Queue {
            index,
            size: 0,
            addresses: None,
            base: 0,
            enabled: false,
            kick_seen: false,
            kick: None,
            call: None,
            err: None,
            running: None,
            refused: false,
        }
    }

    /// Whether everything needed has been said and no reactor serves it yet.
    pub(super) fn wants_to_run(&self, agreed: u64) -> bool {
        self.running.is_none()
            && !self.refused
            && self.kick_seen
            && (self.enabled || !features::rings_start_disabled(agreed))
            && self.layout().is_some()
    }

    /// Hands the ring to a reactor. A ring whose memory is not there yet is left for a later message.
    pub(super) fn start(&mut self, backing: &Backing, terms: Terms) {
        let Some(layout) = self.layout() else { return };
        let features = features::of_queues(terms.features);
        let view = terms.view;
        if let Err(why) = SplitQueue::new(Arc::clone(&view), layout, features, self.base) {
            return self.refuse(backing, &why.to_string());
        }
        let index = self.index;
        let setup = Box::new(RingSetup {
            export: Arc::clone(&backing.export),
            account: Arc::clone(&backing.account),
            index,
            layout,
            features,
            base: self.base,
            view,
            inflight: terms.inflight.map(|map| InflightSlot { map, index }),
            kick: self.kick.clone(),
            call: self.call.clone(),
            err: self.err.clone(),
            presence: backing.presence.clone(),
            suspect: backing.suspect.clone(),
            hang_up: backing.hang_up.clone(),
            disk: terms.disk,
        });
        crash_point!("start.handed-over");
        let reactor = backing.reactors.pick();
        let started = backing
            .reactors
            .ask(reactor, |reply| Message::Start(setup, reply));
        match started {
            Some(Ok(ring)) => self.running = Some(RingKey { reactor, ring }),
            Some(Err(why)) => self.refuse(backing, &why),
            None => self.refuse(backing, "its reactor has ended"),
        }
    }

    fn refuse(&mut self, backing: &Backing, why: &str) {
        self.refused = true;
        tracing::warn!(export = %backing.export, queue = self.index, why, "A ring cannot be started as it is");
    }

    /// Something about this queue or the memory has changed: starting it may succeed now.
    pub(super) fn reconsider(&mut self) {
        self.refused = false;
    }

    /// Asks for the ring back.
    pub(super) fn begin_stop(&mut self, reactors: &Reactors) -> Option<Receiver<RingEnd>> {
        let RingKey { reactor, ring } = self.running.take()?;
        Some(reactors.ask_later(reactor, |reply| Message::Stop(ring, reply)))
    }

    /// Waits for the ring, however long its device takes. Its last request has ended then.
    pub(super) fn finish_stop(&mut self, backing: &Backing, answer: Option<Receiver<RingEnd>>) {
        let Some(answer) = answer else { return };
        let end = match answer.recv_timeout(SLOW_STOP) {
            Err(RecvTimeoutError::Timeout) => self.wait_and_tell(backing, &answer),
            other => other.ok(),
        };
        // A reactor that has ended waited for its requests, but can no longer tell the position: the last one known stays.
        if let Some(end) = end {
            crash_point!("stop.taken-back");
            self.base = end.last_avail;
        }
    }

    /// The wait is no reason to give up, but somebody has to know why a machine stands still.
    #[cold]
    fn wait_and_tell(&self, backing: &Backing, answer: &Receiver<RingEnd>) -> Option<RingEnd> {
        let (export, queue, start) = (&backing.export, self.index, Instant::now());
        tracing::warn!(%export, queue, "Stopping a queue takes long: requests are still with its device");
        backing.account.slow_stop();
        let end = answer.recv().ok();
        backing.account.slow_stop_ended();
        let waited_ms = (SLOW_STOP + start.elapsed()).as_millis();
        tracing::info!(%export, queue, waited_ms, "The queue has stopped: its device has answered");
        end
    }

    pub(super) fn stop(&mut self, backing: &Backing) {
        let answer = self.begin_stop(&backing.reactors);
        self.finish_stop(backing, answer);
    }

    /// As GET_VRING_BASE wants it: stopped until the next kick message, the descriptors given back.
    pub(super) fn retire(&mut self, backing: &Backing) {
        self.stop(backing);
        self.kick_seen = false;
        self.kick = None;
        self.call = None;
        self.reconsider();
    }

    pub(super) fn set_kick(&mut self, kick: Option<PeerEvent>, reactors: &Reactors) {
        self.kick_seen = true;
        self.kick.clone_from(&kick);
        self.tell(reactors, |ring| Message::SetKick(ring, kick));
    }

    pub(super) fn set_call(&mut self, call: Option<PeerEvent>, reactors: &Reactors) {
        self.call.clone_from(&call);
        self.tell(reactors, |ring| Message::SetCall(ring, call));
    }

    pub(super) fn set_err(&mut self, err: Option<PeerEvent>, reactors: &Reactors) {
        self.err.clone_from(&err);
        self.tell(reactors, |ring| Message::SetErr(ring, err));
    }

    pub(super) fn set_disk(&self, reactors: &Reactors, disk: Disk) {
        self.tell(reactors, |ring| Message::SetDisk(ring, disk));
    }

    pub(super) fn set_presence(&self, reactors: &Reactors, presence: &Presence) {
        self.tell(reactors, |ring| {
            Message::SetPresence(ring, presence.clone())
        });
    }

    /// Makes a running ring follow a change of memory; the answers come through the receiver.
    pub(super) fn swap_view(
        &self,
        reactors: &Reactors,
        view: &Arc<MemView>,
    ) -> Option<Receiver<Swap>> {
        let RingKey { reactor, ring } = self.running?;
        let view = Arc::clone(view);
        Some(reactors.ask_later(reactor, |reply| Message::SwapView(ring, view, reply)))
    }

    fn tell(&self, reactors: &Reactors, message: impl FnOnce(crate::reactor::RingId) -> Message) {
        if let Some(RingKey { reactor, ring }) = self.running {
            reactors.send(reactor, message(ring));
        }
    }

    fn layout(&self) -> Option<QueueLayout> {
        let Addresses { desc, avail, used } = self.addresses?;
        (self.size > 0).then_some(QueueLayout {
            size: self.size,
            desc,
            avail,
            used,
        })
    }
}
