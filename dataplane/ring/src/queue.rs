//! The split virtqueue (virtio 1.x section 2.7), device side: takes chains off the available ring in batches and puts
//! used elements back with one store and at most one interrupt per batch.

mod chain;
mod error;
mod facts;
mod foresight;
mod heads;
mod layout;
mod rings;

pub use chain::{Chain, MAX_CHAIN};
pub use error::{QueueError, RingPart};
pub use layout::{MAX_QUEUE_SIZE, QueueFeatures, QueueLayout};

use crate::blk::{Limits, Request};
use crate::inflight::{InflightQueue, InflightSlot, Recovered};
use crate::mem::{MemView, Window};
use foresight::Foresight;
use heads::Heads;
use holdfast_crash::crash_point;
use rings::{DescIndex, Rings};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

/// One split virtqueue, owned by the thread that polls it (it is not `Send`).
///
/// Every index is 16 bits wide and wraps; only differences mean anything. A queue that has returned an error from
/// [`pop`](Self::pop), [`pop_chain`](Self::pop_chain) or [`arm`](Self::arm) is poisoned: it yields the same error for
/// ever, but what was popped before can still be pushed and published.
#[derive(Debug)]
pub struct SplitQueue {
    rings: Rings,
    layout: QueueLayout,
    features: QueueFeatures,
    /// Position of the next element to take from the available ring.
    next_avail: u16,
    /// `avail.idx` as last loaded; what lies between is this batch.
    avail_idx: u16,
    /// Position of the next element to write to the used ring; ahead of `published_used` while elements are staged.
    next_used: u16,
    published_used: u16,
    /// Whether `published_used` is known to have been announced to the guest: not so for what a former owner published.
    announced: bool,
    /// Which heads are popped and not pushed.
    heads: Heads,
    /// Heads that were taken, by a former owner or by us, and are to be popped again before anything new; youngest first.
    replay: Vec<u16>,
    /// The chain popped last came from `replay`.
    replayed: bool,
    /// Where a successor will find what is in flight.
    inflight: Option<InflightQueue>,
    /// Heads staged since the last publish.
    batch: Vec<u16>,
    /// The window that held the last buffer.
    window: Window,
    foresight: Foresight,
    poison: Option<QueueError>,
}

impl SplitQueue {
    /// Takes over a ring at the available position `last_avail`; the used position is read from the ring.
    ///
    /// # Errors
    /// If the size is not a power of two up to [`MAX_QUEUE_SIZE`], or a part is misaligned, is not in one memory
    /// region, or overlaps another part.
    pub fn new(
        view: Arc<MemView>,
        layout: QueueLayout,
        features: QueueFeatures,
        last_avail: u16,
    ) -> Result<SplitQueue, QueueError> {
        let rings = Rings::resolve(view, &layout, features)?;
        Ok(SplitQueue::at(rings, layout, features, last_avail))
    }

    /// Takes over a ring together with its in-flight region. What a former owner took and never answered is popped
    /// first, in the order it was taken; the available position follows from ring and region.
    ///
    /// # Errors
    /// As [`new`](Self::new), or if the region contradicts the ring or itself.
    pub fn with_inflight(
        view: Arc<MemView>,
        layout: QueueLayout,
        features: QueueFeatures,
        slot: InflightSlot,
    ) -> Result<SplitQueue, QueueError> {
        let rings = Rings::resolve(view, &layout, features)?;
        let used = rings.used_idx();
        let Recovered { queue, resubmit } = InflightQueue::recover(slot, layout.size, used)?;
        // At most the size of the ring, which is below 2^16.
        let taken = u16::try_from(resubmit.len()).unwrap_or(layout.size);
        let mut this = SplitQueue::at(rings, layout, features, used.wrapping_add(taken));
        this.replay = resubmit;
        this.replay.reverse();
        this.inflight = Some(queue);
        Ok(this)
    }

    fn at(
        rings: Rings,
        layout: QueueLayout,
        features: QueueFeatures,
        last_avail: u16,
    ) -> SplitQueue {
        let used = rings.used_idx();
        SplitQueue {
            rings,
            layout,
            features,
            next_avail: last_avail,
            avail_idx: last_avail,
            next_used: used,
            published_used: used,
            announced: false,
            heads: Heads::new(layout.size),
            replay: Vec::new(),
            replayed: false,
            inflight: None,
            batch: Vec::with_capacity(layout.size.into()),
            window: Window::NONE,
            foresight: Foresight::default(),
            poison: None,
        }
    }

    /// Takes the next block request off the ring; false if there is none.
    ///
    /// A request that is well formed but cannot be served comes as [`Kind::Rejected`](crate::blk::Kind::Rejected).
    ///
    /// # Errors
    /// The ring or the chain breaks a rule of virtio; the queue is poisoned and must not be served any longer.
    #[inline]
    pub fn pop(&mut self, request: &mut Request, limits: &Limits) -> Result<bool, QueueError> {
        let popped = self.pop_chain(request.chain_mut()).and_then(|popped| {
            if popped {
                crash_point!("pop.marked");
                request.parse(limits).map_err(|error| {
                    self.take_back(request.head());
                    self.poisoned(error)
                })?;
            }
            Ok(popped)
        });
        if popped.is_err() {
            request.reset();
        }
        popped
    }

    /// Takes the next descriptor chain off the ring without looking into it; false if there is none.
    ///
    /// # Errors
    /// As [`pop`](Self::pop), for what concerns ring and descriptors.
    #[inline]
    pub fn pop_chain(&mut self, chain: &mut Chain) -> Result<bool, QueueError> {
        if let Some(error) = &self.poison {
            return Err(error.clone());
        }
        match self.try_pop(chain) {
            Ok(popped) => Ok(popped),
            Err(error) => {
                chain.clear();
                Err(self.poisoned(error))
            }
        }
    }

    /// Stages the answer to one popped head; the guest sees it after [`publish`](Self::publish).
    ///
    /// `used_len` is the number of bytes written from the start of the chain's writable part. A head that was not popped
    /// is dropped and poisons the queue: writing it would hand the guest a buffer it may be using.
    #[inline]
    pub fn push(&mut self, head: u16, used_len: u32) {
        if !self.heads.remove(head) {
            self.poisoned(QueueError::HeadNotOutstanding { head });
            return;
        }
        self.rings.write_used(self.next_used, head, used_len);
        crash_point!("push.used-element");
        self.next_used = self.next_used.wrapping_add(1);
        if let Some(inflight) = &mut self.inflight {
            inflight.stage(head);
            self.batch.push(head);
        }
    }

    /// Leaves a popped head to a successor: it stays marked in the in-flight region, and this owner neither answers it nor
    /// waits for it. False without such a region, where nobody would ever answer it.
    #[must_use]
    pub fn forget(&mut self, head: u16) -> bool {
        self.inflight.is_some() && self.heads.remove(head)
    }

    /// Undoes the pop of a head: it is the next to be popped, and its chain is read again from memory as it is then. False
    /// if it was not popped.
    #[must_use]
    pub fn put_back(&mut self, head: u16) -> bool {
        let popped = self.heads.remove(head);
        self.replay.extend(popped.then_some(head));
        popped
    }

    /// Shows all staged answers to the guest at once; true if the guest wants an interrupt for them.
    #[inline]
    pub fn publish(&mut self) -> bool {
        if self.next_used == self.published_used {
            return false;
        }
        let (old, new) = (self.published_used, self.next_used);
        crash_point!("publish.staged");
        self.rings.store_used_idx(new);
        crash_point!("publish.used-idx");
        self.published_used = new;
        if let Some(inflight) = &mut self.inflight {
            inflight.settle(&self.batch, new);
            self.batch.clear();
        }
        // The guest writes used_event (or the flag), then reads used.idx; we store used.idx, then read its wish. Without
        // a full barrier on both sides each could miss the other's store and the guest would wait for ever.
        fence(Ordering::SeqCst);
        if !self.features.event_idx {
            return !self.rings.no_interrupt();
        }
        let first = !std::mem::replace(&mut self.announced, true);
        first || crosses(self.rings.used_event(), old, new)
    }

    /// Asks the guest to kick for the next element; true if one is there already, so do not sleep.
    ///
    /// # Errors
    /// If `avail.idx` is out of bounds; the queue is poisoned. Also on a queue poisoned before.
    pub fn arm(&mut self) -> Result<bool, QueueError> {
        if let Some(error) = &self.poison {
            return Err(error.clone());
        }
        if self.features.event_idx {
            self.rings.store_avail_event(self.next_avail);
        } else {
            self.rings.store_no_notify(false);
        }
        // Pairs with the guest's barrier between its store of avail.idx and its load of our wish (see `publish`).
        fence(Ordering::SeqCst);
        match self.load_avail_idx() {
            Ok(()) => Ok(self.avail_idx != self.next_avail || !self.replay.is_empty()),
            Err(error) => Err(self.poisoned(error)),
        }
    }

    /// Whether there is something to pop.
    ///
    /// # Errors
    /// As [`arm`](Self::arm).
    pub fn has_more(&mut self) -> Result<bool, QueueError> {
        if let Some(error) = &self.poison {
            return Err(error.clone());
        }
        if self.replay.is_empty() && self.next_avail == self.avail_idx {
            self.load_avail_idx()
                .map_err(|error| self.poisoned(error))?;
        }
        Ok(!self.replay.is_empty() || self.next_avail != self.avail_idx)
    }

    /// Tells the guest that kicks are not needed while we poll.
    pub fn disarm(&mut self) {
        // With EVENT_IDX the armed position falls behind by itself: at most one more kick per 65536 elements.
        if !self.features.event_idx {
            self.rings.store_no_notify(true);
        }
    }

    /// Follows a change of the guest's memory table. Requests popped before keep the view they were popped under.
    ///
    /// # Errors
    /// If the new view does not hold the three parts of the ring; the queue is poisoned and keeps the old view.
    pub fn swap_view(&mut self, view: Arc<MemView>) -> Result<(), QueueError> {
        match Rings::resolve(view, &self.layout, self.features) {
            Ok(rings) => {
                crash_point!("swap-view.resolved");
                self.rings = rings;
                self.window = Window::NONE;
                Ok(())
            }
            Err(error) => Err(self.poisoned(error)),
        }
    }

    #[inline]
    fn try_pop(&mut self, chain: &mut Chain) -> Result<bool, QueueError> {
        let Some(head) = self.next_head()? else {
            return Ok(false);
        };
        let index = DescIndex::new(head, self.layout.size).ok_or(QueueError::HeadOutOfRange {
            head,
            size: self.layout.size,
        })?;
        if !self.heads.insert(index) {
            return Err(QueueError::HeadRepeated { head });
        }
        if !self.replayed {
            self.next_avail = self.next_avail.wrapping_add(1);
        }
        crash_point!("pop.taken");
        self.rings.will_write_used(self.next_used);
        chain.start(head, Rc::clone(self.rings.shared_view()));
        let walked = chain::walk(&self.rings, self.features, &mut self.window, index, chain);
        match (&walked, &mut self.inflight) {
            (Err(_), _) => self.take_back(head),
            (Ok(()), Some(inflight)) if !self.replayed => inflight.mark(head),
            (Ok(()), _) => {}
        }
        self.foresight.popped(&self.rings, chain);
        walked.map(|()| true)
    }

    /// The next head: one to be done again, or the next of the available ring.
    #[inline]
    fn next_head(&mut self) -> Result<Option<u16>, QueueError> {
        self.replayed = false;
        if !self.replay.is_empty() {
            self.replayed = true;
            crash_point!("replay.next");
            return Ok(self.replay.pop());
        }
        if self.next_avail == self.avail_idx {
            self.load_avail_idx()?;
            if self.next_avail == self.avail_idx {
                return Ok(None);
            }
        }
        Ok(Some(self.rings.avail_head(self.next_avail)))
    }

    /// Undoes the pop of a chain that turned out malformed: it will never be answered, so a drain must not wait for it.
    #[cold]
    fn take_back(&mut self, head: u16) {
        self.heads.remove(head);
        if !self.replayed {
            self.next_avail = self.next_avail.wrapping_sub(1);
        }
        if let Some(inflight) = &mut self.inflight {
            inflight.unmark(head);
        }
    }

    /// Loads `avail.idx` once and checks that the guest has not made more available than the ring can hold.
    #[inline]
    fn load_avail_idx(&mut self) -> Result<(), QueueError> {
        self.foresight.look(&self.rings, self.next_avail);
        let avail_idx = self.rings.avail_idx();
        let waiting = avail_idx.wrapping_sub(self.next_avail);
        // Both are bounded by the size of the ring, and no head is in both.
        let taken = self.heads.len() + u16::try_from(self.replay.len()).unwrap_or(0);
        let room = self.layout.size.saturating_sub(taken);
        if waiting > room {
            let (last_avail, size) = (self.next_avail, self.layout.size);
            return Err(QueueError::AvailIndexJumped {
                avail_idx,
                last_avail,
                room,
                size,
            });
        }
        self.foresight.found(waiting, taken);
        self.avail_idx = avail_idx;
        Ok(())
    }

    #[cold]
    fn poisoned(&mut self, error: QueueError) -> QueueError {
        self.poison.get_or_insert(error).clone()
    }
}

/// Whether moving an index from `old` to `new` passes `event` (virtio 1.x section 2.7.7.2, modulo 65536).
#[inline]
fn crosses(event: u16, old: u16, new: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests;
