//! The start: machines are waiting for their disks, so sessions come back first, each as soon as its own pool is open.

use super::Agent;
use super::work::Reconcile;
use holdfast_api::{BlockPool, SplitVolume, VolumeSession};
use holdfast_store::{Object, Store};
use std::collections::HashMap;
use std::time::Duration;
use tokio::task::JoinSet;

/// How long a store that cannot be listed is left alone.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

impl<S: Store> Agent<S> {
    /// Opens all pools side by side and exports their sessions again. Returns when every session had its turn, whatever came
    /// of it: a drive that is missing keeps its own volumes waiting, and nobody else's.
    pub(super) async fn restore(&self) {
        let pools = self.list_ours::<BlockPool>().await;
        let mut waiting = self.sessions_by_pool().await;
        let mut tasks = JoinSet::new();
        for pool in pools {
            let (agent, name) = (self.clone(), name_of(&pool));
            let sessions = waiting.remove(&name).unwrap_or_default();
            tasks.spawn(async move {
                agent.turn::<BlockPool>(&name).await;
                agent.restore_sessions(sessions).await;
            });
        }
        // Sessions without a pool: their turn writes down what is missing.
        let rest = waiting.into_values().flatten().collect();
        self.restore_sessions(rest).await;
        wait_all(tasks).await;
    }

    async fn restore_sessions(&self, names: Vec<String>) {
        let mut turns = JoinSet::new();
        for name in names {
            let agent = self.clone();
            turns.spawn(async move { agent.turn::<VolumeSession>(&name).await });
        }
        wait_all(turns).await;
    }

    /// Names of sessions by the name of their pool; empty where the volume cannot be read.
    async fn sessions_by_pool(&self) -> HashMap<String, Vec<String>> {
        let volumes = self.list_ours::<SplitVolume>().await;
        let pools: HashMap<String, String> = volumes
            .into_iter()
            .map(|volume| (name_of(&volume), volume.spec.pool))
            .collect();
        let mut sessions: HashMap<String, Vec<String>> = HashMap::new();
        for session in self.list_ours::<VolumeSession>().await {
            let pool = pools.get(&session.spec.volume).cloned().unwrap_or_default();
            sessions.entry(pool).or_default().push(name_of(&session));
        }
        sessions
    }

    /// Lists until it works: without the list of sessions, nothing could be restored.
    async fn list_ours<K: Reconcile>(&self) -> Vec<K> {
        loop {
            match self.store().list::<K>().await {
                Ok(mut objects) => {
                    objects.retain(|object| self.is_ours(object.node_name()));
                    return objects;
                }
                Err(error) => {
                    tracing::warn!(kind = %K::kind(&()), %error, "Objects cannot be listed");
                    tokio::time::sleep(RETRY_INTERVAL).await;
                }
            }
        }
    }
}

async fn wait_all<T: 'static>(mut tasks: JoinSet<T>) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "A turn ended by panic; it will be tried again");
        }
    }
}

fn name_of<K: Object>(object: &K) -> String {
    object.meta().name.clone().unwrap_or_default()
}
