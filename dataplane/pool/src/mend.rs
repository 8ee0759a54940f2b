//! Mends on opening what an intact copy allows to mend, and draws the conclusion when somebody else has written here.
//!
//! Superblocks are written once, so a crash of ours never damages one. If one is damaged, or something stands around it, the
//! drive rotted or was written by others, and a file system made here by mistake also wrote into the data area. Then
//! "whatever is in no record reads zero" is not known any more, and all free space is erased again before anybody gets it.

use crate::discovery::Discovery;
use crate::error::PoolError;
use crate::journal::Journal;
use crate::layout::{SUPERBLOCK_AREA, SUPERBLOCK_OFFSETS, WRITE_BYTES};
use crate::report::describe_slot;
use crate::superblock::{Slot, copy_of};
use crate::table::Table;
use holdfast_bdev::{BdevError, BlockDevice};

/// What is wrong with the superblocks of a pool that can be opened, in words; empty as a rule.
pub(crate) fn scars(found: &Discovery) -> Vec<String> {
    let mut scars: Vec<String> = (0..)
        .zip(&found.slots)
        .filter(|(_, slot)| !matches!(slot, Slot::Valid(_)))
        .map(|(copy, slot)| format!("superblock copy {copy}: {}", describe_slot(slot)))
        .collect();
    if let (Slot::Valid(_), Some(at)) = (&found.slots[0], found.touched) {
        scars.push(format!(
            "superblock copy 0: followed by foreign data at byte {at}"
        ));
    }
    scars
}

/// `sector` is the intact superblock. Makes both table copies equal and durable and, if there are scars, doubts free space before the superblocks are
/// written again: a crash in between leaves the scars to be found once more.
pub(crate) fn mend(
    device: &dyn BlockDevice,
    sector: &[u8],
    journal: &mut Journal,
    table: &mut Table,
    mut scars: Vec<String>,
) -> Result<Vec<String>, PoolError> {
    if scars.is_empty() {
        // What was read may sit in a cache only. Nobody may rely on it before it is durable in both copies.
        journal.settle(device, table)?;
        return Ok(scars);
    }
    let mut doubted = table.clone();
    doubted.doubt_free();
    if journal.has_room(&doubted) {
        journal.commit(device, &doubted)?;
        *table = doubted;
    } else {
        scars.push("free space: may hold foreign data, the table has no room to say so".into());
    }
    journal.settle(device, table)?;
    write_superblocks(device, sector).map_err(|source| PoolError::Device {
        action: "mending a superblock copy",
        source,
    })?;
    Ok(scars)
}

/// Writes both, one after the other: the intact one becomes what it was.
fn write_superblocks(device: &dyn BlockDevice, sector: &[u8]) -> Result<(), BdevError> {
    let block = WRITE_BYTES as u64;
    for (copy, offset) in (0..).zip(SUPERBLOCK_OFFSETS) {
        device.write_at(offset, &copy_of(sector, copy))?;
        device.write_zeroes_at(offset + block, SUPERBLOCK_AREA - block)?;
        device.flush()?;
    }
    Ok(())
}
