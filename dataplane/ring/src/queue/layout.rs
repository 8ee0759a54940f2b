//! Where the three parts of a ring are, and the rules of virtio 1.x section 2.7 about that.

use super::error::{QueueError, RingPart};

/// The largest ring served. Virtio allows 32768; nobody needs more than this for one disk queue.
pub const MAX_QUEUE_SIZE: u16 = 1024;

/// Size and place of a split virtqueue. Addresses are user addresses: the front end's own, as vhost-user sends them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLayout {
    /// Number of descriptors: a power of two up to [`MAX_QUEUE_SIZE`].
    pub size: u16,
    /// Descriptor table, aligned to 16.
    pub desc: u64,
    /// Available ring, aligned to 2.
    pub avail: u64,
    /// Used ring, aligned to 4.
    pub used: u64,
}

/// Ring features that guest and device agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueFeatures {
    /// VIRTIO_F_EVENT_IDX: positions instead of flags say who wants to be told when.
    pub event_idx: bool,
    /// VIRTIO_F_INDIRECT_DESC: a descriptor may name a table of descriptors.
    pub indirect: bool,
}

/// One part of a ring: where it begins, how long it is, how it must be aligned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) part: RingPart,
    pub(super) addr: u64,
    pub(super) len: u64,
    pub(super) align: u64,
}

impl QueueLayout {
    /// The three parts, checked as far as that goes without memory.
    pub(super) fn parts(&self, features: QueueFeatures) -> Result<[Part; 3], QueueError> {
        if !self.size.is_power_of_two() || self.size > MAX_QUEUE_SIZE {
            return Err(QueueError::BadSize {
                size: self.size,
                max: MAX_QUEUE_SIZE,
            });
        }
        let size = u64::from(self.size);
        // Without EVENT_IDX the last word of each ring does not exist for either side, so it need not be there.
        let event = if features.event_idx { 2 } else { 0 };
        let parts = [
            Part {
                part: RingPart::Descriptors,
                addr: self.desc,
                len: 16 * size,
                align: 16,
            },
            Part {
                part: RingPart::Available,
                addr: self.avail,
                len: 4 + 2 * size + event,
                align: 2,
            },
            Part {
                part: RingPart::Used,
                addr: self.used,
                len: 4 + 8 * size + event,
                align: 4,
            },
        ];
        for Part {
            part,
            addr,
            len,
            align,
        } in parts
        {
            if addr % align != 0 {
                return Err(QueueError::Misaligned { part, addr, align });
            }
            if addr.checked_add(len).is_none() {
                return Err(QueueError::OutsideMemory { part, addr, len });
            }
        }
        for (first, second) in [(0, 1), (0, 2), (1, 2)] {
            let (a, b) = (parts[first], parts[second]);
            if a.addr < b.addr + b.len && b.addr < a.addr + a.len {
                return Err(QueueError::PartsOverlap {
                    first: a.part,
                    second: b.part,
                });
            }
        }
        Ok(parts)
    }
}
