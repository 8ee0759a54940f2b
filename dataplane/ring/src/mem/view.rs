//! An immutable set of regions: what a guest's memory looked like between two changes of its memory table.
#![allow(unsafe_code)]

use super::{MemError, MemRegion, RegionSpec};
use crate::word;
use std::rc::Rc;
use std::sync::Arc;

/// All regions of one guest at one time. Changing the table makes a new view; requests in flight keep the old one.
#[derive(Clone, Debug, Default)]
pub struct MemView {
    /// Sorted by guest address.
    regions: Vec<Arc<MemRegion>>,
    /// The same in the same order, flat, for lookups.
    windows: Vec<Window>,
    epoch: u64,
}

/// A view counted once more without atomics: each request takes one, and that must not cost a locked instruction.
#[allow(clippy::redundant_allocation)]
pub(crate) type LocalView = Rc<Arc<MemView>>;

/// A range of guest addresses and where it is in this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    guest: u64,
    size: u64,
    host: *mut u8,
}

// SAFETY: a window is two numbers and a pointer that is never dereferenced without its view.
unsafe impl Send for Window {}
// SAFETY: as above.
unsafe impl Sync for Window {}

impl Window {
    /// A window that holds nothing: where a last-hit cache starts.
    pub(crate) const NONE: Window = Window {
        guest: 0,
        size: 0,
        host: std::ptr::null_mut(),
    };

    /// The host address of `len` bytes at guest address `addr` if this window holds all of them.
    #[inline]
    pub(crate) fn find(&self, addr: u64, len: u64) -> Option<*mut u8> {
        let offset = addr.wrapping_sub(self.guest);
        if offset >= self.size || len > self.size - offset {
            return None;
        }
        // The offset is below the size of a mapping, so it fits.
        #[allow(clippy::cast_possible_truncation)]
        Some(self.host.wrapping_add(offset as usize))
    }

    /// How many bytes from `addr` on this window holds; 0 if it does not hold `addr`.
    fn remaining(&self, addr: u64) -> u64 {
        let offset = addr.wrapping_sub(self.guest);
        self.size.saturating_sub(offset)
    }
}

impl MemView {
    /// The most regions a view holds: what vhost-user front ends ask for at most.
    pub const MAX_REGIONS: usize = 509;

    /// A guest without memory.
    pub fn empty() -> MemView {
        MemView::default()
    }

    /// This view and one more region.
    ///
    /// # Errors
    /// If the region overlaps one that is present, in guest or in user addresses, or if the table is full.
    pub fn with_region(&self, region: Arc<MemRegion>) -> Result<MemView, MemError> {
        let new = *region.spec();
        if self.regions.len() >= Self::MAX_REGIONS {
            return Err(MemError::TooMany {
                spec: new,
                limit: Self::MAX_REGIONS,
            });
        }
        if let Some(present) = self.regions.iter().find(|r| overlaps(r.spec(), &new)) {
            return Err(MemError::Overlap {
                new,
                present: *present.spec(),
            });
        }
        let at = self
            .regions
            .partition_point(|r| r.spec().guest_addr < new.guest_addr);
        let mut regions = self.regions.clone();
        regions.insert(at, region);
        Ok(self.next(regions))
    }

    /// This view without the region that has exactly these guest and user addresses and size.
    ///
    /// # Errors
    /// If there is none.
    pub fn without_region(&self, spec: &RegionSpec) -> Result<MemView, MemError> {
        // The file offset is not compared: front ends leave it out when they remove a region.
        let same = |r: &Arc<MemRegion>| {
            let s = r.spec();
            (s.guest_addr, s.user_addr, s.size) == (spec.guest_addr, spec.user_addr, spec.size)
        };
        let at = self
            .regions
            .iter()
            .position(same)
            .ok_or(MemError::Unknown(*spec))?;
        let mut regions = self.regions.clone();
        regions.remove(at);
        Ok(self.next(regions))
    }

    /// A view of other regions that follows this one: the whole table was replaced.
    ///
    /// # Errors
    /// As [`with_region`](Self::with_region), among the new regions.
    pub fn replaced_by(
        &self,
        regions: impl IntoIterator<Item = Arc<MemRegion>>,
    ) -> Result<MemView, MemError> {
        let mut view = MemView::empty();
        for region in regions {
            view = view.with_region(region)?;
        }
        view.epoch = self.epoch + 1;
        Ok(view)
    }

    /// The regions, by guest address.
    pub fn regions(&self) -> &[Arc<MemRegion>] {
        &self.regions
    }

    /// Whether memory of a region has vanished: the guest's session must end.
    pub fn has_vanished(&self) -> bool {
        self.regions.iter().any(|region| region.has_vanished())
    }

    /// Grows by one with each change of the table.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Copies bytes from guest memory; false, and nothing copied, if the range is not all memory.
    #[must_use]
    pub fn read(&self, guest_addr: u64, into: &mut [u8]) -> bool {
        if !self.holds(guest_addr, into.len() as u64) {
            return false;
        }
        let mut rest = into;
        // Cannot fail: the range was found whole.
        self.pieces(guest_addr, rest.len() as u64, |host, len| {
            let (now, later) = std::mem::take(&mut rest).split_at_mut(len);
            // SAFETY: `pieces` yields ranges inside regions that this view keeps mapped.
            unsafe { word::copy_from(host, now) };
            rest = later;
        })
    }

    /// Copies bytes to guest memory; false, and nothing copied, if the range is not all memory.
    #[must_use]
    pub fn write(&self, guest_addr: u64, from: &[u8]) -> bool {
        if !self.holds(guest_addr, from.len() as u64) {
            return false;
        }
        let mut rest = from;
        self.pieces(guest_addr, rest.len() as u64, |host, len| {
            let (now, later) = rest.split_at(len);
            // SAFETY: `pieces` yields ranges inside regions that this view keeps mapped.
            unsafe { word::copy_to(now, host) };
            rest = later;
        })
    }

    /// Whether all of the range is guest memory.
    pub fn holds(&self, guest_addr: u64, len: u64) -> bool {
        self.pieces(guest_addr, len, |_, _| ())
    }

    /// The host address of a range of user addresses that lies in one region.
    pub(crate) fn resolve_user(&self, user_addr: u64, len: u64) -> Option<*mut u8> {
        self.regions.iter().find_map(|region| {
            let spec = region.spec();
            let window = Window {
                guest: spec.user_addr,
                size: spec.size,
                host: region.host_addr(),
            };
            window.find(user_addr, len)
        })
    }

    /// The window that holds a guest address.
    #[inline]
    pub(crate) fn window(&self, guest_addr: u64) -> Option<&Window> {
        let after = self.windows.partition_point(|w| w.guest <= guest_addr);
        let window = self.windows.get(after.checked_sub(1)?)?;
        (window.remaining(guest_addr) > 0).then_some(window)
    }

    /// Calls `each` with host address and length of every piece of a guest range, in order. A range is one piece unless
    /// it runs from one region into the next. False if it meets a hole; pieces before the hole have been seen then.
    pub(crate) fn pieces(
        &self,
        guest_addr: u64,
        len: u64,
        mut each: impl FnMut(*mut u8, usize),
    ) -> bool {
        if guest_addr.checked_add(len).is_none() {
            return false;
        }
        let (mut at, mut rest) = (guest_addr, len);
        // Bound: each turn ends in another window, so at most one turn per region.
        while rest > 0 {
            let Some(window) = self.window(at) else {
                return false;
            };
            let now = rest.min(window.remaining(at));
            let (Some(host), Ok(len)) = (window.find(at, now), usize::try_from(now)) else {
                return false;
            };
            each(host, len);
            at += now;
            rest -= now;
        }
        true
    }

    fn next(&self, regions: Vec<Arc<MemRegion>>) -> MemView {
        let windows = regions
            .iter()
            .map(|r| Window {
                guest: r.spec().guest_addr,
                size: r.spec().size,
                host: r.host_addr(),
            })
            .collect();
        MemView {
            regions,
            windows,
            epoch: self.epoch + 1,
        }
    }
}

/// Whether two regions share an address in either space. Ends cannot wrap: the regions were checked when mapped.
fn overlaps(a: &RegionSpec, b: &RegionSpec) -> bool {
    let meet = |x: u64, y: u64| x < y + b.size && y < x + a.size;
    meet(a.guest_addr, b.guest_addr) || meet(a.user_addr, b.user_addr)
}
