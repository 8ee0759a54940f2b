//! The meter on a clock of its own.

use super::*;

/// Some queues that always have a request of this size. They wait for their places, and wake a little late.
struct Crowd<'a> {
    meter: &'a Meter,
    now_ns: u64,
    places: Vec<Option<Place>>,
    done: Vec<u64>,
    late_ns: u64,
}

impl<'a> Crowd<'a> {
    fn new(meter: &'a Meter, queues: usize, late_ns: u64) -> Crowd<'a> {
        Crowd {
            meter,
            now_ns: now_ns(),
            places: vec![None; queues],
            done: vec![0; queues],
            late_ns,
        }
    }

    /// Lets all queues do what they may for some time; returns the requests done.
    fn run(&mut self, bytes: u64, for_ns: u64) -> u64 {
        let (end_ns, before) = (self.now_ns + for_ns, self.done.iter().sum::<u64>());
        while self.now_ns < end_ns {
            let mut next_ns = u64::MAX;
            for (queue, place) in self.places.iter_mut().enumerate() {
                let mut mine = self.meter.place(*place, self.now_ns);
                while mine.at_ns <= self.now_ns {
                    self.meter.charge(bytes, self.now_ns);
                    self.done[queue] += 1;
                    mine = self.meter.place(None, self.now_ns);
                }
                *place = Some(mine);
                next_ns = next_ns.min(mine.at_ns);
            }
            self.now_ns = next_ns + self.late_ns;
        }
        self.done.iter().sum::<u64>() - before
    }
}

fn meter(limits: Limits) -> Meter {
    let meter = Meter::default();
    meter.set(Some(limits));
    meter
}

fn iops(iops: u64, burst: Option<u64>) -> Limits {
    Limits {
        iops: Some(iops),
        iops_burst: burst,
        ..Limits::default()
    }
}

fn assert_near(seen: u64, wanted: u64) {
    let off = seen.abs_diff(wanted) as f64 / wanted as f64;
    assert!(off <= 0.05, "{seen} instead of {wanted}");
}

#[test]
fn rate_holds_for_any_number_of_queues_that_wake_late() {
    for rate in [40, 1_000, 30_000, 1_000_000] {
        for queues in [1, 2, 7] {
            for late_ns in [0, 60_000, 15_000_000] {
                let meter = meter(iops(rate, None));
                let mut crowd = Crowd::new(&meter, queues, late_ns);
                assert_near(crowd.run(0, 2 * SECOND_NS), 2 * rate);
            }
        }
    }
}

#[test]
fn bytes_hold_their_rate_also_when_a_request_is_larger_than_a_burst() {
    for size in [4096, 1 << 20] {
        let limits = Limits {
            bps: Some(64 << 20),
            ..Limits::default()
        };
        let meter = meter(limits);
        let mut crowd = Crowd::new(&meter, 3, 60_000);
        crowd.run(size, SECOND_NS);
        assert_near(crowd.run(size, 4 * SECOND_NS) * size, (4 * 64) << 20);
    }
}

#[test]
fn burst_passes_at_once_and_comes_back_with_idle_time_only() {
    let meter = meter(iops(1_000, Some(500)));
    let mut crowd = Crowd::new(&meter, 1, 0);
    assert_eq!(crowd.run(0, 1), 500);
    assert_near(crowd.run(0, SECOND_NS), 1_000);
    // A pause of 0.1 s is worth 100 requests, one of 10 s no more than the burst; and the place held comes on top.
    crowd.now_ns += SECOND_NS / 10;
    assert_eq!(crowd.run(0, 1), 101);
    crowd.now_ns += 10 * SECOND_NS;
    assert_eq!(crowd.run(0, 1), 501);
}

#[test]
fn queues_get_equal_shares() {
    let both = Limits {
        bps: Some(8 << 20),
        ..iops(100, None)
    };
    for limits in [iops(10, None), iops(5_000, None), both] {
        let meter = meter(limits);
        let mut crowd = Crowd::new(&meter, 4, 10_000);
        crowd.run(64 << 10, 10 * SECOND_NS);
        let (least, most) = (crowd.done.iter().min(), crowd.done.iter().max());
        assert!(
            most.unwrap() - least.unwrap() <= 1 + most.unwrap() / 50,
            "{:?}",
            crowd.done
        );
    }
}

#[test]
fn change_of_limits_frees_who_waits_under_the_old_ones() {
    let meter = meter(iops(1, None));
    let mut crowd = Crowd::new(&meter, 8, 0);
    crowd.run(0, 1);
    let latest = crowd.places.iter().flatten().map(|place| place.at_ns).max();
    assert!(latest.unwrap() > crowd.now_ns + 6 * SECOND_NS);
    meter.set(Some(iops(1_000, None)));
    crowd.now_ns = now_ns();
    assert_near(crowd.run(0, SECOND_NS), 1_000);
}

#[test]
fn place_given_back_is_the_next_ones() {
    let meter = meter(iops(1, None));
    let now = now_ns();
    let first = meter.place(None, now);
    assert!(first.at_ns <= now);
    let (second, waiting) = (meter.place(None, now), meter.place(None, now));
    assert!(waiting.at_ns > second.at_ns);
    meter.give_back(waiting);
    assert_eq!(meter.place(None, now).at_ns, waiting.at_ns);
}

#[test]
fn limits_that_cannot_be_held_are_refused_by_name() {
    let bad = [
        iops(0, None),
        iops(5, Some(0)),
        Limits {
            bps_burst: Some(1),
            ..iops(5, None)
        },
    ];
    for limits in bad {
        let error = limits.check("disk").unwrap_err();
        assert!(error.to_string().contains("\"disk\""), "{error}");
    }
    iops(5, Some(9)).check("disk").unwrap();
    Limits::default().check("disk").unwrap();
}
