//! What kubelet does for volumes, done by the test: kubelet itself needs a container runtime and cannot run here.
//!
//! It registers the node and its driver from what the driver says of itself, and for every pod that the scheduler gives to
//! the node it makes the calls that kubelet makes, over the driver's real socket, with the same arguments and in the same
//! order. It runs no container: a pod counts as running once its volumes are published. What fails is tried again, as
//! kubelet does, until the pod is gone.

mod calls;
mod pods;
mod register;

use crate::Plane;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use pods::Pods;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;

pub use register::ensure_node;

/// Between two tries of something that failed. Kubelet begins with half a second, too, and then waits longer and longer.
const TRY_AGAIN: Duration = Duration::from_millis(500);
/// A watch that lost its server waits for up to half a minute before it begins again; tests need not.
const LOOK_ANYWAY: Duration = Duration::from_secs(3);

/// The stand-in for one node's kubelet. Dropped, it makes no more calls.
#[derive(Debug)]
pub struct Kubelet {
    place: Place,
    complaints: Arc<Mutex<Vec<String>>>,
    work: JoinHandle<()>,
}

/// Which node, where its files are, and where its driver listens.
#[derive(Clone, Debug)]
struct Place {
    node: String,
    folder: PathBuf,
    endpoint: String,
}

impl Kubelet {
    /// Registers the driver at `endpoint` for `node` and begins to serve the node's pods. Files are kept below `folder`.
    ///
    /// # Errors
    /// If the driver does not tell what it is, or the API server refuses.
    pub async fn start(
        plane: &Plane,
        node: &str,
        endpoint: &str,
        folder: &Path,
    ) -> anyhow::Result<Kubelet> {
        let place = Place {
            node: node.to_owned(),
            folder: folder.to_owned(),
            endpoint: endpoint.to_owned(),
        };
        register::driver(&plane.client(), &place).await?;
        let complaints = Arc::default();
        let pods = Pods::new(plane.client(), place.clone(), Arc::clone(&complaints));
        let work = tokio::spawn(serve(plane.client(), place.clone(), pods));
        Ok(Kubelet {
            place,
            complaints,
            work,
        })
    }

    /// Where a pod sees a volume: the folder that was published for it.
    pub fn target(&self, pod_uid: &str, volume: &str) -> PathBuf {
        self.place.target(pod_uid, volume)
    }

    /// What went wrong so far and was, or is being, tried again.
    pub fn complaints(&self) -> Vec<String> {
        let complaints = self.complaints.lock();
        complaints.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.work.abort();
    }
}

impl Place {
    /// Staging belongs to the volume; kubelet's own folder has a hash for a name.
    fn staging(&self, volume: &str) -> PathBuf {
        let plugin = format!("plugins/kubernetes.io/csi/{}", holdfast_api::DRIVER_NAME);
        self.folder.join(plugin).join(volume).join("globalmount")
    }

    fn target(&self, pod_uid: &str, volume: &str) -> PathBuf {
        let volumes = format!("pods/{pod_uid}/volumes/kubernetes.io~csi");
        self.folder.join(volumes).join(volume).join("mount")
    }
}

/// Looks after all pods of the node whenever one of them changed, and again while something is left to do.
async fn serve(client: Client, place: Place, mut pods: Pods) {
    let own = watcher::Config::default().fields(&format!("spec.nodeName={}", place.node));
    let changes = watcher(Api::<Pod>::all(client), own).default_backoff();
    let mut changes = pin!(changes);
    loop {
        let done = pods.sync().await;
        let wait = if done { LOOK_ANYWAY } else { TRY_AGAIN };
        // Errors of the watch need no answer: it begins again by itself.
        let _ = tokio::time::timeout(wait, changes.next()).await;
    }
}
