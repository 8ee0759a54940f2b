//! The shared memory of an in-flight region: owned, checked, one part for each queue.

use super::InflightError;
use crate::mem::{MemRegion, RegionSpec};
use crate::queue::MAX_QUEUE_SIZE;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Bytes before the descriptor states of a queue: features, version, desc_num, last_batch_head, used_idx.
pub(super) const HEADER_BYTES: usize = 16;
/// Bytes of a descriptor's state: inflight, padding, next, counter.
pub(super) const STATE_BYTES: usize = 16;
/// Parts begin on this boundary, so that queues do not share cache lines.
const PART_ALIGN: usize = 64;
/// Most queues: a front end names them with 8 bits.
const QUEUES_MAX: u16 = 256;

/// A mapped in-flight region. Unmapped when the last queue has let go of it.
#[derive(Debug)]
pub struct InflightMap {
    region: MemRegion,
    queues: u16,
    queue_size: u16,
}

/// One queue's part, on its way to the thread that serves the queue.
#[derive(Clone, Debug)]
pub struct InflightSlot {
    /// The region it is part of.
    pub map: Arc<InflightMap>,
    /// Number of the queue.
    pub index: u16,
}

impl InflightMap {
    /// Bytes that a region for `queues` queues of `queue_size` descriptors takes.
    ///
    /// # Errors
    /// [`InflightError::Shape`].
    pub fn bytes(queues: u16, queue_size: u16) -> Result<u64, InflightError> {
        let fits = (1..=QUEUES_MAX).contains(&queues) && (1..=MAX_QUEUE_SIZE).contains(&queue_size);
        if !fits {
            return Err(InflightError::Shape { queues, queue_size });
        }
        Ok((part_bytes(queue_size) * usize::from(queues)) as u64)
    }

    /// Maps the region at byte `offset` of a file.
    ///
    /// # Errors
    /// If the shape is impossible, `size` or the file is too small, or the kernel refuses.
    pub fn map(
        file: OwnedFd,
        (offset, size): (u64, u64),
        queues: u16,
        queue_size: u16,
    ) -> Result<InflightMap, InflightError> {
        let needed = Self::bytes(queues, queue_size)?;
        if size < needed {
            return Err(InflightError::TooSmall {
                size,
                needed,
                queues,
                queue_size,
            });
        }
        if !offset.is_multiple_of(PART_ALIGN as u64) {
            let why = format!("offset {offset} is not on a boundary of {PART_ALIGN} bytes");
            return Err(InflightError::Memory(why));
        }
        let spec = RegionSpec {
            guest_addr: 0,
            user_addr: 0,
            size: needed,
            fd_offset: offset,
        };
        let region = MemRegion::map(spec, file, false)
            .map_err(|error| InflightError::Memory(error.to_string()))?;
        Ok(InflightMap {
            region,
            queues,
            queue_size,
        })
    }

    /// Descriptors of each queue, as agreed on.
    pub fn queue_size(&self) -> u16 {
        self.queue_size
    }

    pub(super) fn has_vanished(&self) -> bool {
        self.region.has_vanished()
    }

    /// Where the part of a queue begins; a ring of `size` descriptors must fit.
    pub(super) fn part(&self, index: u16, size: u16) -> Result<*mut u8, InflightError> {
        let (queues, queue_size) = (self.queues, self.queue_size);
        if index >= queues || size > queue_size {
            return Err(InflightError::NoSuchQueue {
                index,
                size,
                queues,
                queue_size,
            });
        }
        let offset = part_bytes(queue_size) * usize::from(index);
        Ok(self.region.host_addr().wrapping_add(offset))
    }
}

fn part_bytes(queue_size: u16) -> usize {
    (HEADER_BYTES + STATE_BYTES * usize::from(queue_size)).next_multiple_of(PART_ALIGN)
}
