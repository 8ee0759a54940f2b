//! Where the bytes of a volume lie on its base.

use crate::device::SIZE_MAX;
use crate::{BdevError, Info};

/// A run of bytes on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub offset_bytes: u64,
    /// Number of bytes.
    pub length_bytes: u64,
}

impl From<(u64, u64)> for Extent {
    /// From offset and length, in bytes.
    fn from((offset_bytes, length_bytes): (u64, u64)) -> Extent {
        Extent {
            offset_bytes,
            length_bytes,
        }
    }
}

/// A run of a request that lies in one extent, in the space of the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) offset: u64,
    pub(super) len: u64,
}

impl Part {
    /// Its length as that of a buffer.
    pub(super) fn bytes(self) -> usize {
        usize::try_from(self.len).expect("no longer than a buffer in memory")
    }
}

/// An extent, and the byte of the volume it starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Placed {
    first: u64,
    extent: Extent,
}

/// Never empty; extents that touch in volume and base are one.
#[derive(Debug)]
pub(super) struct Layout {
    placed: Vec<Placed>,
    size_bytes: u64,
}

impl Layout {
    pub(super) fn new(extents: Vec<Extent>, base: &Info) -> Result<Layout, BdevError> {
        if extents.is_empty() {
            return Err(refused("a volume without extents", "it needs at least one"));
        }
        for extent in &extents {
            check(extent, base)?;
        }
        check_overlap(&extents)?;
        let mut layout = Layout {
            placed: Vec::with_capacity(extents.len()),
            size_bytes: 0,
        };
        extents.into_iter().for_each(|extent| layout.append(extent));
        if layout.size_bytes > SIZE_MAX {
            let what = format!("a volume of {} bytes", layout.size_bytes);
            return Err(refused(what, "it must be at most 1 PiB"));
        }
        Ok(layout)
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    pub(super) fn extents(&self) -> Vec<Extent> {
        self.placed.iter().map(|placed| placed.extent).collect()
    }

    /// Refuses a layout in which a byte of `old` has moved or vanished.
    pub(super) fn check_extends(&self, old: &Layout) -> Result<(), BdevError> {
        let keeps = |(new, old): (&Placed, &Placed)| {
            let (new, old) = (new.extent, old.extent);
            new.offset_bytes == old.offset_bytes && new.length_bytes >= old.length_bytes
        };
        // Only the last one may be longer; of any other, the next one would start later.
        let in_place = |(new, old): (&Placed, &Placed)| new.first == old.first;
        let pairs = || self.placed.iter().zip(&old.placed);
        if self.placed.len() >= old.placed.len() && pairs().all(keeps) && pairs().all(in_place) {
            return Ok(());
        }
        Err(refused(
            format!(
                "new extents {:?} for a volume on {:?}",
                self.extents(),
                old.extents()
            ),
            "a volume may only grow at its end; keep the extents it has and append",
        ))
    }

    /// The first part of a range that was checked against the size.
    pub(super) fn first_part(&self, offset: u64, len: u64) -> Part {
        let after = self.placed.partition_point(|placed| placed.first <= offset);
        let Placed { first, extent } = self.placed[after - 1];
        let skip = offset - first;
        Part {
            offset: extent.offset_bytes + skip,
            len: len.min(extent.length_bytes - skip),
        }
    }

    /// All parts of a range that was checked against the size.
    pub(super) fn parts(&self, offset: u64, len: u64) -> impl Iterator<Item = Part> + '_ {
        let (mut at, end) = (offset, offset + len);
        std::iter::from_fn(move || {
            let part = (at < end).then(|| self.first_part(at, end - at))?;
            at += part.len;
            Some(part)
        })
    }

    fn append(&mut self, extent: Extent) {
        let first = self.size_bytes;
        self.size_bytes += extent.length_bytes;
        match self.placed.last_mut() {
            Some(last) if end(&last.extent) == extent.offset_bytes => {
                last.extent.length_bytes += extent.length_bytes;
            }
            _ => self.placed.push(Placed { first, extent }),
        }
    }
}

fn check(extent: &Extent, base: &Info) -> Result<(), BdevError> {
    let block = u64::from(base.block_size);
    let Extent {
        offset_bytes,
        length_bytes,
    } = *extent;
    let what = || {
        format!(
            "extent {offset_bytes}+{length_bytes} of a {} device",
            base.kind
        )
    };
    if length_bytes == 0
        || !length_bytes.is_multiple_of(block)
        || !offset_bytes.is_multiple_of(block)
    {
        return Err(refused(
            what(),
            format!("it must be whole blocks of {block} bytes, at least one"),
        ));
    }
    match offset_bytes.checked_add(length_bytes) {
        Some(end) if end <= base.size_bytes => Ok(()),
        _ => Err(refused(
            what(),
            format!("the device ends at byte {}", base.size_bytes),
        )),
    }
}

fn check_overlap(extents: &[Extent]) -> Result<(), BdevError> {
    let mut sorted = extents.to_vec();
    sorted.sort_by_key(|extent| extent.offset_bytes);
    match sorted
        .windows(2)
        .find(|pair| end(&pair[0]) > pair[1].offset_bytes)
    {
        None => Ok(()),
        Some(pair) => Err(refused(
            format!("extents {:?} and {:?}", pair[0], pair[1]),
            "they overlap, and a byte can be only once in a volume",
        )),
    }
}

/// One past the last byte of an extent that has been checked.
fn end(extent: &Extent) -> u64 {
    extent.offset_bytes + extent.length_bytes
}

fn refused(what: impl Into<String>, why: impl Into<String>) -> BdevError {
    BdevError::Invalid {
        what: what.into(),
        why: why.into(),
    }
}
