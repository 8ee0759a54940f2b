//! Erases what deleted volumes left, in the background and a piece at a time, and tells whoever wants to know that a
//! pool's usage has changed. The order and the durable cursor are the pool's own.

use super::lock;
use crate::EngineError;
use holdfast_pool::{Pool, PoolError};
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Bytes erased between two looks at what else is to be done.
const STEP_BYTES: u64 = 64 << 20;
/// How long a step under way is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// First pause of a pool that failed; it doubles with every further failure.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(300);

type Notify = Box<dyn Fn(&str) + Send + Sync>;

/// The engine's end of the eraser.
pub(super) struct Eraser {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    state: Mutex<State>,
    /// Something is to be done.
    work: Condvar,
    /// Something has been done.
    progress: Condvar,
    notify: Mutex<Vec<Notify>>,
}

#[derive(Default)]
struct State {
    pools: BTreeMap<String, Arc<Pool>>,
    /// Pools that failed and have not succeeded since.
    failing: BTreeMap<String, Failing>,
    stop: bool,
}

struct Failing {
    times: u32,
    why: String,
    /// When it is tried again.
    again: Instant,
}

impl Eraser {
    pub(super) fn start() -> Result<Eraser, EngineError> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State::default()),
            work: Condvar::new(),
            progress: Condvar::new(),
            notify: Mutex::new(Vec::new()),
        });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("eraser".into())
            .spawn(move || theirs.run())
            .map_err(|source| EngineError::Thread {
                what: "eraser",
                source,
            })?;
        Ok(Eraser {
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    pub(super) fn on_change(&self, notify: Notify) {
        lock(&self.shared.notify).push(notify);
    }

    /// From now on this pool is looked after.
    pub(super) fn add(&self, name: &str, pool: Arc<Pool>) {
        lock(&self.shared.state).pools.insert(name.to_owned(), pool);
        self.changed(name);
    }

    /// From now on it is not; a step under way is waited for.
    pub(super) fn remove(&self, name: &str) {
        let mut state = lock(&self.shared.state);
        state.failing.remove(name);
        let pool = state.pools.remove(name);
        drop(state);
        // A step under way holds a reference, and gives it back when it is done.
        let Some(pool) = pool else { return };
        let state = lock(&self.shared.state);
        let gone = self
            .shared
            .progress
            .wait_timeout_while(state, PATIENCE, |_| Arc::strong_count(&pool) > 1);
        drop(gone);
    }

    /// A pool's usage has changed, maybe because there is something to erase.
    pub(super) fn changed(&self, name: &str) {
        self.shared.work.notify_one();
        self.shared.tell(name);
    }

    /// Why the last step in this pool failed, if it did.
    pub(super) fn failure(&self, name: &str) -> Option<String> {
        let state = lock(&self.shared.state);
        Some(state.failing.get(name)?.why.clone())
    }

    /// Waits until nothing is left to erase in this pool; returns the bytes that are.
    pub(super) fn wait(&self, pool: &Pool, deadline: Instant) -> u64 {
        let mut state = lock(&self.shared.state);
        loop {
            let pending = pool.usage().erase_pending_bytes;
            let left = deadline.saturating_duration_since(Instant::now());
            if pending == 0 || left.is_zero() {
                return pending;
            }
            state = match self.shared.progress.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    pub(super) fn stop(&self) {
        lock(&self.shared.state).stop = true;
        self.shared.work.notify_one();
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self) {
        while let Some((name, pool)) = self.next() {
            let step = pool.erase_step(STEP_BYTES);
            drop(pool);
            // Under the lock, so that a waiter who has just looked cannot miss it.
            let mut state = lock(&self.state);
            match step {
                Ok(_) => drop(state.failing.remove(&name)),
                Err(error) => state.note_failure(&name, &error),
            }
            self.progress.notify_all();
            drop(state);
            self.tell(&name);
        }
    }

    /// The next pool with something to erase; none when the engine stops.
    fn next(&self) -> Option<(String, Arc<Pool>)> {
        let mut state = lock(&self.state);
        while !state.stop {
            let now = Instant::now();
            let rests = |name: &String| state.failing.get(name).is_some_and(|it| it.again > now);
            let found = state
                .pools
                .iter()
                .find(|(name, pool)| !rests(name) && pool.usage().erase_pending_bytes > 0);
            if let Some((name, pool)) = found {
                return Some((name.clone(), Arc::clone(pool)));
            }
            let rests = state.failing.values().map(|it| it.again);
            let rest = rests.filter(|again| *again > now).min();
            let rest = rest.map(|again| again - now);
            let patience = rest.unwrap_or(Duration::from_secs(3600));
            state = match self.work.wait_timeout(state, patience) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        None
    }

    fn tell(&self, name: &str) {
        for notify in lock(&self.notify).iter() {
            notify(name);
        }
    }
}

impl State {
    /// A pool that was closed or lost meanwhile has nothing to be tried again.
    fn note_failure(&mut self, name: &str, error: &PoolError) {
        if !self.pools.contains_key(name) {
            return;
        }
        let times = self.failing.get(name).map_or(0, |it| it.times) + 1;
        let rest = rest_after(times);
        tracing::warn!(pool = name, %error, ?rest, "Erasing failed; it is tried again");
        let failing = Failing {
            times,
            why: error.to_string(),
            again: Instant::now() + rest,
        };
        self.failing.insert(name.to_owned(), failing);
    }
}

/// How long a pool is left alone that has failed so many times without a success between.
fn rest_after(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    PAUSE_MIN.saturating_mul(1 << doublings).min(PAUSE_MAX)
}

impl std::fmt::Debug for Eraser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Eraser")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drive_that_fails_is_tried_again_after_pauses_that_grow_to_an_end() {
        let pauses: Vec<u64> = (1..=11).map(|times| rest_after(times).as_secs()).collect();
        assert_eq!(pauses[..4], [1, 2, 4, 8]);
        assert_eq!(pauses[9..], [300, 300]);
    }
}
