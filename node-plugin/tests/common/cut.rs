//! A store that a process loses at a certain write: before it was done, or after it was done and before anybody heard of it.
//! From then on no verb returns, which is what a killed process sees.

use holdfast_store::{Announcement, Changes, DirStore, Object, Store, StoreError};
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// When the process dies, counted in its writes from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    Never,
    Before(usize),
    After(usize),
}

#[derive(Clone)]
pub struct CutStore {
    inner: DirStore,
    shared: Arc<Shared>,
}

/// What somebody else does between two steps of the agent.
type Deed = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Shared {
    cut: Cut,
    before_status: Mutex<Option<(String, Deed)>>,
    writes: AtomicUsize,
    dead: watch::Sender<bool>,
}

impl CutStore {
    pub fn new(inner: DirStore, cut: Cut) -> CutStore {
        let shared = Shared {
            cut,
            before_status: Mutex::new(None),
            writes: AtomicUsize::new(0),
            dead: watch::channel(false).0,
        };
        CutStore {
            inner,
            shared: Arc::new(shared),
        }
    }

    /// Somebody does this just before the next status of an object of this name is written.
    pub fn before_status_of(&self, name: &str, deed: impl Future<Output = ()> + Send + 'static) {
        *self.shared.before_status.lock().unwrap() = Some((name.into(), Box::pin(deed)));
    }

    fn deed_before(&self, name: &str) -> Option<Deed> {
        let mut due = self.shared.before_status.lock().unwrap();
        due.take_if(|(awaited, _)| awaited == name)
            .map(|(_, deed)| deed)
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

impl std::fmt::Debug for CutStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CutStore({:?})", self.shared.cut)
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
        let name = object.meta().name.clone().unwrap_or_default();
        if let Some(deed) = self.deed_before(&name) {
            deed.await;
        }
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
