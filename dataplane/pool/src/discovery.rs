//! Finds out what a device carries, from its first six MiB, without changing anything.

use crate::bytes::first_non_zero;
use crate::error::PoolError;
use crate::journal;
use crate::layout::{
    DATA_START, MIN_DEVICE_BYTES, SUPERBLOCK_AREA, SUPERBLOCK_OFFSETS, TABLE_OFFSETS, TAIL_BYTES,
    WRITE_BYTES,
};
use crate::signature;
use crate::superblock::{self, SUPERBLOCK_BYTES, Slot, Superblock, VERSION};
use holdfast_bdev::BlockDevice;

const BLOCK: u64 = WRITE_BYTES as u64;

/// What a device carries.
#[derive(Debug)]
pub(crate) enum Finding {
    /// Nothing.
    Blank,
    /// A format that did not end.
    Interrupted { contents_unknown: bool },
    /// A pool.
    Pool(Superblock),
    /// Somebody else's data.
    Foreign(String),
    /// A pool of a newer release.
    Newer {
        version: (u16, u16),
        needs: (u16, u16),
    },
    /// A pool that cannot be trusted.
    Damaged(String),
}

/// The two superblock places, and what they add up to.
#[derive(Debug)]
pub(crate) struct Discovery {
    pub(crate) slots: [Slot; 2],
    /// Where something stands between the first superblock and the tables, which we leave zero.
    pub(crate) touched: Option<u64>,
    /// The sector of a valid superblock as it was read, with what a newer version may have added.
    pub(crate) sector: Vec<u8>,
    pub(crate) finding: Finding,
}

impl Finding {
    /// The superblock, or why there is none.
    pub(crate) fn into_pool(self) -> Result<Superblock, PoolError> {
        match self {
            Finding::Pool(superblock) => Ok(superblock),
            Finding::Blank => Err(PoolError::NotAPool),
            Finding::Interrupted { .. } => Err(PoolError::FormatInterrupted),
            Finding::Foreign(what) => Err(PoolError::Foreign { what }),
            Finding::Damaged(what) => Err(PoolError::Damaged { what }),
            Finding::Newer { version, needs } => Err(PoolError::NewerVersion {
                found: format!(
                    "{}.{} (needs a reader of {}.{})",
                    version.0, version.1, needs.0, needs.1
                ),
                ours: format!("{}.{}", VERSION.0, VERSION.1),
            }),
        }
    }
}

impl Discovery {
    /// The superblock, or why there is no pool to open.
    pub(crate) fn into_pool(self, device: &dyn BlockDevice) -> Result<Superblock, PoolError> {
        match self.finding {
            Finding::Blank => Err(check_room(device).err().unwrap_or(PoolError::NotAPool)),
            other => other.into_pool(),
        }
    }
}

/// Looks at a device.
pub(crate) fn discover(device: &dyn BlockDevice) -> Result<Discovery, PoolError> {
    let size_bytes = device.info().size_bytes;
    let first_bytes = SUPERBLOCK_AREA.min(size_bytes);
    let (first, second) = if size_bytes < SUPERBLOCK_OFFSETS[1] + BLOCK {
        (read(device, 0, first_bytes)?, Ok(Vec::new()))
    } else {
        let second = read(device, SUPERBLOCK_OFFSETS[1], BLOCK);
        match read(device, 0, first_bytes) {
            Ok(first) => (first, second),
            // One bad sector does not cost the pool; but a device that gives neither copy has failed.
            Err(error) if second.is_err() => return Err(error),
            Err(_) => return judge_patchy(device, &second?),
        }
    };
    let slots = [superblock::decode(&first, 0), decode_read(&second, 1)];
    conclude(device, [&first, &second.unwrap_or_default()], slots)
}

/// The first superblock's area has bad blocks: looks at the others one by one.
fn judge_patchy(device: &dyn BlockDevice, second: &[u8]) -> Result<Discovery, PoolError> {
    let blocks = (0..SUPERBLOCK_AREA / BLOCK).map(|block| read(device, block * BLOCK, BLOCK));
    let (mut first, mut slot) = (Vec::new(), None);
    for block in blocks {
        slot.get_or_insert_with(|| decode_read(&block, 0));
        first.extend(block.unwrap_or_else(|_| vec![0; WRITE_BYTES]));
    }
    let slots = [slot.unwrap_or(Slot::Blank), superblock::decode(second, 1)];
    conclude(device, [&first, second], slots)
}

fn decode_read(read: &Result<Vec<u8>, PoolError>, copy: u32) -> Slot {
    match read {
        Ok(bytes) => superblock::decode(bytes, copy),
        Err(error) => Slot::Damaged(error.to_string()),
    }
}

fn conclude(
    device: &dyn BlockDevice,
    areas: [&[u8]; 2],
    slots: [Slot; 2],
) -> Result<Discovery, PoolError> {
    let finding = judge(device, areas[0], &slots)?;
    let intact = areas[usize::from(!matches!(slots[0], Slot::Valid(_)))];
    let sector = intact.get(..SUPERBLOCK_BYTES).unwrap_or_default().to_vec();
    let past = areas[0].get(SUPERBLOCK_BYTES..).unwrap_or_default();
    let touched = first_non_zero(past).map(|at| (SUPERBLOCK_BYTES + at) as u64);
    Ok(Discovery {
        slots,
        touched,
        sector,
        finding,
    })
}

/// Adds up what was seen. The order of the questions is the safety: a marker says that what lies beneath was given up; a
/// foreign signature outweighs our own copies, for a drive that was put to another use must not be opened as a pool.
fn judge(device: &dyn BlockDevice, first: &[u8], slots: &[Slot; 2]) -> Result<Finding, PoolError> {
    let (Slot::Valid(_) | Slot::Newer { .. }) = &slots[0] else {
        return judge_second(device, first, slots);
    };
    if let Some(known) = signature::in_head(first) {
        return Ok(Finding::Foreign(format!(
            "{known}, written over a Holdfast pool"
        )));
    }
    Ok(match slots {
        [Slot::Valid(a), Slot::Valid(b)] if a != b => {
            Finding::Damaged("the two superblock copies name different pools".into())
        }
        [Slot::Valid(a), Slot::Newer { .. }] | [Slot::Newer { .. }, Slot::Valid(a)] => {
            Finding::Damaged(format!(
                "the two superblock copies of pool {} have different formats",
                a.uuid
            ))
        }
        [Slot::Valid(a), _] => Finding::Pool((**a).clone()),
        [Slot::Newer { version, needs }, _] => Finding::Newer {
            version: *version,
            needs: *needs,
        },
        _ => Finding::Damaged("the first superblock changed while it was read".into()),
    })
}

/// The first superblock place holds no superblock.
fn judge_second(
    device: &dyn BlockDevice,
    first: &[u8],
    slots: &[Slot; 2],
) -> Result<Finding, PoolError> {
    if let Slot::Marker { contents_unknown } = slots[0] {
        return Ok(Finding::Interrupted { contents_unknown });
    }
    if let Some(known) = signature::in_head(first) {
        let beneath = match &slots[1] {
            Slot::Valid(pool) => format!(
                "; beneath it lies Holdfast pool {}. If that was a mistake, `wipefs -a` the device and the pool opens again; volumes that were written over stay damaged",
                pool.uuid
            ),
            _ => String::new(),
        };
        return Ok(Finding::Foreign(format!("{known}{beneath}")));
    }
    Ok(match slots {
        [_, Slot::Valid(second)] => Finding::Pool((**second).clone()),
        [_, Slot::Newer { version, needs }] => Finding::Newer {
            version: *version,
            needs: *needs,
        },
        [Slot::Damaged(reason), _] => {
            Finding::Damaged(format!("superblock copy 0: {reason}; copy 1 is gone"))
        }
        [_, Slot::Damaged(reason)] => {
            Finding::Damaged(format!("superblock copy 0 is gone; copy 1: {reason}"))
        }
        _ => judge_unmarked(device)?,
    })
}

/// Neither superblock place holds anything of ours.
fn judge_unmarked(device: &dyn BlockDevice) -> Result<Finding, PoolError> {
    let size_bytes = device.info().size_bytes;
    let head = read(device, 0, DATA_START.min(size_bytes))?;
    for offset in TABLE_OFFSETS {
        if size_bytes >= DATA_START && journal::is_table_there(device, offset).map_err(failed)? {
            return Ok(Finding::Damaged(format!(
                "both superblocks are gone, a table stands at byte {offset}"
            )));
        }
    }
    if let Some(at) = first_non_zero(&head) {
        return Ok(Finding::Foreign(format!(
            "data of a kind Holdfast does not know, from byte {at} on"
        )));
    }
    let tail_bytes = TAIL_BYTES.min(size_bytes);
    let tail = read(device, size_bytes - tail_bytes, tail_bytes)?;
    Ok(match signature::in_tail(&tail, size_bytes) {
        Some(known) => Finding::Foreign(known.into()),
        None => Finding::Blank,
    })
}

/// Refuses a device without room for a head and one extent.
pub(crate) fn check_room(device: &dyn BlockDevice) -> Result<(), PoolError> {
    let size_bytes = device.info().size_bytes;
    if size_bytes < MIN_DEVICE_BYTES {
        return Err(PoolError::TooSmall {
            size_bytes,
            minimum_bytes: MIN_DEVICE_BYTES,
        });
    }
    Ok(())
}

fn read(device: &dyn BlockDevice, offset: u64, len: u64) -> Result<Vec<u8>, PoolError> {
    let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
    device.read_at(offset, &mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn failed(source: holdfast_bdev::BdevError) -> PoolError {
    PoolError::Device {
        action: "reading the head of the device",
        source,
    }
}
