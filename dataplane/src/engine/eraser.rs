//! Erases what deleted volumes left, in the background and a piece at a time, and tells whoever wants to know that a
//! pool's usage has changed. The order and the durable cursor are the pool's own.

use super::lock;
use crate::EngineError;
use holdfast_pool::Pool;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Bytes erased between two looks at what else is to be done.
const STEP_BYTES: u64 = 64 << 20;
/// How long a pool that failed is left alone.
const RETRY: Duration = Duration::from_secs(5);

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
    /// Pools that failed, and when to try them again.
    resting: BTreeMap<String, Instant>,
    stop: bool,
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
        let pool = lock(&self.shared.state).pools.remove(name);
        // A step under way holds a reference, and gives it back when it is done.
        let Some(pool) = pool else { return };
        let state = lock(&self.shared.state);
        let gone = self
            .shared
            .progress
            .wait_timeout_while(state, RETRY, |_| Arc::strong_count(&pool) > 1);
        drop(gone);
    }

    /// A pool's usage has changed, maybe because there is something to erase.
    pub(super) fn changed(&self, name: &str) {
        self.shared.work.notify_one();
        self.shared.tell(name);
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
            if let Err(error) = step {
                tracing::warn!(pool = name, %error, "Erasing failed; it is tried again");
                let again = Instant::now() + RETRY;
                lock(&self.state).resting.insert(name.clone(), again);
            }
            // Under the lock, so that a waiter who has just looked cannot miss it.
            let state = lock(&self.state);
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
            state.resting.retain(|_, again| *again > now);
            let found = state.pools.iter().find(|(name, pool)| {
                !state.resting.contains_key(*name) && pool.usage().erase_pending_bytes > 0
            });
            if let Some((name, pool)) = found {
                return Some((name.clone(), Arc::clone(pool)));
            }
            let rest = state.resting.values().min().map(|again| *again - now);
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

impl std::fmt::Debug for Eraser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Eraser")
    }
}
