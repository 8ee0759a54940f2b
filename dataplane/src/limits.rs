//! What a volume may use at most, and the meter that holds it to that: one per export, shared by its queues wherever they
//! are served, without a lock.
//!
//! A rate is a moment: `due`, at which everything let in so far is paid for. It moves on by the cost of each request and is
//! never behind the clock, so idle time is not saved up; a request may come as long as `due` is not further ahead than the
//! burst. Whoever has to wait takes its place first and waits for its own moment, so queues get their turn in the order
//! they asked.

use crate::EngineError;
use crate::clock::now_ns;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};

const SECOND_NS: u64 = 1_000_000_000;

/// Every rate may be made up for this long: reactors wake late on a busy machine, and the rate must hold all the same.
const SLACK_NS: u64 = SECOND_NS / 40;

/// Limits of a volume. Without a rate, nothing is limited. What is done again after a crash or a drive's return passes free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Requests per second, of any kind.
    pub iops: Option<u64>,
    /// Requests at once after a pause; needs `iops`. At least one and what the rate gives in 25 ms.
    pub iops_burst: Option<u64>,
    /// Bytes read and written per second. Discards and write-zeroes move none.
    pub bps: Option<u64>,
    /// Bytes at once after a pause; needs `bps`. At least what the rate gives in 25 ms. A request that is larger passes
    /// when nothing is owed, and is paid for afterwards.
    pub bps_burst: Option<u64>,
}

impl Limits {
    /// Whether they can be held.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] for a rate or burst of 0 and for a burst without its rate.
    pub(crate) fn check(&self, export: &str) -> Result<(), EngineError> {
        let pairs = [
            ("iops", self.iops, self.iops_burst),
            ("bps", self.bps, self.bps_burst),
        ];
        for (name, rate, burst) in pairs {
            let why = match (rate, burst) {
                (Some(0), _) => "a rate of 0 would stop the guest; leave it out for no limit",
                (_, Some(0)) => "a burst of 0 lets nothing pass; leave it out for the usual one",
                (None, Some(_)) => "a burst needs its rate",
                _ => continue,
            };
            return Err(EngineError::Invalid {
                what: format!("limit {name} of export {export:?}"),
                why: why.to_owned(),
            });
        }
        Ok(())
    }
}

/// Holds an export to its limits.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    limited: AtomicBool,
    /// Counts the changes: a place taken under other limits is none.
    version: AtomicU64,
    ios: Rate,
    bytes: Rate,
}

/// A place in the order of requests, paid for by one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    version: u64,
    /// From when on the request may be taken.
    pub(crate) at_ns: u64,
}

impl Meter {
    /// Changes the limits, from now on.
    pub(crate) fn set(&self, limits: Option<Limits>) {
        let limits = limits.unwrap_or_default();
        let now = now_ns();
        let unit = limits.iops.map_or(0, |iops| SECOND_NS / iops);
        self.ios.set(limits.iops, limits.iops_burst, unit, now);
        self.bytes.set(limits.bps, limits.bps_burst, 0, now);
        self.version.fetch_add(1, Relaxed);
        let limited = limits.iops.is_some() || limits.bps.is_some();
        self.limited.store(limited, Relaxed);
    }

    /// Whether there is anything to ask.
    #[inline]
    pub(crate) fn is_limited(&self) -> bool {
        self.limited.load(Relaxed)
    }

    /// Takes the next place, or keeps the one that was taken before and is still good.
    pub(crate) fn place(&self, before: Option<Place>, now_ns: u64) -> Place {
        let version = self.version.load(Relaxed);
        match before {
            Some(place) if place.version == version => place,
            _ => {
                let at_ns = self.ios.take(1, now_ns).max(self.bytes.opens_at_ns());
                Place { version, at_ns }
            }
        }
    }

    /// A request that had its place moves this many bytes.
    pub(crate) fn charge(&self, bytes: u64, now_ns: u64) {
        self.bytes.take(bytes, now_ns);
    }

    /// A place will not be used.
    pub(crate) fn give_back(&self, place: Place) {
        if place.version == self.version.load(Relaxed) {
            self.ios.give_back();
        }
    }
}

#[derive(Debug, Default)]
struct Rate {
    /// 0: no limit.
    per_second: AtomicU64,
    /// How far `due_ns` may be ahead.
    ahead_ns: AtomicU64,
    due_ns: AtomicU64,
}

impl Rate {
    /// `unit_ns` is the part of the burst that the request itself fills.
    fn set(&self, per_second: Option<u64>, burst: Option<u64>, unit_ns: u64, now_ns: u64) {
        let per_second = per_second.unwrap_or(0);
        let burst_ns = burst.map_or(0, |burst| cost_ns(burst, per_second));
        let ahead_ns = burst_ns.saturating_sub(unit_ns).max(SLACK_NS);
        self.per_second.store(per_second, Relaxed);
        self.ahead_ns.store(ahead_ns, Relaxed);
        self.due_ns.store(now_ns, Relaxed);
    }

    /// Pays for some units; returns from when on they may be used.
    fn take(&self, units: u64, now_ns: u64) -> u64 {
        let per_second = self.per_second.load(Relaxed);
        if per_second == 0 || units == 0 {
            return 0;
        }
        let cost = cost_ns(units, per_second);
        let charged = |due: u64| Some(due.max(now_ns).saturating_add(cost));
        // Both ways are what was owed before; it never refuses.
        let (Ok(paid) | Err(paid)) = self.due_ns.fetch_update(Relaxed, Relaxed, charged);
        paid.saturating_sub(self.ahead_ns.load(Relaxed))
    }

    /// From when on nothing is owed.
    fn opens_at_ns(&self) -> u64 {
        if self.per_second.load(Relaxed) == 0 {
            return 0;
        }
        let due = self.due_ns.load(Relaxed);
        due.saturating_add(1) // What has just been used up is not there.
            .saturating_sub(self.ahead_ns.load(Relaxed))
    }

    fn give_back(&self) {
        let per_second = self.per_second.load(Relaxed);
        if per_second > 0 {
            let unit = cost_ns(1, per_second);
            let given_back = |due: u64| Some(due.saturating_sub(unit));
            // It never refuses.
            let _ = self.due_ns.fetch_update(Relaxed, Relaxed, given_back);
        }
    }
}

/// How long a rate takes for some units.
fn cost_ns(units: u64, per_second: u64) -> u64 {
    let cost = u128::from(units) * u128::from(SECOND_NS) / u128::from(per_second.max(1));
    u64::try_from(cost)
        .unwrap_or(u64::MAX / 4)
        .min(u64::MAX / 4)
}

#[cfg(test)]
mod tests;
