//! What a ring owes to others: its return to whoever asked for it, and word to whoever waits until guest memory that has
//! been taken out of the table is used no longer.

use crate::sync::Sender;

/// Where an answer goes; the asker may have gone.
pub(crate) type Reply<T> = Sender<T>;

/// How a ring left its reactor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RingEnd {
    /// Position of the next element to take: the answer to GET_VRING_BASE.
    pub(crate) last_avail: u16,
}

/// How far a ring has followed a change of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Swap {
    /// Every request from now on uses the new view.
    Done,
    /// No request uses an older view any more: what is gone from the table may be freed.
    Drained,
}

/// The debts of one ring.
#[derive(Default)]
pub(super) struct Drain {
    stopping: Option<Reply<RingEnd>>,
    /// The view of guest memory that was announced last; a ring that the view does not hold keeps standing on another.
    epoch: Option<u64>,
    /// Requests taken under an older view, and who waits for them to end.
    older: u16,
    waiting: Vec<Reply<Swap>>,
}

impl Drain {
    /// The ring has to be given back.
    pub(super) fn begin_stop(&mut self, reply: Reply<RingEnd>) {
        self.stopping = Some(reply);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// Whether the ring can be given back: nothing is under way any more.
    pub(super) fn has_ended(&self, outstanding: u16) -> bool {
        self.is_stopping() && outstanding == 0
    }

    /// Gives the ring back to whoever asked for it.
    pub(super) fn end(self, end: RingEnd) {
        if let Some(reply) = self.stopping {
            let _ = reply.send(end);
        }
    }

    /// New requests use the view `epoch` from now on; all `outstanding` ones are older.
    pub(super) fn swap(&mut self, epoch: u64, outstanding: u16, reply: Reply<Swap>) {
        self.epoch = Some(epoch);
        self.older = outstanding;
        let _ = reply.send(Swap::Done);
        self.waiting.push(reply);
        self.tell_if_drained();
    }

    /// Whether a request taken under the view `epoch` keeps somebody waiting.
    pub(super) fn is_older(&self, epoch: Option<u64>) -> bool {
        self.older > 0 && epoch != self.epoch
    }

    /// An older request has let go of its memory.
    pub(super) fn one_less(&mut self) {
        self.older -= 1;
        self.tell_if_drained();
    }

    fn tell_if_drained(&mut self) {
        if self.older == 0 {
            for reply in self.waiting.drain(..) {
                let _ = reply.send(Swap::Drained);
            }
        }
    }
}
