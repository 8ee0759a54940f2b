//! A ring's way into a reactor and out of it. Mailbox and drain are the product's; the loop below does what
//! `reactor/core.rs` and `reactor/ring.rs` do with them, with a request as a number and guest memory as a flag.

use crate::SCHEDULES;
use crate::drain::{Drain, Reply, RingEnd, Swap};
use crate::mailbox::Mailbox;
use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::Arc;
use shuttle::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use shuttle::sync::mpsc::{Receiver, Sender, channel};
use shuttle::{check_random, thread};
use std::collections::BTreeMap;

/// One state of a guest's memory table. Whoever touches it after it was freed has found a bug.
#[derive(Debug)]
struct View {
    epoch: u64,
    freed: AtomicBool,
}

impl View {
    fn new(epoch: u64) -> Arc<View> {
        Arc::new(View {
            epoch,
            freed: AtomicBool::new(false),
        })
    }

    fn touch(&self) {
        assert!(
            !self.freed.load(Ordering::SeqCst),
            "view {} was freed",
            self.epoch
        );
    }

    fn free(&self) {
        self.freed.store(true, Ordering::SeqCst);
    }
}

type RingId = u64;

enum Message {
    Start(Arc<View>, Reply<RingId>),
    Stop(RingId, Reply<RingEnd>),
    SwapView(RingId, Arc<View>, Reply<Swap>),
    Quit,
    /// In the product this comes through the driver, which is waited for in the same place.
    Completed(RingId, Arc<View>),
}

/// What the guest has made available; shared memory in the product.
type Avail = Arc<AtomicU16>;

struct Ring {
    drain: Drain,
    view: Arc<View>,
    next: u16,
    outstanding: u16,
}

struct Reactor {
    mailbox: Arc<Mailbox<Message>>,
    avail: Avail,
    device: Sender<(RingId, Arc<View>)>,
    rings: BTreeMap<RingId, Ring>,
    next_id: RingId,
    quitting: bool,
}

impl Reactor {
    fn run(mut self) {
        while !(self.quitting && self.rings.is_empty()) {
            self.mailbox.bell().wait();
            for message in self.mailbox.take() {
                self.obey(message);
            }
            self.serve();
            self.end_what_is_over();
        }
        self.mailbox.close();
    }

    fn obey(&mut self, message: Message) {
        match message {
            Message::Start(view, reply) => {
                self.next_id += 1;
                let (drain, next, outstanding) = (Drain::default(), 0, 0);
                let ring = Ring {
                    drain,
                    view,
                    next,
                    outstanding,
                };
                self.rings.insert(self.next_id, ring);
                let _ = reply.send(self.next_id);
            }
            Message::Stop(id, reply) => {
                if let Some(ring) = self.rings.get_mut(&id) {
                    ring.drain.begin_stop(reply);
                }
            }
            Message::SwapView(id, view, reply) => {
                if let Some(ring) = self.rings.get_mut(&id) {
                    ring.drain.swap(view.epoch, ring.outstanding, reply);
                    ring.view = view;
                }
            }
            Message::Quit => self.quitting = true,
            Message::Completed(id, view) => self.answer(id, &view),
        }
    }

    fn answer(&mut self, id: RingId, view: &View) {
        let ring = self
            .rings
            .get_mut(&id)
            .expect("a ring stays until its last answer");
        // The status byte goes to the memory the request was taken under, the used element to the ring's own.
        let older = ring.drain.is_older(Some(view.epoch));
        view.touch();
        ring.view.touch();
        ring.outstanding -= 1;
        if older {
            ring.drain.one_less();
        }
    }

    fn serve(&mut self) {
        for (id, ring) in &mut self.rings {
            while !ring.drain.is_stopping() && ring.next < self.avail.load(Ordering::SeqCst) {
                ring.view.touch();
                ring.next += 1;
                ring.outstanding += 1;
                self.device.send((*id, Arc::clone(&ring.view))).unwrap();
            }
        }
    }

    fn end_what_is_over(&mut self) {
        let over = |ring: &Ring| ring.drain.has_ended(ring.outstanding);
        let ids: Vec<RingId> = self.rings.keys().copied().collect();
        for id in ids {
            if !over(&self.rings[&id]) {
                continue;
            }
            let ring = self.rings.remove(&id).expect("it was there just now");
            ring.view.touch();
            let last_avail = ring.next;
            ring.drain.end(RingEnd { last_avail });
        }
    }
}

/// Completes requests in any order, on its own thread, writing to guest memory before.
fn device(work: &Receiver<(RingId, Arc<View>)>, mailbox: &Mailbox<Message>) {
    let mut held = Vec::new();
    while let Ok(request) = work.recv() {
        held.push(request);
        while let Ok(more) = work.try_recv() {
            held.push(more);
        }
        while !held.is_empty() {
            let (id, view) = held.swap_remove(thread_rng().gen_range(0..held.len()));
            view.touch();
            // Never given back: a reactor outlives its requests.
            assert!(mailbox.send(Message::Completed(id, view)).is_ok());
        }
    }
}

fn ask<T>(mailbox: &Mailbox<Message>, question: impl FnOnce(Sender<T>) -> Message) -> Receiver<T> {
    let (reply, answer) = channel();
    assert!(mailbox.send(question(reply)).is_ok());
    answer
}

/// A session: starts a ring, changes the guest's memory, stops the ring, frees everything, and does so once more.
fn session(mailbox: &Mailbox<Message>) {
    for _ in 0..2 {
        let (first, second) = (View::new(1), View::new(2));
        let id = ask(mailbox, |reply| Message::Start(Arc::clone(&first), reply));
        let id = id.recv().expect("every start is answered");
        let swap = ask(mailbox, |reply| {
            Message::SwapView(id, Arc::clone(&second), reply)
        });
        assert_eq!(swap.recv(), Ok(Swap::Done));
        assert_eq!(swap.recv(), Ok(Swap::Drained));
        first.free();
        let stop = ask(mailbox, |reply| Message::Stop(id, reply));
        let end = stop.recv().expect("every stop is answered");
        assert!(end.last_avail <= GUEST_REQUESTS);
        second.free();
        // The name of a ring that has left finds nothing, and says so.
        let late = ask(mailbox, |reply| Message::Stop(id, reply));
        assert!(late.recv().is_err());
    }
}

const GUEST_REQUESTS: u16 = 3;

fn hand_over() {
    let mailbox = Arc::new(Mailbox::new().unwrap());
    let avail = Avail::default();
    let (device_end, work) = channel();
    let reactor = Reactor {
        mailbox: Arc::clone(&mailbox),
        avail: Arc::clone(&avail),
        device: device_end,
        rings: BTreeMap::new(),
        next_id: 0,
        quitting: false,
    };
    let reactor = thread::spawn(move || reactor.run());
    let theirs = Arc::clone(&mailbox);
    let device = thread::spawn(move || device(&work, &theirs));
    let kicks = Arc::clone(&mailbox);
    let guest = thread::spawn(move || {
        for _ in 0..GUEST_REQUESTS {
            avail.fetch_add(1, Ordering::SeqCst);
            kicks.bell().ring();
        }
    });
    session(&mailbox);
    guest.join().unwrap();
    assert!(mailbox.send(Message::Quit).is_ok());
    reactor.join().unwrap();
    device.join().unwrap();
}

#[test]
fn ring_is_given_back_when_nothing_is_under_way_and_touches_nothing_afterwards() {
    check_random(hand_over, SCHEDULES);
}
