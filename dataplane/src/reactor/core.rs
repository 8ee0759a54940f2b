//! The loop of a reactor thread: take what has happened, answer, look at rings that may have work, sleep if none has.

mod fair;
mod waiting;

use super::ring::{Found, Ring};
use super::slots::Slots;
use super::spin::SpinLimit;
use super::{Message, PeerEvent, RingId, RingSetup};
use crate::EngineError;
use crate::mailbox::Mailbox;
use holdfast_bdev::{Completion, Driver, DriverKind, Events};
use holdfast_crash::crash_point;
use holdfast_ring::vanished_memory_count;
use slotmap::{Key, KeyData, SlotMap};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// The driver's key for the mailbox; a ring's key is its id, which is never this.
const MAILBOX: u64 = u64::MAX;

/// How often a ring is looked at whose front end gave no kick.
const UNKICKED: Duration = Duration::from_millis(1);

/// One reactor. The driver comes first, so that it is dropped first: it waits for requests whose buffers lie in `slots`.
pub(super) struct Core {
    driver: Driver,
    slots: Slots,
    rings: SlotMap<RingId, Ring>,
    /// Rings that may have work.
    hot: Vec<RingId>,
    /// Rings that wait for a moment.
    waiting: Vec<RingId>,
    /// Of the hot ones, in this turn, those that have had one request at a time.
    light: Vec<RingId>,
    /// Rings with answers to publish.
    touched: Vec<RingId>,
    events: Events,
    mailbox: Arc<Mailbox<Message>>,
    /// Messages taken and not yet obeyed: like events, they are taken one by one.
    letters: VecDeque<Message>,
    spin: SpinLimit,
    quitting: bool,
    /// How often guest memory had vanished when the rings were last checked.
    vanished: u64,
    /// The ring being served, in case that panics.
    current: Option<RingId>,
}

impl Core {
    pub(super) fn new(
        mailbox: Arc<Mailbox<Message>>,
        driver: DriverKind,
        max_spin: Duration,
    ) -> Result<Core, EngineError> {
        let mut driver = Driver::new(driver).map_err(|source| EngineError::Device {
            name: "a reactor".into(),
            source,
        })?;
        driver.watch(Arc::clone(mailbox.bell().fd()), MAILBOX);
        Ok(Core {
            driver,
            slots: Slots::default(),
            rings: SlotMap::with_key(),
            hot: Vec::new(),
            waiting: Vec::new(),
            light: Vec::new(),
            touched: Vec::new(),
            events: Events::default(),
            mailbox,
            letters: VecDeque::new(),
            spin: SpinLimit::new(max_spin),
            quitting: false,
            vanished: vanished_memory_count(),
            current: None,
        })
    }

    /// Serves until told to quit and the last ring has left.
    pub(super) fn run(mut self) {
        while !(self.quitting && self.rings.is_empty()) {
            if let Err(error) = self.pause() {
                tracing::error!(%error, "A reactor ends: it cannot wait for anything any more");
                break;
            }
            // A bug of ours in one ring must not take the others with it. Events are taken one by one, so none is lost.
            while catch_unwind(AssertUnwindSafe(|| self.turn())).is_err() {
                self.give_up_current();
            }
        }
        self.mailbox.close();
    }

    fn pause(&mut self) -> Result<(), holdfast_bdev::BdevError> {
        self.look_or_sleep()?;
        // They are popped from the end; what waits for a drive is to wait in the order it came back.
        self.events.completions.reverse();
        Ok(())
    }

    fn look_or_sleep(&mut self) -> Result<(), holdfast_bdev::BdevError> {
        if !self.hot.is_empty() {
            return self.driver.poll(&mut self.events);
        }
        let unkicked = self.rings.values().any(|ring| ring.kick.is_none());
        let patience = [unkicked.then_some(UNKICKED), self.time_to_deadline()];
        self.driver
            .wait(&mut self.events, patience.into_iter().flatten().min())?;
        if unkicked {
            let ids: Vec<RingId> = self.rings.keys().collect();
            ids.into_iter().for_each(|id| self.heat(id));
        }
        Ok(())
    }

    fn turn(&mut self) {
        self.slots.begin_turn();
        while let Some(key) = self.events.ready.pop() {
            if key == MAILBOX {
                self.letters.extend(self.mailbox.take());
            } else {
                self.kicked(RingId::from(KeyData::from_ffi(key)));
            }
        }
        while let Some(message) = self.letters.pop_front() {
            self.obey(message);
        }
        while let Some(completion) = self.events.completions.pop() {
            self.complete(completion);
        }
        // Before anything new is taken: nobody's answer is to wait for the requests of others.
        self.publish();
        if !self.waiting.is_empty() {
            self.expire();
        }
        self.serve_hot();
        self.publish();
        self.check_memory();
    }

    /// Memory has vanished somewhere: whoever stands on it ends.
    fn check_memory(&mut self) {
        let vanished = vanished_memory_count();
        if std::mem::replace(&mut self.vanished, vanished) != vanished {
            self.rings.values_mut().for_each(Ring::check_memory);
        }
    }

    fn obey(&mut self, message: Message) {
        match message {
            Message::Start(setup, reply) => drop(reply.send(self.start(*setup))),
            Message::Stop(id, reply) => {
                if let Some(ring) = self.rings.get_mut(id) {
                    ring.stop(reply, &mut self.slots);
                    self.touch(id); // What waited for what has just failed goes on.
                    self.end_if_over(id);
                }
            }
            Message::SetCall(id, call) => self.with(id, |ring| ring.set_call(call)),
            Message::SetErr(id, err) => self.with(id, |ring| ring.set_err(err)),
            Message::SetDisk(id, disk) => self.with(id, |ring| ring.set_disk(disk)),
            Message::SetPresence(id, presence) => self.set_presence(id, presence),
            Message::SetKick(id, kick) => self.set_kick(id, kick),
            Message::LimitsChanged => self.wake_all(),
            Message::SwapView(id, view, reply) => {
                if let Some(ring) = self.rings.get_mut(id) {
                    ring.swap_view(view, reply, &mut self.slots);
                }
            }
            Message::Quit => self.quitting = true,
        }
    }

    fn start(&mut self, setup: RingSetup) -> Result<RingId, String> {
        let ring = Ring::new(setup, &mut self.driver)?;
        crash_point!("start.recovered");
        // A guest that was promised an interrupt by a former owner gets it now.
        ring.interrupt();
        let id = self.rings.insert(ring);
        let kick = self.rings[id].kick.take();
        self.set_kick(id, kick);
        self.wait_if_needed(id);
        crash_point!("start.watched");
        Ok(id)
    }

    fn set_kick(&mut self, id: RingId, kick: Option<PeerEvent>) {
        let Some(ring) = self.rings.get_mut(id) else {
            return;
        };
        if let Some(old) = ring.watch.take() {
            self.driver.unwatch(old);
        }
        ring.watch = kick
            .as_ref()
            .map(|kick| self.driver.watch(kick.fd(), id.data().as_ffi()));
        ring.kick = kick;
        // Requests may be waiting already, kicked for through another descriptor, and nobody kicks for them again.
        self.heat(id);
    }

    fn with(&mut self, id: RingId, change: impl FnOnce(&mut Ring)) {
        if let Some(ring) = self.rings.get_mut(id) {
            change(ring);
        }
    }

    fn kicked(&mut self, id: RingId) {
        if let Some(kick) = self.rings.get(id).and_then(|ring| ring.kick.as_ref()) {
            kick.silence();
            self.heat(id);
        }
    }

    fn heat(&mut self, id: RingId) {
        if let Some(ring) = self.rings.get_mut(id)
            && !ring.hot
        {
            ring.hot = true;
            ring.wake();
            ring.disarm();
            self.hot.push(id);
        }
    }

    fn complete(&mut self, completion: Completion) {
        let Completion { token, status } = completion;
        let Some((slot, id, _)) = self.slots.find(token) else {
            return;
        };
        crash_point!("complete.taken");
        // A ring stays until its last request has been answered, so it is there.
        let Some(ring) = self.rings.get_mut(id) else {
            return;
        };
        self.current = Some(id);
        let last = ring.under_way() == 1;
        ring.spin.answered(last, self.spin, || self.slots.now_ns());
        ring.complete(slot, token, status, &mut self.slots, &mut self.driver);
        self.touch(id);
    }

    fn touch(&mut self, id: RingId) {
        if let Some(ring) = self.rings.get_mut(id)
            && !ring.touched
        {
            ring.touched = true;
            self.touched.push(id);
        }
    }

    /// Gives every hot ring one batch; a ring that has been empty for long enough goes cold.
    fn serve_hot(&mut self) {
        self.find_light();
        let mut at = 0;
        while let Some(&id) = self.hot.get(at) {
            self.current = Some(id);
            if self.serve(id) {
                at += 1;
            } else {
                self.hot.swap_remove(at);
            }
        }
        self.current = None;
    }

    /// One batch of one ring; false if it went cold.
    fn serve(&mut self, id: RingId) -> bool {
        let before = self.rings.get(id).map_or(0, Ring::under_way);
        let found = self.take(id);
        let Some(ring) = self.rings.get_mut(id) else {
            return false;
        };
        let now_ns = || self.slots.now_ns();
        let look_again = match found {
            Found::Nothing => ring.spin.look_again(self.spin, now_ns),
            Found::NotYet => false,
            Found::Batch | Found::Some => {
                let requests = ring.under_way().saturating_sub(before);
                ring.spin.found(requests.into(), self.spin, now_ns);
                // If looking on does not pay, it is armed at once: the call that sleeps then hands requests to the drive.
                found == Found::Batch
                    || ring.spin.pays(self.spin)
                    || ring.spin.look_again(self.spin, now_ns)
            }
        };
        ring.hot = look_again || (found != Found::NotYet && ring.arm());
        let hot = ring.hot;
        if found == Found::NotYet {
            self.wait_if_needed(id);
        }
        if found != Found::Nothing {
            self.touch(id);
        }
        hot
    }

    fn publish(&mut self) {
        while let Some(id) = self.touched.pop() {
            let Some(ring) = self.rings.get_mut(id) else {
                continue;
            };
            ring.touched = false;
            ring.go_on_waiting(&mut self.slots, &mut self.driver);
            ring.publish();
            // A guest that mostly comes back soon after an answer need not kick for it.
            let looked_for = ring.wake_at_ns().is_none() && ring.spin.pays(self.spin);
            if ring.is_free_again() || looked_for {
                self.heat(id);
            }
            self.end_if_over(id);
        }
    }

    fn end_if_over(&mut self, id: RingId) {
        if !self.rings.get(id).is_some_and(Ring::has_ended) {
            return;
        }
        if let Some(mut ring) = self.rings.remove(id) {
            if let Some(watch) = ring.watch.take() {
                self.driver.unwatch(watch);
            }
            ring.end();
        }
    }

    /// After a panic: the ring at fault takes no more work.
    #[cold]
    fn give_up_current(&mut self) {
        match self.current.take() {
            Some(id) => {
                tracing::error!(
                    ?id,
                    "Gave up a ring: serving it failed in a way that is a bug"
                );
                self.hot.retain(|hot| *hot != id);
                self.with(id, Ring::give_up);
            }
            None => tracing::error!("A reactor went on after a bug outside any ring"),
        }
    }
}
