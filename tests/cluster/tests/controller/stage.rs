//! A replica of the controller's loops in this process, and what the tests put into the cluster and read from it.

use anyhow::Context;
use holdfast_api::{
    BlockPool, ClaimRef, NODE_FINALIZER, OrphanExtent, SplitVolume, SplitVolumeSpec, VolumeSession,
    VolumeSessionSpec, conditions, quantity,
};
use holdfast_cluster::{Plane, until};
use holdfast_controller::{
    ControllerMetrics, GarbageConfig, LeaseTimes, Loops, LoopsConfig, NodeLossConfig,
};
use holdfast_observe::{metrics_text, new_registry};
use holdfast_store::{KubeStore, KubeStoreConfig, Store};
use k8s_openapi::api::events::v1::Event;
use kube::CustomResourceExt;
use kube::api::{Api, ListParams};
use serde_json::json;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Never used up by a test that passes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
pub(crate) const NAMESPACE: &str = "default";
pub(crate) const MIB: u64 = 1 << 20;

pub(crate) fn store(plane: &Plane) -> KubeStore {
    let config = KubeStoreConfig {
        field_manager: "holdfast-controller",
        node: None,
    };
    KubeStore::new(plane.client(), config)
}

/// Defines our kinds and waits until they are served.
pub(crate) fn install(plane: &Plane) -> anyhow::Result<()> {
    let kinds = [
        BlockPool::crd(),
        SplitVolume::crd(),
        VolumeSession::crd(),
        OrphanExtent::crd(),
    ];
    let manifest = json!({ "apiVersion": "v1", "kind": "List", "items": kinds }).to_string();
    plane.kubectl_with(&["apply", "--server-side", "-f", "-"], &manifest)?;
    let words = ["wait", "--for=condition=Established", "crd", "--all"];
    plane.kubectl(&words).map(drop)
}

/// A volume as the provisioner has it made: for the claim `claim-NAME`, which need not exist.
pub(crate) fn volume(name: &str, node: &str) -> SplitVolume {
    let claim = ClaimRef {
        namespace: NAMESPACE.to_owned(),
        name: format!("claim-{name}"),
        persistent_volume: name.to_owned(),
    };
    let spec = SplitVolumeSpec {
        node_name: node.to_owned(),
        pool: "p1".to_owned(),
        size: quantity(64 * MIB),
        claim: Some(claim),
        ..Default::default()
    };
    SplitVolume::new(name, spec)
}

/// The same, held by its node until the node lets go.
pub(crate) fn held_volume(name: &str, node: &str) -> SplitVolume {
    let mut volume = volume(name, node);
    volume.metadata.finalizers = Some(vec![NODE_FINALIZER.to_owned()]);
    volume
}

pub(crate) fn session(volume: &str, node: &str) -> VolumeSession {
    let spec = VolumeSessionSpec {
        volume: volume.to_owned(),
        node_name: node.to_owned(),
        queues: 1,
        staging_path: "/stage".to_owned(),
        access_mode: "SINGLE_NODE_WRITER".to_owned(),
        ..Default::default()
    };
    let mut session = VolumeSession::new(volume, spec);
    session.metadata.finalizers = Some(vec![NODE_FINALIZER.to_owned()]);
    session
}

/// Writes a condition of a volume's status, and the size on the drive, as its node does.
pub(crate) fn report(
    plane: &Plane,
    name: &str,
    size: &str,
    condition: (&str, &str, &str),
) -> anyhow::Result<()> {
    let (kind, status, reason) = condition;
    let patch = json!({ "status": { "observedGeneration": 1, "size": size, "conditions": [{
        "type": kind, "status": status, "reason": reason, "message": "said by the test",
        "observedGeneration": 1_000_000, "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]}});
    let words = [
        "patch",
        "splitvolume",
        name,
        "--subresource=status",
        "--type=merge",
        "-p",
    ];
    plane.kubectl(&[&words[..], &[&patch.to_string()]].concat())?;
    Ok(())
}

pub(crate) fn allocated(plane: &Plane, name: &str) -> anyhow::Result<()> {
    report(
        plane,
        name,
        "64Mi",
        (conditions::ALLOCATED, "True", "Allocated"),
    )
}

/// How a replica behaves that looks all the time and waits for nothing.
pub(crate) fn eager(identity: &str) -> LoopsConfig {
    LoopsConfig {
        namespace: NAMESPACE.to_owned(),
        identity: identity.to_owned(),
        lease: LeaseTimes {
            duration: Duration::from_secs(3),
            renew_deadline: Duration::from_secs(2),
            retry: Duration::from_millis(200),
        },
        garbage: GarbageConfig {
            interval: Duration::from_millis(200),
            grace: Duration::ZERO,
            dry_run: false,
        },
        node_loss: NodeLossConfig {
            grace: Duration::ZERO,
            interval: Duration::from_millis(200),
        },
    }
}

/// Never finds garbage: for tests that need volumes nobody claims.
pub(crate) fn without_garbage(identity: &str) -> LoopsConfig {
    let mut config = eager(identity);
    config.garbage.grace = Duration::from_secs(1 << 20);
    config
}

/// A replica of the loops. Dropped, it is gone as if it was killed.
pub(crate) struct Replica {
    registry: prometheus_client::registry::Registry,
    end: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Replica {
    pub(crate) fn start(plane: &Plane, config: LoopsConfig) -> Self {
        let mut registry = new_registry("test");
        let loops = Loops {
            store: store(plane),
            client: plane.client(),
            metrics: ControllerMetrics::register(&mut registry),
            config,
        };
        let (end, ended) = oneshot::channel();
        let task = tokio::spawn(async move {
            let shutdown = async { drop(ended.await) };
            Box::pin(loops.run(std::future::pending, shutdown)).await;
        });
        Self {
            registry,
            end: Some(end),
            task,
        }
    }

    /// Asks it to end, and waits.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        drop(self.end.take());
        (&mut self.task).await.context("the replica panicked")
    }

    /// The value of a metric with these labels, 0 while there is none.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let text = metrics_text(&self.registry);
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().expect("a whole number"))
    }

    pub(crate) fn leads(&self) -> bool {
        self.metric("holdfast_controller_leader") == 1
    }

    pub(crate) async fn lead(&self) -> anyhow::Result<()> {
        let look = || async { Ok(self.leads().then_some(()).ok_or("it does not".to_owned())) };
        until("a replica leads", PATIENCE, look).await
    }

    /// Waits until a loop went through `passes` times more.
    pub(crate) async fn pass(&self, name: &str, passes: u64) -> anyhow::Result<()> {
        let metric = format!("holdfast_controller_loop_passes_total{{name=\"{name}\"}}");
        let enough = self.metric(&metric) + passes;
        let look = || async {
            let now = self.metric(&metric);
            Ok((now >= enough)
                .then_some(())
                .ok_or(format!("{now} of {enough}")))
        };
        until("the loop goes through", PATIENCE, look).await
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) async fn is_there(store: &KubeStore, volume: &str) -> anyhow::Result<bool> {
    Ok(store.get::<SplitVolume>(volume).await?.is_some())
}

pub(crate) async fn gone(store: &KubeStore, volume: &str) -> anyhow::Result<()> {
    let look = || async {
        let left = store.get::<SplitVolume>(volume).await?;
        Ok(left.map_or(Ok(()), |left| Err(format!("{:?}", left.metadata))))
    };
    until(&format!("volume {volume} is gone"), PATIENCE, look).await
}

/// Waits for an event of this reason about an object of this name.
pub(crate) async fn event(plane: &Plane, reason: &str, name: &str) -> anyhow::Result<Event> {
    let events: Api<Event> = Api::all(plane.client());
    let look = || async {
        let list = events.list(&ListParams::default()).await?;
        let found = list.items.into_iter().find(|event| {
            let about = event.regarding.as_ref().and_then(|r| r.name.as_deref());
            event.reason.as_deref() == Some(reason) && about == Some(name)
        });
        Ok(found.ok_or("there is none".to_owned()))
    };
    until(&format!("{reason} is told of {name}"), PATIENCE, look).await
}

/// The note of such an event.
pub(crate) async fn note(plane: &Plane, reason: &str, name: &str) -> anyhow::Result<String> {
    let event = event(plane, reason, name).await?;
    Ok(event.note.unwrap_or_default())
}
