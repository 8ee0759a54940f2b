//! Walks a descriptor chain: every descriptor is copied once, checked, and turned into pieces of host memory.
#![allow(unsafe_code)]

use super::error::QueueError;
use super::layout::{MAX_QUEUE_SIZE, QueueFeatures};
use super::rings::{DescIndex, Descriptor, Rings};
use crate::mem::{LocalView, MemView, Window};
use crate::word;

/// The most pieces of memory in one chain, and the most descriptors in an indirect table. Linux refuses transfers of
/// more than 1024 pieces (IOV_MAX), and Windows drivers build tables of 515 entries whatever the ring's size.
pub const MAX_CHAIN: usize = 1024;

/// A descriptor chain as pieces of host memory: first what the device may read, then what it may write.
///
/// Reusable: popping into it again keeps its allocation. It keeps the guest memory it points into mapped.
#[derive(Debug, Default)]
pub struct Chain {
    pub(crate) head: u16,
    pub(crate) iov: Vec<libc::iovec>,
    /// How many of `iov` are readable.
    pub(crate) readable: usize,
    pub(crate) readable_len: u32,
    pub(crate) writable_len: u32,
    /// Length of the longest descriptor.
    pub(crate) longest: u32,
    /// Pieces that are there only because a buffer runs from one region into the next.
    pub(crate) splits: usize,
    /// The address at which its descriptors begin, as a hint; 0 if that is not one place.
    pub(super) descriptors: usize,
    pub(crate) view: Option<LocalView>,
}

impl Chain {
    /// A chain that holds nothing yet.
    pub fn new() -> Chain {
        Chain::default()
    }

    /// The index of its first descriptor, by which the guest knows it.
    pub fn head(&self) -> u16 {
        self.head
    }

    /// What the device may read, in order.
    pub fn readable(&self) -> &[libc::iovec] {
        &self.iov[..self.readable]
    }

    /// What the device may write, in order.
    pub fn writable(&self) -> &[libc::iovec] {
        &self.iov[self.readable..]
    }

    /// Makes it empty and tied to the memory it is about to point into.
    #[inline]
    pub(super) fn start(&mut self, head: u16, view: LocalView) {
        self.clear();
        self.head = head;
        self.view = Some(view);
    }

    /// Lets go of all guest memory.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.iov.clear();
        self.readable = 0;
        self.readable_len = 0;
        self.writable_len = 0;
        self.longest = 0;
        self.splits = 0;
        self.view = None;
    }

    /// Appends the buffer of one descriptor.
    #[inline]
    fn add(
        &mut self,
        descriptor: Descriptor,
        view: &MemView,
        last_hit: &mut Window,
    ) -> Result<(), QueueError> {
        let (head, Descriptor { addr, len, .. }) = (self.head, descriptor);
        if len == 0 {
            return Err(QueueError::EmptyDescriptor { head });
        }
        let writable = descriptor.is_writable();
        if !writable && self.writable_len != 0 {
            return Err(QueueError::ReadableAfterWritable { head });
        }
        let sum = self
            .readable_len
            .checked_add(self.writable_len)
            .and_then(|s| s.checked_add(len));
        if sum.is_none() {
            return Err(QueueError::ChainTooLarge { head });
        }
        self.longest = self.longest.max(len);
        match last_hit.find(addr, u64::from(len)) {
            Some(host) => self.iov.push(iovec(host, len as usize)),
            None => self.add_elsewhere(addr, len, view, last_hit)?,
        }
        if self.iov.len() > MAX_CHAIN {
            return Err(QueueError::ChainTooScattered {
                head,
                limit: MAX_CHAIN,
            });
        }
        if writable {
            self.writable_len += len;
        } else {
            self.readable_len += len;
            self.readable = self.iov.len();
        }
        Ok(())
    }

    /// Appends a buffer that is not all in the window of the buffer before it.
    #[cold]
    fn add_elsewhere(
        &mut self,
        addr: u64,
        len: u32,
        view: &MemView,
        last_hit: &mut Window,
    ) -> Result<(), QueueError> {
        let before = self.iov.len();
        if !view.pieces(addr, u64::from(len), |host, len| {
            self.iov.push(iovec(host, len));
        }) {
            return Err(QueueError::BufferOutsideMemory {
                head: self.head,
                addr,
                len,
            });
        }
        self.splits += self.iov.len() - before - 1;
        if let Some(window) = view.window(addr) {
            *last_hit = *window;
        }
        Ok(())
    }
}

/// Follows the chain that starts at `index` through table and indirect table and appends its buffers to `chain`.
#[inline]
pub(super) fn walk(
    rings: &Rings,
    features: QueueFeatures,
    last_hit: &mut Window,
    mut index: DescIndex,
    chain: &mut Chain,
) -> Result<(), QueueError> {
    let size = rings.size();
    chain.descriptors = rings.descriptor_at(index).addr();
    // Bound: a chain longer than the table visits a descriptor twice.
    for _ in 0..size {
        let descriptor = rings.descriptor(index);
        if descriptor.is_indirect() {
            check_indirect(descriptor, features, chain.head)?;
            return walk_indirect(rings.view(), last_hit, descriptor, chain);
        }
        chain.add(descriptor, rings.view(), last_hit)?;
        if !descriptor.has_next() {
            return Ok(());
        }
        let (head, next) = (chain.head, descriptor.next);
        index =
            DescIndex::new(next, size).ok_or(QueueError::NextOutOfRange { head, next, size })?;
    }
    Err(QueueError::ChainLoops {
        head: chain.head,
        limit: size,
    })
}

/// Checks a descriptor that names an indirect table (2.7.5.3). Its write flag means nothing and is ignored.
fn check_indirect(
    descriptor: Descriptor,
    features: QueueFeatures,
    head: u16,
) -> Result<(), QueueError> {
    if !features.indirect {
        return Err(QueueError::IndirectNotNegotiated { head });
    }
    if descriptor.has_next() {
        return Err(QueueError::IndirectWithNext { head });
    }
    let len = descriptor.len;
    if len == 0 || !len.is_multiple_of(16) || len / 16 > u32::from(MAX_INDIRECT) {
        return Err(QueueError::IndirectLength {
            head,
            len,
            limit: MAX_INDIRECT,
        });
    }
    Ok(())
}

fn walk_indirect(
    view: &MemView,
    last_hit: &mut Window,
    table: Descriptor,
    chain: &mut Chain,
) -> Result<(), QueueError> {
    let head = chain.head;
    let table = Table::resolve(view, last_hit, table, head)?;
    chain.descriptors = table.host.map_or(0, <*const u8>::addr);
    let (size, mut index) = (table.size, 0);
    // Bound: a chain longer than the table visits a descriptor twice.
    for _ in 0..size {
        let descriptor = table.descriptor(index);
        if descriptor.is_indirect() {
            return Err(QueueError::IndirectNested { head });
        }
        chain.add(descriptor, view, last_hit)?;
        if !descriptor.has_next() {
            return Ok(());
        }
        index = descriptor.next;
        if index >= size {
            return Err(QueueError::NextOutOfRange {
                head,
                next: index,
                size,
            });
        }
    }
    Err(QueueError::ChainLoops { head, limit: size })
}

/// The longest indirect table, in descriptors.
const MAX_INDIRECT: u16 = MAX_QUEUE_SIZE;

/// An indirect table in guest memory. It need not be aligned and may run from one region into the next.
struct Table<'a> {
    view: &'a MemView,
    addr: u64,
    size: u16,
    /// Set if the table lies in one region.
    host: Option<*const u8>,
}

impl Table<'_> {
    fn resolve<'a>(
        view: &'a MemView,
        last_hit: &Window,
        table: Descriptor,
        head: u16,
    ) -> Result<Table<'a>, QueueError> {
        let Descriptor { addr, len, .. } = table;
        let host = last_hit
            .find(addr, u64::from(len))
            .or_else(|| view.window(addr)?.find(addr, u64::from(len)));
        if host.is_none() && !view.holds(addr, u64::from(len)) {
            return Err(QueueError::BufferOutsideMemory { head, addr, len });
        }
        let size = u16::try_from(len / 16).map_err(|_| QueueError::IndirectLength {
            head,
            len,
            limit: MAX_INDIRECT,
        })?;
        Ok(Table {
            view,
            addr,
            size,
            host: host.map(<*mut u8>::cast_const),
        })
    }

    /// A private copy of the descriptor at `index`, which must be below the table's size.
    #[inline]
    fn descriptor(&self, index: u16) -> Descriptor {
        debug_assert!(index < self.size);
        let offset = 16 * usize::from(index);
        let [addr, rest] = match self.host {
            // SAFETY: all `16 * size` bytes from `host` are in one region of the view, which is borrowed here.
            Some(host) => unsafe { word::load_pair(host.add(offset)) },
            None => self.read_scattered(offset),
        };
        Descriptor::from_words(addr, rest)
    }

    #[cold]
    fn read_scattered(&self, offset: usize) -> [u64; 2] {
        let mut bytes = [0; 16];
        // The range was found whole, so this cannot fail; if it did, a descriptor of length 0 is refused.
        _ = self.view.read(self.addr + offset as u64, &mut bytes);
        word::pair(bytes)
    }
}

#[inline]
fn iovec(host: *mut u8, len: usize) -> libc::iovec {
    libc::iovec {
        iov_base: host.cast(),
        iov_len: len,
    }
}
