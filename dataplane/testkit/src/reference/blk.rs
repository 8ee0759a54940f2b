//! virtio-blk over byte streams: header from the readable bytes, status into the last writable byte, whatever the layout.

use crate::frontend::status;
use holdfast_bdev::{BdevError, BlockDevice, Info};
use std::io::{Read, Write};
use std::sync::Arc;
use virtio_queue::{DescriptorChain, Reader, Writer};
use vm_memory::{GuestMemoryLoadGuard, GuestMemoryMmap};

type Guard = GuestMemoryLoadGuard<GuestMemoryMmap>;

/// Most data segments in a request, and most ranges in a discard.
const SEG_MAX: u32 = 1022;
const RANGES_MAX: usize = 16;
/// Longest range of a discard or write-zeroes, in sectors.
const SECTORS_MAX: u32 = 1 << 21;

/// One device and its serial number.
pub(super) struct Blk {
    pub(super) device: Arc<dyn BlockDevice>,
    pub(super) serial: String,
}

/// A request that is answered with this status instead of success.
struct Refused(u8);

impl From<BdevError> for Refused {
    fn from(error: BdevError) -> Refused {
        tracing::debug!(%error, "Request failed");
        Refused(status::IOERR)
    }
}

impl From<std::io::Error> for Refused {
    fn from(_: std::io::Error) -> Refused {
        Refused(status::IOERR)
    }
}

impl Blk {
    /// Serves one request; returns the length for the used element.
    ///
    /// # Errors
    /// If the chain cannot carry a header and a status.
    pub(super) fn serve(
        &self,
        memory: &Guard,
        chain: DescriptorChain<Guard>,
    ) -> Result<u32, virtio_queue::Error> {
        let mut reader = chain.clone().reader(memory)?;
        let mut room = chain.writer(memory)?;
        let last = room.available_bytes().checked_sub(1);
        let last = last.ok_or(virtio_queue::Error::InvalidChain)?;
        let mut status_byte = room
            .split_at(last)
            .map_err(|_| virtio_queue::Error::InvalidChain)?;
        let header: [u8; 16] = reader
            .read_obj()
            .map_err(|_| virtio_queue::Error::InvalidChain)?;
        let answer = match self.act(header, &mut reader, &mut room) {
            Ok(()) => status::OK,
            Err(Refused(status)) => status,
        };
        status_byte
            .write_obj(answer)
            .map_err(|_| virtio_queue::Error::InvalidChain)?;
        let written = u32::try_from(room.bytes_written()).unwrap_or(u32::MAX);
        // The used length counts from the start: the status byte only if everything before it was written.
        Ok(if room.available_bytes() == 0 {
            written + 1
        } else {
            written
        })
    }

    fn act(
        &self,
        header: [u8; 16],
        reader: &mut Reader<'_>,
        room: &mut Writer<'_>,
    ) -> Result<(), Refused> {
        let kind = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        let sector = u64::from_le_bytes(std::array::from_fn(|i| header[8 + i]));
        let offset = sector.checked_mul(512).ok_or(Refused(status::IOERR))?;
        match kind {
            0 => self.read(offset, room),
            1 => self.write(offset, reader),
            4 => Ok(self.device.flush()?),
            8 => self.identify(room),
            11 | 13 => self.zero(kind, reader),
            _ => Err(Refused(status::UNSUPP)),
        }
    }

    fn read(&self, offset: u64, room: &mut Writer<'_>) -> Result<(), Refused> {
        let mut bytes = vec![0; room.available_bytes()];
        self.check(bytes.len())?;
        self.device.read_at(offset, &mut bytes)?;
        Ok(room.write_all(&bytes)?)
    }

    fn write(&self, offset: u64, reader: &mut Reader<'_>) -> Result<(), Refused> {
        let mut bytes = vec![0; reader.available_bytes()];
        reader.read_exact(&mut bytes)?;
        self.check(bytes.len())?;
        self.writable()?;
        Ok(self.device.write_at(offset, &bytes)?)
    }

    fn identify(&self, room: &mut Writer<'_>) -> Result<(), Refused> {
        let mut id = [0; 20];
        let len = self.serial.len().min(id.len());
        id[..len].copy_from_slice(&self.serial.as_bytes()[..len]);
        let len = room.available_bytes().min(id.len());
        Ok(room.write_all(&id[..len])?)
    }

    /// Discard and write-zeroes both zero here: a discard may do what it likes.
    fn zero(&self, kind: u32, reader: &mut Reader<'_>) -> Result<(), Refused> {
        let known_flags = if kind == 13 { 1 } else { 0 };
        let mut bytes = vec![0; reader.available_bytes()];
        reader.read_exact(&mut bytes)?;
        self.writable()?;
        let (ranges, rest) = bytes.as_chunks::<16>();
        if ranges.is_empty() || !rest.is_empty() || ranges.len() > RANGES_MAX {
            return Err(Refused(status::IOERR));
        }
        for range in ranges {
            let u32_at = |at| u32::from_le_bytes(std::array::from_fn(|i| range[at + i]));
            let sector = u64::from_le_bytes(std::array::from_fn(|i| range[i]));
            let (sectors, flags) = (u32_at(8), u32_at(12));
            if flags & !known_flags != 0 {
                return Err(Refused(status::UNSUPP));
            }
            if sectors > SECTORS_MAX {
                return Err(Refused(status::IOERR));
            }
            let offset = sector.checked_mul(512).ok_or(Refused(status::IOERR))?;
            self.device
                .write_zeroes_at(offset, u64::from(sectors) * 512)?;
        }
        Ok(())
    }

    fn check(&self, len: usize) -> Result<(), Refused> {
        if len == 0 || !len.is_multiple_of(512) {
            return Err(Refused(status::IOERR));
        }
        Ok(())
    }

    fn writable(&self) -> Result<(), Refused> {
        if self.device.info().read_only {
            return Err(Refused(status::IOERR));
        }
        Ok(())
    }
}

/// The configuration space of the device.
pub(super) fn config_space(info: &Info, queues: usize, writeback: bool) -> [u8; 60] {
    let mut space = [0; 60];
    let mut put = |at: usize, bytes: &[u8]| space[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &(info.size_bytes / 512).to_le_bytes());
    put(8, &(1u32 << 20).to_le_bytes());
    put(12, &SEG_MAX.to_le_bytes());
    put(20, &info.block_size.to_le_bytes());
    put(32, &[u8::from(writeback)]);
    put(34, &u16::try_from(queues).unwrap_or(u16::MAX).to_le_bytes());
    put(36, &SECTORS_MAX.to_le_bytes());
    put(40, &16u32.to_le_bytes());
    put(44, &1u32.to_le_bytes());
    put(48, &SECTORS_MAX.to_le_bytes());
    put(52, &16u32.to_le_bytes());
    put(56, &[1]);
    space
}
