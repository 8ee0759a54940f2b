//! A drive that remembers everything that was asked of it, and fails when it is told to.

use crate::image::{Change, Image};
use crate::truth::{Found, Tenants};
use holdfast_bdev::{BdevError, BlockDevice, Driver, Info, IoChannel};
use std::io::ErrorKind;
use std::sync::{Mutex, MutexGuard};

/// What happened, in order.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Change(Change),
    /// All changes before this are durable.
    Flush,
    Resize(u64),
    /// A call has begun that may leave this behind, although it did not or will not succeed.
    Maybe(Found),
    /// A call has answered: this is the truth now, and these are the tenants' bytes.
    Answered(Found, Tenants),
}

pub(crate) struct Drive(Mutex<State>);

struct State {
    size_bytes: u64,
    image: Image,
    log: Vec<Event>,
    /// How many writes and flushes still succeed before one fails.
    good_for: Option<u32>,
}

impl Drive {
    pub(crate) fn new(size_bytes: u64, image: Image) -> Drive {
        Drive(Mutex::new(State {
            size_bytes,
            image,
            log: Vec::new(),
            good_for: None,
        }))
    }

    pub(crate) fn note(&self, event: Event) {
        let mut state = self.state();
        if let Event::Resize(size_bytes) = event {
            state.size_bytes = size_bytes;
        }
        state.log.push(event);
    }

    pub(crate) fn log(&self) -> Vec<Event> {
        self.state().log.clone()
    }

    pub(crate) fn image(&self) -> Image {
        self.state().image.clone()
    }

    /// Lets `count` more writes and flushes pass and the next one fail. A failed write has written its first half.
    pub(crate) fn fail_after(&self, count: u32) {
        self.state().good_for = Some(count);
    }

    /// Whether the failure that was ordered has happened.
    pub(crate) fn has_failed(&self) -> bool {
        self.state().good_for.is_none()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl std::fmt::Debug for Drive {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Drive")
    }
}

impl State {
    fn change(&mut self, change: Change) -> Result<(), BdevError> {
        let failed = self.is_failing();
        let change = match change {
            Change::Write { offset, bytes } if failed => Change::Write {
                offset,
                bytes: bytes[..bytes.len() / 2].into(),
            },
            Change::Zero { offset, len } if failed => Change::Zero {
                offset,
                len: len / 2,
            },
            whole => whole,
        };
        self.image.apply(&change);
        self.log.push(Event::Change(change));
        if failed { Err(broken()) } else { Ok(()) }
    }

    fn is_failing(&mut self) -> bool {
        let now = self.good_for == Some(0);
        self.good_for = self.good_for.and_then(|left| left.checked_sub(1));
        now
    }
}

impl BlockDevice for Drive {
    fn info(&self) -> Info {
        Info {
            block_size: 512,
            size_bytes: self.state().size_bytes,
            optimal_io_bytes: 4096,
            read_only: false,
            discard: false,
            write_zeroes: true,
            flush: true,
            kind: "recorded",
        }
    }

    fn open_channel(&self, _driver: &mut Driver) -> Result<Box<dyn IoChannel>, BdevError> {
        Err(broken())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), BdevError> {
        let state = self.state();
        assert!(offset + buf.len() as u64 <= state.size_bytes);
        state.image.read(offset, buf);
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), BdevError> {
        let mut state = self.state();
        assert!(offset + buf.len() as u64 <= state.size_bytes);
        let bytes = buf.into();
        state.change(Change::Write { offset, bytes })
    }

    fn write_zeroes_at(&self, offset: u64, len: u64) -> Result<(), BdevError> {
        let mut state = self.state();
        assert!(offset + len <= state.size_bytes);
        state.change(Change::Zero { offset, len })
    }

    fn flush(&self) -> Result<(), BdevError> {
        let mut state = self.state();
        if state.is_failing() {
            return Err(broken());
        }
        state.log.push(Event::Flush);
        Ok(())
    }
}

fn broken() -> BdevError {
    BdevError::Io {
        op: "write",
        name: "recorded".into(),
        offset: 0,
        source: ErrorKind::Other.into(),
    }
}
