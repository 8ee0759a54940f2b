//! One request at a time, for tests that want an answer and not a pipeline.

use super::super::{GuestError, Layout, Op, Range, status};
use super::{Done, GuestQueue};

impl GuestQueue {
    /// Submits one request and waits for its answer; nothing else may be outstanding.
    ///
    /// # Errors
    /// As [`submit`](Self::submit) and [`wait`](Self::wait).
    pub fn call(&mut self, op: Op, layout: Layout) -> Result<Done, GuestError> {
        if self.outstanding() > 0 {
            let what = "a blocking call while requests are outstanding".to_owned();
            return Err(GuestError::Invalid { what });
        }
        self.submit(op, layout)?;
        let mut done = self.wait()?;
        Ok(done.remove(0))
    }

    /// Reads `len` bytes at byte `offset`, and checks status and used length.
    ///
    /// # Errors
    /// As [`call`](Self::call); [`GuestError::Status`], [`GuestError::UsedLength`].
    pub fn read(&mut self, offset: u64, len: u32) -> Result<Vec<u8>, GuestError> {
        self.succeed(Op::Read { offset, len })
    }

    /// Writes bytes at byte `offset`.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), GuestError> {
        self.succeed(Op::Write {
            offset,
            data: data.to_vec(),
        })
        .map(drop)
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn flush(&mut self) -> Result<(), GuestError> {
        self.succeed(Op::Flush).map(drop)
    }

    /// Gives one range of sectors up.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn discard(&mut self, sector: u64, sectors: u32) -> Result<(), GuestError> {
        self.succeed(Op::Discard(vec![Range {
            sector,
            sectors,
            flags: 0,
        }]))
        .map(drop)
    }

    /// Zeroes one range of sectors.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn write_zeroes(&mut self, sector: u64, sectors: u32) -> Result<(), GuestError> {
        self.succeed(Op::WriteZeroes(vec![Range {
            sector,
            sectors,
            flags: 0,
        }]))
        .map(drop)
    }

    /// The serial number, without the zeros behind it.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn id(&mut self) -> Result<String, GuestError> {
        let bytes = self.succeed(Op::GetId)?;
        let len = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
        Ok(String::from_utf8_lossy(&bytes[..len]).into_owned())
    }

    fn succeed(&mut self, op: Op) -> Result<Vec<u8>, GuestError> {
        let (name, expected) = (op.to_string(), op.room() + 1);
        let done = self.call(
            op,
            if self.indirect {
                Layout::INDIRECT
            } else {
                Layout::DIRECT
            },
        )?;
        if done.status != status::OK {
            return Err(GuestError::Status {
                op: name,
                status: done.status,
            });
        }
        if done.used_len != expected {
            return Err(GuestError::UsedLength {
                op: name,
                found: done.used_len,
                expected,
            });
        }
        Ok(done.data)
    }
}
