//! Erasing in the background: zero, flush, look, then say so durably. Only then is the space anybody's.

use crate::bytes::first_non_zero;
use crate::error::PoolError;
use crate::layout::EXTENT_BYTES;
use crate::pool::Pool;
use crate::space::{Extent, total};
use holdfast_bdev::{BdevError, BlockDevice};
use holdfast_crash::crash_point;
use std::sync::PoisonError;

/// How much of each MiB is read back after erasing.
const SAMPLE_BYTES: u64 = 4096;

/// What one step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EraseProgress {
    /// Bytes erased and freed by this step.
    pub erased_bytes: u64,
    /// Bytes that still wait.
    pub pending_bytes: u64,
}

impl Pool {
    /// Erases at most `max_bytes` (at least 1 MiB) of what waits, released volumes first, and frees it. Blocks for as long as
    /// the zeros take; other calls go on meanwhile. Call it from a background thread until nothing is pending.
    ///
    /// # Errors
    /// `Device` and `NotErased` (nothing was freed; repeat or replace the drive), `TableWrite`, `TableFull`.
    pub fn erase_step(&self, max_bytes: u64) -> Result<EraseProgress, PoolError> {
        let _one_at_a_time = self.eraser.lock().unwrap_or_else(PoisonError::into_inner);
        // The table is not locked while the drive is busy: what waits to be erased cannot be given to anybody meanwhile.
        let target = self.lock().table.next_to_erase(max_bytes);
        crash_point!("erase.chosen");
        erase(&*self.device, &target)?;
        crash_point!("erase.zeroed");
        let pending_bytes = self.change(|table| {
            table.mark_erased(&target);
            Ok(table.pending_bytes())
        })?;
        Ok(EraseProgress {
            erased_bytes: total(&target),
            pending_bytes,
        })
    }
}

/// Makes extents read zeros, durably. A drive whose "write zeroes" proves to do nothing gets zeros written.
fn erase(device: &dyn BlockDevice, target: &[Extent]) -> Result<(), PoolError> {
    for extent in target {
        device
            .write_zeroes_at(extent.offset_bytes, extent.length_bytes)
            .map_err(failed)?;
    }
    device.flush().map_err(failed)?;
    if let Some(offset) = find_leftover(device, target)? {
        tracing::warn!(
            offset,
            "Write-zeroes left data behind; zeros are written instead"
        );
        overwrite(device, target)?;
        if let Some(offset) = find_leftover(device, target)? {
            return Err(PoolError::NotErased { offset });
        }
    }
    Ok(())
}

/// Reads a sample of every MiB, each at another place, and tells where it is not zero.
fn find_leftover(device: &dyn BlockDevice, target: &[Extent]) -> Result<Option<u64>, PoolError> {
    let mut sample = vec![0; usize::try_from(SAMPLE_BYTES).unwrap_or_default()];
    for extent in target {
        for unit in 0..extent.length_bytes / EXTENT_BYTES {
            let start = extent.offset_bytes + unit * EXTENT_BYTES;
            // 97 is prime to the number of samples in a MiB, so neighbours are looked at in different places.
            let place = (start / EXTENT_BYTES * 97) % (EXTENT_BYTES / SAMPLE_BYTES) * SAMPLE_BYTES;
            device.read_at(start + place, &mut sample).map_err(failed)?;
            if let Some(inside) = first_non_zero(&sample) {
                return Ok(Some(start + place + inside as u64));
            }
        }
    }
    Ok(None)
}

fn overwrite(device: &dyn BlockDevice, target: &[Extent]) -> Result<(), PoolError> {
    let zeros = vec![0; usize::try_from(EXTENT_BYTES).unwrap_or_default()];
    for extent in target {
        for unit in 0..extent.length_bytes / EXTENT_BYTES {
            device
                .write_at(extent.offset_bytes + unit * EXTENT_BYTES, &zeros)
                .map_err(failed)?;
        }
    }
    device.flush().map_err(failed)
}

fn failed(source: BdevError) -> PoolError {
    PoolError::Device {
        action: "erasing",
        source,
    }
}
