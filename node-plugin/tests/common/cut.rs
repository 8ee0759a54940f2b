//! A store that a process loses at a certain write: before it was done, or after it was done and before anybody heard of it.
//! From then on no verb returns, which is what a killed process sees.

use holdfast_store::{Announcement, Changes, DirStore, Object, Store, StoreError};
use std::future::{Future, pending};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::watch;

/// When the process dies, counted in its writes from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    Never,
    Before(usize),
    After(usize),
}

#[derive(Clone, Debug)]
pub struct CutStore {
    inner: DirStore,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    cut: Cut,
    writes: AtomicUsize,
    dead: watch::Sender<bool>,
}

impl CutStore {
    pub fn new(inner: DirStore, cut: Cut) -> CutStore {
        let shared = Shared {
            cut,
            writes: AtomicUsize::new(0),
            dead: watch::channel(false).0,
        };
        CutStore {
            inner,
            shared: Arc::new(shared),
        }
    }

    /// Returns when the process has died.
    pub async fn was_cut(&self) {
        let mut dead = self.shared.dead.subscribe();
        dead.wait_for(|dead| *dead).await.unwrap();
    }

    pub fn dir(&self) -> &DirStore {
        &self.inner
    }

    async fn read<T>(&self, verb: impl Future<Output = T>) -> T {
        if *self.shared.dead.borrow() {
            pending::<()>().await;
        }
        verb.await
    }

    async fn write<T>(&self, verb: impl Future<Output = T>) -> T {
        let number = self.shared.writes.fetch_add(1, Ordering::SeqCst);
        let (before, after) = match self.shared.cut {
            Cut::Never => (false, false),
            Cut::Before(at) => (number >= at, false),
            Cut::After(at) => (number > at, number == at),
        };
        if before {
            self.die().await;
        }
        let answer = verb.await;
        if after {
            self.die().await;
        }
        answer
    }

    async fn die(&self) {
        self.shared.dead.send_replace(true);
        pending::<()>().await;
    }
}

impl Store for CutStore {
    async fn get<K: Object>(&self, name: &str) -> Result<Option<K>, StoreError> {
        self.read(self.inner.get(name)).await
    }

    async fn list<K: Object>(&self) -> Result<Vec<K>, StoreError> {
        self.read(self.inner.list()).await
    }

    async fn create<K: Object>(&self, object: K) -> Result<K, StoreError> {
        self.write(self.inner.create(object)).await
    }

    async fn update<K: Object>(&self, object: K) -> Result<K, StoreError> {
        self.write(self.inner.update(object)).await
    }

    async fn update_status<K: Object>(&self, object: K) -> Result<K, StoreError> {
        self.write(self.inner.update_status(object)).await
    }

    async fn delete<K: Object>(&self, name: &str) -> Result<bool, StoreError> {
        self.write(self.inner.delete::<K>(name)).await
    }

    async fn delete_unchanged<K: Object>(&self, object: &K) -> Result<bool, StoreError> {
        self.write(self.inner.delete_unchanged(object)).await
    }

    fn watch<K: Object>(&self) -> Changes {
        self.inner.watch::<K>()
    }

    async fn announce<K: Object>(&self, object: &K, event: Announcement) {
        self.inner.announce(object, event).await;
    }
}
