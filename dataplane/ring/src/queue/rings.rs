//! Host pointers to the three parts of a ring, resolved and checked once, and the loads and stores through them.
#![allow(unsafe_code)]

use super::error::QueueError;
use super::layout::{Part, QueueFeatures, QueueLayout};
use crate::mem::{LocalView, MemView};
use crate::word;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// The index of a descriptor in the ring's table: always below the queue size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DescIndex(u16);

impl DescIndex {
    #[inline]
    pub(super) fn new(index: u16, size: u16) -> Option<DescIndex> {
        (index < size).then_some(DescIndex(index))
    }

    #[inline]
    pub(super) fn get(self) -> u16 {
        self.0
    }
}

/// A private copy of one descriptor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Descriptor {
    pub(super) addr: u64,
    pub(super) len: u32,
    pub(super) flags: u16,
    pub(super) next: u16,
}

impl Descriptor {
    const NEXT: u16 = 1;
    const WRITE: u16 = 2;
    const INDIRECT: u16 = 4;

    /// Takes the two words of a descriptor apart (2.7.5): addr; then len, flags, next from the low bits up.
    #[inline]
    #[allow(clippy::cast_possible_truncation)]
    pub(super) fn from_words(addr: u64, rest: u64) -> Descriptor {
        Descriptor {
            addr,
            len: rest as u32,
            flags: (rest >> 32) as u16,
            next: (rest >> 48) as u16,
        }
    }

    #[inline]
    pub(super) fn has_next(self) -> bool {
        self.flags & Self::NEXT != 0
    }

    #[inline]
    pub(super) fn is_writable(self) -> bool {
        self.flags & Self::WRITE != 0
    }

    #[inline]
    pub(super) fn is_indirect(self) -> bool {
        self.flags & Self::INDIRECT != 0
    }
}

/// The rings in host memory. Holds the view that keeps that memory mapped, so the pointers are good while `self` is.
#[derive(Debug)]
pub(super) struct Rings {
    view: LocalView,
    desc: *const u64,
    avail: *const u16,
    used: *mut u16,
    size: u16,
}

impl Rings {
    /// Finds the parts of `layout` in `view` and checks everything that a later access relies on.
    pub(super) fn resolve(
        view: Arc<MemView>,
        layout: &QueueLayout,
        features: QueueFeatures,
    ) -> Result<Rings, QueueError> {
        let [desc, avail, used] = layout.parts(features)?;
        Ok(Rings {
            desc: host(&view, desc)?.cast(),
            avail: host(&view, avail)?.cast(),
            used: host(&view, used)?.cast(),
            size: layout.size,
            view: Rc::new(view),
        })
    }

    pub(super) fn view(&self) -> &Arc<MemView> {
        &self.view
    }

    #[inline]
    pub(super) fn size(&self) -> u16 {
        self.size
    }

    #[inline]
    pub(super) fn shared_view(&self) -> &LocalView {
        &self.view
    }

    /// `avail.idx`; what the guest wrote before it is visible afterwards.
    #[inline]
    pub(super) fn avail_idx(&self) -> u16 {
        // SAFETY: word 1 of the available ring, which `resolve` found mapped and aligned.
        unsafe { word::load_u16(self.avail.add(1), Acquire) }
    }

    /// The head at `position` may soon be loaded: its line comes while that of `avail.idx` does, not after it.
    #[inline]
    pub(super) fn will_load_avail_head(&self, position: u16) {
        word::will_load(self.avail.wrapping_add(2 + self.slot(position)).addr());
    }

    /// The head at a position of the available ring.
    #[inline]
    pub(super) fn avail_head(&self, position: u16) -> u16 {
        // SAFETY: 2 + slot with slot < size is inside the available ring.
        unsafe { word::load_u16(self.avail.add(2 + self.slot(position)), Relaxed) }
    }

    /// Whether the guest asked for no interrupts (VIRTQ_AVAIL_F_NO_INTERRUPT); only without EVENT_IDX.
    #[inline]
    pub(super) fn no_interrupt(&self) -> bool {
        // SAFETY: word 0 of the available ring.
        let flags = unsafe { word::load_u16(self.avail, Relaxed) };
        flags & 1 != 0
    }

    /// The used position after which the guest wants an interrupt; only with EVENT_IDX.
    #[inline]
    pub(super) fn used_event(&self) -> u16 {
        // SAFETY: the word after the last slot of the available ring, which `resolve` asked for with EVENT_IDX.
        unsafe { word::load_u16(self.avail.add(2 + usize::from(self.size)), Relaxed) }
    }

    /// The place of a descriptor in the table.
    #[inline]
    pub(super) fn descriptor_at(&self, index: DescIndex) -> *const u64 {
        self.desc.wrapping_add(2 * usize::from(index.0))
    }

    /// A private copy of a descriptor of the table.
    #[inline]
    pub(super) fn descriptor(&self, index: DescIndex) -> Descriptor {
        debug_assert!(index.0 < self.size);
        // SAFETY: `DescIndex` is below the size of the table, so both words are inside it; the table is aligned to 16.
        unsafe {
            let at = self.descriptor_at(index);
            Descriptor::from_words(word::load_u64(at), word::load_u64(at.add(1)))
        }
    }

    #[inline]
    pub(super) fn used_idx(&self) -> u16 {
        // SAFETY: word 1 of the used ring.
        unsafe { word::load_u16(self.used.add(1), Relaxed) }
    }

    /// Writes a used element; the guest may not look at it before `store_used_idx`.
    #[inline]
    pub(super) fn write_used(&self, position: u16, head: u16, len: u32) {
        // SAFETY: element `slot` with slot < size begins 4 + 8 * slot bytes into the used ring, which is aligned to 4.
        unsafe {
            let element = self.used.add(2 + 4 * self.slot(position));
            word::store_u32_pair(element.cast(), u32::from(head), len);
        }
    }

    /// A used element will soon be written at `position`.
    #[inline]
    pub(super) fn will_write_used(&self, position: u16) {
        word::will_store(self.used.wrapping_add(2 + 4 * self.slot(position)).cast());
    }

    /// The used index will soon be stored.
    #[inline]
    pub(super) fn will_store_used_idx(&self) {
        word::will_store(self.used.wrapping_add(1).cast());
    }

    /// Publishes all used elements written so far, and the data they stand for.
    #[inline]
    pub(super) fn store_used_idx(&self, position: u16) {
        // SAFETY: word 1 of the used ring.
        unsafe { word::store_u16(self.used.add(1), position, Release) };
    }

    /// Asks for kicks or for none (VIRTQ_USED_F_NO_NOTIFY); only without EVENT_IDX.
    pub(super) fn store_no_notify(&self, no_notify: bool) {
        // SAFETY: word 0 of the used ring.
        unsafe { word::store_u16(self.used, u16::from(no_notify), Relaxed) };
    }

    /// Asks for a kick when the guest passes `position`; only with EVENT_IDX.
    pub(super) fn store_avail_event(&self, position: u16) {
        // SAFETY: the word after the last element of the used ring, which `resolve` asked for with EVENT_IDX.
        unsafe {
            word::store_u16(
                self.used.add(2 + 4 * usize::from(self.size)),
                position,
                Relaxed,
            );
        }
    }

    #[inline]
    fn slot(&self, position: u16) -> usize {
        usize::from(position & (self.size - 1))
    }
}

fn host(view: &MemView, part: Part) -> Result<*mut u8, QueueError> {
    let Part {
        part,
        addr,
        len,
        align,
    } = part;
    let host = view
        .resolve_user(addr, len)
        .ok_or(QueueError::OutsideMemory { part, addr, len })?;
    // A region may start anywhere in its file, so an aligned user address alone does not make an aligned pointer.
    if !(host.addr() as u64).is_multiple_of(align) {
        return Err(QueueError::Misaligned { part, addr, align });
    }
    Ok(host)
}
