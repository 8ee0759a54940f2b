//! The requests of virtio-blk (virtio 1.x section 5.2.6), as a driver makes them.

use std::fmt;

/// Status bytes.
pub mod status {
    /// Done.
    pub const OK: u8 = 0;
    /// Failed.
    pub const IOERR: u8 = 1;
    /// The device does not know this request.
    pub const UNSUPP: u8 = 2;
    /// What the driver writes before it offers a request, so that "not written" shows.
    pub const UNWRITTEN: u8 = 0xff;
}

/// A range of a discard or write-zeroes, in sectors of 512 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First sector.
    pub sector: u64,
    /// Number of sectors.
    pub sectors: u32,
    /// Bit 0: may be unmapped (write-zeroes only).
    pub flags: u32,
}

/// One request. Offsets and lengths in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Read `len` bytes.
    Read {
        /// First byte; a multiple of 512.
        offset: u64,
        /// Length.
        len: u32,
    },
    /// Write bytes.
    Write {
        /// First byte; a multiple of 512.
        offset: u64,
        /// The bytes.
        data: Vec<u8>,
    },
    /// Make what was written durable.
    Flush,
    /// Give ranges up.
    Discard(Vec<Range>),
    /// Zero ranges.
    WriteZeroes(Vec<Range>),
    /// Read the 20 bytes of the serial number.
    GetId,
    /// Anything else: a type and a sector as they stand, bytes for the device, room for its answer.
    Raw {
        /// Request type.
        kind: u32,
        /// Sector in the header.
        sector: u64,
        /// Payload after the header.
        data: Vec<u8>,
        /// Bytes the device may write, without the status; only if `data` is empty.
        room: u32,
    },
}

impl Op {
    /// The 16 bytes in front of every request.
    pub(crate) fn header(&self) -> [u8; 16] {
        let (kind, sector) = match self {
            Op::Read { offset, .. } => (0, offset / 512),
            Op::Write { offset, .. } => (1, offset / 512),
            Op::Flush => (4, 0),
            Op::GetId => (8, 0),
            Op::Discard(_) => (11, 0),
            Op::WriteZeroes(_) => (13, 0),
            Op::Raw { kind, sector, .. } => (*kind, *sector),
        };
        let mut header = [0; 16];
        header[..4].copy_from_slice(&u32::to_le_bytes(kind));
        header[8..].copy_from_slice(&sector.to_le_bytes());
        header
    }

    /// What follows the header.
    pub(crate) fn payload(self) -> Vec<u8> {
        match self {
            Op::Write { data, .. } | Op::Raw { data, .. } => data,
            Op::Discard(ranges) | Op::WriteZeroes(ranges) => {
                ranges.iter().flat_map(|range| range.bytes()).collect()
            }
            Op::Read { .. } | Op::Flush | Op::GetId => Vec::new(),
        }
    }

    /// Bytes the device may write, without the status.
    pub(crate) fn room(&self) -> u32 {
        match self {
            Op::Read { len, .. } => *len,
            Op::GetId => 20,
            Op::Raw { data, room, .. } if data.is_empty() => *room,
            _ => 0,
        }
    }
}

impl Range {
    fn bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.sector.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.sectors.to_le_bytes());
        bytes[12..].copy_from_slice(&self.flags.to_le_bytes());
        bytes
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::Read { offset, len } => write!(f, "read of {offset}+{len}"),
            Op::Write { offset, data } => write!(f, "write of {offset}+{}", data.len()),
            Op::Flush => f.write_str("flush"),
            Op::Discard(ranges) => write!(f, "discard of {} ranges", ranges.len()),
            Op::WriteZeroes(ranges) => write!(f, "write-zeroes of {} ranges", ranges.len()),
            Op::GetId => f.write_str("get-id"),
            Op::Raw { kind, sector, .. } => write!(f, "request type {kind} at sector {sector}"),
        }
    }
}
