//! A device that is slow: requests are served by another device, and their completions held back. As SPDK's,
//! for tests.

use crate::{BdevError, BlockDevice, Driver, Info, Io, IoChannel};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Adds latency to every request of another device; blocking access is not delayed.
#[derive(Clone, Debug)]
pub struct Delay {
    base: Arc<dyn BlockDevice>,
    latency_ns: Arc<AtomicU64>,
}

impl Delay {
    /// Wraps `base`.
    pub fn new(base: Arc<dyn BlockDevice>, latency: Duration) -> Delay {
        let delay = Delay {
            base,
            latency_ns: Arc::default(),
        };
        delay.set_latency(latency);
        delay
    }

    /// Changes the latency of requests from now on, in all clones and channels.
    pub fn set_latency(&self, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.latency_ns.store(nanoseconds, Ordering::Relaxed);
    }
}

impl BlockDevice for Delay {
    fn info(&self) -> Info {
        Info {
            kind: "delay",
            ..self.base.info()
        }
    }

    fn refresh(&self) -> Result<Info, BdevError> {
        self.base.refresh().map(|_| self.info())
    }

    fn open_channel(&self, driver: &mut Driver) -> Result<Box<dyn IoChannel>, BdevError> {
        Ok(Box::new(DelayChannel {
            base: self.base.open_channel(driver)?,
            latency_ns: Arc::clone(&self.latency_ns),
        }))
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), BdevError> {
        self.base.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), BdevError> {
        self.base.write_at(offset, buf)
    }

    fn write_zeroes_at(&self, offset: u64, len: u64) -> Result<(), BdevError> {
        self.base.write_zeroes_at(offset, len)
    }

    fn flush(&self) -> Result<(), BdevError> {
        self.base.flush()
    }
}

struct DelayChannel {
    base: Box<dyn IoChannel>,
    latency_ns: Arc<AtomicU64>,
}

impl IoChannel for DelayChannel {
    fn submit(&mut self, driver: &mut Driver, io: Io) {
        let latency = Duration::from_nanos(self.latency_ns.load(Ordering::Relaxed));
        let token = driver.delay(io.token(), latency);
        self.base.submit(driver, io.with_token(token));
    }
}
