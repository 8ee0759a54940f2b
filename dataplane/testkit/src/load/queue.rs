//! One queue under load: it takes answers, and asks again for each, with as few words touched as virtio allows.

use super::cells::Cells;
use super::pattern::Draw;
use super::{Clock, Pattern, Tally, Wait};
use crate::frontend::memory::Region;
use crate::frontend::ring::crosses;
use crate::frontend::wires::Wires;
use crate::frontend::{
    DriverRing, Guest, GuestError, GuestQueue, RingPlace, feature, status, wait_fd,
};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

/// The driver's side of one queue, made for load. All its requests go through indirect tables.
#[derive(Debug)]
pub struct LoadQueue {
    index: usize,
    wires: Arc<Wires>,
    region: Arc<Region>,
    room: (u64, u64),
    event_idx: bool,
    wait: Wait,
    pub(super) cells: Arc<Cells>,
    draw: Draw,
    /// When each request was asked for, in ticks; 0 while it is not under way.
    asked: Vec<u64>,
    next_avail: u16,
    next_used: u16,
}

impl LoadQueue {
    /// Takes all queues of a guest for load; they must not have been used. The guest must be kept: it holds the
    /// connection.
    ///
    /// # Errors
    /// [`GuestError::Invalid`] without indirect descriptors, or if its memory is too small for the pattern.
    pub fn all(guest: &mut Guest, pattern: Pattern) -> Result<Vec<LoadQueue>, GuestError> {
        if guest.features() & feature::INDIRECT == 0 {
            let what = "a back end without indirect descriptors".to_owned();
            return Err(GuestError::Invalid { what });
        }
        let event_idx = guest.features() & feature::EVENT_IDX != 0;
        let region = Arc::clone(&guest.memory().regions()[0]);
        let queues = guest.take_queues();
        let rings = queues
            .iter()
            .map(|q| RingPlace::bytes(q.ring().place().size));
        let first: u64 = rings.sum();
        let each = (region.size - first) / queues.len() as u64;
        let seat = |(at, queue): (u64, &GuestQueue)| {
            let room = (region.guest_addr + first + at * each, each);
            let region = Arc::clone(&region);
            let made = LoadQueue::new(queue.wires(), region, room, event_idx, pattern)?;
            let index = queue.index();
            Ok(LoadQueue { index, ..made })
        };
        (0..).zip(&queues).map(seat).collect()
    }

    pub(super) fn new(
        wires: Arc<Wires>,
        region: Arc<Region>,
        room: (u64, u64),
        event_idx: bool,
        pattern: Pattern,
    ) -> Result<LoadQueue, GuestError> {
        let cells = Cells::new(Arc::clone(&region), room, pattern.depth, pattern.bytes)?;
        let mut queue = LoadQueue {
            index: 0,
            wires,
            region,
            room,
            event_idx,
            wait: Wait::Poll,
            cells: Arc::new(cells),
            draw: Draw::new(pattern, room.0),
            asked: Vec::new(),
            next_avail: 0,
            next_used: 0,
        };
        queue.format(pattern)?;
        Ok(queue)
    }

    /// Loads the queue in another way from now on. Nothing is under way between two runs.
    ///
    /// # Errors
    /// [`GuestError::Invalid`] if ring or memory are too small for the pattern.
    pub fn set_pattern(&mut self, pattern: Pattern, wait: Wait) -> Result<(), GuestError> {
        self.wait = wait;
        let cells = Cells::new(
            Arc::clone(&self.region),
            self.room,
            pattern.depth,
            pattern.bytes,
        )?;
        self.cells = Arc::new(cells);
        self.draw = Draw::new(pattern, self.room.0 + u64::from(self.next_avail));
        self.format(pattern)
    }

    pub(super) fn wait_kind(&self) -> Wait {
        self.wait
    }

    pub(super) fn depth(&self) -> u16 {
        u16::try_from(self.asked.len()).unwrap_or(u16::MAX)
    }

    fn format(&mut self, pattern: Pattern) -> Result<(), GuestError> {
        let size = self.ring().place().size;
        if pattern.depth > size || pattern.depth == 0 {
            let what = format!("{} requests in a ring of {size}", pattern.depth);
            return Err(GuestError::Invalid { what });
        }
        self.asked = vec![0; pattern.depth.into()];
        for head in 0..pattern.depth {
            self.cells.format(head);
            self.ring().set_desc(head, self.cells.head(head));
        }
        Ok(())
    }

    /// Asks for the first `count` requests.
    pub(super) fn prime(&mut self, clock: &Clock, count: u16) -> Result<(), GuestError> {
        self.want_interrupts(false);
        let (now, old) = (clock.ticks(), self.next_avail);
        for head in 0..count {
            self.ask(head, now);
        }
        self.show(old)
    }

    /// Takes all answers there are and, if told to go on, asks again for each; returns how many there were.
    #[inline]
    pub(super) fn turn(
        &mut self,
        clock: &Clock,
        tally: &mut Tally,
        go_on: bool,
    ) -> Result<u16, GuestError> {
        self.take_up_to(u16::MAX, clock, tally, go_on)
    }

    /// [`turn`](Self::turn), with no more than `most` answers, so that another queue is looked at soon.
    #[inline]
    pub(super) fn take_up_to(
        &mut self,
        most: u16,
        clock: &Clock,
        tally: &mut Tally,
        go_on: bool,
    ) -> Result<u16, GuestError> {
        let (first, old) = (self.next_used, self.next_avail);
        let answers = self.ring().used_idx().wrapping_sub(first).min(most);
        if answers == 0 {
            return Ok(0);
        }
        let now = clock.ticks();
        // `take` refuses an answer that was not asked for, so this ends even if the index is nonsense.
        for _ in 0..answers {
            let head = self.take(now, clock, tally)?;
            if go_on {
                self.ask(head, now);
            }
        }
        tally.now = now;
        if go_on {
            self.show(old)?;
        }
        if self.wait == Wait::Poll && (first ^ self.next_used) & 0x4000 != 0 {
            self.want_interrupts(false);
        }
        Ok(answers)
    }

    #[inline]
    fn take(&mut self, now: u64, clock: &Clock, tally: &mut Tally) -> Result<u16, GuestError> {
        let (id, _) = self.ring().used(self.next_used);
        let head = u16::try_from(id).unwrap_or(u16::MAX);
        let asked = match self.asked.get_mut(usize::from(head)) {
            Some(asked) if *asked != 0 => std::mem::take(asked),
            _ => {
                return Err(GuestError::NotOutstanding {
                    queue: self.index,
                    head: id,
                });
            }
        };
        self.next_used = self.next_used.wrapping_add(1);
        tally.add(
            clock.ns(now.saturating_sub(asked)),
            self.cells.status(head) == status::OK,
        );
        Ok(head)
    }

    #[inline]
    fn ask(&mut self, head: u16, now: u64) {
        let (sector, reads) = self.draw.draw();
        self.cells.set(head, sector, reads);
        self.asked[usize::from(head)] = now;
        self.ring().set_avail(self.next_avail, head);
        self.next_avail = self.next_avail.wrapping_add(1);
    }

    /// Shows everything asked for since `old` to the device, and kicks it if it wants that.
    #[inline]
    fn show(&mut self, old: u16) -> Result<(), GuestError> {
        let new = self.next_avail;
        self.ring().set_avail_idx(new);
        // The device stores its wish, then loads avail.idx; we store avail.idx, then load its wish.
        fence(Ordering::SeqCst);
        let wanted = match self.event_idx {
            true => crosses(self.ring().avail_event(), old, new),
            false => !self.ring().no_notify(),
        };
        if wanted {
            self.wires.kick.write(1).map_err(GuestError::io("kick"))?;
        }
        Ok(())
    }

    /// Sleeps until the device interrupts; returns at once if an answer is there already.
    pub(super) fn sleep(&mut self, after: Duration) -> Result<(), GuestError> {
        self.want_interrupts(true);
        fence(Ordering::SeqCst);
        if self.ring().used_idx() != self.next_used {
            return Ok(());
        }
        if !wait_fd(&self.wires.call, Instant::now() + after)? {
            return Err(self.timed_out(after));
        }
        // Whoever has just been woken finds the interrupt there.
        let _ = self.wires.call.read();
        Ok(())
    }

    pub(super) fn timed_out(&self, after: Duration) -> GuestError {
        let what = format!("answer on queue {}", self.index);
        GuestError::Timeout { what, after }
    }

    fn want_interrupts(&self, wanted: bool) {
        match (self.event_idx, wanted) {
            (true, true) => self.ring().set_used_event(self.next_used),
            // As far away as positions get.
            (true, false) => self.ring().set_used_event(self.next_used.wrapping_sub(1)),
            (false, wanted) => self.ring().set_no_interrupt(!wanted),
        }
    }

    pub(super) fn ring(&self) -> &DriverRing {
        &self.wires.ring
    }
}
