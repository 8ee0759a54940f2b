//! Makes a pool of a device, in an order that a crash cannot turn into a half-made pool or into lost data.

use crate::discovery::{Finding, check_room, discover};
use crate::error::PoolError;
use crate::journal::Journal;
use crate::layout::{
    DATA_START, SUPERBLOCK_OFFSETS, TABLE_BYTES, TABLE_OFFSETS, WRITE_BYTES, data_end,
};
use crate::superblock::{IDENTITY_MAX, Superblock, VERSION, encode_marker};
use crate::table::Table;
use holdfast_bdev::{BdevError, BlockDevice};
use uuid::Uuid;

/// How to make a pool.
#[derive(Clone, Debug, Default)]
pub struct FormatOptions {
    /// What the device is known by (serial and namespace, WWID, path of a file): up to 192 bytes, kept in the superblock.
    pub identity: String,
    /// The device is known to read zeros, a file created just now for instance. Otherwise all space is erased first.
    /// Not believed when something was found on the device.
    pub zeroed: bool,
    /// Give up whatever the device carries. Volumes of a pool on it are lost.
    pub force: bool,
}

/// Writes a new pool: marker, head and tail of zeros, table copies, second superblock, first superblock; each made durable before the
/// next. Until the first superblock replaces the marker the device is "being formatted", and only formatting goes on.
pub(crate) fn format(
    device: &dyn BlockDevice,
    options: &FormatOptions,
) -> Result<(Superblock, Journal, Table), PoolError> {
    check_room(device)?;
    if device.info().read_only {
        return Err(PoolError::ReadOnly);
    }
    let contents_unknown = permit(device, options)? || !options.zeroed;
    let superblock = new_superblock(device, &options.identity)?;
    // The marker remembers a forced format: whoever ends it must not take old data for zeros.
    write(
        device,
        SUPERBLOCK_OFFSETS[0],
        &encode_marker(contents_unknown),
    )?;
    let limit = data_end(superblock.device_bytes);
    zero_edges(device, limit)?;
    let mut table = Table::new(DATA_START);
    table.extend(limit, !contents_unknown);
    let journal = Journal::create(device, &superblock, &table)?;
    write(device, SUPERBLOCK_OFFSETS[1], &superblock.encode(1))?;
    write(device, SUPERBLOCK_OFFSETS[0], &superblock.encode(0))?;
    Ok((superblock, journal, table))
}

/// Whether the device may be formatted, and if so, whether anything was found on it.
fn permit(device: &dyn BlockDevice, options: &FormatOptions) -> Result<bool, PoolError> {
    match discover(device)?.finding {
        Finding::Blank => Ok(false),
        Finding::Interrupted { contents_unknown } => Ok(contents_unknown),
        _ if options.force => Ok(true),
        Finding::Pool(there) => Err(PoolError::AlreadyAPool {
            uuid: there.uuid,
            identity: there.identity,
        }),
        other => Err(other.into_pool().err().unwrap_or(PoolError::NotAPool)),
    }
}

fn new_superblock(device: &dyn BlockDevice, identity: &str) -> Result<Superblock, PoolError> {
    if identity.len() > IDENTITY_MAX || identity.chars().any(char::is_control) {
        return Err(PoolError::InvalidIdentity {
            identity: identity.into(),
            max: IDENTITY_MAX,
        });
    }
    let info = device.info();
    Ok(Superblock {
        version: VERSION,
        uuid: Uuid::new_v4(),
        identity: identity.into(),
        device_bytes: info.size_bytes,
        block_size: info.block_size,
        data_start: DATA_START,
        table_offsets: TABLE_OFFSETS,
        table_bytes: TABLE_BYTES,
    })
}

/// Removes what others or an older pool left outside the data area, so that no later look at it finds their traces. What they
/// left inside is erased before anybody gets it.
fn zero_edges(device: &dyn BlockDevice, data_end: u64) -> Result<(), PoolError> {
    let past_marker = WRITE_BYTES as u64;
    device
        .write_zeroes_at(past_marker, DATA_START - past_marker)
        .map_err(failed)?;
    let tail_bytes = device.info().size_bytes.saturating_sub(data_end);
    device
        .write_zeroes_at(data_end, tail_bytes)
        .map_err(failed)?;
    device.flush().map_err(failed)
}

fn write(device: &dyn BlockDevice, offset: u64, block: &[u8]) -> Result<(), PoolError> {
    device.write_at(offset, block).map_err(failed)?;
    device.flush().map_err(failed)
}

fn failed(source: BdevError) -> PoolError {
    PoolError::Device {
        action: "formatting",
        source,
    }
}
