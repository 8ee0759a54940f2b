//! The pool: one device, its table in memory, and the rule that nothing is answered before it is durable.

use crate::discovery::discover;
use crate::error::PoolError;
use crate::format::{self, FormatOptions};
use crate::journal::{Journal, describe, read_copies};
use crate::layout::data_end;
use crate::mend::{mend, scars};
use crate::report::{self, Report};
use crate::superblock::Superblock;
use crate::table::{Pending, Table, Volume};
use holdfast_bdev::BlockDevice;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

/// A pool on a device. All methods may be called from any thread; changes happen one after the other.
#[derive(Debug)]
pub struct Pool {
    pub(crate) device: Arc<dyn BlockDevice>,
    superblock: Superblock,
    state: Mutex<State>,
    /// Held while space is zeroed, so that two threads do not erase the same. Taken before `state`, never after.
    pub(crate) eraser: Mutex<()>,
    mended: Vec<String>,
}

/// What changes while a pool is open. A change is made on a copy and moved in when it is durable, so a panic in between
/// leaves no half-changed state.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) table: Table,
    journal: Journal,
}

/// How a pool's space is used, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The data area: allocated, free and erase-pending space.
    pub capacity_bytes: u64,
    /// Space that belongs to volumes.
    pub allocated_bytes: u64,
    /// Erased space that belongs to nobody.
    pub free_bytes: u64,
    /// The largest volume that would get a single extent.
    pub largest_free_extent_bytes: u64,
    /// Space of nobody that must be erased before it is free.
    pub erase_pending_bytes: u64,
    /// Number of volumes.
    pub volumes: usize,
}

impl Pool {
    /// Makes a pool of a device and opens it.
    ///
    /// # Errors
    /// [`Foreign`](PoolError::Foreign), [`AlreadyAPool`](PoolError::AlreadyAPool), [`Damaged`](PoolError::Damaged) or
    /// [`NewerVersion`](PoolError::NewerVersion) unless forced; [`TooSmall`](PoolError::TooSmall); device errors, after which
    /// the device is as before, or [`FormatInterrupted`](PoolError::FormatInterrupted), or the new pool.
    pub fn format(device: Arc<dyn BlockDevice>, options: FormatOptions) -> Result<Pool, PoolError> {
        let (superblock, journal, table) = format::format(&*device, &options)?;
        Ok(Pool::new(
            device,
            superblock,
            State { table, journal },
            Vec::new(),
        ))
    }

    /// Opens the pool on a device. A damaged or torn copy whose twin is whole is written again ([`mended`](Self::mended)); if it
    /// was a superblock, all free space is erased again before use.
    ///
    /// # Errors
    /// One variant for each reason why there is no pool to open: see [`PoolError`].
    pub fn open(device: Arc<dyn BlockDevice>) -> Result<Pool, PoolError> {
        let found = discover(&*device)?;
        let (scars, sector) = (scars(&found), found.sector.clone());
        let superblock = found.into_pool(&*device)?;
        check_device(&*device, &superblock, superblock.device_bytes)?;
        let copies = read_copies(&*device, &superblock)?;
        let faults: Vec<String> = (0..2)
            .filter_map(|copy| {
                copies[copy]
                    .as_ref()
                    .err()
                    .map(|fault| format!("table copy {copy}: {}", describe(fault)))
            })
            .collect();
        let (journal, table) = Journal::choose(&superblock, copies)?;
        check_device(&*device, &superblock, table.managed_end())?;
        if device.info().read_only {
            return Err(PoolError::ReadOnly);
        }
        let mut state = State { table, journal };
        let State { table, journal } = &mut state;
        let mut mended = mend(&*device, &sector, journal, table, scars)?;
        mended.extend(faults);
        for what in &mended {
            tracing::warn!(pool = %superblock.uuid, what, "Mended from the intact copy");
        }
        Ok(Pool::new(device, superblock, state, mended))
    }

    /// Looks at a device and changes nothing, whatever it carries.
    ///
    /// # Errors
    /// Only when the device cannot be read; everything else is in the report.
    pub fn inspect(device: &dyn BlockDevice) -> Result<Report, PoolError> {
        report::inspect(device)
    }

    /// The pool's own name, made when it was formatted.
    pub fn uuid(&self) -> Uuid {
        self.superblock.uuid
    }

    /// What the device was known by when the pool was made.
    pub fn identity(&self) -> &str {
        &self.superblock.identity
    }

    /// What had to be mended from an intact copy on opening, in words; empty as a rule.
    pub fn mended(&self) -> &[String] {
        &self.mended
    }

    /// Makes sure that this is the pool that is meant. `None` stands for "any".
    ///
    /// # Errors
    /// [`PoolError::WrongPool`], naming what is there and what was expected.
    pub fn expect(&self, uuid: Option<Uuid>, identity: Option<&str>) -> Result<(), PoolError> {
        let wrong = |expected| PoolError::WrongPool {
            found_uuid: self.uuid(),
            found_identity: self.identity().into(),
            expected,
        };
        match (uuid, identity) {
            (Some(uuid), _) if uuid != self.uuid() => Err(wrong(format!("pool {uuid}"))),
            (_, Some(identity)) if identity != self.identity() => {
                Err(wrong(format!("a pool made on {identity:?}")))
            }
            _ => Ok(()),
        }
    }

    /// How the space is used now.
    pub fn usage(&self) -> Usage {
        usage_of(&self.lock().table)
    }

    /// Allocates a volume of erased space, rounded up to 1 MiB; the same call again finds the same volume.
    ///
    /// # Errors
    /// `InvalidId`, `InvalidSize`, `AlreadyExists` with another size, `NoSpace`, `TableFull`, `TableWrite`.
    pub fn allocate(&self, id: &str, size_bytes: u64) -> Result<Volume, PoolError> {
        self.change(|table| table.allocate(id, size_bytes))
    }

    /// Makes a volume at least `size_bytes` long, in place if its neighbour is free. The same call again changes nothing.
    ///
    /// # Errors
    /// `NotFound`, `CannotShrink`, `InvalidSize`, `NoSpace`, `TableFull`, `TableWrite`.
    pub fn grow(&self, id: &str, size_bytes: u64) -> Result<Volume, PoolError> {
        self.change(|table| table.grow(id, size_bytes))
    }

    /// Gives a volume up: its space is in quarantine when this returns, and free once erased. False if there is none.
    /// No I/O of the volume may be in flight. After an error the volume must not be used again before a call succeeded.
    ///
    /// # Errors
    /// `TableFull`, `TableWrite`.
    pub fn release(&self, id: &str) -> Result<bool, PoolError> {
        self.change(|table| Ok(table.release(id)))
    }

    /// All volumes, by id.
    pub fn volumes(&self) -> Vec<Volume> {
        self.lock().table.volumes().cloned().collect()
    }

    /// One volume.
    pub fn volume(&self, id: &str) -> Option<Volume> {
        self.lock().table.volume(id).cloned()
    }

    /// What waits to be erased, in the order of arrival.
    pub fn pending(&self) -> Vec<Pending> {
        self.lock().table.pending().cloned().collect()
    }

    /// Volumes on the drive that nobody known owns. Reported only: what to do with them is a person's decision.
    pub fn orphans(&self, known: &dyn Fn(&str) -> bool) -> Vec<Volume> {
        self.lock()
            .table
            .volumes()
            .filter(|volume| !known(&volume.id))
            .cloned()
            .collect()
    }

    /// The state, with space that a grown device has added. That space is erase-pending, and follows from the table and
    /// the device's size alone, so it need not be written before the next change is.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        let mut guard = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *guard;
        adopt_growth(&*self.device, &state.journal, &mut state.table);
        guard
    }

    /// Applies one change durably: on a copy, on the device, then in memory. A change that changes nothing writes nothing,
    /// but even then what is answered is made sure of first.
    pub(crate) fn change<T>(
        &self,
        apply: impl FnOnce(&mut Table) -> Result<T, PoolError>,
    ) -> Result<T, PoolError> {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.journal.settle(&*self.device, &state.table)?;
        let mut next = state.table.clone();
        let answer = apply(&mut next)?;
        if next != state.table {
            state.journal.commit(&*self.device, &next)?;
            state.table = next;
        }
        Ok(answer)
    }

    fn new(
        device: Arc<dyn BlockDevice>,
        superblock: Superblock,
        state: State,
        mended: Vec<String>,
    ) -> Pool {
        Pool {
            device,
            superblock,
            state: Mutex::new(state),
            eraser: Mutex::new(()),
            mended,
        }
    }
}

/// How the space of a table is used.
pub(crate) fn usage_of(table: &Table) -> Usage {
    let free = table.free();
    Usage {
        capacity_bytes: table.capacity(),
        allocated_bytes: table.allocated_bytes(),
        free_bytes: free.iter().map(|extent| extent.length_bytes).sum(),
        largest_free_extent_bytes: free
            .iter()
            .map(|extent| extent.length_bytes)
            .max()
            .unwrap_or(0),
        erase_pending_bytes: table.pending_bytes(),
        volumes: table.volumes().count(),
    }
}

/// Refuses a device that became shorter than the pool, or whose blocks became larger.
pub(crate) fn check_device(
    device: &dyn BlockDevice,
    superblock: &Superblock,
    expected_bytes: u64,
) -> Result<(), PoolError> {
    let info = device.info();
    if info.size_bytes < expected_bytes {
        return Err(PoolError::Truncated {
            size_bytes: info.size_bytes,
            expected_bytes,
        });
    }
    if info.block_size > superblock.block_size {
        return Err(PoolError::BlockSize {
            found: info.block_size,
            expected: superblock.block_size,
        });
    }
    Ok(())
}

/// Takes space that the device has gained into the table, to be erased first. A table without room for one more record
/// leaves it alone, or nothing could be deleted from it any more.
pub(crate) fn adopt_growth(device: &dyn BlockDevice, journal: &Journal, table: &mut Table) {
    let limit = data_end(device.info().size_bytes);
    if limit > table.managed_end() {
        let mut grown = table.clone();
        grown.extend(limit, false);
        if journal.has_room(&grown) {
            *table = grown;
        }
    }
}

#[cfg(test)]
mod tests;
