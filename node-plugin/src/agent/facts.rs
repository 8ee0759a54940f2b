//! What the agent last saw of its objects, for metrics: a scrape asks no store and waits for nobody.

use holdfast_api::{ClaimRef, VolumeSession};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Filled by the turns of the objects, read by a scrape.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    known: Mutex<Known>,
}

/// Everything known, by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    pub(crate) pools: BTreeMap<String, PoolFacts>,
    pub(crate) volumes: BTreeMap<String, VolumeFacts>,
    pub(crate) sessions: BTreeMap<String, SessionFacts>,
    /// How long it took after the start until every session had its turn.
    pub(crate) restored_in: Option<Duration>,
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PoolFacts {
    pub(crate) ready: bool,
    /// Volumes on the drive without an object, as counted when it was last open.
    pub(crate) orphans: usize,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct VolumeFacts {
    pub(crate) pool: String,
    pub(crate) claim: ClaimRef,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct SessionFacts {
    pub(crate) published: bool,
    pub(crate) pod_namespace: String,
    pub(crate) pod_name: String,
    pub(crate) machine: String,
}

impl Facts {
    pub(super) fn saw_pool(&self, name: &str, ready: bool, orphans: usize) {
        let facts = PoolFacts { ready, orphans };
        self.known().pools.insert(name.to_owned(), facts);
    }

    pub(super) fn pool_is_away(&self, name: &str) {
        self.known().pools.entry(name.to_owned()).or_default().ready = false;
    }

    pub(super) fn forget_pool(&self, name: &str) {
        self.known().pools.remove(name);
    }

    pub(super) fn saw_volume(&self, name: &str, pool: &str, claim: Option<&ClaimRef>) {
        let facts = VolumeFacts {
            pool: pool.to_owned(),
            claim: claim.cloned().unwrap_or_default(),
        };
        self.known().volumes.insert(name.to_owned(), facts);
    }

    pub(super) fn forget_volume(&self, name: &str) -> Option<VolumeFacts> {
        self.known().volumes.remove(name)
    }

    pub(super) fn saw_session(&self, name: &str, session: &VolumeSession) {
        let first = session.spec.targets.first();
        let facts = SessionFacts {
            published: first.is_some(),
            pod_namespace: first.map_or_else(String::new, |first| first.pod_namespace.clone()),
            pod_name: first.map_or_else(String::new, |first| first.pod_name.clone()),
            machine: first.map_or_else(String::new, |first| first.machine.clone()),
        };
        self.known().sessions.insert(name.to_owned(), facts);
    }

    pub(super) fn forget_session(&self, name: &str) {
        self.known().sessions.remove(name);
    }

    pub(super) fn restored_in(&self, time: Duration) {
        self.known().restored_in = Some(time);
    }

    /// All of it, as it is now.
    pub(crate) fn all(&self) -> Known {
        self.known().clone()
    }

    /// Each fact is whole whatever panicked.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
