//! Reactor threads: each owns some rings, serves them, and sleeps in one place. The control plane speaks to it by messages.
//!
//! A ring enters by [`Message::Start`] and leaves by the answer to [`Message::Stop`], which comes when its last request
//! has ended and not before. In between the session holds a [`RingKey`] only, and a key of a ring that has left finds
//! nothing.

mod core;
mod drain;
mod peer_event;
mod placement;
mod presence;
mod ring;
mod slots;
mod spin;

pub(crate) use drain::{Reply, RingEnd, Swap};
pub(crate) use peer_event::PeerEvent;
pub(crate) use presence::{Notice, Presence};
pub(crate) use ring::{Disk, RingSetup};

use crate::mailbox::Mailbox;
use crate::{EngineError, Processors};
use holdfast_bdev::DriverKind;
use holdfast_ring::MemView;
use placement::{Groups, Share};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

slotmap::new_key_type! {
    /// Names a ring inside its reactor, once.
    pub(crate) struct RingId;
}

/// Names a ring: valid from the answer to `Start` to the answer to `Stop`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RingKey {
    pub(crate) reactor: usize,
    pub(crate) ring: RingId,
}

/// What a reactor is told.
pub(crate) enum Message {
    /// Serve this ring. The answer is its name, or why it cannot be served.
    Start(Box<RingSetup>, Reply<Result<RingId, String>>),
    /// Take no more requests, finish what was taken, give the ring back.
    Stop(RingId, Reply<RingEnd>),
    /// Interrupt the guest through this from now on.
    SetCall(RingId, Option<PeerEvent>),
    /// Be kicked through this from now on.
    SetKick(RingId, Option<PeerEvent>),
    /// Report a broken ring through this.
    SetErr(RingId, Option<PeerEvent>),
    /// The guest's memory has changed. Answered twice, see [`Swap`].
    SwapView(RingId, Arc<MemView>, Reply<Swap>),
    /// The drive has gone, come back, or turned out to be there.
    SetPresence(RingId, Presence),
    /// Size, limits or write cache have changed.
    SetDisk(RingId, Disk),
    /// The limits of some volume have changed.
    LimitsChanged,
    /// End when the last ring has left.
    Quit,
}

/// The control plane's end of a reactor.
#[derive(Debug)]
pub(crate) struct Reactor {
    mailbox: Arc<Mailbox<Message>>,
}

/// All reactors of an engine.
#[derive(Debug)]
pub(crate) struct Reactors {
    reactors: Vec<Reactor>,
    next: std::sync::atomic::AtomicUsize,
    groups: Groups,
}

/// How the reactors are set up.
#[derive(Clone, Debug)]
pub(crate) struct ReactorPlan {
    pub(crate) cpus: Vec<usize>,
    pub(crate) driver: DriverKind,
    pub(crate) max_spin: Duration,
}

impl Reactors {
    /// Starts the threads; an error leaves none behind.
    pub(crate) fn start(
        plan: &ReactorPlan,
    ) -> Result<(Reactors, Vec<JoinHandle<()>>), EngineError> {
        let groups = Groups::of_this_process();
        let share = Share::found(&groups);
        let places: Vec<Option<usize>> = if plan.cpus.is_empty() {
            vec![None; share.reactors()]
        } else {
            plan.cpus.iter().copied().map(Some).collect()
        };
        share.tell(places.len(), &plan.cpus);
        let mut all = Reactors {
            reactors: Vec::new(),
            next: 0.into(),
            groups,
        };
        let mut threads = Vec::new();
        for (number, cpu) in places.into_iter().enumerate() {
            match start_one(number, cpu, plan) {
                Ok((reactor, thread)) => {
                    all.reactors.push(reactor);
                    threads.push(thread);
                }
                Err(error) => {
                    all.quit();
                    return Err(error);
                }
            }
        }
        Ok((all, threads))
    }

    /// What they run on.
    pub(crate) fn processors(&self) -> Processors {
        placement::processors(self.reactors.len(), &self.groups)
    }

    /// The reactor for the next ring: in turn, so that the queues of one disk spread.
    pub(crate) fn pick(&self) -> usize {
        let turn = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        turn % self.reactors.len()
    }

    /// Leaves a message; false if that reactor has ended.
    pub(crate) fn send(&self, reactor: usize, message: Message) -> bool {
        let target = self.reactors.get(reactor);
        target.is_some_and(|reactor| reactor.mailbox.send(message).is_ok())
    }

    /// Asks something and waits for the answer; none if the reactor has ended.
    pub(crate) fn ask<T>(
        &self,
        reactor: usize,
        question: impl FnOnce(Reply<T>) -> Message,
    ) -> Option<T> {
        self.ask_later(reactor, question).recv().ok()
    }

    /// Asks something; the answer comes through the receiver, which is cut off if the reactor has ended.
    pub(crate) fn ask_later<T>(
        &self,
        reactor: usize,
        question: impl FnOnce(Reply<T>) -> Message,
    ) -> Receiver<T> {
        let (reply, answer) = channel();
        self.send(reactor, question(reply));
        answer
    }

    /// Every reactor ends once its last ring has left.
    pub(crate) fn quit(&self) {
        self.tell_all(|| Message::Quit);
    }

    /// Leaves a message at each.
    pub(crate) fn tell_all(&self, message: impl Fn() -> Message) {
        for reactor in 0..self.reactors.len() {
            self.send(reactor, message());
        }
    }
}

fn start_one(
    number: usize,
    cpu: Option<usize>,
    plan: &ReactorPlan,
) -> Result<(Reactor, JoinHandle<()>), EngineError> {
    let failed = |source| EngineError::Thread {
        what: "reactor",
        source,
    };
    let mailbox = Arc::new(Mailbox::new().map_err(failed)?);
    let (ready, started) = channel();
    let (theirs, driver, max_spin) = (Arc::clone(&mailbox), plan.driver, plan.max_spin);
    let thread = std::thread::Builder::new()
        .name(format!("reactor-{number}"))
        .spawn(move || {
            // The wait point belongs to the thread that makes it, so it is made here.
            match pin(cpu).and_then(|()| core::Core::new(theirs, driver, max_spin)) {
                Ok(core) => {
                    let _ = ready.send(Ok(()));
                    core.run();
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        })
        .map_err(failed)?;
    match started.recv() {
        Ok(Ok(())) => Ok((Reactor { mailbox }, thread)),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(failed(std::io::Error::other("it ended at once"))),
    }
}

fn pin(cpu: Option<usize>) -> Result<(), EngineError> {
    let Some(cpu) = cpu else { return Ok(()) };
    let refused = |why: String| EngineError::Invalid {
        what: format!("CPU {cpu} for a reactor"),
        why,
    };
    if cpu >= CpuSet::MAX_CPU {
        return Err(refused(format!(
            "CPUs are numbered below {}",
            CpuSet::MAX_CPU
        )));
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).map_err(|errno| {
        refused(format!(
            "this process may not run there ({errno}); see the Cpus_allowed_list line of /proc/self/status"
        ))
    })
}
