//! What can be asked of a queue without changing it.

use super::{QueueError, QueueLayout, SplitQueue};
use crate::inflight::InflightQueue;
use crate::mem::MemView;
use std::sync::Arc;

impl SplitQueue {
    /// The guest memory in use.
    pub fn view(&self) -> &Arc<MemView> {
        self.rings.view()
    }

    /// Position of the next element to take from the available ring: the answer to GET_VRING_BASE after a drain.
    pub fn last_avail(&self) -> u16 {
        self.next_avail
    }

    /// `used.idx` as published.
    pub fn used_idx(&self) -> u16 {
        self.published_used
    }

    /// Whether memory that this queue stands on has vanished: it must not be served any longer.
    pub fn has_vanished(&self) -> bool {
        let inflight = self.inflight.as_ref();
        self.view().has_vanished() || inflight.is_some_and(InflightQueue::has_vanished)
    }

    /// Chains popped and not pushed.
    pub fn outstanding(&self) -> u16 {
        self.heads.len()
    }

    /// Chains that are to be popped again before anything new: those of a former owner, until they are.
    pub fn replays(&self) -> usize {
        self.replay.len()
    }

    /// Size and addresses this queue was made with.
    pub fn layout(&self) -> &QueueLayout {
        &self.layout
    }

    /// Why the queue takes no more work; none while it is sound.
    pub fn poison(&self) -> Option<&QueueError> {
        self.poison.as_ref()
    }
}
