//! Time stamps that are cheap enough to take one per request.
#![allow(unsafe_code)] // Reads the processor's time stamp counter.

use std::time::{Duration, Instant};

/// A monotonic clock. On x86-64 it is the time stamp counter, measured against the system's clock once.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Nanoseconds per tick, as a fraction of 2^32.
    scale: u64,
    #[cfg(not(target_arch = "x86_64"))]
    origin: Instant,
}

/// Long enough that reading both clocks does not matter.
const CALIBRATION: Duration = Duration::from_millis(20);

impl Clock {
    /// Measures the tick; takes 20 ms of processor time.
    pub fn new() -> Clock {
        let mut clock = Clock {
            scale: 1 << 32,
            #[cfg(not(target_arch = "x86_64"))]
            origin: Instant::now(),
        };
        if cfg!(target_arch = "x86_64") {
            let (start, ticks) = (Instant::now(), clock.ticks());
            while start.elapsed() < CALIBRATION {
                std::hint::spin_loop();
            }
            let ns = start.elapsed().as_nanos() << 32;
            let per_tick = ns / u128::from((clock.ticks() - ticks).max(1));
            clock.scale = u64::try_from(per_tick).unwrap_or(1 << 32);
        }
        clock
    }

    /// Now, in ticks.
    #[inline]
    #[cfg(target_arch = "x86_64")]
    pub fn ticks(&self) -> u64 {
        // SAFETY: every x86-64 processor has the instruction, and it touches no memory.
        unsafe { core::arch::x86_64::_rdtsc() }
    }

    /// Now, in ticks.
    #[inline]
    #[cfg(not(target_arch = "x86_64"))]
    pub fn ticks(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// A difference of ticks in nanoseconds.
    #[inline]
    pub fn ns(&self, ticks: u64) -> u64 {
        let ns = (u128::from(ticks) * u128::from(self.scale)) >> 32;
        u64::try_from(ns).unwrap_or(u64::MAX)
    }

    /// A duration in ticks.
    pub fn ticks_in(&self, time: Duration) -> u64 {
        u64::try_from((time.as_nanos() << 32) / u128::from(self.scale)).unwrap_or(u64::MAX)
    }
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::new()
    }
}
