//! A store for a node, that knows this node's objects even when the API server is away at the start: guests must not wait for it.
//!
//! It keeps a checksummed copy of each kind in a directory, written after every change. Until the store behind it has answered for
//! a kind for the first time, [`get`](Store::get) and [`list`](Store::list) answer from the copy; from then on everything is live.
//! Writes are never kept back: without the API server they fail.

mod copy;

use crate::object::{self, Object};
use crate::{Announcement, Changes, Store, StoreError};
use copy::Copy;
use holdfast_api::{BlockPool, OrphanExtent, SplitVolume, VolumeSession};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// How long after the start the first answer of the API server is waited for before the copy is used. A server at work needs less.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two attempts to reach the API server.
const RETRY: Duration = Duration::from_secs(1);
/// Between two copies: many changes in a row are kept together.
const PAUSE: Duration = Duration::from_millis(100);

/// What is known of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contact {
    /// Nobody has answered yet.
    Awaited,
    /// The first attempt failed: the copy serves.
    Failed,
    /// The store behind has answered: it serves.
    Live,
}

/// A store with a copy beside it. Clones share both.
#[derive(Debug, Clone)]
pub struct KeptStore<S> {
    behind: S,
    kinds: Arc<HashMap<String, Kind>>,
    patient_until: Instant,
}

#[derive(Debug)]
struct Kind {
    copy: Copy,
    contact: watch::Receiver<Contact>,
    /// Counts what this store has to tell itself: that the store behind has come to life.
    news: watch::Sender<u64>,
    keeper: AbortHandle,
}

impl<S: Store> KeptStore<S> {
    /// Puts copies of what `behind` has into `dir`, which no other process may use. Must be called on a runtime: the keepers run
    /// there until the last clone is dropped.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(behind: S, dir: impl AsRef<Path>) -> Result<Self, StoreError> {
        let dir = dir.as_ref();
        copy::make_dir(dir)?;
        let kinds = [
            begin::<S, BlockPool>(&behind, dir),
            begin::<S, SplitVolume>(&behind, dir),
            begin::<S, VolumeSession>(&behind, dir),
            begin::<S, OrphanExtent>(&behind, dir),
        ];
        let kinds = Arc::new(HashMap::from(kinds));
        Ok(Self {
            behind,
            kinds,
            patient_until: Instant::now() + PATIENCE,
        })
    }

    /// The store behind.
    #[must_use]
    pub fn behind(&self) -> &S {
        &self.behind
    }

    fn kind<K: Object>(&self) -> &Kind {
        self.kinds
            .get(&object::plural::<K>())
            .expect("every sealed kind has been begun at open")
    }

    /// The copy, if it has to serve: the store behind has not answered yet.
    async fn stand_in<K: Object>(&self) -> Option<Vec<K>> {
        let kind = self.kind::<K>();
        let mut contact = kind.contact.clone();
        let answered = async {
            let known = contact.wait_for(|now| *now != Contact::Awaited).await;
            known.is_ok_and(|known| *known == Contact::Live)
        };
        if timeout_at(self.patient_until, answered)
            .await
            .is_ok_and(|live| live)
        {
            return None;
        }
        kind.copy.read::<K>().await
    }
}

impl<S: Store> Store for KeptStore<S> {
    /// From the copy, absence is never told: an object may have been made after it was written.
    async fn get<K: Object>(&self, name: &str) -> Result<Option<K>, StoreError> {
        let kept = self.stand_in::<K>().await.unwrap_or_default();
        match kept.into_iter().find(|kept| object::name(kept) == name) {
            Some(kept) => Ok(Some(kept)),
            None => self.behind.get(name).await,
        }
    }

    async fn list<K: Object>(&self) -> Result<Vec<K>, StoreError> {
        match self.stand_in::<K>().await {
            Some(kept) => Ok(kept),
            None => self.behind.list().await,
        }
    }

    async fn create<K: Object>(&self, object: K) -> Result<K, StoreError> {
        self.behind.create(object).await
    }

    async fn update<K: Object>(&self, object: K) -> Result<K, StoreError> {
        self.behind.update(object).await
    }

    async fn update_status<K: Object>(&self, object: K) -> Result<K, StoreError> {
        self.behind.update_status(object).await
    }

    async fn delete<K: Object>(&self, name: &str) -> Result<bool, StoreError> {
        self.behind.delete::<K>(name).await
    }

    async fn delete_unchanged<K: Object>(&self, object: &K) -> Result<bool, StoreError> {
        self.behind.delete_unchanged(object).await
    }

    fn watch<K: Object>(&self) -> Changes {
        let news = self.kind::<K>().news.subscribe();
        self.behind.watch::<K>().and(news)
    }

    async fn announce<K: Object>(&self, object: &K, event: Announcement) {
        self.behind.announce(object, event).await;
    }
}

impl Drop for Kind {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

fn begin<S: Store, K: Object>(behind: &S, dir: &Path) -> (String, Kind) {
    let copy = Copy::new(dir, &object::plural::<K>());
    let (contact, seen) = watch::channel(Contact::Awaited);
    let news = watch::channel(0).0;
    let keeper = Keeper {
        behind: behind.clone(),
        copy: copy.clone(),
        contact,
        news: news.clone(),
    };
    let kind = Kind {
        copy,
        contact: seen,
        news,
        keeper: tokio::spawn(keeper.keep::<K>()).abort_handle(),
    };
    (object::plural::<K>(), kind)
}

/// Writes the copy of one kind.
struct Keeper<S> {
    behind: S,
    copy: Copy,
    contact: watch::Sender<Contact>,
    news: watch::Sender<u64>,
}

impl<S: Store> Keeper<S> {
    async fn keep<K: Object>(self) {
        let mut changes = self.behind.watch::<K>();
        changes.changed().await;
        loop {
            match self.behind.list::<K>().await {
                Ok(objects) => {
                    self.copy.write(&objects).await;
                    self.go_live::<K>(objects.len());
                    sleep(PAUSE).await;
                    changes.changed().await;
                }
                Err(error) => {
                    self.note_failure::<K>(&error);
                    let _ = timeout(RETRY, changes.changed()).await;
                }
            }
        }
    }

    fn go_live<K: Object>(&self, count: usize) {
        if *self.contact.borrow() == Contact::Live {
            return;
        }
        tracing::info!(kind = %K::kind(&()), count, "The store answers");
        self.contact.send_replace(Contact::Live);
        self.news.send_modify(|news| *news = news.wrapping_add(1));
    }

    fn note_failure<K: Object>(&self, error: &StoreError) {
        let first = self.contact.send_if_modified(|contact| {
            let first = *contact == Contact::Awaited;
            if first {
                *contact = Contact::Failed;
            }
            first
        });
        if first {
            tracing::warn!(kind = %K::kind(&()), %error, "The store does not answer; the copy kept on this node serves");
        }
    }
}
