//! The generator's own ceiling: a thread that answers every request at once and looks at none.

use super::cells::Cells;
use super::{LoadQueue, Pattern};
use crate::frontend::memory::GuestMemory;
use crate::frontend::wires::Wires;
use crate::frontend::{DriverRing, GuestError, RingPlace, status};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// The thread. It ends when the value is dropped.
#[derive(Debug)]
pub struct Echo {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// A queue of `size` descriptors whose requests are answered by a thread of this process, which calls `begin` first:
    /// to go to a processor of its own. The pattern of the queue must not be changed.
    ///
    /// # Errors
    /// If memory, descriptors or the thread cannot be had, or the pattern does not fit.
    pub fn start(
        size: u16,
        pattern: Pattern,
        begin: impl FnOnce() + Send + 'static,
    ) -> Result<(LoadQueue, Echo), GuestError> {
        let rings = RingPlace::bytes(size);
        let room = (1 << 20) + u64::from(pattern.depth) * u64::from(pattern.bytes);
        let memory = GuestMemory::new(rings + room, 1, true)?;
        let region = Arc::clone(&memory.regions()[0]);
        let ring = || DriverRing::new(Arc::clone(&region), RingPlace::of(0, size));
        let theirs = ring();
        let wires = Arc::new(Wires::new(ring())?);
        let queue = LoadQueue::new(wires, Arc::clone(&region), (rings, room), true, pattern)?;
        let end = Arc::new(AtomicBool::new(false));
        let (ended, cells) = (Arc::clone(&end), Arc::clone(&queue.cells));
        let thread = std::thread::Builder::new()
            .name("echo".to_owned())
            .spawn(move || {
                begin();
                answer(&theirs, &cells, &ended);
            });
        let thread = Some(thread.map_err(GuestError::io("starting the echo thread"))?);
        Ok((queue, Echo { end, thread }))
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has left requests unanswered, which the run has reported.
            let _ = thread.join();
        }
    }
}

fn answer(ring: &DriverRing, cells: &Cells, end: &AtomicBool) {
    // Half the positions ahead, so that it is not kicked; moved on in time.
    ring.set_avail_event(0x8000);
    let mut next = 0u16;
    while !end.load(Ordering::Relaxed) {
        let avail = ring.avail_idx();
        if avail == next {
            continue;
        }
        if (avail ^ next) & 0x4000 != 0 {
            ring.set_avail_event(avail.wrapping_add(0x8000));
        }
        std::sync::atomic::fence(Ordering::Acquire);
        while next != avail {
            let head = ring.avail(next);
            cells.set_status(head, status::OK);
            ring.set_used(next, u32::from(head), 1);
            next = next.wrapping_add(1);
        }
        ring.set_used_idx(next);
    }
}
