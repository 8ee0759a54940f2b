//! Which heads are in flight: one bit each, so that a head is answered exactly once and never served twice at a time.

use super::rings::DescIndex;

/// A set of descriptor indices below the queue size.
#[derive(Debug)]
pub(super) struct Heads {
    words: Box<[u64]>,
    len: u16,
}

impl Heads {
    pub(super) fn new(size: u16) -> Heads {
        Heads {
            words: vec![0; usize::from(size).div_ceil(64)].into(),
            len: 0,
        }
    }

    /// Adds a head; false if it is there already.
    #[inline]
    pub(super) fn insert(&mut self, head: DescIndex) -> bool {
        let (word, bit) = place(head.get());
        match self.words.get_mut(word) {
            Some(word) if *word & bit == 0 => *word |= bit,
            _ => return false,
        }
        self.len += 1;
        true
    }

    /// Removes a head; false if it is not there.
    #[inline]
    pub(super) fn remove(&mut self, head: u16) -> bool {
        let (word, bit) = place(head);
        match self.words.get_mut(word) {
            Some(word) if *word & bit != 0 => *word &= !bit,
            _ => return false,
        }
        self.len -= 1;
        true
    }

    #[inline]
    pub(super) fn len(&self) -> u16 {
        self.len
    }
}

#[inline]
fn place(head: u16) -> (usize, u64) {
    (usize::from(head / 64), 1 << (head % 64))
}
