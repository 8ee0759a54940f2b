//! Makes one table the durable truth after another, so that a crash at any instant leaves the old one or the new one.
//!
//! At rest both copies on the device are equal. A change writes one copy and flushes: from here on it is the truth, because
//! its generation is higher. Then the other copy is written and flushed the same way. So a torn copy always has a whole twin,
//! and a copy that rots at rest takes nothing with it (with strictly alternating copies it would bring an older table
//! back, and with it space that has an owner by now).
//!
//! A failed write leaves its copy unknown: old, torn, or new and valid. Three rules follow. The truth in memory stays at the
//! copy that was not written. The next write goes to the unknown copy, never to the truth. And its generation is one that was
//! never used before, so that whatever stands there loses against it. Before anything else is answered, the truth in memory
//! is written again ([`Journal::settle`]): or a volume whose release "failed" could be handed out although the drive has it
//! in quarantine.

use crate::codec::{self, Fault, HEADER_BYTES};
use crate::error::PoolError;
use crate::superblock::Superblock;
use crate::table::Table;
use holdfast_bdev::{BdevError, BlockDevice};
use holdfast_crash::crash_point;
use uuid::Uuid;

/// A table copy as it was read.
pub(crate) type Copy = Result<Stored, Fault>;

/// A valid table copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) generation: u64,
    pub(crate) table: Table,
}

/// Which copy is the truth, and whether the other one equals it.
#[derive(Debug)]
pub(crate) struct Journal {
    uuid: Uuid,
    offsets: [u64; 2],
    room: u64,
    /// The copy that holds the truth.
    current: usize,
    /// The highest generation ever given to a write, successful or not.
    generation: u64,
    /// Both copies are known to be durable and equal.
    settled: bool,
}

impl Journal {
    /// Writes the first table of a new pool into both copies.
    pub(crate) fn create(
        device: &dyn BlockDevice,
        superblock: &Superblock,
        table: &Table,
    ) -> Result<Journal, PoolError> {
        let mut journal = Journal::at(superblock, 1, 0, false);
        journal.commit(device, table)?;
        match journal.settled {
            true => Ok(journal),
            // The first write reached only one copy; a pool does not start its life like that.
            false => journal.settle(device, table).map(|()| journal),
        }
    }

    /// Picks the truth among the copies of an existing pool.
    pub(crate) fn choose(
        superblock: &Superblock,
        copies: [Copy; 2],
    ) -> Result<(Journal, Table), PoolError> {
        if let Some(found) = copies.iter().find_map(newer) {
            let (found, ours) = (format!("table encoding {found}"), "table encoding 1".into());
            return Err(PoolError::NewerVersion { found, ours });
        }
        match copies {
            [Ok(first), Ok(second)] => {
                let (a, b) = (first.generation, second.generation);
                if a == b && first.table != second.table {
                    let what = format!("both table copies have generation {a} and differ");
                    return Err(PoolError::Damaged { what });
                }
                let journal = Journal::at(superblock, usize::from(b > a), a.max(b), a == b);
                Ok((journal, if b > a { second.table } else { first.table }))
            }
            [Ok(only), Err(_)] => Ok((
                Journal::at(superblock, 0, only.generation, false),
                only.table,
            )),
            [Err(_), Ok(only)] => Ok((
                Journal::at(superblock, 1, only.generation, false),
                only.table,
            )),
            [Err(first), Err(second)] => {
                let what = format!(
                    "both table copies are unusable: {}; {}",
                    describe(&first),
                    describe(&second)
                );
                Err(PoolError::Damaged { what })
            }
        }
    }

    /// Makes `table` the truth. On error the truth is what it was, as far as this process is concerned.
    pub(crate) fn commit(
        &mut self,
        device: &dyn BlockDevice,
        table: &Table,
    ) -> Result<(), PoolError> {
        if !self.has_room(table) {
            return Err(PoolError::TableFull {
                needed_bytes: codec::encoded_bytes(table),
                room_bytes: self.room,
            });
        }
        self.generation += 1;
        let bytes = codec::encode(table, self.uuid, self.generation);
        self.settled = false;
        let other = 1 - self.current;
        crash_point!("table.encoded");
        self.write(device, other, &bytes)
            .map_err(|source| PoolError::TableWrite { source })?;
        let stale = self.current;
        self.current = other;
        crash_point!("table.first-copy");
        match self.write(device, stale, &bytes) {
            Ok(()) => self.settled = true,
            // The change is durable, so it did happen. The next call mends the second copy before it does anything.
            Err(error) => {
                tracing::warn!(copy = stale, %error, "The second table copy could not be written");
            }
        }
        crash_point!("table.both-copies");
        Ok(())
    }

    /// Makes both copies equal to `table`, the truth in memory, if they might not be.
    pub(crate) fn settle(
        &mut self,
        device: &dyn BlockDevice,
        table: &Table,
    ) -> Result<(), PoolError> {
        if !self.settled {
            self.commit(device, table)?;
        }
        Ok(())
    }

    /// Whether a table of this length can be written.
    pub(crate) fn has_room(&self, table: &Table) -> bool {
        codec::encoded_bytes(table) <= self.room
    }

    /// Whether both copies are known to be durable and equal.
    pub(crate) fn is_settled(&self) -> bool {
        self.settled
    }

    /// The copy that holds the truth.
    pub(crate) fn current(&self) -> usize {
        self.current
    }

    fn at(superblock: &Superblock, current: usize, generation: u64, settled: bool) -> Journal {
        Journal {
            uuid: superblock.uuid,
            offsets: superblock.table_offsets,
            room: superblock.table_bytes,
            current,
            generation,
            settled,
        }
    }

    fn write(&self, device: &dyn BlockDevice, copy: usize, bytes: &[u8]) -> Result<(), BdevError> {
        device.write_at(self.offsets[copy], bytes)?;
        crash_point!("table.unflushed");
        device.flush()
    }
}

/// Reads both copies and judges each. One that cannot be read is damaged; only if neither can, the device is at fault.
pub(crate) fn read_copies(
    device: &dyn BlockDevice,
    superblock: &Superblock,
) -> Result<[Copy; 2], PoolError> {
    let judge = |read: Result<Copy, BdevError>| {
        read.unwrap_or_else(|error| Err(Fault::Damaged(format!("it cannot be read: {error}"))))
    };
    match [0, 1].map(|copy| read_copy(device, superblock, copy)) {
        [Err(source), Err(_)] => Err(PoolError::Device {
            action: "reading the table",
            source,
        }),
        copies => Ok(copies.map(judge)),
    }
}

fn read_copy(
    device: &dyn BlockDevice,
    superblock: &Superblock,
    copy: usize,
) -> Result<Copy, BdevError> {
    let offset = superblock.table_offsets[copy];
    let mut bytes = vec![0; HEADER_BYTES];
    device.read_at(offset, &mut bytes)?;
    let header = match codec::decode_header(&bytes, superblock.uuid, superblock.table_bytes) {
        Ok(header) => header,
        Err(fault) => return Ok(Err(fault)),
    };
    bytes.resize(HEADER_BYTES + header.payload_bytes, 0);
    device.read_at(offset, &mut bytes)?;
    let table = codec::decode(&bytes, &header, superblock.data_start);
    Ok(table.map(|table| Stored {
        generation: header.generation,
        table,
    }))
}

/// A fault in words an operator can use.
pub(crate) fn describe(fault: &Fault) -> String {
    match fault {
        Fault::Blank => "blank".into(),
        Fault::Newer(found) => format!("table encoding {found}, newer than this release knows"),
        Fault::Damaged(reason) => format!("damaged ({reason})"),
    }
}

/// Whether a table may stand at `offset`: for a device whose superblocks are gone.
pub(crate) fn is_table_there(device: &dyn BlockDevice, offset: u64) -> Result<bool, BdevError> {
    let mut bytes = [0; 8];
    device.read_at(offset, &mut bytes)?;
    Ok(codec::starts_table(&bytes))
}

fn newer(copy: &Copy) -> Option<u16> {
    match copy {
        Err(Fault::Newer(found)) => Some(*found),
        _ => None,
    }
}
