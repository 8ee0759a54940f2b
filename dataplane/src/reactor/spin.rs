//! How long a reactor looks at a ring that has run empty before it asks for a kick and sleeps. Being woken costs both
//! sides microseconds, looking costs processor time; what pays follows from how long such waits took before.
//!
//! A ring waits for the guest when everything has been answered, for the drive when the guest has asked for as much as it
//! was answered, and for more of the guest in between. These waits are known apart: a guest with one request under way comes
//! back within a microsecond of an answer that took fifty, and one with thirty asks again for each of them.

use std::time::Duration;

/// The clock is read at every so many looks: reading it takes as long as the rest of a look.
const LOOKS: u32 = 16;
/// How far one wait moves the expectation: a quarter.
const WEIGHT: u64 = 4;
/// How much of an expectation is forgotten each time that it keeps us from looking: so it is put to the test now and then.
const FORGET: u64 = 256;
/// How much shorter a drive is looked for than a guest: its interrupt wakes us at no cost to the guest, and a processor that
/// looks may be the one the drive is emulated on.
const DRIVE_PART: u64 = 10;

/// The longest looks, from the engine's configuration.
#[derive(Clone, Copy, Debug)]
pub(super) struct SpinLimit {
    guest_ns: u64,
    /// For the drive, and for more while the drive has something.
    drive_ns: u64,
}

/// What is known of the waits of one ring.
#[derive(Debug, Default)]
pub(super) struct Spin {
    guest: Wait,
    more: Wait,
    drive: Wait,
    kind: Kind,
    /// Answers after which the guest has not asked again.
    owed: u32,
}

/// Whom a ring waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    /// The guest, which has been answered everything.
    #[default]
    Guest,
    /// The guest, which has been answered some requests and asked for fewer since.
    More,
    /// The drive.
    Drive,
}

/// What is known of one kind of wait.
#[derive(Debug, Default)]
struct Wait {
    /// How long it is expected to take.
    expected_ns: u64,
    /// When it was first noticed.
    since_ns: Option<u64>,
    looks: u32,
    asleep: bool,
}

impl SpinLimit {
    pub(super) fn new(max: Duration) -> SpinLimit {
        let guest_ns = u64::try_from(max.as_nanos()).unwrap_or(u64::MAX);
        SpinLimit {
            guest_ns,
            drive_ns: guest_ns / DRIVE_PART,
        }
    }
}

impl Spin {
    /// The ring had so many requests.
    #[inline]
    pub(super) fn found(&mut self, requests: u32, limit: SpinLimit, now_ns: impl FnOnce() -> u64) {
        self.end(limit, now_ns);
        self.owed = self.owed.saturating_sub(requests);
        self.kind = match self.owed {
            0 => Kind::Drive,
            _ => Kind::More,
        };
    }

    /// A request has come back from the drive; whether it was the last.
    #[inline]
    pub(super) fn answered(&mut self, last: bool, limit: SpinLimit, now_ns: impl FnOnce() -> u64) {
        if self.kind == Kind::Drive {
            self.end(limit, now_ns);
        }
        self.owed += 1;
        self.kind = Kind::Guest;
        if !last {
            self.kind = Kind::More;
            self.more.forget(limit.drive_ns);
        }
    }

    /// Whether it pays to look again at all, given how the ring has behaved.
    #[inline]
    pub(super) fn pays(&mut self, limit: SpinLimit) -> bool {
        let (wait, max_ns) = self.wait(limit);
        wait.pays(max_ns)
    }

    /// The ring is empty: whether to look again. If not, it is to be armed.
    #[inline]
    pub(super) fn look_again(&mut self, limit: SpinLimit, now_ns: impl Fn() -> u64) -> bool {
        if self.kind == Kind::More {
            if self.more.look_again(limit.drive_ns, &now_ns) {
                return true;
            }
            self.more.give_up(limit.drive_ns);
            (self.owed, self.kind) = (0, Kind::Drive);
        }
        let (wait, max_ns) = self.wait(limit);
        wait.look_again(max_ns, now_ns)
    }

    #[inline]
    fn wait(&mut self, limit: SpinLimit) -> (&mut Wait, u64) {
        match self.kind {
            Kind::Guest => (&mut self.guest, limit.guest_ns),
            Kind::More => (&mut self.more, limit.drive_ns),
            Kind::Drive => (&mut self.drive, limit.drive_ns),
        }
    }

    #[inline]
    fn end(&mut self, limit: SpinLimit, now_ns: impl FnOnce() -> u64) {
        let (wait, max_ns) = self.wait(limit);
        wait.end(max_ns, now_ns);
    }
}

impl Wait {
    #[inline]
    fn end(&mut self, max_ns: u64, now_ns: impl FnOnce() -> u64) {
        if self.asleep {
            let since = self.since_ns.unwrap_or(u64::MAX);
            // Bounded, so that a long night is soon forgotten.
            let took = now_ns().saturating_sub(since).min(2 * max_ns);
            self.expected_ns = self.expected_ns - self.expected_ns / WEIGHT + took / WEIGHT;
            self.asleep = false;
        } else if self.looks > 0 {
            self.expected_ns -= self.expected_ns / WEIGHT;
        }
        self.looks = 0;
        self.since_ns = None;
    }

    /// It was looked for in vain; or it was known that it would be.
    fn give_up(&mut self, max_ns: u64) {
        if self.pays(max_ns) {
            self.expected_ns = self.expected_ns - self.expected_ns / WEIGHT + 2 * max_ns / WEIGHT;
        }
        (self.looks, self.since_ns, self.asleep) = (0, None, false);
    }

    /// An expectation that keeps us from looking fades.
    #[inline]
    fn forget(&mut self, max_ns: u64) {
        if !self.pays(max_ns) {
            self.expected_ns -= self.expected_ns / FORGET;
        }
    }

    #[inline]
    fn pays(&self, max_ns: u64) -> bool {
        max_ns > 0 && self.expected_ns <= max_ns
    }

    #[inline]
    fn look_again(&mut self, max_ns: u64, now_ns: impl FnOnce() -> u64) -> bool {
        self.looks = self.looks.wrapping_add(1);
        let pays = self.pays(max_ns);
        if pays && !self.looks.is_multiple_of(LOOKS) {
            return true;
        }
        let now = now_ns();
        let since = *self.since_ns.get_or_insert(now);
        self.asleep = !pays || now.saturating_sub(since) >= max_ns;
        !self.asleep
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: SpinLimit = SpinLimit {
        guest_ns: 50_000,
        drive_ns: 12_500,
    };

    /// The ring is empty from `from` on, looked at every 50 ns, and has a request after `gap`; when it went to sleep.
    fn live_through(spin: &mut Spin, gap: u64) -> Option<u64> {
        let mut slept = None;
        for at in (0..gap).step_by(50) {
            if !spin.look_again(LIMIT, || at) {
                slept = Some(at);
                break;
            }
        }
        spin.found(1, LIMIT, || gap);
        spin.answered(true, LIMIT, || gap);
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
        spin.found(1, never, || 0);
        assert!(!spin.look_again(never, || 0));
    }

    #[test]
    fn slow_drive_is_slept_for_and_its_quick_guest_is_looked_for() {
        let (mut spin, mut now) = (Spin::default(), 0);
        let mut slept = [0; 2];
        for round in 0..100 {
            for (wait, takes) in [(0, 1_000), (1, 45_000)] {
                let start = now;
                while now < start + takes {
                    if !spin.look_again(LIMIT, || now) {
                        slept[wait] += u32::from(round >= 10);
                        break;
                    }
                    now += 50;
                }
                now = start + takes;
                match wait {
                    0 => spin.found(1, LIMIT, || now),
                    _ => spin.answered(true, LIMIT, || now),
                }
            }
        }
        assert_eq!(slept, [0, 90], "for the guest, for the drive");
    }

    /// Four of eight requests are answered, and the guest asks again for `again` of them, one each microsecond; how many
    /// times the reactor slept before the last of those, and for how many nanoseconds it looked for a fifth.
    fn answer_half(spin: &mut Spin, now: &mut u64, again: u32) -> (u32, u64) {
        let mut slept = 0;
        for _ in 0..4 {
            spin.answered(false, LIMIT, || *now);
        }
        for _ in 0..again {
            for _ in 0..20 {
                *now += 50;
                slept += u32::from(!spin.look_again(LIMIT, || *now));
            }
            spin.found(1, LIMIT, || *now);
        }
        let from = *now;
        while spin.look_again(LIMIT, || *now) {
            *now += 50;
        }
        let looked_ns = *now - from;
        *now += 300_000;
        (slept, looked_ns)
    }

    /// A ring whose drive takes too long to be looked for.
    fn with_a_slow_drive() -> Spin {
        let mut spin = Spin::default();
        spin.drive.expected_ns = 2 * LIMIT.drive_ns;
        spin
    }

    #[test]
    fn guest_that_asks_again_for_each_answer_is_looked_for_until_the_last() {
        let (mut spin, mut now) = (with_a_slow_drive(), 0);
        for _ in 0..20 {
            assert_eq!(answer_half(&mut spin, &mut now, 4), (0, 0));
        }
    }

    #[test]
    fn guest_that_asks_for_less_is_soon_slept_on_and_now_and_then_tried_again() {
        let (mut spin, mut now) = (with_a_slow_drive(), 0);
        let looked: Vec<bool> = (0..400)
            .map(|_| answer_half(&mut spin, &mut now, 0).1 > 0)
            .collect();
        let times = |looked: &[bool]| looked.iter().filter(|looked| **looked).count();
        assert!((1..=8).contains(&times(&looked[..10])), "{looked:?}");
        assert!((1..=40).contains(&times(&looked[10..])), "{looked:?}");
    }

    #[test]
    fn guest_that_was_looked_for_in_vain_owes_nothing_any_more() {
        let (mut spin, mut now) = (with_a_slow_drive(), 0);
        answer_half(&mut spin, &mut now, 0);
        assert_eq!((spin.kind, spin.owed), (Kind::Drive, 0));
        spin.found(1, LIMIT, || now);
        assert_eq!(
            spin.kind,
            Kind::Drive,
            "one request is not the rest of four"
        );
    }

    #[test]
    fn more_of_a_guest_is_not_looked_for_longer_than_a_drive() {
        let mut spin = Spin::default();
        spin.answered(false, LIMIT, || 0);
        spin.more.expected_ns = LIMIT.drive_ns;
        assert!(spin.pays(LIMIT));
        spin.more.expected_ns += 1;
        assert!(!spin.pays(LIMIT));
    }
}
