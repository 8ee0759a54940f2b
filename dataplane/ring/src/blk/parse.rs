//! Makes a block request of a chain. Header, data and status may lie across descriptors in any way (virtio 1.x 2.7.4.1),
//! so both parts are byte streams; the shape every driver sends, 16 / data / 1, takes a short cut.
//!
//! Two kinds of wrong: a chain that cannot carry an answer poisons the queue; everything else is answered with a status.
#![allow(unsafe_code)]

use super::request::{BlkRange, Kind, Request, Status};
use super::{Limits, SECTOR_BYTES};
use crate::queue::QueueError;
use crate::word;
use std::ptr::NonNull;

const HEADER_LEN: usize = 16;
const RANGE_LEN: usize = 16;

const TYPE_IN: u32 = 0;
const TYPE_OUT: u32 = 1;
const TYPE_FLUSH: u32 = 4;
const TYPE_GET_ID: u32 = 8;
const TYPE_DISCARD: u32 = 11;
const TYPE_WRITE_ZEROES: u32 = 13;

/// Flag of a write-zeroes range: it may be unmapped.
const RANGE_UNMAP: u32 = 1;

impl Request {
    /// Reads header and ranges from the chain popped last and checks them against the limits of the device.
    #[inline]
    pub(crate) fn parse(&mut self, limits: &Limits) -> Result<(), QueueError> {
        let head = self.chain.head;
        self.status = None;
        self.ranges.clear();
        self.written = 0;
        self.offset_bytes = 0;
        self.data_len = 0;
        self.data = 0..0;
        if self.chain.writable_len == 0 {
            return Err(QueueError::NoStatusByte { head });
        }
        if (self.chain.readable_len as usize) < HEADER_LEN {
            return Err(QueueError::HeaderTooShort {
                head,
                len: self.chain.readable_len,
            });
        }
        let (header, readable_from) = self.take(0, HEADER_LEN);
        let writable_to = self.take_status();
        let kind = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        let sector = u64::from_le_bytes([
            header[8], header[9], header[10], header[11], header[12], header[13], header[14],
            header[15],
        ]);
        self.kind = self
            .accept(kind, sector, readable_from, writable_to, limits)
            .unwrap_or_else(Kind::Rejected);
        Ok(())
    }

    /// Decides what the request is, or with which status it is rejected.
    #[inline]
    fn accept(
        &mut self,
        kind: u32,
        sector: u64,
        readable_from: usize,
        writable_to: usize,
        limits: &Limits,
    ) -> Result<Kind, Status> {
        let readable = self.chain.readable;
        let data_out = u64::from(self.chain.readable_len) - HEADER_LEN as u64;
        let data_in = u64::from(self.chain.writable_len) - 1;
        match kind {
            TYPE_IN if data_out == 0 => {
                self.data = readable..writable_to;
                self.data_len = data_in;
                self.check_transfer(sector, limits)?;
                Ok(Kind::In)
            }
            TYPE_OUT if data_in == 0 && !limits.read_only => {
                self.data = readable_from..readable;
                self.data_len = data_out;
                self.check_transfer(sector, limits)?;
                Ok(Kind::Out)
            }
            // Data against the direction of the request, or a write to a read-only device.
            TYPE_IN | TYPE_OUT => Err(Status::IoErr),
            TYPE_FLUSH if limits.flush => Ok(Kind::Flush),
            TYPE_GET_ID => {
                self.data = readable..writable_to;
                self.data_len = data_in;
                Ok(Kind::GetId)
            }
            TYPE_DISCARD if limits.discard => {
                let bounds = RangeBounds {
                    known_flags: 0,
                    sectors_max: limits.max_discard_sectors,
                    ranges_max: limits.max_discard_seg,
                };
                self.parse_ranges(readable_from, bounds, limits)?;
                Ok(Kind::Discard)
            }
            TYPE_WRITE_ZEROES if limits.write_zeroes => {
                let bounds = RangeBounds {
                    known_flags: RANGE_UNMAP,
                    sectors_max: limits.max_write_zeroes_sectors,
                    ranges_max: limits.max_write_zeroes_seg,
                };
                let may_unmap = self.parse_ranges(readable_from, bounds, limits)?;
                Ok(Kind::WriteZeroes { may_unmap })
            }
            _ => Err(Status::Unsupp),
        }
    }

    /// Checks data and place of a read or write.
    #[inline]
    fn check_transfer(&mut self, sector: u64, limits: &Limits) -> Result<(), Status> {
        let offset = sector.checked_mul(SECTOR_BYTES).ok_or(Status::IoErr)?;
        self.offset_bytes = offset;
        check_place(offset, self.data_len, limits)?;
        // A buffer that runs over a region's end is one segment to the guest, however many pieces it is to us.
        let segments = self.data.len().saturating_sub(self.chain.splits);
        let too_many = segments as u64 > u64::from(limits.seg_max);
        if too_many || (self.chain.longest > limits.size_max && self.has_long_piece(limits)) {
            return Err(Status::IoErr);
        }
        Ok(())
    }

    /// Whether a data buffer is longer than allowed, given that some descriptor is. That one may be innocent if header or
    /// status share it; if it is split over regions as well, those few bytes are forgiven.
    #[cold]
    fn has_long_piece(&self, limits: &Limits) -> bool {
        let size_max = limits.size_max as usize;
        self.chain.longest as usize > size_max + HEADER_LEN + 1
            || self.iov().iter().any(|piece| piece.iov_len > size_max)
    }

    /// Reads the ranges of a discard or write-zeroes; returns whether all of them may be unmapped.
    fn parse_ranges(
        &mut self,
        from: usize,
        bounds: RangeBounds,
        limits: &Limits,
    ) -> Result<bool, Status> {
        let len = self.chain.readable_len as usize - HEADER_LEN;
        let count = len / RANGE_LEN;
        let fits = len.is_multiple_of(RANGE_LEN)
            && count > 0
            && count as u64 <= u64::from(bounds.ranges_max);
        if !fits || limits.read_only {
            return Err(Status::IoErr);
        }
        let (mut from, mut may_unmap) = (from, true);
        // Bound: at most `ranges_max`, checked above.
        for _ in 0..count {
            let (bytes, next) = self.take(from, RANGE_LEN);
            from = next;
            let (range, flags) = RangeBounds::check(&bounds, bytes, limits)?;
            may_unmap &= flags & RANGE_UNMAP != 0;
            self.ranges.push(range);
        }
        Ok(may_unmap)
    }

    /// Copies the next 16 readable bytes, once, and cuts them off; returns the piece at which the rest begins.
    /// The caller has checked that there are as many.
    #[inline]
    fn take(&mut self, from: usize, len: usize) -> ([u8; 16], usize) {
        let mut bytes = [0; 16];
        debug_assert_eq!(len, bytes.len());
        if let Some(piece) = self.chain.iov.get(from)
            && piece.iov_len == len
        {
            // SAFETY: the piece is 16 bytes of guest memory that the chain keeps mapped.
            let [low, high] = unsafe { word::load_pair(piece.iov_base.cast()) };
            let both = u128::from(high) << 64 | u128::from(low);
            return (both.to_le_bytes(), from + 1);
        }
        let from = self.take_scattered(from, &mut bytes);
        (bytes, from)
    }

    #[cold]
    fn take_scattered(&mut self, mut from: usize, bytes: &mut [u8; 16]) -> usize {
        let mut done = 0;
        // Bound: a piece is never empty, so `done` grows with each.
        while let Some(piece) = self.chain.iov.get_mut(from)
            && done < bytes.len()
        {
            let now = piece.iov_len.min(bytes.len() - done);
            // SAFETY: `now` bytes of a piece of guest memory that the chain keeps mapped.
            unsafe { word::copy_from(piece.iov_base.cast(), &mut bytes[done..done + now]) };
            piece.iov_base = piece.iov_base.cast::<u8>().wrapping_add(now).cast();
            piece.iov_len -= now;
            done += now;
            if piece.iov_len > 0 {
                break;
            }
            from += 1;
        }
        from
    }

    /// Cuts the last writable byte off for the status; returns the piece at which the writable data ends.
    #[inline]
    fn take_status(&mut self) -> usize {
        let end = self.chain.iov.len();
        let Some(last) = self.chain.iov.last_mut() else {
            return end;
        };
        last.iov_len -= 1;
        let byte = last.iov_base.cast::<u8>().wrapping_add(last.iov_len);
        word::will_store(byte);
        self.status = NonNull::new(byte);
        if last.iov_len == 0 { end - 1 } else { end }
    }
}

/// What a discard or write-zeroes may ask for.
struct RangeBounds {
    known_flags: u32,
    sectors_max: u32,
    ranges_max: u32,
}

impl RangeBounds {
    /// Checks one range as it stands in the request: sector, number of sectors, flags.
    fn check(&self, bytes: [u8; RANGE_LEN], limits: &Limits) -> Result<(BlkRange, u32), Status> {
        let [
            s0,
            s1,
            s2,
            s3,
            s4,
            s5,
            s6,
            s7,
            n0,
            n1,
            n2,
            n3,
            f0,
            f1,
            f2,
            f3,
        ] = bytes;
        let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let sectors = u32::from_le_bytes([n0, n1, n2, n3]);
        let flags = u32::from_le_bytes([f0, f1, f2, f3]);
        if flags & !self.known_flags != 0 {
            return Err(Status::Unsupp);
        }
        let offset_bytes = sector.checked_mul(SECTOR_BYTES).ok_or(Status::IoErr)?;
        let len_bytes = u64::from(sectors) * SECTOR_BYTES;
        if sectors > self.sectors_max {
            return Err(Status::IoErr);
        }
        check_place(offset_bytes, len_bytes, limits)?;
        Ok((
            BlkRange {
                offset_bytes,
                len_bytes,
            },
            flags,
        ))
    }
}

/// Whether a range is some whole blocks inside the device.
#[inline]
fn check_place(offset_bytes: u64, len_bytes: u64, limits: &Limits) -> Result<(), Status> {
    let block = u64::from(limits.block_size.max(512));
    let end = offset_bytes.checked_add(len_bytes).ok_or(Status::IoErr)?;
    // The block size is a power of two; a mask spares the hot path two divisions.
    let whole = (offset_bytes | len_bytes) & (block - 1) == 0;
    if len_bytes == 0 || !whole || end > limits.capacity_bytes {
        return Err(Status::IoErr);
    }
    Ok(())
}
