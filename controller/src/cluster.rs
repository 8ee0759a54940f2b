//! What a controller does in a cluster beside answering calls: it removes volumes nobody wants and finishes what a lost node
//! cannot. Of several replicas one does it, the holder of the Lease.

mod departed;
mod elector;
mod garbage;
mod nodes;
#[cfg(test)]
#[path = "cluster/tests/stand_in.rs"]
mod stand_in;

pub use elector::LeaseTimes;

use crate::error::ControllerError;
use crate::metrics::ControllerMetrics;
use departed::Departed;
use elector::Elector;
use garbage::Sweeper;
use holdfast_store::Store;
use kube::Client;
use std::future::Future;
use std::time::Duration;
use tokio::time::timeout;

/// How the loops behave.
#[derive(Debug, Clone)]
pub struct LoopsConfig {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Who this process is among its replicas: no two may share it.
    pub identity: String,
    /// How leadership is kept and lost.
    pub lease: LeaseTimes,
    /// How garbage is looked for.
    pub garbage: GarbageConfig,
    /// When a node is taken for lost.
    pub node_loss: NodeLossConfig,
}

/// How volumes are found that nobody wants.
#[derive(Debug, Clone)]
pub struct GarbageConfig {
    /// Time between two passes. A volume must be found twice before it is deleted.
    pub interval: Duration,
    /// A younger volume is never garbage: its PersistentVolume may be on its way.
    pub grace: Duration,
    /// Only tell what would be deleted.
    pub dry_run: bool,
}

/// When a node is gone for good.
#[derive(Debug, Clone)]
pub struct NodeLossConfig {
    /// How long its Node object must be absent. An annotation or the out-of-service taint needs no waiting.
    pub grace: Duration,
    /// Time between two looks where nothing changes.
    pub interval: Duration,
}

impl Default for GarbageConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(300),
            grace: Duration::from_secs(900),
            dry_run: false,
        }
    }
}

impl Default for NodeLossConfig {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(600),
            interval: Duration::from_secs(10),
        }
    }
}

/// The loops of one replica.
#[derive(Clone)]
pub struct Loops<S> {
    /// Where our own objects are.
    pub store: S,
    /// For nodes, persistent volumes, claims and the Lease.
    pub client: Client,
    /// What they tell of themselves.
    pub metrics: ControllerMetrics,
    /// How they behave.
    pub config: LoopsConfig,
}

impl<S: Store> Loops<S> {
    /// Runs while this replica leads, and `beside` with it, until `shutdown` completes; then gives leadership up, so that another
    /// replica need not wait for it to expire.
    pub async fn run<F: Future<Output = ()>>(
        &self,
        beside: impl Fn() -> F,
        shutdown: impl Future<Output = ()>,
    ) {
        let elector = Elector::new(&self.client, &self.config, self.metrics.clone());
        let work = || async {
            tokio::join!(
                Sweeper::new(self).run(),
                Departed::new(self).run(),
                beside()
            );
        };
        tokio::select! {
            () = elector.lead(work) => {}
            () = shutdown => {}
        }
        elector.resign().await;
    }
}

/// An API server that stands still holds nobody up for longer.
const SILENCE: Duration = Duration::from_secs(10);

/// Asks the API server for something that is not ours.
async fn ask<T>(
    action: &'static str,
    what: &str,
    answer: impl Future<Output = kube::Result<T>>,
) -> Result<T, ControllerError> {
    let failed = |cause: String| ControllerError::Cluster {
        action,
        what: what.to_owned(),
        cause,
    };
    match timeout(SILENCE, answer).await {
        Ok(answer) => answer.map_err(|error| failed(error.to_string())),
        Err(_) => Err(failed(format!("no answer within {SILENCE:?}"))),
    }
}
