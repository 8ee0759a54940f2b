//! A run: queues are filled, kept full for a time, and emptied. Only what was answered within that time counts.

use super::{Clock, Histogram, LoadQueue, Wait};
use crate::frontend::GuestError;
use std::time::Duration;

/// No device needs longer for one request, not even a busy disk.
const PATIENCE: Duration = Duration::from_secs(20);
/// Empty looks between two looks at the clock.
const LOOKS: u32 = 256;
/// Answers of a flood taken between two looks at its neighbour.
const PIECE: u16 = 4;

/// What was answered.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Latencies in nanoseconds, from the moment the request was asked for.
    pub latency: Histogram,
    /// Answers other than success.
    pub errors: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// When the last answer was taken, in ticks.
    pub(super) now: u64,
}

impl Tally {
    #[inline]
    pub(super) fn add(&mut self, ns: u64, success: bool) {
        self.latency.add(ns);
        self.errors += u64::from(!success);
    }

    /// Answers per second.
    #[allow(clippy::cast_precision_loss)]
    pub fn per_second(&self) -> f64 {
        self.latency.count() as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// Keeps all queues full from the calling thread; counts for `measure` after `warm_up`.
///
/// # Errors
/// [`GuestError::Timeout`] if answers stay out for 20 s, [`GuestError::NotOutstanding`] if one was not asked for.
pub fn run(
    queues: &mut [LoadQueue],
    clock: &Clock,
    warm_up: Duration,
    measure: Duration,
) -> Result<Tally, GuestError> {
    for queue in queues.iter_mut() {
        queue.prime(clock, queue.depth())?;
    }
    let mut tally = Tally::default();
    keep_full(queues, clock, &mut tally, warm_up)?;
    tally.latency.clear();
    tally.errors = 0;
    let start = clock.ticks();
    let end = keep_full(queues, clock, &mut tally, measure)?;
    tally.elapsed = Duration::from_nanos(clock.ns(end - start));
    drain(queues, clock)?;
    Ok(tally)
}

/// Keeps two queues full from the calling thread; what each of them saw. The flood is taken in pieces of a few answers,
/// so that the generator itself does not keep the neighbour's answers waiting.
///
/// # Errors
/// As [`run`].
pub fn beside(
    neighbour: &mut LoadQueue,
    flood: &mut LoadQueue,
    clock: &Clock,
    (warm_up, measure): (Duration, Duration),
) -> Result<(Tally, Tally), GuestError> {
    for queue in [&mut *neighbour, &mut *flood] {
        queue.prime(clock, queue.depth())?;
    }
    keep_both_full((neighbour, flood), clock, warm_up)?;
    let tallies = keep_both_full((neighbour, flood), clock, measure)?;
    drain(std::slice::from_mut(neighbour), clock)?;
    drain(std::slice::from_mut(flood), clock)?;
    Ok(tallies)
}

fn keep_both_full(
    (neighbour, flood): (&mut LoadQueue, &mut LoadQueue),
    clock: &Clock,
    time: Duration,
) -> Result<(Tally, Tally), GuestError> {
    let (mut seen, mut flooded) = (Tally::default(), Tally::default());
    let (start, patience) = (clock.ticks(), clock.ticks_in(PATIENCE));
    (seen.now, flooded.now) = (start, start);
    let end = start + clock.ticks_in(time);
    let mut looks = 0u32;
    loop {
        neighbour.turn(clock, &mut seen, true)?;
        flood.take_up_to(PIECE, clock, &mut flooded, true)?;
        looks = looks.wrapping_add(1);
        if !looks.is_multiple_of(LOOKS) {
            continue;
        }
        let now = clock.ticks();
        for (tally, queue) in [(&seen, &*neighbour), (&flooded, &*flood)] {
            if now.saturating_sub(tally.now) > patience {
                return Err(queue.timed_out(PATIENCE));
            }
        }
        if now >= end {
            let elapsed = Duration::from_nanos(clock.ns(now - start));
            (seen.elapsed, flooded.elapsed) = (elapsed, elapsed);
            return Ok((seen, flooded));
        }
    }
}

/// Asks for one request after each pause, from a queue on which nothing else is under way; the time each took.
///
/// # Errors
/// As [`run`].
pub fn wake(
    queue: &mut LoadQueue,
    clock: &Clock,
    count: u32,
    pause: Duration,
) -> Result<Histogram, GuestError> {
    let mut tally = Tally::default();
    for _ in 0..count {
        std::thread::sleep(pause);
        queue.prime(clock, 1)?;
        while queue.turn(clock, &mut tally, false)? == 0 {
            if queue.wait_kind() == Wait::Interrupt {
                queue.sleep(PATIENCE)?;
            }
        }
    }
    Ok(tally.latency)
}

/// Asks again for whatever is answered until the time is over; returns when that was.
fn keep_full(
    queues: &mut [LoadQueue],
    clock: &Clock,
    tally: &mut Tally,
    time: Duration,
) -> Result<u64, GuestError> {
    let (end, patience) = (
        clock.ticks() + clock.ticks_in(time),
        clock.ticks_in(PATIENCE),
    );
    tally.now = clock.ticks();
    let mut empty = 0;
    loop {
        let mut answers = 0;
        for queue in queues.iter_mut() {
            answers += u32::from(queue.turn(clock, tally, true)?);
        }
        if answers > 0 {
            if tally.now >= end {
                return Ok(tally.now);
            }
            continue;
        }
        if let [queue] = queues
            && queue.wait_kind() == Wait::Interrupt
        {
            queue.sleep(PATIENCE)?;
            continue;
        }
        empty += 1;
        if empty % LOOKS == 0 {
            let now = clock.ticks();
            if now >= end {
                return Ok(now);
            }
            if now - tally.now > patience {
                return Err(queues[0].timed_out(PATIENCE));
            }
        }
    }
}

fn drain(queues: &mut [LoadQueue], clock: &Clock) -> Result<(), GuestError> {
    let mut rest = Tally::default();
    for queue in queues {
        let (mut left, since) = (queue.depth(), clock.ticks());
        while left > 0 {
            left -= queue.turn(clock, &mut rest, false)?;
            if clock.ticks() - since > clock.ticks_in(PATIENCE) {
                return Err(queue.timed_out(PATIENCE));
            }
        }
    }
    Ok(())
}
