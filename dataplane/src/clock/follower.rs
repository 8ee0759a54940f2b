//! Follows a counter between two answers of the system's clock. How fast the counter is, those answers tell; it is believed
//! when two measurements in a row agree, and for a millisecond: whatever a counter may do while a machine sleeps or moves to
//! another host, the error ends there.

/// For so long the counter is followed.
const FOLLOW_NS: u64 = 1_000_000;
/// Reading the counter, the system's clock and the counter again takes no longer, or the three do not belong together.
const READING_NS: u64 = 1_000;
/// Two measurements agree if they differ by no more than one part in this many.
const AGREE: u64 = 1024;
/// Nanoseconds per tick are kept as a fraction of 2^32.
const FRACTION_BITS: u32 = 32;

/// What is known of the counter.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Follower {
    from_ticks: u64,
    from_ns: u64,
    /// Nanoseconds per tick.
    rate: u64,
    /// From so many ticks on the system is to be asked.
    follow_ticks: u64,
}

impl Follower {
    /// The time at a count; none if the system is to be asked.
    #[inline]
    pub(super) fn now_ns(self, ticks: u64) -> Option<u64> {
        let ticks = ticks.wrapping_sub(self.from_ticks);
        // Below `follow_ticks`, so the product is at most `FOLLOW_NS << FRACTION_BITS`.
        (ticks < self.follow_ticks).then(|| self.from_ns + ((ticks * self.rate) >> FRACTION_BITS))
    }

    /// The system's clock was read between two readings of the counter.
    pub(super) fn learn(&mut self, before: u64, now_ns: u64, after: u64) {
        let elapsed_ns = now_ns.saturating_sub(self.from_ns);
        if elapsed_ns < FOLLOW_NS / 2 {
            return; // Too short for a measurement: the system is asked until it is not.
        }
        let ticks = before.wrapping_sub(self.from_ticks).max(1);
        let rate = (u128::from(elapsed_ns) << FRACTION_BITS) / u128::from(ticks);
        let rate = u64::try_from(rate).unwrap_or(u64::MAX).max(1);
        let follow_ticks = (FOLLOW_NS << FRACTION_BITS) / rate;
        let agrees = rate.abs_diff(self.rate) <= self.rate / AGREE;
        let at_once = after.wrapping_sub(before) <= follow_ticks / (FOLLOW_NS / READING_NS);
        *self = Follower {
            from_ticks: before,
            from_ns: now_ns,
            rate,
            follow_ticks: if agrees && at_once { follow_ticks } else { 0 },
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A counter with 3 ticks per nanosecond that began somewhere.
    fn ticks(ns: u64) -> u64 {
        (3 * ns).wrapping_sub(5_000_000)
    }

    fn learn(follower: &mut Follower, now_ns: u64) {
        follower.learn(ticks(now_ns - 20), now_ns, ticks(now_ns + 20));
    }

    /// Knows the counter, as it was told last at 3 ms.
    fn knowing() -> Follower {
        let mut follower = Follower::default();
        (1..=3).for_each(|ms| learn(&mut follower, ms * FOLLOW_NS));
        follower
    }

    #[test]
    fn counter_measured_alike_twice_is_followed_for_a_millisecond() {
        let mut follower = Follower::default();
        for ms in 1..=2 {
            learn(&mut follower, ms * FOLLOW_NS);
            assert_eq!(follower.now_ns(ticks(ms * FOLLOW_NS + 100)), None);
        }
        learn(&mut follower, 3 * FOLLOW_NS);
        for ns in [0, 1, 1000, 500_000, FOLLOW_NS - 1_000] {
            let at = 3 * FOLLOW_NS + ns;
            let found = follower.now_ns(ticks(at)).expect("followed");
            assert!(found.abs_diff(at) <= 200, "{found} at {at}");
        }
        assert_eq!(follower.now_ns(ticks(4 * FOLLOW_NS + 100)), None);
    }

    #[test]
    fn counter_that_went_back_is_not_followed_until_measured_anew() {
        let mut follower = knowing();
        let asleep = 1_000_000_000;
        let woken = |ns: u64| ticks(ns - asleep);
        let now = |ms| asleep + ms * FOLLOW_NS;
        assert_eq!(follower.now_ns(ticks(2 * FOLLOW_NS)), None);
        let mut followed = Vec::new();
        for ms in 4..10 {
            follower.learn(woken(now(ms) - 20), now(ms), woken(now(ms) + 20));
            followed.extend(
                follower
                    .now_ns(woken(now(ms) + 1000))
                    .map(|found| (ms, found)),
            );
        }
        let (first, found) = followed[0];
        assert!(first >= 6, "believed at {first} ms");
        assert!(found.abs_diff(now(first) + 1000) <= 200, "{found}");
    }

    #[test]
    fn reading_that_was_interrupted_is_not_followed() {
        let mut follower = knowing();
        let now = 4 * FOLLOW_NS;
        follower.learn(ticks(now - 20), now, ticks(now + 5_000));
        assert_eq!(follower.now_ns(ticks(now + 6_000)), None);
    }

    #[test]
    fn counter_that_stands_still_is_never_followed() {
        let mut follower = Follower::default();
        for ms in 1..10 {
            follower.learn(7, ms * FOLLOW_NS, 7);
            assert_eq!(follower.now_ns(7 + ms), None);
        }
    }

    #[test]
    fn long_sleep_ends_in_one_question() {
        let mut follower = knowing();
        let morning = 30_000 * FOLLOW_NS;
        assert_eq!(follower.now_ns(ticks(morning)), None);
        learn(&mut follower, morning);
        assert!(follower.now_ns(ticks(morning + 100)).is_some());
    }
}
