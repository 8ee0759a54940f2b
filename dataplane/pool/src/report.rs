//! What `holdfast pool inspect` shows: both copies of everything, what is wrong, and what to do. Changes nothing.

use crate::codec::Fault;
use crate::discovery::discover;
use crate::error::PoolError;
use crate::journal::{self, Copy, Journal, describe, read_copies};
use crate::layout::SUPERBLOCK_OFFSETS;
use crate::mend::scars;
use crate::pool::{Usage, adopt_growth, check_device, usage_of};
use crate::superblock::{Slot, Superblock};
use crate::table::{Pending, Table, Volume};
use holdfast_bdev::{BlockDevice, Info};
use std::fmt;
use uuid::Uuid;

/// What a device carries.
#[derive(Clone, Debug)]
pub struct Report {
    /// The device as it is now.
    pub device: Info,
    /// The two superblock copies.
    pub superblocks: [CopyReport; 2],
    /// The two table copies; `None` without a superblock to say where they are.
    pub tables: Option<[CopyReport; 2]>,
    /// The pool, if it can be opened.
    pub pool: Option<PoolReport>,
    /// What is wrong or unusual, and what to do about it. Empty for a healthy pool.
    pub notes: Vec<String>,
}

/// One copy of a superblock or table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyReport {
    /// Where it lies, in bytes.
    pub offset_bytes: u64,
    /// Whether it can be used.
    pub valid: bool,
    /// Its state in words.
    pub state: String,
}

/// A pool that can be opened.
#[derive(Clone, Debug)]
pub struct PoolReport {
    /// The pool's own name.
    pub uuid: Uuid,
    /// What the device was known by when the pool was made.
    pub identity: String,
    /// Format version, major and minor.
    pub version: (u16, u16),
    /// The table copy that holds the truth: 0 or 1.
    pub current_copy: usize,
    /// How the space is used.
    pub usage: Usage,
    /// All volumes, by id.
    pub volumes: Vec<Volume>,
    /// What waits to be erased, in the order of arrival.
    pub pending: Vec<Pending>,
}

/// Looks at a device.
pub(crate) fn inspect(device: &dyn BlockDevice) -> Result<Report, PoolError> {
    let found = discover(device)?;
    let scars = scars(&found);
    let mut report = Report {
        device: device.info(),
        superblocks: [0, 1].map(|copy| slot_report(&found.slots, copy)),
        tables: None,
        pool: None,
        notes: Vec::new(),
    };
    let superblock = match found.into_pool(device) {
        Ok(superblock) => superblock,
        Err(error) => {
            report.notes.push(error.to_string());
            return Ok(report);
        }
    };
    report.notes.extend(scars.iter().map(|scar| {
        format!("{scar}; opening the pool writes it again, and erases all free space before use")
    }));
    add_tables(device, &superblock, &mut report)?;
    Ok(report)
}

fn add_tables(
    device: &dyn BlockDevice,
    superblock: &Superblock,
    report: &mut Report,
) -> Result<(), PoolError> {
    if let Err(error) = check_device(device, superblock, superblock.device_bytes) {
        report.notes.push(error.to_string());
        return Ok(());
    }
    let copies = read_copies(device, superblock)?;
    report.tables = Some([0, 1].map(|copy| copy_report(superblock, &copies, copy)));
    let faults = [0, 1].map(|copy: usize| copies[copy].as_ref().err().cloned());
    match Journal::choose(superblock, copies) {
        Ok((journal, table)) => add_pool(device, superblock, &journal, table, faults, report),
        Err(error) => report.notes.push(error.to_string()),
    }
    Ok(())
}

fn add_pool(
    device: &dyn BlockDevice,
    superblock: &Superblock,
    journal: &Journal,
    mut table: Table,
    faults: [Option<Fault>; 2],
    report: &mut Report,
) {
    if let Err(error) = check_device(device, superblock, table.managed_end()) {
        report.notes.push(error.to_string());
        return;
    }
    for (copy, fault) in faults.iter().enumerate() {
        if let Some(fault) = fault {
            report.notes.push(format!(
                "table copy {copy} is {}; the other copy is intact, opening the pool writes it again",
                describe(fault)
            ));
        }
    }
    if !journal.is_settled() && faults.iter().all(Option::is_none) {
        report.notes.push(
            "the table copies differ: a change was interrupted; opening the pool completes it"
                .into(),
        );
    }
    let managed_end = table.managed_end();
    adopt_growth(device, journal, &mut table);
    if table.managed_end() > managed_end {
        let added = table.managed_end() - managed_end;
        report.notes.push(format!(
            "the device grew by {}; the new space is erased before use",
            bytes(added)
        ));
    }
    report.pool = Some(PoolReport {
        uuid: superblock.uuid,
        identity: superblock.identity.clone(),
        version: superblock.version,
        current_copy: journal.current(),
        usage: usage_of(&table),
        volumes: table.volumes().cloned().collect(),
        pending: table.pending().cloned().collect(),
    });
}

fn slot_report(slots: &[Slot; 2], copy: usize) -> CopyReport {
    CopyReport {
        offset_bytes: SUPERBLOCK_OFFSETS[copy],
        valid: matches!(slots[copy], Slot::Valid(_)),
        state: describe_slot(&slots[copy]),
    }
}

fn copy_report(superblock: &Superblock, copies: &[Copy; 2], copy: usize) -> CopyReport {
    CopyReport {
        offset_bytes: superblock.table_offsets[copy],
        valid: copies[copy].is_ok(),
        state: match &copies[copy] {
            Ok(stored) => format!("valid, generation {}", stored.generation),
            Err(fault) => journal::describe(fault),
        },
    }
}

/// A superblock place in words.
pub(crate) fn describe_slot(slot: &Slot) -> String {
    match slot {
        Slot::Blank => "blank".into(),
        Slot::Marker { .. } => "a format that did not end".into(),
        Slot::Valid(_) => "valid".into(),
        Slot::Newer { version, .. } => format!("of newer format {}.{}", version.0, version.1),
        Slot::Damaged(reason) => format!("damaged ({reason})"),
        Slot::Strange => "overwritten with something else".into(),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let info = &self.device;
        writeln!(
            out,
            "device       {}, {}, blocks of {}",
            info.kind,
            bytes(info.size_bytes),
            info.block_size
        )?;
        for (copy, superblock) in self.superblocks.iter().enumerate() {
            writeln!(
                out,
                "superblock {copy} at {:>8}  {}",
                bytes(superblock.offset_bytes),
                superblock.state
            )?;
        }
        let current = self.pool.as_ref().map(|pool| pool.current_copy);
        for (copy, table) in self.tables.iter().flatten().enumerate() {
            let mark = if current == Some(copy) {
                "  (current)"
            } else {
                ""
            };
            writeln!(
                out,
                "table {copy}      at {:>8}  {}{mark}",
                bytes(table.offset_bytes),
                table.state
            )?;
        }
        if let Some(pool) = &self.pool {
            write!(out, "{pool}")?;
        }
        for note in &self.notes {
            writeln!(out, "NOTE         {note}")?;
        }
        let healthy = self.notes.is_empty();
        writeln!(
            out,
            "state        {}",
            if healthy {
                "healthy"
            } else {
                "see the notes above"
            }
        )
    }
}

impl fmt::Display for PoolReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usage = &self.usage;
        writeln!(
            out,
            "pool         {}, format {}.{}",
            self.uuid, self.version.0, self.version.1
        )?;
        writeln!(out, "made on      {}", self.identity)?;
        writeln!(
            out,
            "space        {} in all: {} in {} volume{}, {} free (largest piece {}), {} to erase",
            bytes(usage.capacity_bytes),
            bytes(usage.allocated_bytes),
            usage.volumes,
            if usage.volumes == 1 { "" } else { "s" },
            bytes(usage.free_bytes),
            bytes(usage.largest_free_extent_bytes),
            bytes(usage.erase_pending_bytes),
        )?;
        writeln!(
            out,
            "{:<40} {:<12} {:>12}  extents (offset+length in MiB)",
            "VOLUME", "STATE", "SIZE"
        )?;
        for volume in &self.volumes {
            row(
                out,
                &volume.id,
                "allocated",
                volume.size_bytes,
                &volume.extents,
            )?;
        }
        for waiting in &self.pending {
            let name = waiting.released.as_deref().unwrap_or("(never erased)");
            row(out, name, "to erase", waiting.size_bytes, &waiting.extents)?;
        }
        Ok(())
    }
}

fn row(
    out: &mut fmt::Formatter<'_>,
    name: &str,
    state: &str,
    size: u64,
    extents: &[crate::Extent],
) -> fmt::Result {
    let places: Vec<String> = extents
        .iter()
        .map(|extent| {
            format!(
                "{}+{}",
                extent.offset_bytes >> 20,
                extent.length_bytes >> 20
            )
        })
        .collect();
    writeln!(
        out,
        "{name:<40} {state:<12} {:>12}  {}",
        bytes(size),
        places.join(" ")
    )
}

/// A size as people read it: in the largest unit it fills, to a tenth where it is not whole.
fn bytes(count: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let Some((unit, shift)) = UNITS.iter().find(|(_, shift)| count >> shift > 0) else {
        return format!("{count} B");
    };
    let (whole, rest) = (count >> shift, count & ((1 << shift) - 1));
    match rest {
        0 => format!("{whole} {unit}"),
        // Rounded down: space that is not there is not shown.
        _ => format!("{whole}.{} {unit}", (u128::from(rest) * 10) >> shift),
    }
}
