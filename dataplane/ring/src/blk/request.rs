//! One block request: what the guest wants, where its data is, and how it is answered.
#![allow(unsafe_code)]

use crate::queue::Chain;
use crate::word;
use std::ops::Range;
use std::ptr::NonNull;

/// A virtio-blk request. Reusable: popping into it again keeps its allocations.
///
/// While it is between [`pop`](crate::SplitQueue::pop) and [`finish`](Self::finish) it keeps the guest memory it points
/// into mapped; its [`iov`](Self::iov) may be handed to the kernel for that time.
#[derive(Debug)]
pub struct Request {
    pub(super) chain: Chain,
    pub(super) kind: Kind,
    pub(super) offset_bytes: u64,
    pub(super) data_len: u64,
    /// Which pieces of the chain are data.
    pub(super) data: Range<usize>,
    pub(super) ranges: Vec<BlkRange>,
    /// Where the answer goes; none when there is nothing to answer.
    pub(super) status: Option<NonNull<u8>>,
    /// Bytes `write_data` has put at the front of the data.
    pub(super) written: u32,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Read from the device into [`Request::iov`].
    In,
    /// Write [`Request::iov`] to the device.
    Out,
    /// Make all completed writes durable.
    Flush,
    /// The guest no longer needs [`Request::ranges`].
    Discard,
    /// [`Request::ranges`] must read as zeros afterwards.
    WriteZeroes {
        /// Whether all ranges may be unmapped to get there.
        may_unmap: bool,
    },
    /// Tell the device's name: [`Request::write_data`], 20 bytes, padded with zeros.
    GetId,
    /// Well formed, but to be answered with this status at once.
    Rejected(Status),
}

/// The answer to a request, as the guest reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// Failed, or against the limits of the device.
    IoErr = 1,
    /// Unknown or not offered.
    Unsupp = 2,
}

/// A range of the device, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlkRange {
    /// First byte.
    pub offset_bytes: u64,
    /// Length, more than zero.
    pub len_bytes: u64,
}

impl Request {
    /// A request to pop into.
    pub fn new() -> Request {
        Request {
            chain: Chain::new(),
            kind: Kind::Rejected(Status::IoErr),
            offset_bytes: 0,
            data_len: 0,
            data: 0..0,
            ranges: Vec::new(),
            status: None,
            written: 0,
        }
    }

    /// The name under which the guest waits for the answer: [`push`](crate::SplitQueue::push) it.
    #[inline]
    pub fn head(&self) -> u16 {
        self.chain.head
    }

    /// What the guest wants.
    #[inline]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// First byte on the device, for reads and writes.
    #[inline]
    pub fn offset_bytes(&self) -> u64 {
        self.offset_bytes
    }

    /// Length of the data in bytes, for reads, writes and GET_ID.
    #[inline]
    pub fn data_len(&self) -> u64 {
        self.data_len
    }

    /// The data in guest memory, for reads, writes and GET_ID: `data_len` bytes in at most
    /// [`MAX_CHAIN`](crate::MAX_CHAIN) pieces. Empty after [`finish`](Self::finish).
    #[inline]
    pub fn iov(&self) -> &[libc::iovec] {
        self.chain.iov.get(self.data.clone()).unwrap_or_default()
    }

    /// Bytes that this request moves between guest and device: those of a read or write.
    #[inline]
    pub fn moves_bytes(&self) -> u64 {
        match self.kind {
            Kind::In | Kind::Out => self.data_len,
            _ => 0,
        }
    }

    /// The ranges of a discard or write-zeroes; inside the device, in the guest's order.
    #[inline]
    pub fn ranges(&self) -> &[BlkRange] {
        &self.ranges
    }

    /// The [epoch](crate::MemView::epoch) of the memory it points into; none once it is finished.
    pub fn epoch(&self) -> Option<u64> {
        self.chain.view.as_ref().map(|view| view.epoch())
    }

    /// Copies `bytes` to the front of the data of a read or GET_ID, as far as there is room; returns how many.
    pub fn write_data(&mut self, bytes: &[u8]) -> u32 {
        if !matches!(self.kind, Kind::In | Kind::GetId) {
            return 0;
        }
        let mut rest = bytes;
        for piece in self.chain.iov.get(self.data.clone()).unwrap_or_default() {
            let (now, later) = rest.split_at(rest.len().min(piece.iov_len));
            // SAFETY: a piece is a range of guest memory that `chain` keeps mapped until `finish` empties it.
            unsafe { word::copy_to(now, piece.iov_base.cast()) };
            rest = later;
        }
        // No more than `writable_len`, which is 32 bits wide.
        self.written = u32::try_from(bytes.len() - rest.len()).unwrap_or(u32::MAX);
        self.written
    }

    /// Writes the answer and lets go of the guest's memory; returns the length to [`push`](crate::SplitQueue::push).
    ///
    /// That is the number of bytes written from the start of the writable part without a gap (virtio 1.x 2.7.8.2): data
    /// and status of a good read, the status alone of anything that has no data to write, and 0 for a read that failed,
    /// whose status comes after bytes that were not written. A second call does nothing and returns 0.
    #[inline]
    pub fn finish(&mut self, status: Status) -> u32 {
        let Some(byte) = self.status.take() else {
            return 0;
        };
        // SAFETY: `parse` found this byte in a writable piece of the chain, whose memory is mapped until `clear` below.
        unsafe { word::store_u8(byte.as_ptr(), status as u8) };
        let before_status = self.chain.writable_len - 1;
        let written = match (self.kind, status) {
            (Kind::In, Status::Ok) => before_status,
            _ => self.written,
        };
        self.data = 0..0;
        self.chain.clear();
        if written == before_status {
            written + 1
        } else {
            written
        }
    }

    /// Lets go of the guest's memory without an answer: somebody else will give it, see
    /// [`SplitQueue::forget`](crate::SplitQueue::forget).
    #[cold]
    pub fn reset(&mut self) {
        self.status = None;
        self.data = 0..0;
        self.ranges.clear();
        self.chain.clear();
    }

    #[inline]
    pub(crate) fn chain_mut(&mut self) -> &mut Chain {
        &mut self.chain
    }
}

impl Default for Request {
    fn default() -> Request {
        Request::new()
    }
}
