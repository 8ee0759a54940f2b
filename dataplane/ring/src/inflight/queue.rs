//! One queue's part of the region while the queue is served: heads are marked, put into batches and settled.
//!
//! The order of stores is the protocol. Whoever comes after a kill sees some prefix of them:
//!
//! | after | a successor |
//! | --- | --- |
//! | `mark` | does the request again |
//! | `stage`, `write used` | does the request again: `used.idx` has not moved |
//! | `store used.idx` | walks the batch from `last_batch_head` and clears its marks |
//! | `settle` | has nothing to do |
#![allow(unsafe_code)]

use super::InflightError;
use super::map::{HEADER_BYTES, InflightSlot, STATE_BYTES};
use crate::word;
use holdfast_crash::crash_point;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::{Ordering, compiler_fence};

const VERSION_AT: usize = 8;
const DESC_NUM_AT: usize = 10;
const LAST_BATCH_HEAD_AT: usize = 12;
const USED_IDX_AT: usize = 14;
const NEXT_AT: usize = 6;
const COUNTER_AT: usize = 8;

/// The part of one queue. Not `Send`: it belongs to the thread that serves the queue.
#[derive(Debug)]
pub(crate) struct InflightQueue {
    slot: InflightSlot,
    at: *mut u8,
    /// Descriptors of the ring, at most those of the part.
    size: u16,
    /// The counter of the next head to be marked.
    counter: u64,
    last_batch_head: u16,
}

impl InflightQueue {
    /// The part of this queue, unread.
    pub(super) fn open(slot: InflightSlot, size: u16) -> Result<InflightQueue, InflightError> {
        let at = slot.map.part(slot.index, size)?;
        Ok(InflightQueue {
            slot,
            at,
            size,
            counter: 0,
            last_batch_head: 0,
        })
    }

    /// A head was taken and found well-formed.
    #[inline]
    pub(crate) fn mark(&mut self, head: u16) {
        self.store_u64(self.state(head) + COUNTER_AT, self.counter);
        crash_point!("mark.counter");
        self.counter = self.counter.wrapping_add(1);
        compiler_fence(Ordering::SeqCst);
        self.set_flag(head, 1);
        crash_point!("mark.flag");
    }

    /// A head that was marked will not be answered after all.
    #[cold]
    pub(crate) fn unmark(&mut self, head: u16) {
        self.set_flag(head, 0);
    }

    /// The answer to a head joins the batch; the guest does not see it yet.
    #[inline]
    pub(crate) fn stage(&mut self, head: u16) {
        self.store_u16(self.state(head) + NEXT_AT, self.last_batch_head);
        crash_point!("stage.next");
        compiler_fence(Ordering::SeqCst);
        self.last_batch_head = head;
        self.store_u16(LAST_BATCH_HEAD_AT, head);
        compiler_fence(Ordering::SeqCst);
        crash_point!("stage.head");
    }

    /// The guest has been shown the batch, up to `used_idx`.
    #[inline]
    pub(crate) fn settle(&mut self, batch: &[u16], used_idx: u16) {
        compiler_fence(Ordering::SeqCst);
        for head in batch {
            self.set_flag(*head, 0);
            crash_point!("settle.flag");
        }
        compiler_fence(Ordering::SeqCst);
        crash_point!("settle.flags");
        self.store_u16(USED_IDX_AT, used_idx);
        crash_point!("settle.used-idx");
    }

    /// Makes the part one that was never used, at this used position. The version comes last: without it nothing counts.
    pub(super) fn format(&mut self, used_idx: u16) {
        for head in 0..self.slot.map.queue_size() {
            self.set_flag(head, 0);
        }
        crash_point!("format.flags");
        self.store_u64(0, 0);
        self.store_u16(DESC_NUM_AT, self.slot.map.queue_size());
        self.store_u16(LAST_BATCH_HEAD_AT, 0);
        self.store_u16(USED_IDX_AT, used_idx);
        compiler_fence(Ordering::SeqCst);
        crash_point!("format.header");
        self.store_u16(VERSION_AT, 1);
        crash_point!("format.version");
    }

    /// Whether memory of the region has vanished.
    pub(crate) fn has_vanished(&self) -> bool {
        self.slot.map.has_vanished()
    }

    /// What the part says of itself, each word read once.
    pub(super) fn header(&self) -> Header {
        Header {
            version: self.load_u16(VERSION_AT),
            desc_num: self.load_u16(DESC_NUM_AT),
            last_batch_head: self.load_u16(LAST_BATCH_HEAD_AT),
            used_idx: self.load_u16(USED_IDX_AT),
        }
    }

    pub(super) fn flag(&self, head: u16) -> u8 {
        let at = self.byte(self.state(head));
        // SAFETY: `byte` keeps inside the mapping, which `slot` keeps alive.
        unsafe { word::load_u8(at) }
    }

    pub(super) fn next(&self, head: u16) -> u16 {
        self.load_u16(self.state(head) + NEXT_AT)
    }

    pub(super) fn count(&self, head: u16) -> u64 {
        let at = self.byte(self.state(head) + COUNTER_AT);
        // SAFETY: as in `flag`; counters are aligned to 8 because parts are aligned to 64.
        unsafe { word::load_u64(at.cast()) }
    }

    /// Goes on where a recovered predecessor stopped.
    pub(super) fn resume(&mut self, counter: u64, last_batch_head: u16, used_idx: u16) {
        self.counter = counter;
        self.last_batch_head = last_batch_head;
        compiler_fence(Ordering::SeqCst);
        self.store_u16(USED_IDX_AT, used_idx);
    }

    pub(super) fn size(&self) -> u16 {
        self.size
    }

    pub(super) fn part_size(&self) -> u16 {
        self.slot.map.queue_size()
    }

    fn set_flag(&self, head: u16, flag: u8) {
        // SAFETY: as in `flag`.
        unsafe { word::store_u8(self.byte(self.state(head)), flag) };
    }

    /// Offset of a head's state; the head is below the part's size, or a bug of ours hits the last one.
    #[inline]
    fn state(&self, head: u16) -> usize {
        debug_assert!(head < self.part_size());
        HEADER_BYTES + STATE_BYTES * usize::from(head.min(self.part_size() - 1))
    }

    #[inline]
    fn byte(&self, offset: usize) -> *mut u8 {
        self.at.wrapping_add(offset)
    }

    fn load_u16(&self, offset: usize) -> u16 {
        // SAFETY: as in `flag`; all 16-bit fields have even offsets.
        unsafe { word::load_u16(self.byte(offset).cast(), Relaxed) }
    }

    #[inline]
    fn store_u16(&self, offset: usize, value: u16) {
        // SAFETY: as in `load_u16`.
        unsafe { word::store_u16(self.byte(offset).cast(), value, Release) };
    }

    #[inline]
    fn store_u64(&self, offset: usize, value: u64) {
        // SAFETY: as in `count`.
        unsafe { word::store_u64(self.byte(offset).cast(), value) };
    }
}

/// The fixed fields of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) version: u16,
    pub(super) desc_num: u16,
    pub(super) last_batch_head: u16,
    pub(super) used_idx: u16,
}
