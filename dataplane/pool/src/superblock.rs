//! The superblock: 512 bytes, written once, in two copies; and the marker that stands in its place while a format runs.
//!
//! 512 bytes because a drive writes a sector whole or not at all, so a superblock is never half there. Its last four bytes
//! stay zero, so that nobody takes it for a boot sector.

use crate::bytes::{all_zero, put, u16_at, u32_at, u64_at};
use crate::layout::{EXTENT_BYTES, SUPERBLOCK_AREA, SUPERBLOCK_OFFSETS, WRITE_BYTES};
use uuid::Uuid;

/// Bytes of one superblock.
pub(crate) const SUPERBLOCK_BYTES: usize = 512;

/// Format version this code writes: major, minor.
pub(crate) const VERSION: (u16, u16) = (1, 0);

/// The oldest reader that understands what this code writes.
const MIN_READER: (u16, u16) = (1, 0);

/// Longest device identity, in bytes.
pub(crate) const IDENTITY_MAX: usize = 192;

const MAGIC: &[u8; 8] = b"HOLDFAST";
const MARKER_MAGIC: &[u8; 8] = b"HFFORMAT";
const CRC_AT: usize = 504;
const COPY_AT: usize = 84;
const IDENTITY_AT: usize = 96;
pub(crate) const TABLE_BYTES_MAX: u64 = 64 << 20;

/// What a pool says about itself. Never changes after format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) version: (u16, u16),
    pub(crate) uuid: Uuid,
    pub(crate) identity: String,
    pub(crate) device_bytes: u64,
    pub(crate) block_size: u32,
    pub(crate) data_start: u64,
    pub(crate) table_offsets: [u64; 2],
    pub(crate) table_bytes: u64,
}

/// What stands in one superblock place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Only zeros.
    Blank,
    /// A format began here and did not end.
    Marker {
        /// The data area may hold anything.
        contents_unknown: bool,
    },
    /// A superblock this code understands.
    Valid(Box<Superblock>),
    /// A superblock only a newer reader understands: its version, and the reader it asks for.
    Newer {
        version: (u16, u16),
        needs: (u16, u16),
    },
    /// Our magic, but not our contents.
    Damaged(String),
    /// Bytes that are not ours.
    Strange,
}

impl Superblock {
    /// The block to write as copy 0 or 1: the superblock, padded with zeros.
    pub(crate) fn encode(&self, copy: u32) -> Vec<u8> {
        let mut block = vec![0; WRITE_BYTES];
        put(&mut block, 0, MAGIC);
        put_versions(&mut block, self.version);
        put(&mut block, 16, self.uuid.as_bytes());
        put(&mut block, 32, &self.device_bytes.to_le_bytes());
        put(&mut block, 40, &self.data_start.to_le_bytes());
        put(&mut block, 48, &self.table_offsets[0].to_le_bytes());
        put(&mut block, 56, &self.table_offsets[1].to_le_bytes());
        put(&mut block, 64, &self.table_bytes.to_le_bytes());
        put(&mut block, 72, &EXTENT_BYTES.to_le_bytes());
        put(&mut block, 80, &self.block_size.to_le_bytes());
        put(&mut block, COPY_AT, &copy.to_le_bytes());
        let identity = self.identity.as_bytes();
        debug_assert!(identity.len() <= IDENTITY_MAX);
        put(
            &mut block,
            88,
            &u32::try_from(identity.len())
                .unwrap_or_default()
                .to_le_bytes(),
        );
        put(&mut block, IDENTITY_AT, identity);
        seal(&mut block);
        block
    }

    /// Everything a valid checksum does not promise: that the numbers make sense together.
    fn check(&self, alignment: u64) -> Result<(), String> {
        if alignment != EXTENT_BYTES {
            return Err(format!(
                "extent alignment {alignment} instead of {EXTENT_BYTES}"
            ));
        }
        if !matches!(self.block_size, 512 | 4096) {
            return Err(format!(
                "block size {} is neither 512 nor 4096",
                self.block_size
            ));
        }
        let block = WRITE_BYTES as u64;
        if self.table_bytes < block
            || self.table_bytes > TABLE_BYTES_MAX
            || !self.table_bytes.is_multiple_of(block)
        {
            return Err(format!("table copies of {} bytes", self.table_bytes));
        }
        let mut areas = [
            (SUPERBLOCK_OFFSETS[0], SUPERBLOCK_AREA),
            (SUPERBLOCK_OFFSETS[1], SUPERBLOCK_AREA),
            (self.table_offsets[0], self.table_bytes),
            (self.table_offsets[1], self.table_bytes),
            (
                self.data_start,
                self.device_bytes
                    .saturating_sub(self.data_start)
                    .max(EXTENT_BYTES),
            ),
        ];
        areas.sort_unstable();
        let disjoint = areas.windows(2).all(|pair| {
            pair[0]
                .0
                .checked_add(pair[0].1)
                .is_some_and(|end| end <= pair[1].0)
        });
        if !disjoint
            || areas[4].0 != self.data_start
            || !self.data_start.is_multiple_of(EXTENT_BYTES)
        {
            return Err("superblocks, tables and data area overlap".into());
        }
        if self
            .data_start
            .checked_add(EXTENT_BYTES)
            .is_none_or(|end| end > self.device_bytes)
        {
            return Err(format!(
                "a data area from {} on a device of {}",
                self.data_start, self.device_bytes
            ));
        }
        if areas.iter().any(|(offset, _)| offset % block != 0) {
            return Err("a table copy off the 4096-byte grid".into());
        }
        Ok(())
    }
}

/// The block to write as copy 0 or 1 where `sector` is a valid superblock, whatever a newer version has added to it.
pub(crate) fn copy_of(sector: &[u8], copy: u32) -> Vec<u8> {
    let mut block = sector.to_vec();
    block.resize(WRITE_BYTES, 0);
    put(&mut block, COPY_AT, &copy.to_le_bytes());
    seal(&mut block);
    block
}

/// The marker to write in the first superblock's place before a format touches anything else.
pub(crate) fn encode_marker(contents_unknown: bool) -> Vec<u8> {
    let mut block = vec![0; WRITE_BYTES];
    put(&mut block, 0, MARKER_MAGIC);
    put_versions(&mut block, VERSION);
    put(&mut block, 16, &u32::from(contents_unknown).to_le_bytes());
    seal(&mut block);
    block
}

/// Decides what stands in superblock place `copy`; `bytes` is what was read there.
pub(crate) fn decode(bytes: &[u8], copy: u32) -> Slot {
    let Some(block) = bytes.get(..SUPERBLOCK_BYTES) else {
        return if all_zero(bytes) {
            Slot::Blank
        } else {
            Slot::Strange
        };
    };
    let is_marker = block.starts_with(MARKER_MAGIC);
    if !is_marker && !block.starts_with(MAGIC) {
        return if all_zero(block) {
            Slot::Blank
        } else {
            Slot::Strange
        };
    }
    if crc32c::crc32c(&block[..CRC_AT]) != u32_at(block, CRC_AT) {
        return Slot::Damaged("checksum does not match".into());
    }
    let (version, needs) = (
        (u16_at(block, 8), u16_at(block, 10)),
        (u16_at(block, 12), u16_at(block, 14)),
    );
    if needs > VERSION {
        return Slot::Newer { version, needs };
    }
    if is_marker {
        return Slot::Marker {
            contents_unknown: u32_at(block, 16) != 0,
        };
    }
    match decode_fields(block, version, copy) {
        Ok(superblock) => Slot::Valid(Box::new(superblock)),
        Err(reason) => Slot::Damaged(reason),
    }
}

fn decode_fields(block: &[u8], version: (u16, u16), copy: u32) -> Result<Superblock, String> {
    if u32_at(block, COPY_AT) != copy {
        return Err(format!(
            "this is copy {} in the place of copy {copy}",
            u32_at(block, COPY_AT)
        ));
    }
    let length = usize::try_from(u32_at(block, 88)).unwrap_or(usize::MAX);
    if length > IDENTITY_MAX {
        return Err(format!("a device identity of {length} bytes"));
    }
    let identity = std::str::from_utf8(&block[IDENTITY_AT..IDENTITY_AT + length])
        .map_err(|_| "a device identity that is not UTF-8".to_string())?;
    if identity.chars().any(char::is_control) {
        return Err("a device identity with control characters".into());
    }
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&block[16..32]);
    let superblock = Superblock {
        version,
        uuid: Uuid::from_bytes(uuid),
        identity: identity.to_string(),
        device_bytes: u64_at(block, 32),
        data_start: u64_at(block, 40),
        table_offsets: [u64_at(block, 48), u64_at(block, 56)],
        table_bytes: u64_at(block, 64),
        block_size: u32_at(block, 80),
    };
    superblock.check(u64_at(block, 72))?;
    Ok(superblock)
}

fn put_versions(block: &mut [u8], version: (u16, u16)) {
    put(block, 8, &version.0.to_le_bytes());
    put(block, 10, &version.1.to_le_bytes());
    put(block, 12, &MIN_READER.0.to_le_bytes());
    put(block, 14, &MIN_READER.1.to_le_bytes());
}

fn seal(block: &mut [u8]) {
    let crc = crc32c::crc32c(&block[..CRC_AT]);
    put(block, CRC_AT, &crc.to_le_bytes());
}

#[cfg(test)]
mod tests;
