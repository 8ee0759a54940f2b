//! Which object is worked on next. Plain data and rules, no tasks and no clock, so that lost wake-ups can be ruled out by test.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// First pause after a failure; it doubles with every further one.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Longest pause after the store did not answer. It will, and a machine may be waiting for what is written there.
const UNREACHED_MAX: Duration = Duration::from_secs(2);
/// How often it is looked whether what is awaited has come: a machine may be waiting for its disk.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The object is as it should be.
    Done,
    /// Another object must change first.
    Waiting,
    /// Something must come that tells nobody, such as a drive.
    LookAgain,
    /// Something failed that may work later.
    Retry,
    /// The store did not answer.
    Unreached,
}

/// Objects of one kind by name, and when each is due.
#[derive(Debug, Default)]
pub(super) struct Queue {
    jobs: BTreeMap<String, Job>,
}

#[derive(Debug)]
struct Job {
    /// Version of the object that the last turn was given, or will be.
    version: Option<String>,
    state: State,
    failures: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Idle(Outcome),
    Due(Instant),
    /// Being worked on; `again` if it changed meanwhile, `stirred` if something else did.
    Running {
        again: bool,
        stirred: bool,
    },
}

impl Queue {
    /// Takes note of what is there now, `(name, version)`. What is new, changed or gone is due, and so is what waits.
    pub(super) fn observe(&mut self, seen: &[(String, String)], now: Instant) {
        for (name, version) in seen {
            let job = self.jobs.entry(name.clone()).or_insert_with(|| Job {
                version: None,
                state: State::Idle(Outcome::Done),
                failures: 0,
            });
            if job.version.as_ref() != Some(version) {
                job.version = Some(version.clone());
                job.wake(now);
            }
        }
        for (name, job) in &mut self.jobs {
            let is_there = seen.binary_search_by(|(seen, _)| seen.cmp(name)).is_ok();
            if !is_there && job.version.take().is_some() {
                job.wake(now);
            }
        }
        self.stir(now);
    }

    /// Something changed that is not listed here. What waits is due: that may have been what it waits for.
    pub(super) fn stir(&mut self, now: Instant) {
        for job in self.jobs.values_mut() {
            match &mut job.state {
                State::Idle(Outcome::Waiting) => job.state = State::Due(now),
                // It may have looked before that.
                State::Running { stirred, .. } => *stirred = true,
                _ => {}
            }
        }
    }

    /// Makes one object due, if there is one of this name.
    pub(super) fn wake(&mut self, name: &str, now: Instant) {
        if let Some(job) = self.jobs.get_mut(name) {
            job.wake(now);
        }
    }

    /// Makes everything due.
    pub(super) fn wake_all(&mut self, now: Instant) {
        for job in self.jobs.values_mut() {
            job.wake(now);
        }
    }

    /// The next object to work on; it counts as running until [`finish`](Queue::finish).
    pub(super) fn start_next(&mut self, now: Instant) -> Option<String> {
        let (name, job) = self
            .jobs
            .iter_mut()
            .find(|(_, job)| matches!(job.state, State::Due(due) if due <= now))?;
        job.state = State::Running {
            again: false,
            stirred: false,
        };
        Some(name.clone())
    }

    /// A turn has ended.
    pub(super) fn finish(&mut self, name: &str, outcome: Outcome, now: Instant) {
        let Some(job) = self.jobs.get_mut(name) else {
            return;
        };
        let again = match job.state {
            State::Running { again, stirred } => again || stirred && outcome == Outcome::Waiting,
            _ => false,
        };
        job.failures = match outcome {
            Outcome::Retry | Outcome::Unreached => job.failures.saturating_add(1),
            _ => 0,
        };
        job.state = match outcome {
            _ if again => State::Due(now),
            Outcome::Retry => State::Due(now + pause(job.failures)),
            Outcome::Unreached => State::Due(now + pause(job.failures).min(UNREACHED_MAX)),
            Outcome::LookAgain => State::Due(now + LOOK_INTERVAL),
            other => State::Idle(other),
        };
        if job.version.is_none() && job.state == State::Idle(Outcome::Done) {
            self.jobs.remove(name);
        }
    }

    /// When the next object is due, if nothing else happens.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let due = |job: &Job| match job.state {
            State::Due(due) => Some(due),
            _ => None,
        };
        self.jobs.values().filter_map(due).min()
    }
}

impl Job {
    fn wake(&mut self, now: Instant) {
        self.state = match self.state {
            State::Running { stirred, .. } => State::Running {
                again: true,
                stirred,
            },
            State::Due(due) => State::Due(due.min(now)),
            State::Idle(_) => State::Due(now),
        };
    }
}

fn pause(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    PAUSE_MIN.saturating_mul(1 << doublings).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(objects: &[(&str, &str)]) -> Vec<(String, String)> {
        objects
            .iter()
            .map(|(name, version)| ((*name).to_owned(), (*version).to_owned()))
            .collect()
    }

    #[test]
    fn change_is_worked_on_once() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for version in ["1", "2"] {
            queue.observe(&seen(&[("a", version)]), now);
            queue.observe(&seen(&[("a", version)]), now);
            assert_eq!(queue.start_next(now).as_deref(), Some("a"));
            assert_eq!(queue.start_next(now), None);
            queue.finish("a", Outcome::Done, now);
            assert_eq!(queue.next_due(), None);
        }
    }

    #[test]
    fn change_during_a_turn_brings_another_turn() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.observe(&seen(&[("a", "1")]), now);
        queue.start_next(now);
        queue.observe(&seen(&[("a", "2")]), now);
        assert_eq!(queue.start_next(now), None, "one turn at a time");
        queue.finish("a", Outcome::Done, now);
        assert_eq!(queue.start_next(now).as_deref(), Some("a"));
    }

    #[test]
    fn object_that_waits_is_due_after_any_change() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let objects = seen(&[("a", "1"), ("b", "1")]);
        queue.observe(&objects, now);
        for outcome in [Outcome::Waiting, Outcome::Done] {
            let name = queue.start_next(now).unwrap();
            queue.finish(&name, outcome, now);
        }
        assert_eq!(queue.next_due(), None);
        queue.stir(now);
        assert_eq!(queue.start_next(now).as_deref(), Some("a"));
        assert_eq!(queue.start_next(now), None);
    }

    #[test]
    fn change_elsewhere_during_a_turn_brings_another_if_it_ends_waiting() {
        for (outcome, again) in [(Outcome::Waiting, true), (Outcome::Done, false)] {
            let (mut queue, now) = (Queue::default(), Instant::now());
            queue.observe(&seen(&[("a", "1")]), now);
            queue.start_next(now);
            queue.stir(now);
            assert_eq!(queue.start_next(now), None, "one turn at a time");
            queue.finish("a", outcome, now);
            assert_eq!(queue.start_next(now).is_some(), again, "{outcome:?}");
        }
    }

    #[test]
    fn failure_is_retried_after_growing_pauses_and_at_once_when_changed() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.observe(&seen(&[("a", "1")]), now);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            let due = queue.next_due().unwrap();
            queue.start_next(due).unwrap();
            queue.finish("a", Outcome::Retry, due);
            queue.observe(&seen(&[("a", "1")]), due);
            assert_eq!(queue.start_next(due), None, "a failure rests");
            pauses.push(queue.next_due().unwrap() - due);
        }
        assert_eq!(pauses[..3], [PAUSE_MIN, PAUSE_MIN * 2, PAUSE_MIN * 4]);
        assert_eq!(pauses.last(), Some(&PAUSE_MAX));
        queue.observe(&seen(&[("a", "2")]), now);
        assert_eq!(queue.start_next(now).as_deref(), Some("a"));
    }

    #[test]
    fn store_that_does_not_answer_is_asked_again_every_few_seconds() {
        let (mut queue, mut now) = (Queue::default(), Instant::now());
        queue.observe(&seen(&[("a", "1")]), now);
        for _ in 0..10 {
            queue.start_next(now).unwrap();
            queue.finish("a", Outcome::Unreached, now);
            let due = queue.next_due().unwrap();
            assert!(due > now && due <= now + UNREACHED_MAX);
            now = due;
        }
        queue.start_next(now).unwrap();
        queue.finish("a", Outcome::Retry, now);
        assert_eq!(queue.next_due(), Some(now + PAUSE_MAX), "a failure rests");
    }

    #[test]
    fn object_that_awaits_something_is_looked_at_again_at_even_pauses() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.observe(&seen(&[("a", "1")]), now);
        for round in 1..4 {
            let due = queue.next_due().unwrap();
            assert_eq!(queue.start_next(due).as_deref(), Some("a"));
            queue.finish("a", Outcome::LookAgain, due);
            assert_eq!(queue.next_due(), Some(now + LOOK_INTERVAL * round));
        }
        queue.wake("a", now);
        queue.wake("unknown", now);
        assert_eq!(queue.start_next(now).as_deref(), Some("a"));
    }

    #[test]
    fn object_that_vanished_gets_a_last_turn_and_is_forgotten() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.observe(&seen(&[("a", "1")]), now);
        queue.start_next(now);
        queue.finish("a", Outcome::Done, now);
        queue.observe(&[], now);
        assert_eq!(queue.start_next(now).as_deref(), Some("a"));
        queue.finish("a", Outcome::Done, now);
        assert!(queue.jobs.is_empty());
    }
}
