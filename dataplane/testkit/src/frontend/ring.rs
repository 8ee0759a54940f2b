//! The driver's side of a split ring, word by word. Knows nothing of requests, and lets a hostile test write anything.

use super::layout::RingPlace;
use super::memory::Region;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// One descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Desc {
    /// Guest address.
    pub addr: u64,
    /// Length in bytes.
    pub len: u32,
    /// [`Desc::NEXT`], [`Desc::WRITE`], [`Desc::INDIRECT`].
    pub flags: u16,
    /// Index of the next descriptor.
    pub next: u16,
}

impl Desc {
    /// The chain goes on.
    pub const NEXT: u16 = 1;
    /// The device may write.
    pub const WRITE: u16 = 2;
    /// The buffer is a table of descriptors.
    pub const INDIRECT: u16 = 4;

    /// A buffer that is the only one.
    pub fn new(addr: u64, len: u32, flags: u16) -> Desc {
        Desc {
            addr,
            len,
            flags,
            next: 0,
        }
    }

    /// As it lies in memory.
    pub fn bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.addr.to_le_bytes());
        bytes[8..].copy_from_slice(&self.rest().to_le_bytes());
        bytes
    }

    fn rest(self) -> u64 {
        u64::from(self.len) | u64::from(self.flags) << 32 | u64::from(self.next) << 48
    }
}

/// The three parts of a ring in guest memory. All positions count modulo 65536.
#[derive(Debug)]
pub struct DriverRing {
    region: Arc<Region>,
    place: RingPlace,
}

impl DriverRing {
    pub(crate) fn new(region: Arc<Region>, place: RingPlace) -> DriverRing {
        DriverRing { region, place }
    }

    /// Where it lies.
    pub fn place(&self) -> RingPlace {
        self.place
    }

    /// Writes a descriptor of the table.
    pub fn set_desc(&self, index: u16, desc: Desc) {
        let at = self.offset(self.place.desc) + 16 * usize::from(index);
        self.region.store_u64(at, desc.addr);
        self.region.store_u64(at + 8, desc.rest());
    }

    /// Writes an entry of the available ring.
    pub fn set_avail(&self, position: u16, head: u16) {
        self.region
            .store_u16(self.avail_word(2 + self.slot(position)), head, Relaxed);
    }

    /// The entry at a position of the available ring.
    pub fn avail(&self, position: u16) -> u16 {
        self.region
            .load_u16(self.avail_word(2 + self.slot(position)), Relaxed)
    }

    /// Shows everything up to `index` to the device.
    pub fn set_avail_idx(&self, index: u16) {
        self.region.store_u16(self.avail_word(1), index, Release);
    }

    /// Without EVENT_IDX: whether the driver wants no interrupts.
    pub fn set_no_interrupt(&self, no_interrupt: bool) {
        self.region
            .store_u16(self.avail_word(0), u16::from(no_interrupt), Relaxed);
    }

    /// With EVENT_IDX: the driver wants an interrupt when the device passes this position.
    pub fn set_used_event(&self, position: u16) {
        let word = 2 + usize::from(self.place.size);
        self.region
            .store_u16(self.avail_word(word), position, Relaxed);
    }

    /// What the driver has made available.
    pub fn avail_idx(&self) -> u16 {
        self.region.load_u16(self.avail_word(1), Relaxed)
    }

    /// What the device has used; what it wrote before is visible afterwards.
    pub fn used_idx(&self) -> u16 {
        self.region.load_u16(self.used_byte(2), Acquire)
    }

    /// Sets `used.idx`, which no honest driver does.
    pub fn set_used_idx(&self, index: u16) {
        self.region.store_u16(self.used_byte(2), index, Release);
    }

    /// Writes an element of the used ring, which no honest driver does.
    pub fn set_used(&self, position: u16, id: u32, len: u32) {
        let at = self.used_byte(4 + 8 * self.slot(position));
        self.region.write(at, &id.to_le_bytes());
        self.region.write(at + 4, &len.to_le_bytes());
    }

    /// With EVENT_IDX: asks for a kick at this position, as a device does.
    pub(crate) fn set_avail_event(&self, position: u16) {
        let word = self.used_byte(4 + 8 * usize::from(self.place.size));
        self.region.store_u16(word, position, Relaxed);
    }

    /// Without EVENT_IDX: whether the device wants no kicks.
    pub fn no_notify(&self) -> bool {
        self.region.load_u16(self.used_byte(0), Relaxed) & 1 != 0
    }

    /// With EVENT_IDX: the device wants a kick when the driver passes this position.
    pub fn avail_event(&self) -> u16 {
        self.region.load_u16(
            self.used_byte(4 + 8 * usize::from(self.place.size)),
            Relaxed,
        )
    }

    /// An element of the used ring: id and length.
    pub fn used(&self, position: u16) -> (u32, u32) {
        let at = self.used_byte(4 + 8 * self.slot(position));
        (self.region.load_u32(at), self.region.load_u32(at + 4))
    }

    /// Zeroes all three parts, as a driver does when it sets a queue up.
    pub fn clear(&self) {
        let size = usize::from(self.place.size);
        self.region
            .write(self.offset(self.place.desc), &vec![0; 16 * size]);
        self.region
            .write(self.offset(self.place.avail), &vec![0; 6 + 2 * size]);
        self.region
            .write(self.offset(self.place.used), &vec![0; 6 + 8 * size]);
    }

    /// The user addresses of descriptor table, available ring and used ring.
    pub fn user_addrs(&self) -> [u64; 3] {
        let RingPlace {
            desc, avail, used, ..
        } = self.place;
        [desc, avail, used].map(|addr| self.region.user_addr() + addr - self.region.guest_addr)
    }

    fn slot(&self, position: u16) -> usize {
        usize::from(position % self.place.size)
    }

    fn avail_word(&self, word: usize) -> usize {
        self.offset(self.place.avail) + 2 * word
    }

    fn used_byte(&self, byte: usize) -> usize {
        self.offset(self.place.used) + byte
    }

    fn offset(&self, guest_addr: u64) -> usize {
        usize::try_from(guest_addr - self.region.guest_addr).expect("a mapping fits in usize")
    }
}

/// Whether moving an index from `old` to `new` passes `event` (virtio 1.x section 2.7.7.2).
pub(crate) fn crosses(event: u16, old: u16, new: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}
