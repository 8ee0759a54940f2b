//! A device that fails on demand: chosen requests fail or hang, all others are served by another device. As
//! SPDK's, for tests; with no fault injected it is that other device.

use crate::{BdevError, BlockDevice, Driver, Info, Io, IoChannel, IoStatus, Op, Remote, Token};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What befalls a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It fails with this error number and never reaches the device below.
    Fail(i32),
    /// The device below serves it, but it does not complete before [`ErrorDevice::release`].
    Hang,
}

/// Which operation a fault is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultOp {
    /// All of them.
    Any,
    /// [`Op::Read`].
    Read,
    /// [`Op::Write`].
    Write,
    /// [`Op::Flush`].
    Flush,
    /// [`Op::Discard`].
    Discard,
    /// [`Op::WriteZeroes`].
    WriteZeroes,
}

/// Chooses requests and what befalls them: by default all, until cleared.
#[derive(Clone, Debug)]
pub struct Fault {
    op: FaultOp,
    bytes: Range<u64>,
    left: Option<u32>,
    effect: Effect,
}

impl Fault {
    /// A fault that befalls every request.
    pub fn new(effect: Effect) -> Fault {
        Fault {
            op: FaultOp::Any,
            bytes: 0..u64::MAX,
            left: None,
            effect,
        }
    }

    /// Only requests of this operation.
    #[must_use]
    pub fn on(self, op: FaultOp) -> Fault {
        Fault { op, ..self }
    }

    /// Only requests that touch one of these bytes of the device, and flushes, which touch all.
    #[must_use]
    pub fn within(self, bytes: Range<u64>) -> Fault {
        Fault { bytes, ..self }
    }

    /// Only the next `count` requests that are chosen otherwise.
    #[must_use]
    pub fn times(self, count: u32) -> Fault {
        let left = Some(count);
        Fault { left, ..self }
    }

    fn chooses(&self, op: Op, offset: u64, len: u64) -> bool {
        let chosen = match self.op {
            FaultOp::Any => true,
            FaultOp::Read => op == Op::Read,
            FaultOp::Write => op == Op::Write,
            FaultOp::Flush => op == Op::Flush,
            FaultOp::Discard => op == Op::Discard,
            FaultOp::WriteZeroes => matches!(op, Op::WriteZeroes { .. }),
        };
        let touches = offset < self.bytes.end && offset.saturating_add(len) > self.bytes.start;
        chosen && self.left != Some(0) && (touches || op == Op::Flush)
    }
}

/// Wraps a device. Clones share the faults, so one of them serves as the handle that switches them.
#[derive(Clone, Debug)]
pub struct ErrorDevice {
    base: Arc<dyn BlockDevice>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    released: Condvar,
}

#[derive(Debug, Default)]
struct State {
    faults: Vec<Fault>,
    hanging: Vec<(Remote, Token)>,
    /// Blocking calls that hang, and what the last release told those before.
    blocked: usize,
    releases: u64,
    verdict: Option<IoStatus>,
}

impl ErrorDevice {
    /// Wraps `base`, without faults.
    pub fn new(base: Arc<dyn BlockDevice>) -> ErrorDevice {
        ErrorDevice {
            base,
            shared: Arc::default(),
        }
    }

    /// Adds a fault; of several that choose a request, the oldest befalls it.
    pub fn inject(&self, fault: Fault) {
        self.shared.lock().faults.push(fault);
    }

    /// Forgets all faults. What hangs goes on hanging.
    pub fn clear(&self) {
        self.shared.lock().faults.clear();
    }

    /// How many requests hang.
    pub fn hanging(&self) -> usize {
        let state = self.shared.lock();
        state.hanging.len() + state.blocked
    }

    /// Completes all requests that hang: with what the device below has answered or will answer, or with
    /// `verdict`, whichever is worse.
    pub fn release(&self, verdict: IoStatus) {
        let mut state = self.shared.lock();
        let hanging = std::mem::take(&mut state.hanging);
        (state.releases, state.blocked) = (state.releases + 1, 0);
        state.verdict = Some(verdict);
        drop(state);
        self.shared.released.notify_all();
        for (remote, token) in hanging {
            remote.complete(token, verdict);
        }
    }

    /// Lets a blocking call through, or fails it, or blocks it until the release.
    fn admit(&self, op: Op, name: &'static str, offset: u64, len: u64) -> Result<(), BdevError> {
        let mut state = self.shared.lock();
        let errno = match state.befall(op, offset, len) {
            None => return Ok(()),
            Some(Effect::Fail(errno)) => errno,
            Some(Effect::Hang) => match self.shared.hang(state) {
                IoStatus::Ok => return Ok(()),
                IoStatus::Failed(errno) => errno,
                IoStatus::Unsupported | IoStatus::OutOfRange => libc::EIO,
            },
        };
        Err(BdevError::Io {
            op: name,
            name: "error device".to_owned(),
            offset,
            source: std::io::Error::from_raw_os_error(errno),
        })
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A list of faults is one whatever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hang(&self, mut state: MutexGuard<'_, State>) -> IoStatus {
        let before = state.releases;
        state.blocked += 1;
        while state.releases == before {
            state = self
                .released
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.verdict.unwrap_or(IoStatus::Ok)
    }
}

impl State {
    fn befall(&mut self, op: Op, offset: u64, len: u64) -> Option<Effect> {
        let fault = self
            .faults
            .iter_mut()
            .find(|fault| fault.chooses(op, offset, len))?;
        fault.left = fault.left.map(|left| left - 1);
        Some(fault.effect)
    }
}

impl BlockDevice for ErrorDevice {
    fn info(&self) -> Info {
        Info {
            kind: "error",
            ..self.base.info()
        }
    }

    fn refresh(&self) -> Result<Info, BdevError> {
        self.base.refresh().map(|_| self.info())
    }

    fn open_channel(&self, driver: &mut Driver) -> Result<Box<dyn IoChannel>, BdevError> {
        Ok(Box::new(ErrorChannel {
            base: self.base.open_channel(driver)?,
            shared: Arc::clone(&self.shared),
        }))
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), BdevError> {
        self.admit(Op::Read, "read", offset, buf.len() as u64)?;
        self.base.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), BdevError> {
        self.admit(Op::Write, "write", offset, buf.len() as u64)?;
        self.base.write_at(offset, buf)
    }

    fn write_zeroes_at(&self, offset: u64, len: u64) -> Result<(), BdevError> {
        self.admit(
            Op::WriteZeroes { may_unmap: true },
            "write zeroes",
            offset,
            len,
        )?;
        self.base.write_zeroes_at(offset, len)
    }

    fn flush(&self) -> Result<(), BdevError> {
        self.admit(Op::Flush, "flush", 0, 0)?;
        self.base.flush()
    }
}

struct ErrorChannel {
    base: Box<dyn IoChannel>,
    shared: Arc<Shared>,
}

impl IoChannel for ErrorChannel {
    fn submit(&mut self, driver: &mut Driver, io: Io) {
        let effect = self.shared.lock().befall(io.op(), io.offset(), io.len());
        match effect {
            None => self.base.submit(driver, io),
            Some(Effect::Fail(errno)) => driver.complete(io.token(), IoStatus::Failed(errno)),
            Some(Effect::Hang) => {
                // Two parts: what the device below answers, and the release.
                let part = driver.join(io.token(), 2);
                self.shared.lock().hanging.push((driver.remote(), part));
                self.base.submit(driver, io.with_token(part));
            }
        }
    }
}
