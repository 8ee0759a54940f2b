//! A guest that has one request at a time uses the same memory for each. On the way of such a request lie three lines that
//! the guest wrote last, and the address of each is in the one before: so all of them are asked for with every look at the
//! ring, and come together. Where there are more, the guest is writing those lines while we look, and asking would disturb it.

use super::chain::Chain;
use super::rings::Rings;
use crate::word;

/// Where the next request is expected: addresses that are never read, only asked for.
#[derive(Debug, Default)]
pub(super) struct Foresight {
    /// The last request was alone.
    alone: bool,
    descriptors: usize,
    header: usize,
}

impl Foresight {
    /// `avail.idx` is about to be loaded, and then perhaps the head at `position`.
    #[inline]
    pub(super) fn look(&self, rings: &Rings, position: u16) {
        if self.alone {
            rings.will_load_avail_head(position);
            word::will_load(self.descriptors);
            word::will_load(self.header);
        }
    }

    /// So many requests are there, beside those that were popped before.
    #[inline]
    pub(super) fn found(&mut self, waiting: u16, popped: u16) {
        if waiting > 0 {
            self.alone = waiting == 1 && popped == 0;
        }
    }

    /// A chain was popped. A guest that waits for nothing else looks at the used index all the time: the index is asked for
    /// now, so that it is here when the answer is, and the guest gets to see nothing older in between.
    #[inline]
    pub(super) fn popped(&mut self, rings: &Rings, chain: &Chain) {
        if self.alone {
            rings.will_store_used_idx();
            self.descriptors = chain.descriptors;
            self.header = chain.iov.first().map_or(0, |it| it.iov_base.addr());
        }
    }
}
