//! The clock of the data path: nanoseconds on one scale for all threads, as a plain number that fits an atomic.
//!
//! Asking the system takes some 25 ns, twice in a request of 300. So a reactor asks it once in a millisecond and follows the
//! processor's time stamp counter in between, if the kernel holds that for steady (docs/decisions/0015).
#![allow(unsafe_code)] // Reads the processor's time stamp counter.

mod follower;

use follower::Follower;
use std::cell::Cell;
use std::sync::LazyLock;
use std::time::Instant;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Nanoseconds since this process first asked. Never goes back; lasts for 584 years.
pub(crate) fn now_ns() -> u64 {
    u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// The same for one thread that asks often. May go back by a microsecond when the system is asked again.
#[derive(Debug)]
pub(crate) struct Clock {
    follower: Cell<Follower>,
    steady: bool,
}

impl Clock {
    pub(crate) fn new() -> Clock {
        Clock {
            follower: Cell::default(),
            steady: is_steady(),
        }
    }

    /// As [`now_ns`].
    #[inline]
    pub(crate) fn now_ns(&self) -> u64 {
        match self.follower.get().now_ns(ticks()) {
            Some(now_ns) => now_ns,
            None => self.ask(),
        }
    }

    #[cold]
    fn ask(&self) -> u64 {
        let (before, now_ns, after) = (ticks(), now_ns(), ticks());
        if self.steady {
            let mut follower = self.follower.get();
            follower.learn(before, now_ns, after);
            self.follower.set(follower);
        }
        now_ns
    }
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::new()
    }
}

/// Whether the kernel would itself tell the time by this counter: it takes a counter that is not steady, or differs from
/// processor to processor, from its list.
fn is_steady() -> bool {
    let list = "/sys/devices/system/clocksource/clocksource0/available_clocksource";
    let has_it = |list: String| list.split_whitespace().any(|source| source == "tsc");
    cfg!(target_arch = "x86_64") && std::fs::read_to_string(list).is_ok_and(has_it)
}

#[inline]
#[cfg(target_arch = "x86_64")]
fn ticks() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and it touches no memory.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[inline]
#[cfg(not(target_arch = "x86_64"))]
fn ticks() -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn clock_that_follows_keeps_to_the_systems() {
        const SLACK_NS: u64 = 20_000;
        let clock = Clock::new();
        let (start, least, most) = (
            Instant::now(),
            Duration::from_millis(50),
            Duration::from_secs(10),
        );
        let mut followed = !is_steady();
        // On a busy machine it takes a while until nobody comes between two readings.
        while start.elapsed() < least || (!followed && start.elapsed() < most) {
            let (before, found, after) = (now_ns(), clock.now_ns(), now_ns());
            assert!(found + SLACK_NS >= before, "{found} is before {before}");
            assert!(found <= after + SLACK_NS, "{found} is after {after}");
            followed |= clock.follower.get().now_ns(ticks()).is_some();
        }
        assert!(followed, "a steady counter is not followed");
    }
}
