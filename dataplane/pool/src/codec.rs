//! The allocation table as bytes. Encoding cannot fail but for room; decoding believes nothing.

use crate::bytes::{Reader, all_zero, put, u16_at, u32_at, u64_at};
use crate::layout::WRITE_BYTES;
use crate::space::{Extent, extent};
use crate::table::{Pending, Table, Volume};
use uuid::Uuid;

/// Bytes of a table copy's header.
pub(crate) const HEADER_BYTES: usize = 64;

/// The table encoding this code writes and the newest it reads.
const TABLE_FORMAT: u16 = 1;

const MAGIC: &[u8; 8] = b"HFPTABLE";
const CRC_AT: usize = 60;
const RECORD_BYTES: usize = 24;
const EXTENT_ENTRY_BYTES: usize = 16;
const STATE_ALLOCATED: u8 = 1;
const STATE_QUARANTINED: u8 = 2;
const STATE_NEVER_ERASED: u8 = 3;

/// The fixed start of a table copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) generation: u64,
    pub(crate) payload_bytes: usize,
    managed_end: u64,
    records: u32,
}

/// Why a table copy cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Only zeros stand there.
    Blank,
    /// A newer encoding, by its number.
    Newer(u16),
    /// Anything else, in words.
    Damaged(String),
}

impl Fault {
    fn damaged(reason: impl Into<String>) -> Fault {
        Fault::Damaged(reason.into())
    }
}

/// One table copy, padded to whole write blocks.
pub(crate) fn encode(table: &Table, uuid: Uuid, generation: u64) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    let mut records = 0_u32;
    for volume in table.volumes() {
        push_record(
            &mut bytes,
            STATE_ALLOCATED,
            &volume.id,
            volume.size_bytes,
            &volume.extents,
        );
        records += 1;
    }
    for waiting in table.pending() {
        let (state, id) = match &waiting.released {
            Some(id) => (STATE_QUARANTINED, id.as_str()),
            None => (STATE_NEVER_ERASED, ""),
        };
        push_record(&mut bytes, state, id, waiting.size_bytes, &waiting.extents);
        records += 1;
    }
    let payload = u32::try_from(bytes.len() - HEADER_BYTES).unwrap_or(u32::MAX);
    put(&mut bytes, 0, MAGIC);
    put(&mut bytes, 8, &TABLE_FORMAT.to_le_bytes());
    put(&mut bytes, 12, &payload.to_le_bytes());
    put(&mut bytes, 16, uuid.as_bytes());
    put(&mut bytes, 32, &generation.to_le_bytes());
    put(&mut bytes, 40, &table.managed_end().to_le_bytes());
    put(&mut bytes, 48, &records.to_le_bytes());
    let crc = checksum(&bytes);
    put(&mut bytes, CRC_AT, &crc.to_le_bytes());
    bytes.resize(bytes.len().next_multiple_of(WRITE_BYTES), 0);
    bytes
}

/// How long [`encode`] makes a table.
pub(crate) fn encoded_bytes(table: &Table) -> u64 {
    let volumes = table
        .volumes()
        .map(|volume| record_bytes(&volume.id, &volume.extents));
    let pending = table.pending().map(|waiting| {
        let id = waiting.released.as_deref().unwrap_or_default();
        record_bytes(id, &waiting.extents)
    });
    let bytes = HEADER_BYTES + volumes.chain(pending).sum::<usize>();
    bytes.next_multiple_of(WRITE_BYTES) as u64
}

/// Whether these bytes begin like a table copy.
pub(crate) fn starts_table(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Reads a header. `room` is the size of the copy's region, so that a length is never believed past it.
pub(crate) fn decode_header(bytes: &[u8], uuid: Uuid, room: u64) -> Result<Header, Fault> {
    let header = bytes
        .get(..HEADER_BYTES)
        .ok_or_else(|| Fault::damaged("it is cut short"))?;
    if !header.starts_with(MAGIC) {
        return Err(if all_zero(header) {
            Fault::Blank
        } else {
            Fault::damaged("no table stands there")
        });
    }
    let payload_bytes = usize::try_from(u32_at(header, 12)).unwrap_or(usize::MAX);
    let fits = payload_bytes
        .checked_add(HEADER_BYTES)
        .is_some_and(|len| len as u64 <= room);
    if !fits {
        return Err(Fault::damaged(format!(
            "{payload_bytes} bytes of records do not fit its {room}"
        )));
    }
    if &header[16..32] != uuid.as_bytes() {
        return Err(Fault::damaged("it belongs to another pool"));
    }
    Ok(Header {
        generation: u64_at(header, 32),
        payload_bytes,
        managed_end: u64_at(header, 40),
        records: u32_at(header, 48),
    })
}

/// Reads a whole copy: its header as decoded before, and exactly the bytes the header asked for.
pub(crate) fn decode(bytes: &[u8], header: &Header, data_start: u64) -> Result<Table, Fault> {
    if bytes.len() != HEADER_BYTES + header.payload_bytes
        || checksum(bytes) != u32_at(bytes, CRC_AT)
    {
        return Err(Fault::damaged("checksum does not match"));
    }
    match u16_at(bytes, 8) {
        TABLE_FORMAT => {}
        newer if newer > TABLE_FORMAT => return Err(Fault::Newer(newer)),
        odd => {
            return Err(Fault::damaged(format!(
                "table encoding {odd} was never written"
            )));
        }
    }
    // Generations count changes; one in the upper half was not reached by counting, and would leave no room to go on.
    if header.generation == 0 || header.generation > u64::MAX / 2 {
        return Err(Fault::damaged(format!(
            "generation {} is impossible",
            header.generation
        )));
    }
    let mut reader = Reader::new(&bytes[HEADER_BYTES..]);
    let (mut volumes, mut pending) = (Vec::new(), Vec::new());
    // Bounded: a record takes at least RECORD_BYTES of the payload, or the read fails.
    for number in 0..header.records {
        let record = read_record(&mut reader)
            .ok_or_else(|| Fault::damaged(format!("record {number} is cut short or malformed")))?;
        match record {
            Record::Volume(volume) => volumes.push(volume),
            Record::Pending(waiting) => pending.push(waiting),
        }
    }
    if !reader.is_empty() {
        return Err(Fault::damaged("bytes follow the last record"));
    }
    Table::from_parts(data_start, header.managed_end, volumes, pending).map_err(Fault::Damaged)
}

enum Record {
    Volume(Volume),
    Pending(Pending),
}

fn record_bytes(id: &str, extents: &[Extent]) -> usize {
    RECORD_BYTES + id.len().next_multiple_of(8) + extents.len() * EXTENT_ENTRY_BYTES
}

fn push_record(bytes: &mut Vec<u8>, state: u8, id: &str, size_bytes: u64, extents: &[Extent]) {
    let mut head = [0; RECORD_BYTES];
    head[0] = state;
    head[1] = u8::try_from(id.len()).unwrap_or(u8::MAX);
    put(
        &mut head,
        4,
        &u32::try_from(extents.len())
            .unwrap_or(u32::MAX)
            .to_le_bytes(),
    );
    put(&mut head, 8, &size_bytes.to_le_bytes());
    bytes.extend_from_slice(&head);
    bytes.extend_from_slice(id.as_bytes());
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    for part in extents {
        bytes.extend_from_slice(&part.offset_bytes.to_le_bytes());
        bytes.extend_from_slice(&part.length_bytes.to_le_bytes());
    }
}

fn read_record(reader: &mut Reader<'_>) -> Option<Record> {
    let (state, id_bytes) = (reader.u8()?, usize::from(reader.u8()?));
    let reserved = reader.u16()?;
    let count = reader.u32()?;
    let size_bytes = reader.u64()?;
    let spare = reader.u64()?;
    let id = std::str::from_utf8(reader.take(id_bytes)?)
        .ok()?
        .to_string();
    let padding = reader.take(id_bytes.next_multiple_of(8) - id_bytes)?;
    if reserved != 0 || spare != 0 || !all_zero(padding) {
        return None;
    }
    let mut extents = Vec::new();
    // Bounded by the payload: the list grows only as long as there are bytes to read.
    for _ in 0..count {
        extents.push(extent(reader.u64()?, reader.u64()?));
    }
    match state {
        STATE_ALLOCATED => Some(Record::Volume(Volume {
            id,
            size_bytes,
            extents,
        })),
        STATE_QUARANTINED => Some(Record::Pending(Pending {
            released: Some(id),
            size_bytes,
            extents,
        })),
        STATE_NEVER_ERASED if id.is_empty() => Some(Record::Pending(Pending {
            released: None,
            size_bytes,
            extents,
        })),
        _ => None,
    }
}

/// Over the header up to the checksum, and all records.
fn checksum(bytes: &[u8]) -> u32 {
    let header = crc32c::crc32c(&bytes[..CRC_AT]);
    crc32c::crc32c_append(header, &bytes[HEADER_BYTES..])
}

#[cfg(test)]
mod tests;
