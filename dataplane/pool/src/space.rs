//! Which free space a volume gets: pure arithmetic on extents, deterministic, no I/O.

use crate::layout::EXTENT_BYTES;

/// A run of bytes on the device, on the 1 MiB grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub offset_bytes: u64,
    /// Number of bytes.
    pub length_bytes: u64,
}

/// One past the last byte. Extents in a table have been checked, so this does not overflow.
pub(crate) fn end(extent: &Extent) -> u64 {
    extent.offset_bytes + extent.length_bytes
}

/// An extent, in one breath.
pub(crate) fn extent(offset_bytes: u64, length_bytes: u64) -> Extent {
    Extent {
        offset_bytes,
        length_bytes,
    }
}

/// Bytes of all extents together.
pub(crate) fn total(extents: &[Extent]) -> u64 {
    extents.iter().map(|extent| extent.length_bytes).sum()
}

/// What is left of `[start, limit)` when `used` is taken away. `used` must be disjoint; the order does not matter.
pub(crate) fn free_extents(start: u64, limit: u64, mut used: Vec<Extent>) -> Vec<Extent> {
    used.sort_unstable_by_key(|extent| extent.offset_bytes);
    let (mut free, mut at) = (Vec::new(), start);
    for taken in &used {
        if taken.offset_bytes > at {
            free.push(extent(at, taken.offset_bytes - at));
        }
        at = end(taken);
    }
    if limit > at {
        free.push(extent(at, limit - at));
    }
    free
}

/// Chooses `need` bytes out of `free`, in address order; `None` if there is not enough.
///
/// The tightest single extent wins, the lower one of equals, so that large ones stay large. If none fits, the largest ones
/// are used up first, which needs the fewest extents, and the tightest fit serves the rest.
pub(crate) fn choose(free: &[Extent], need: u64) -> Option<Vec<Extent>> {
    if total(free) < need {
        return None;
    }
    let mut by_size = free.to_vec();
    by_size.sort_unstable_by_key(|extent| (extent.length_bytes, extent.offset_bytes));
    let (mut chosen, mut missing) = (Vec::new(), need);
    // Bounded: every turn but the last uses up one free extent, and together they are enough.
    while missing > 0 {
        let tightest = by_size.partition_point(|extent| extent.length_bytes < missing);
        let take = match by_size.get(tightest) {
            Some(fit) => extent(fit.offset_bytes, missing),
            None => by_size.pop()?,
        };
        missing -= take.length_bytes;
        chosen.push(take);
    }
    chosen.sort_unstable_by_key(|extent| extent.offset_bytes);
    Some(chosen)
}

/// Lengthens a volume's extent list by `need` bytes: in place as far as the neighbour is free, elsewhere for the rest.
pub(crate) fn lengthen(extents: &[Extent], free: &[Extent], need: u64) -> Option<Vec<Extent>> {
    let mut grown = extents.to_vec();
    let mut rest = free.to_vec();
    let mut missing = need;
    if let Some(last) = grown.last_mut()
        && let Some(neighbour) = rest.iter_mut().find(|free| free.offset_bytes == end(last))
    {
        let taken = missing.min(neighbour.length_bytes);
        last.length_bytes += taken;
        neighbour.offset_bytes += taken;
        neighbour.length_bytes -= taken;
        missing -= taken;
    }
    rest.retain(|free| free.length_bytes > 0);
    if missing > 0 {
        grown.extend(choose(&rest, missing)?);
    }
    Some(grown)
}

/// Takes up to `limit` bytes off the front of an extent list: what was taken, and what is left.
pub(crate) fn split_front(extents: &[Extent], limit: u64) -> (Vec<Extent>, Vec<Extent>) {
    let (mut front, mut rest, mut missing) = (Vec::new(), Vec::new(), limit);
    for part in extents {
        let taken = missing.min(part.length_bytes);
        if taken > 0 {
            front.push(extent(part.offset_bytes, taken));
        }
        if taken < part.length_bytes {
            rest.push(extent(part.offset_bytes + taken, part.length_bytes - taken));
        }
        missing -= taken;
    }
    (front, rest)
}

/// Why an extent list cannot stand in a table, if it cannot.
pub(crate) fn check_extents(extents: &[Extent], start: u64, limit: u64) -> Result<(), String> {
    for part in extents {
        let (offset, length) = (part.offset_bytes, part.length_bytes);
        if offset % EXTENT_BYTES != 0 || length % EXTENT_BYTES != 0 || length == 0 {
            return Err(format!("extent {offset}+{length} is off the 1 MiB grid"));
        }
        if offset < start || offset.checked_add(length).is_none_or(|end| end > limit) {
            return Err(format!(
                "extent {offset}+{length} lies outside the data area {start}..{limit}"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
