//! How long a reactor looks at a ring that has run empty before it asks for a kick and sleeps. Being woken costs both
//! sides microseconds, looking costs processor time; what pays follows from how long the ring was empty before.

use std::time::Duration;

/// The clock is read at every so many looks: reading it takes as long as the rest of a look.
const LOOKS: u32 = 16;
/// How far one gap moves the expectation: a quarter.
const WEIGHT: u64 = 4;

/// The longest looks, from the engine's configuration.
#[derive(Clone, Copy, Debug)]
pub(super) struct SpinLimit {
    max_ns: u64,
}

/// What is known of the gaps of one ring.
#[derive(Debug, Default)]
pub(super) struct Spin {
    /// How long the ring is expected to stay empty.
    gap_ns: u64,
    /// When the ring was first seen empty.
    since_ns: Option<u64>,
    looks: u32,
    asleep: bool,
}

impl SpinLimit {
    pub(super) fn new(max: Duration) -> SpinLimit {
        SpinLimit {
            max_ns: u64::try_from(max.as_nanos()).unwrap_or(u64::MAX),
        }
    }
}

impl Spin {
    /// The ring had requests.
    #[inline]
    pub(super) fn found(&mut self, limit: SpinLimit, now_ns: impl FnOnce() -> u64) {
        if self.asleep {
            let since = self.since_ns.unwrap_or(u64::MAX);
            // Bounded, so that a long night is soon forgotten.
            let gap = now_ns().saturating_sub(since).min(2 * limit.max_ns);
            self.gap_ns = self.gap_ns - self.gap_ns / WEIGHT + gap / WEIGHT;
            self.asleep = false;
        } else if self.looks > 0 {
            self.gap_ns -= self.gap_ns / WEIGHT;
        }
        self.looks = 0;
        self.since_ns = None;
    }

    /// Whether it pays to look again at all, given how the ring has behaved.
    #[inline]
    pub(super) fn pays(&self, limit: SpinLimit) -> bool {
        limit.max_ns > 0 && self.gap_ns <= limit.max_ns
    }

    /// The ring is empty: whether to look again. If not, it is to be armed.
    #[inline]
    pub(super) fn look_again(&mut self, limit: SpinLimit, now_ns: impl FnOnce() -> u64) -> bool {
        self.looks = self.looks.wrapping_add(1);
        let pays = self.pays(limit);
        if pays && self.looks % LOOKS != 1 {
            return true;
        }
        let now = now_ns();
        let since = *self.since_ns.get_or_insert(now);
        self.asleep = !pays || now.saturating_sub(since) >= limit.max_ns;
        !self.asleep
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: SpinLimit = SpinLimit { max_ns: 50_000 };

    /// The ring is empty from `from` on, looked at every 50 ns, and has a request after `gap`; when it went to sleep.
    fn live_through(spin: &mut Spin, gap: u64) -> Option<u64> {
        let mut slept = None;
        for at in (0..gap).step_by(50) {
            if !spin.look_again(LIMIT, || at) {
                slept = Some(at);
                break;
            }
        }
        spin.found(LIMIT, || gap);
        slept
    }

    #[test]
    fn ring_with_short_gaps_is_looked_at_until_the_next_request() {
        let mut spin = Spin::default();
        for _ in 0..100 {
            assert_eq!(live_through(&mut spin, 20_000), None);
        }
    }

    #[test]
    fn ring_with_long_gaps_is_soon_slept_on_at_once() {
        let mut spin = Spin::default();
        let first = live_through(&mut spin, 1_000_000);
        assert!(
            first.is_some_and(|at| (50_000..60_000).contains(&at)),
            "{first:?}"
        );
        for _ in 0..10 {
            live_through(&mut spin, 1_000_000);
        }
        assert_eq!(live_through(&mut spin, 1_000_000), Some(0));
    }

    #[test]
    fn ring_that_becomes_busy_after_a_long_night_is_looked_at_again() {
        let mut spin = Spin::default();
        for _ in 0..20 {
            live_through(&mut spin, 1_000_000_000);
        }
        let again = (0..20).find(|_| live_through(&mut spin, 20_000).is_none());
        assert!(again.is_some_and(|rounds| rounds < 8), "{again:?}");
    }

    #[test]
    fn reactor_that_must_not_spin_never_looks_twice() {
        let never = SpinLimit::new(Duration::ZERO);
        let mut spin = Spin::default();
        assert!(!spin.look_again(never, || 0));
        assert!(!spin.pays(never));
    }
}
