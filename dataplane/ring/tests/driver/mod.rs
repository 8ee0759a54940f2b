//! The guest's side of a ring, for tests: writes descriptors and indices, reads the used ring. As free to misbehave as a guest.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::cast_possible_truncation
)]

use holdfast_ring::blk::{Limits, Request};
use holdfast_ring::{
    MemRegion, MemView, QueueError, QueueFeatures, QueueLayout, RegionSpec, SplitQueue,
};
use std::sync::Arc;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

pub const TYPE_IN: u32 = 0;
pub const TYPE_OUT: u32 = 1;
pub const TYPE_FLUSH: u32 = 4;
pub const TYPE_GET_ID: u32 = 8;
pub const TYPE_DISCARD: u32 = 11;
pub const TYPE_WRITE_ZEROES: u32 = 13;

/// User addresses are guest addresses plus this in every test region.
pub const USER_BASE: u64 = 0x7f00_0000_0000;

/// The rings of every test: descriptor table, available ring, used ring.
pub const DESC: u64 = 0;
pub const AVAIL: u64 = 0x4000;
pub const USED: u64 = 0x5000;
/// Room for indirect tables.
pub const TABLE: u64 = 0x8000;
/// Room for headers and status bytes.
pub const HEADER: u64 = 0xa000;
pub const STATUS: u64 = 0xb000;
/// Where the first region ends and the next one, adjacent for the guest, begins.
pub const SEAM: u64 = 0x1_0000;
pub const DATA: u64 = 0x1_8000;
/// Where the second region ends and a hole begins.
pub const HOLE: u64 = 0x3_0000;
/// A region behind the hole, and its end.
pub const FAR: u64 = 0x10_0000;
pub const END: u64 = 0x12_0000;

/// The test guest's memory: [0, SEAM) and [SEAM, HOLE) adjacent, then [FAR, END).
pub const REGIONS: [RegionSpec; 3] = [
    region(0, SEAM),
    region(SEAM, HOLE - SEAM),
    region(FAR, END - FAR),
];

pub const ALL: QueueFeatures = QueueFeatures {
    event_idx: true,
    indirect: true,
};

/// A device of 1 GiB that offers everything.
pub const LIMITS: Limits = Limits {
    seg_max: 16,
    size_max: 0x1_0000,
    max_discard_sectors: 2048,
    max_discard_seg: 4,
    max_write_zeroes_sectors: 1024,
    max_write_zeroes_seg: 4,
    block_size: 512,
    capacity_bytes: 1 << 30,
    read_only: false,
    discard: true,
    write_zeroes: true,
    flush: true,
};

pub const fn region(guest_addr: u64, size: u64) -> RegionSpec {
    RegionSpec {
        guest_addr,
        user_addr: USER_BASE + guest_addr,
        size,
        fd_offset: 0,
    }
}

/// One descriptor: address, length, flags, next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Desc(pub u64, pub u32, pub u16, pub u16);

impl Desc {
    pub fn bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.0.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.1.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.2.to_le_bytes());
        bytes[14..].copy_from_slice(&self.3.to_le_bytes());
        bytes
    }
}

pub struct Driver {
    pub view: Arc<MemView>,
    pub size: u16,
    pub features: QueueFeatures,
    pub avail_idx: u16,
}

impl Driver {
    pub fn new(size: u16) -> Driver {
        Driver::with_features(size, ALL)
    }

    pub fn with_features(size: u16, features: QueueFeatures) -> Driver {
        let mut view = MemView::empty();
        for spec in REGIONS {
            view = view
                .with_region(Arc::new(MemRegion::anonymous(spec).unwrap()))
                .unwrap();
        }
        Driver {
            view: Arc::new(view),
            size,
            features,
            avail_idx: 0,
        }
    }

    pub fn layout(&self) -> QueueLayout {
        QueueLayout {
            size: self.size,
            desc: USER_BASE + DESC,
            avail: USER_BASE + AVAIL,
            used: USER_BASE + USED,
        }
    }

    /// The device's side of this ring, from where the driver stands now.
    pub fn queue(&self) -> SplitQueue {
        SplitQueue::new(
            Arc::clone(&self.view),
            self.layout(),
            self.features,
            self.avail_idx,
        )
        .unwrap()
    }

    /// Both indices start here, as in a ring that has been running for a while.
    pub fn start_at(&mut self, index: u16) {
        self.avail_idx = index;
        self.set_avail_idx(index);
        self.write(USED + 2, &index.to_le_bytes());
    }

    pub fn write(&self, addr: u64, bytes: &[u8]) {
        assert!(
            self.view.write(addr, bytes),
            "the test wrote outside its guest's memory"
        );
    }

    pub fn read<const N: usize>(&self, addr: u64) -> [u8; N] {
        let mut bytes = [0; N];
        assert!(
            self.view.read(addr, &mut bytes),
            "the test read outside its guest's memory"
        );
        bytes
    }

    pub fn desc(&self, index: u16, desc: Desc) {
        self.write(DESC + 16 * u64::from(index), &desc.bytes());
    }

    pub fn table(&self, addr: u64, descs: &[Desc]) {
        for (i, desc) in descs.iter().enumerate() {
            self.write(addr + 16 * i as u64, &desc.bytes());
        }
    }

    /// Writes a chain into the table from `first` on, in order.
    pub fn chain(&self, first: u16, buffers: &[(u64, u32, u16)]) {
        for (i, &(addr, len, flags)) in buffers.iter().enumerate() {
            let index = first + i as u16;
            let last = i + 1 == buffers.len();
            let flags = if last { flags } else { flags | NEXT };
            self.desc(index, Desc(addr, len, flags, index + 1));
        }
    }

    /// Makes one head available.
    pub fn offer(&mut self, head: u16) {
        let slot = u64::from(self.avail_idx % self.size);
        self.write(AVAIL + 4 + 2 * slot, &head.to_le_bytes());
        self.avail_idx = self.avail_idx.wrapping_add(1);
        self.set_avail_idx(self.avail_idx);
    }

    pub fn set_avail_idx(&self, index: u16) {
        self.write(AVAIL + 2, &index.to_le_bytes());
    }

    pub fn set_avail_flags(&self, flags: u16) {
        self.write(AVAIL, &flags.to_le_bytes());
    }

    pub fn set_used_event(&self, position: u16) {
        self.write(
            AVAIL + 4 + 2 * u64::from(self.size),
            &position.to_le_bytes(),
        );
    }

    pub fn used_flags(&self) -> u16 {
        u16::from_le_bytes(self.read(USED))
    }

    pub fn used_idx(&self) -> u16 {
        u16::from_le_bytes(self.read(USED + 2))
    }

    pub fn avail_event(&self) -> u16 {
        u16::from_le_bytes(self.read(USED + 4 + 8 * u64::from(self.size)))
    }

    /// The used element at a position: id and length.
    pub fn used(&self, position: u16) -> (u32, u32) {
        let at = USED + 4 + 8 * u64::from(position % self.size);
        (
            u32::from_le_bytes(self.read(at)),
            u32::from_le_bytes(self.read(at + 4)),
        )
    }

    pub fn header(&self, addr: u64, kind: u32, sector: u64) {
        self.write(addr, &header(kind, sector));
    }

    /// Offers, at descriptor `first`, a request of the usual shape: header, data buffers, status.
    pub fn request(&mut self, first: u16, kind: u32, sector: u64, data: &[(u64, u32)]) {
        let header_at = HEADER + 16 * u64::from(first);
        self.header(header_at, kind, sector);
        let flags = if matches!(kind, TYPE_IN | TYPE_GET_ID) {
            WRITE
        } else {
            0
        };
        let mut buffers = vec![(header_at, 16, 0)];
        buffers.extend(data.iter().map(|&(addr, len)| (addr, len, flags)));
        buffers.push((STATUS + u64::from(first), 1, WRITE));
        self.chain(first, &buffers);
        self.offer(first);
    }

    pub fn status(&self, first: u16) -> u8 {
        self.read::<1>(STATUS + u64::from(first))[0]
    }

    /// Pieces of host memory as guest ranges, neighbours joined where a buffer was split at a region's end.
    pub fn guest_ranges(&self, iov: &[libc::iovec]) -> Vec<(u64, u64)> {
        iov.iter()
            .map(|piece| (self.guest_addr(piece), piece.iov_len as u64))
            .collect()
    }

    fn guest_addr(&self, piece: &libc::iovec) -> u64 {
        let host = piece.iov_base.addr();
        let region = self.view.regions().iter().find(|r| {
            let start = r.host_addr().addr();
            host >= start && host + piece.iov_len <= start + r.spec().size as usize
        });
        let region = region.expect("a piece outside guest memory");
        region.spec().guest_addr + (host - region.host_addr().addr()) as u64
    }
}

pub fn header(kind: u32, sector: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&kind.to_le_bytes());
    bytes[8..].copy_from_slice(&sector.to_le_bytes());
    bytes
}

/// A range of a discard or write-zeroes.
pub fn range(sector: u64, sectors: u32, flags: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&sector.to_le_bytes());
    bytes[8..12].copy_from_slice(&sectors.to_le_bytes());
    bytes[12..].copy_from_slice(&flags.to_le_bytes());
    bytes
}

/// Pops one request with the usual limits.
pub fn pop(queue: &mut SplitQueue) -> Result<Option<Request>, QueueError> {
    let mut request = Request::new();
    Ok(queue.pop(&mut request, &LIMITS)?.then_some(request))
}
