//! Nodes that are gone for good. What such a node would have to do before its volumes and sessions may go, it will never do; so the
//! controller lets go of them in its place. Should the drive turn up again, its node finds what nobody speaks of any more and
//! reports it as OrphanExtents: nothing is erased, and nothing of it is given to anybody.

use super::nodes::{Standing, standing};
use super::{Loops, NodeLossConfig, ask};
use crate::error::ControllerError;
use crate::metrics::ControllerMetrics;
use crate::volume;
use futures::StreamExt;
use holdfast_api::{BlockPool, NODE_FINALIZER, SplitVolume, VolumeSession, events};
use holdfast_store::{Announcement, Object, Store, StoreError};
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use kube::Api;
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::{WatchStreamExt, watcher};
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Changes come in swarms; one look in this time is enough.
const PACE: Duration = Duration::from_secs(1);

pub(super) struct Departed<S> {
    store: S,
    nodes: Api<Node>,
    metrics: ControllerMetrics,
    config: NodeLossConfig,
    absent_since: HashMap<String, Instant>,
}

/// What was in the store at one look.
struct Look {
    pools: Vec<BlockPool>,
    volumes: Vec<SplitVolume>,
    sessions: Vec<VolumeSession>,
}

impl<S: Store> Departed<S> {
    pub(super) fn new(loops: &Loops<S>) -> Self {
        Self {
            store: loops.store.clone(),
            nodes: Api::all(loops.client.clone()),
            metrics: loops.metrics.clone(),
            config: loops.config.node_loss.clone(),
            absent_since: HashMap::new(),
        }
    }

    /// Watches nodes and finishes what those gone for good leave behind.
    pub(super) async fn run(mut self) {
        let (known, writer) = reflector::store::<Node>();
        let metrics = self.metrics.clone();
        let seen = watcher(self.nodes.clone(), watcher::Config::default())
            .default_backoff()
            // Nodes say much; the conditions and images of thousands need not be kept.
            .modify(|node| node.status = None)
            .reflect(writer)
            .for_each(|event| {
                if let Err(error) = event {
                    metrics.watch_failed("Node");
                    tracing::warn!(%error, "Cannot watch nodes now");
                }
                std::future::ready(())
            });
        let look = async {
            // It fails only if the watch above is dropped, and this with it.
            drop(known.wait_until_ready().await);
            let mut changes = self.store.watch::<SplitVolume>();
            loop {
                let outcome = self.pass(&known).await;
                self.metrics.passed("nodes", outcome);
                sleep(PACE.min(self.config.interval)).await;
                tokio::select! {
                    () = changes.changed() => {}
                    () = sleep(self.config.interval) => {}
                }
            }
        };
        tokio::select! {
            () = seen => {}
            () = look => {}
        }
    }

    async fn pass(&mut self, known: &reflector::Store<Node>) -> Result<(), ControllerError> {
        let look = Look {
            pools: self.store.list().await?,
            volumes: self.store.list().await?,
            sessions: self.store.list().await?,
        };
        self.metrics.count_volumes(&look.volumes);
        let names = look.nodes();
        self.absent_since.retain(|name, _| names.contains(name));
        let mut gone = 0;
        for name in &names {
            let node = known.get(&ObjectRef::new(name));
            let is_gone = self.is_gone(name, standing(name, node.as_deref(), &look.pools));
            if is_gone && self.is_confirmed(name, &look.pools).await? {
                gone += 1;
                self.finish(name, &look).await?;
            }
        }
        self.metrics.nodes_gone(gone);
        Ok(())
    }

    fn is_gone(&mut self, name: &str, standing: Standing) -> bool {
        if standing == Standing::There {
            self.absent_since.remove(name);
            return false;
        }
        let now = Instant::now();
        let since = *self.absent_since.entry(name.to_owned()).or_insert(now);
        standing == Standing::DeclaredGone || since.elapsed() >= self.config.grace
    }

    /// A watch may lag; what cannot be undone waits for the API server's own word.
    async fn is_confirmed(&self, name: &str, pools: &[BlockPool]) -> Result<bool, ControllerError> {
        let what = format!("Node {name:?}");
        let node = ask("read", &what, self.nodes.get_opt(name)).await?;
        Ok(standing(name, node.as_ref(), pools) != Standing::There)
    }

    /// Sessions end with their node. A volume goes if its deletion was asked for, or if nobody was ever given it.
    async fn finish(&self, node: &str, look: &Look) -> Result<(), ControllerError> {
        let sessions = look.sessions.iter();
        for session in sessions.filter(|session| session.spec.node_name == node) {
            self.let_go(session, node).await?;
        }
        let volumes = look.volumes.iter();
        for volume in volumes.filter(|volume| volume.spec.node_name == node) {
            if volume::is_deleting(volume) || !volume::is_allocated(volume) {
                self.let_go(volume, node).await?;
            }
        }
        Ok(())
    }

    /// Deletes an object and takes the node's finalizer off, as the node would have done in the end.
    async fn let_go<K: Object>(&self, object: &K, node: &str) -> Result<(), ControllerError> {
        let name = object.meta().name.clone().unwrap_or_default();
        // Repeated at the next look if somebody else writes it meanwhile.
        if object.meta().deletion_timestamp.is_none() {
            match self.store.delete_unchanged(object).await {
                Ok(_) => {}
                Err(StoreError::Conflict { .. }) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        let Some(mut now) = self.store.get::<K>(&name).await? else {
            return Ok(());
        };
        if now.meta().uid != object.meta().uid || now.meta().deletion_timestamp.is_none() {
            return Ok(());
        }
        let finalizers = now.meta_mut().finalizers.get_or_insert_default();
        finalizers.retain(|finalizer| finalizer != NODE_FINALIZER);
        match self.store.update(now).await {
            Ok(_) | Err(StoreError::NotFound { .. }) => {}
            Err(StoreError::Conflict { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let kind = K::kind(&());
        self.metrics.let_go(&kind);
        tracing::warn!(%kind, name, node, "Let go of what a lost node left behind");
        self.announce(object, node).await;
        Ok(())
    }

    async fn announce<K: Object>(&self, object: &K, node: &str) {
        let message = format!(
            "node {node} is gone for good, so its part in removing this is skipped; space on its drive comes back as an \
             OrphanExtent if the drive does"
        );
        let node = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            ..Default::default()
        };
        let event = Announcement::warning(events::NODE_GONE, message).about(node);
        self.store.announce(object, event).await;
    }
}

impl Look {
    /// Every node that something is on.
    fn nodes(&self) -> BTreeSet<String> {
        let volumes = self.volumes.iter().map(|v| v.spec.node_name.clone());
        let sessions = self.sessions.iter().map(|s| s.spec.node_name.clone());
        volumes.chain(sessions).collect()
    }
}

#[cfg(test)]
mod tests;
