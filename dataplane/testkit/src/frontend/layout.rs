//! Where things lie: rings at the start of the first region, request slots in the rest; and how one request is cut into
//! descriptors.

use super::GuestError;
use super::memory::{GuestMemory, PAGE};
use super::ring::Desc;

/// Size and guest addresses of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingPlace {
    /// Number of descriptors.
    pub size: u16,
    /// Descriptor table.
    pub desc: u64,
    /// Available ring.
    pub avail: u64,
    /// Used ring.
    pub used: u64,
}

impl RingPlace {
    /// The place of ring `index` of a guest; all rings of a guest lie one after the other.
    pub(crate) fn of(index: usize, size: u16) -> RingPlace {
        let desc = index as u64 * Self::bytes(size);
        let avail = desc + 16 * u64::from(size);
        let used = (avail + 6 + 2 * u64::from(size)).next_multiple_of(4);
        RingPlace {
            size,
            desc,
            avail,
            used,
        }
    }

    pub(crate) fn bytes(size: u16) -> u64 {
        (26 * u64::from(size) + 16).next_multiple_of(PAGE)
    }
}

/// How a request lies in memory and in descriptors. Virtio 1.x section 2.7.4.1 allows every one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Through an indirect table; ignored if INDIRECT is not negotiated.
    pub indirect: bool,
    /// Into how many descriptors the data is cut; at least 1.
    pub pieces: u16,
    /// Cuts fall on odd bytes instead of multiples of 512.
    pub odd: bool,
    /// Header in two descriptors of 8 bytes.
    pub split_header: bool,
    /// Data shares a descriptor with the header (writes) or the status (reads).
    pub joined: bool,
    /// The data begins this many bytes after an aligned address; at most 512.
    pub shift: u16,
}

impl Layout {
    /// Header, data, status: what most drivers send.
    pub const DIRECT: Layout = Layout {
        indirect: false,
        pieces: 1,
        odd: false,
        split_header: false,
        joined: false,
        shift: 0,
    };
    /// The same in an indirect table: what Linux sends.
    pub const INDIRECT: Layout = Layout {
        indirect: true,
        ..Layout::DIRECT
    };
    /// Everything unusual at once.
    pub const ODD: Layout = Layout {
        indirect: true,
        pieces: 5,
        odd: true,
        split_header: true,
        joined: true,
        shift: 3,
    };
}

/// The piece of guest memory that belongs to one head: a page for table, header and status, then data.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    base: u64,
    data_max: u64,
}

/// The buffers of one request, ready to be put into descriptors.
#[derive(Clone, Debug)]
pub(crate) struct Buffers {
    pub(crate) descs: Vec<Desc>,
    pub(crate) header: u64,
    pub(crate) data: u64,
    pub(crate) status: u64,
    pub(crate) table: u64,
}

/// Most descriptors in an indirect table of a slot.
const TABLE_MAX: usize = 200;

impl Slot {
    /// Cuts all memory behind the rings into `count` slots.
    pub(crate) fn cut(
        memory: &GuestMemory,
        rings: u64,
        count: u64,
    ) -> Result<Vec<Slot>, GuestError> {
        let mut ranges = memory.ranges();
        if let Some((at, len)) = ranges.first_mut() {
            *at += rings;
            *len = len.saturating_sub(rings);
        }
        let total: u64 = ranges.iter().map(|(_, len)| len).sum();
        // One slot per range may be lost to rounding, and the page behind the last slot holds its joined status.
        let spare = count + 2 * ranges.len() as u64;
        let pitch = (total / spare / PAGE * PAGE).min(PAGE + SLOT_DATA_MAX);
        if pitch < 2 * PAGE {
            let what = format!("{total} bytes of memory are too few for {count} requests");
            return Err(GuestError::Invalid { what });
        }
        let mut slots = Vec::new();
        for (at, len) in ranges {
            let fit = len.saturating_sub(PAGE) / pitch;
            slots.extend((0..fit).map(|i| Slot {
                base: at + i * pitch,
                data_max: pitch - PAGE,
            }));
        }
        // Spread over all ranges, so that a short queue uses high memory and the seam as well.
        let stride = slots.len() as u64 / count.max(1);
        let pick = |i: u64| slots[usize::try_from(i * stride).expect("an index of a Vec")];
        Ok((0..count).map(pick).collect())
    }

    pub(crate) fn data_max(&self, shift: u16) -> usize {
        usize::try_from(self.data_max - u64::from(shift)).expect("a slot fits in usize")
    }

    /// Lays a request out: `readable` bytes of payload for the device, or `writable` bytes of room for it.
    pub(crate) fn lay_out(&self, layout: Layout, readable: u32, writable: u32) -> Buffers {
        // Bytes 0..64 of the page hold the joined status of the slot below.
        let (table, fixed_status) = (self.base + 64, self.base + 4000);
        let joined = layout.joined;
        let data = self.base + PAGE + u64::from(layout.shift);
        let header = data - 16;
        let mut descs = Vec::new();
        let mut data_flags = 0;
        let mut len = readable;
        if layout.split_header {
            descs.extend([Desc::new(header, 8, 0), Desc::new(header + 8, 8, 0)]);
        } else {
            descs.push(Desc::new(header, 16, 0));
        }
        if writable > 0 {
            (data_flags, len) = (Desc::WRITE, writable);
        }
        let pieces = cut(data, len, layout);
        descs.extend(
            pieces
                .iter()
                .map(|&(addr, len)| Desc::new(addr, len, data_flags)),
        );
        if joined && readable > 0 {
            join(&mut descs, usize::from(layout.split_header));
        }
        let status = if joined && writable > 0 {
            data + u64::from(len)
        } else {
            fixed_status
        };
        descs.push(Desc::new(status, 1, Desc::WRITE));
        if joined && writable > 0 {
            let last = descs.len() - 2;
            join(&mut descs, last);
        }
        Buffers {
            descs,
            header,
            data,
            status,
            table,
        }
    }
}

/// Longest data of one request in bytes, however much memory there is.
const SLOT_DATA_MAX: u64 = 1 << 20;

/// Cuts a buffer into pieces.
fn cut(data: u64, len: u32, layout: Layout) -> Vec<(u64, u32)> {
    let unit = if layout.odd { 1 } else { 512 };
    let count = u32::from(layout.pieces.clamp(1, 180)).min((len / unit).max(1));
    let each = len / count / unit * unit;
    // Odd cuts: each piece but the last is made one byte longer or shorter than a multiple of 2.
    let each = if layout.odd && count > 1 {
        each.saturating_sub(1) | 1
    } else {
        each
    };
    let mut pieces = Vec::new();
    let mut done = 0;
    for index in 0..count {
        let now = if index + 1 == count { len - done } else { each };
        if now > 0 {
            pieces.push((data + u64::from(done), now));
        }
        done += now;
    }
    pieces
}

/// Makes one descriptor of two neighbours in memory.
fn join(descs: &mut Vec<Desc>, first: usize) {
    let second = descs.remove(first + 1);
    debug_assert_eq!(descs[first].addr + u64::from(descs[first].len), second.addr);
    descs[first].len += second.len;
}

impl Buffers {
    /// Links the buffers one after the other, as they lie in an indirect table.
    pub(crate) fn table_bytes(&self) -> Vec<u8> {
        debug_assert!(self.descs.len() <= TABLE_MAX);
        let last = self.descs.len() - 1;
        let linked = self.descs.iter().enumerate().map(|(i, desc)| {
            if i == last {
                return desc.bytes();
            }
            let next = u16::try_from(i + 1).expect("a table has at most 200 entries");
            Desc {
                flags: desc.flags | Desc::NEXT,
                next,
                ..*desc
            }
            .bytes()
        });
        linked.flatten().collect()
    }
}
