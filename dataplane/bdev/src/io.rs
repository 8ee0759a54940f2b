//! The request that travels down a stack of devices, and the answer that comes back. Plain values, no
//! allocation; the buffers are named by address because they belong to a guest.
#![allow(unsafe_code)] // `Io` carries addresses of memory that its maker vouches for.

use std::fmt;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Fill the buffers from the device.
    Read,
    /// Put the buffers on the device.
    Write,
    /// Make every write that has completed so far durable.
    Flush,
    /// The content of the range is no longer needed.
    Discard,
    /// The range reads as zeros afterwards.
    WriteZeroes {
        /// The device may give the space back.
        may_unmap: bool,
    },
}

/// The caller's name for a request; comes back in its [`Completion`].
/// Bit 63 is reserved for the driver's own continuations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// How a request ended. Ordered by how bad it is: of several parts, the worst is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoStatus {
    /// All of it was done.
    Ok,
    /// The device has no such operation; nothing was changed.
    Unsupported,
    /// The range reaches past the end of the device; nothing was changed.
    OutOfRange,
    /// The device failed with this error number (positive, as in `errno`).
    Failed(i32),
}

impl IoStatus {
    pub(crate) fn worst(self, other: IoStatus) -> IoStatus {
        if other.badness() > self.badness() {
            other
        } else {
            self
        }
    }

    fn badness(self) -> u8 {
        match self {
            IoStatus::Ok => 0,
            IoStatus::Unsupported => 1,
            IoStatus::OutOfRange => 2,
            IoStatus::Failed(_) => 3,
        }
    }
}

/// One finished request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The token the request was submitted with.
    pub token: Token,
    /// How it ended.
    pub status: IoStatus,
}

/// One request. Small and `Copy`: a device passes it on with [`Io::at`] and [`Io::with_token`].
#[derive(Clone, Copy)]
pub struct Io {
    op: Op,
    offset: u64,
    len: u64,
    iov: *const libc::iovec,
    iov_count: u32,
    token: Token,
}

// SAFETY: an `Io` is a description. Sending it moves no ownership, and whoever touches the memory it names
// does so under the promise made in `Io::with_buffers`, which does not depend on the thread.
unsafe impl Send for Io {}

impl Io {
    /// A request with data buffers; its length is the sum of the iovecs (a sum past `u64` saturates and is
    /// then refused as out of range).
    ///
    /// # Safety
    /// The iovec array and all memory it names stay valid (for reads: writable and not aliased by Rust
    /// references) until the completion for `token` has been taken from the [`Driver`](crate::Driver), or
    /// the driver has been dropped.
    pub unsafe fn with_buffers(op: Op, offset: u64, iov: &[libc::iovec], token: Token) -> Io {
        let len = iov
            .iter()
            .fold(0u64, |sum, part| sum.saturating_add(part.iov_len as u64));
        let iov_count =
            u32::try_from(iov.len()).expect("an iovec array has fewer than 2^32 entries");
        Io {
            op,
            offset,
            len,
            iov: iov.as_ptr(),
            iov_count,
            token,
        }
    }

    /// A request without buffers: flush (range ignored), discard, write zeroes. Lengths in bytes.
    pub fn without_buffers(op: Op, offset: u64, len: u64, token: Token) -> Io {
        Io {
            op,
            offset,
            len,
            iov: std::ptr::null(),
            iov_count: 0,
            token,
        }
    }

    /// The same request at another byte offset.
    #[must_use]
    pub fn at(self, offset: u64) -> Io {
        Io { offset, ..self }
    }

    /// The same request under another token.
    #[must_use]
    pub fn with_token(self, token: Token) -> Io {
        Io { token, ..self }
    }

    /// What is asked for.
    pub fn op(&self) -> Op {
        self.op
    }

    /// First byte on the device.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True if the request covers no bytes, as a flush does.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The name it completes under.
    pub fn token(&self) -> Token {
        self.token
    }

    /// Address of the iovec array; null if there are no buffers.
    pub fn iov(&self) -> *const libc::iovec {
        self.iov
    }

    /// Number of entries in the iovec array.
    pub fn iov_count(&self) -> u32 {
        self.iov_count
    }

    /// The iovecs as a slice.
    ///
    /// # Safety
    /// The request has been submitted and not completed, so that the promise of [`Io::with_buffers`] holds,
    /// and the slice is dropped before it completes.
    pub unsafe fn iovecs<'a>(&self) -> &'a [libc::iovec] {
        if self.iov_count == 0 {
            return &[];
        }
        // SAFETY: the maker of the request vouched for this array until completion.
        unsafe { std::slice::from_raw_parts(self.iov, self.iov_count as usize) }
    }
}

impl fmt::Debug for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} {}+{} ({:?}, {} buffers)",
            self.op, self.offset, self.len, self.token, self.iov_count
        )
    }
}
