//! The allocation table in memory: volumes, and space that must be erased before anybody gets it.
//!
//! Whatever is in no record is erased and free. So there is no free list that could disagree with the records.

use crate::error::PoolError;
use crate::layout::{EXTENT_BYTES, ceil, floor};
use crate::space::{self, Extent, check_extents, end, extent, free_extents, total};
use std::collections::{BTreeMap, VecDeque};

/// Longest volume id, in bytes.
pub(crate) const ID_MAX: usize = 128;

/// A volume and where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// The id it was allocated under.
    pub id: String,
    /// Size in bytes, a multiple of 1 MiB; the sum of the extents.
    pub size_bytes: u64,
    /// Where its bytes lie on the device, in volume order.
    pub extents: Vec<Extent>,
}

/// Space that is waiting to be erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The volume that was released; `None` for space that was never erased since the pool was made or grew.
    pub released: Option<String>,
    /// Bytes there were when the waiting began; more than the extents hold once a part is erased.
    pub size_bytes: u64,
    /// What is still to be erased. Erasing goes front to back, so the first byte is the durable cursor.
    pub extents: Vec<Extent>,
}

/// Everything the table says. Cheap to clone compared with writing it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    data_start: u64,
    managed_end: u64,
    volumes: BTreeMap<String, Volume>,
    pending: VecDeque<Pending>,
}

impl Table {
    /// The table of a new pool whose data area is known to read zeros.
    pub(crate) fn new(data_start: u64) -> Table {
        Table {
            data_start,
            managed_end: data_start,
            volumes: BTreeMap::new(),
            pending: VecDeque::new(),
        }
    }

    /// A table as it was read, or the reason why it cannot be one.
    pub(crate) fn from_parts(
        data_start: u64,
        managed_end: u64,
        volumes: Vec<Volume>,
        pending: Vec<Pending>,
    ) -> Result<Table, String> {
        let mut table = Table::new(data_start);
        if managed_end < data_start || !managed_end.is_multiple_of(EXTENT_BYTES) {
            return Err(format!("a data area from {data_start} to {managed_end}"));
        }
        table.managed_end = managed_end;
        for volume in volumes {
            check_id(&volume.id)?;
            if total_checked(&volume.extents) != Some(volume.size_bytes) || volume.size_bytes == 0 {
                return Err(format!(
                    "volume {:?} of {} bytes does not match its extents",
                    volume.id, volume.size_bytes
                ));
            }
            let id = volume.id.clone();
            if table.volumes.insert(id.clone(), volume).is_some() {
                return Err(format!("volume {id:?} is there twice"));
            }
        }
        for waiting in pending {
            waiting.released.as_deref().map_or(Ok(()), check_id)?;
            let left = total_checked(&waiting.extents).unwrap_or(0);
            if left == 0 || left > waiting.size_bytes || waiting.size_bytes > table.capacity() {
                return Err(format!(
                    "erasing {} bytes does not match its extents",
                    waiting.size_bytes
                ));
            }
            table.pending.push_back(waiting);
        }
        table.check_space()?;
        Ok(table)
    }

    /// Takes space up to `limit` into the table. Known zeros become free, anything else must be erased first.
    pub(crate) fn extend(&mut self, limit: u64, zeroed: bool) {
        if limit <= self.managed_end {
            return;
        }
        let added = extent(self.managed_end, limit - self.managed_end);
        self.managed_end = limit;
        if !zeroed {
            self.push_never_erased(added);
        }
    }

    /// Takes back that free space reads zeros: all of it must be erased again before anybody gets it.
    pub(crate) fn doubt_free(&mut self) {
        for doubted in self.free() {
            self.push_never_erased(doubted);
        }
    }

    fn push_never_erased(&mut self, added: Extent) {
        let capacity = self.capacity();
        let last = self
            .pending
            .iter_mut()
            .rev()
            .find(|waiting| waiting.released.is_none());
        if let Some(Pending {
            size_bytes,
            extents,
            ..
        }) = last
        {
            // Never more than there is, even if space that this record had freed comes back.
            *size_bytes = (*size_bytes + added.length_bytes).min(capacity);
            match extents.last_mut() {
                Some(tail) if end(tail) == added.offset_bytes => {
                    tail.length_bytes += added.length_bytes;
                }
                _ => extents.push(added),
            }
        } else {
            self.pending.push_back(Pending {
                released: None,
                size_bytes: added.length_bytes,
                extents: vec![added],
            });
        }
    }

    /// Adds a volume, or finds the one that is there with the same size.
    pub(crate) fn allocate(&mut self, id: &str, size_bytes: u64) -> Result<Volume, PoolError> {
        check_id(id).map_err(|reason| PoolError::InvalidId {
            id: id.into(),
            reason,
        })?;
        let need = self.round(size_bytes, id)?;
        if let Some(there) = self.volumes.get(id) {
            return if there.size_bytes == need {
                Ok(there.clone())
            } else {
                Err(PoolError::AlreadyExists {
                    id: id.into(),
                    size_bytes: there.size_bytes,
                    asked_bytes: size_bytes,
                })
            };
        }
        let extents = space::choose(&self.free(), need).ok_or_else(|| self.no_space(id, need))?;
        let volume = Volume {
            id: id.into(),
            size_bytes: need,
            extents,
        };
        self.volumes.insert(id.into(), volume.clone());
        Ok(volume)
    }

    /// Makes a volume at least `size_bytes` long; a size it already has changes nothing.
    pub(crate) fn grow(&mut self, id: &str, size_bytes: u64) -> Result<Volume, PoolError> {
        let wanted = self.round(size_bytes, id)?;
        let there = self
            .volumes
            .get(id)
            .ok_or_else(|| PoolError::NotFound { id: id.into() })?;
        if wanted < there.size_bytes {
            return Err(PoolError::CannotShrink {
                id: id.into(),
                size_bytes: there.size_bytes,
                asked_bytes: size_bytes,
            });
        }
        let more = wanted - there.size_bytes;
        let extents = space::lengthen(&there.extents, &self.free(), more)
            .ok_or_else(|| self.no_space(id, more))?;
        let grown = Volume {
            id: id.into(),
            size_bytes: wanted,
            extents,
        };
        self.volumes.insert(id.into(), grown.clone());
        Ok(grown)
    }

    /// Moves a volume's space into quarantine; false if there is no such volume.
    pub(crate) fn release(&mut self, id: &str) -> bool {
        let Some(gone) = self.volumes.remove(id) else {
            return false;
        };
        self.pending.push_back(Pending {
            released: Some(gone.id),
            size_bytes: gone.size_bytes,
            extents: gone.extents,
        });
        true
    }

    /// What to erase next: at most `max_bytes` of one record, at least one extent unit. Tenants' data goes before space
    /// that merely was never erased.
    pub(crate) fn next_to_erase(&self, max_bytes: u64) -> Vec<Extent> {
        let next = self
            .pending
            .iter()
            .find(|waiting| waiting.released.is_some())
            .or(self.pending.front());
        let limit = floor(max_bytes).max(EXTENT_BYTES);
        next.map_or_else(Vec::new, |waiting| {
            space::split_front(&waiting.extents, limit).0
        })
    }

    /// Frees what [`next_to_erase`](Self::next_to_erase) named and the caller has durably zeroed.
    pub(crate) fn mark_erased(&mut self, erased: &[Extent]) {
        let Some(first) = erased.first() else { return };
        let named = |waiting: &&mut Pending| {
            waiting
                .extents
                .first()
                .is_some_and(|front| front.offset_bytes == first.offset_bytes)
        };
        if let Some(waiting) = self.pending.iter_mut().find(named) {
            waiting.extents = space::split_front(&waiting.extents, total(erased)).1;
        }
        self.pending.retain(|waiting| !waiting.extents.is_empty());
    }

    /// Erased space that belongs to nobody, in address order.
    pub(crate) fn free(&self) -> Vec<Extent> {
        free_extents(self.data_start, self.managed_end, self.used())
    }

    pub(crate) fn managed_end(&self) -> u64 {
        self.managed_end
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.managed_end - self.data_start
    }

    pub(crate) fn volumes(&self) -> impl Iterator<Item = &Volume> {
        self.volumes.values()
    }

    pub(crate) fn volume(&self, id: &str) -> Option<&Volume> {
        self.volumes.get(id)
    }

    pub(crate) fn pending(&self) -> impl Iterator<Item = &Pending> {
        self.pending.iter()
    }

    pub(crate) fn allocated_bytes(&self) -> u64 {
        self.volumes.values().map(|volume| volume.size_bytes).sum()
    }

    pub(crate) fn pending_bytes(&self) -> u64 {
        self.pending
            .iter()
            .map(|waiting| total(&waiting.extents))
            .sum()
    }

    fn used(&self) -> Vec<Extent> {
        let volumes = self.volumes.values().flat_map(|volume| &volume.extents);
        volumes
            .chain(self.pending.iter().flat_map(|waiting| &waiting.extents))
            .copied()
            .collect()
    }

    fn check_space(&self) -> Result<(), String> {
        let mut used = self.used();
        check_extents(&used, self.data_start, self.managed_end)?;
        used.sort_unstable_by_key(|extent| extent.offset_bytes);
        match used
            .windows(2)
            .find(|pair| end(&pair[0]) > pair[1].offset_bytes)
        {
            Some(pair) => Err(format!(
                "two records claim the space at {}",
                pair[1].offset_bytes
            )),
            None => Ok(()),
        }
    }

    fn round(&self, size_bytes: u64, id: &str) -> Result<u64, PoolError> {
        if size_bytes == 0 {
            return Err(PoolError::InvalidSize { id: id.into() });
        }
        ceil(size_bytes).ok_or_else(|| self.no_space(id, size_bytes))
    }

    fn no_space(&self, id: &str, asked_bytes: u64) -> PoolError {
        let free = self.free();
        PoolError::NoSpace {
            id: id.into(),
            asked_bytes,
            free_bytes: total(&free),
            erase_pending_bytes: self.pending_bytes(),
        }
    }
}

/// Why an id cannot name a volume, if it cannot.
fn check_id(id: &str) -> Result<(), String> {
    if id.is_empty() || id.len() > ID_MAX {
        return Err(format!(
            "a volume id has 1 to {ID_MAX} bytes, not {}",
            id.len()
        ));
    }
    if id.chars().any(char::is_control) {
        return Err(format!("volume id {id:?} holds control characters"));
    }
    Ok(())
}

fn total_checked(extents: &[Extent]) -> Option<u64> {
    extents
        .iter()
        .try_fold(0_u64, |sum, extent| sum.checked_add(extent.length_bytes))
}
