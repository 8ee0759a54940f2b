//! A node agent as a process of its own, and what the tests ask of it and of the store.

use anyhow::{Context, ensure};
use holdfast_api::{
    BlockPool, BlockPoolSpec, Condition, DeviceMatch, OrphanExtent, SplitVolume, SplitVolumeSpec,
    VolumeSession, is_true, quantity, short_id,
};
use holdfast_cluster::{Daemon, Plane, until};
use holdfast_proto::csi::v1 as csi;
use holdfast_proto::csi::v1::identity_client::IdentityClient;
use holdfast_proto::csi::v1::node_client::NodeClient;
use holdfast_store::{KubeStore, KubeStoreConfig, Object, Store, StoreError};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, PostParams};
use kube::{CustomResourceExt, ResourceExt};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const POOL_BYTES: u64 = 128 << 20;

/// One agent, killed when dropped.
pub(crate) struct Agent {
    node: String,
    process: Daemon,
    http: String,
    dir: PathBuf,
    // Twins share the first one's; last, for the process is gone before its directory.
    _folder: Option<TempDir>,
}

impl Agent {
    pub(crate) fn start(plane: &Plane, node: &str) -> anyhow::Result<Agent> {
        let folder = TempDir::with_prefix("hf")?; // Short: sockets lie in it.
        let dir = folder.path().to_owned();
        let (process, http) = run(plane, node, &dir)?;
        Ok(Agent {
            node: node.to_owned(),
            process,
            http,
            dir,
            _folder: Some(folder),
        })
    }

    /// A second agent of the same node.
    pub(crate) fn twin(&self, plane: &Plane) -> anyhow::Result<Agent> {
        let (process, http) = run(plane, &self.node, &self.dir)?;
        Ok(Agent {
            node: self.node.clone(),
            process,
            http,
            dir: self.dir.clone(),
            _folder: None,
        })
    }

    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill()
    }

    pub(crate) fn start_again(&mut self, plane: &Plane) -> anyhow::Result<()> {
        (self.process, self.http) = run(plane, &self.node, &self.dir)?;
        Ok(())
    }

    pub(crate) fn said(&self) -> String {
        self.process.said()
    }

    /// Waits until `Probe` says that it is ready.
    pub(crate) async fn until_ready(&self) -> anyhow::Result<()> {
        until("the agent is ready", PATIENCE, async || {
            let Ok(channel) = holdfast_csi::connect(&self.endpoint()).await else {
                return Ok(Err(format!("nobody listens: {}", self.process.tail())));
            };
            let probe = IdentityClient::new(channel)
                .probe(csi::ProbeRequest {})
                .await;
            let ready = probe.is_ok_and(|probe| probe.into_inner().ready == Some(true));
            Ok(ready.then_some(()).ok_or_else(|| self.process.tail()))
        })
        .await
    }

    pub(crate) async fn stage(&self, volume: &str) -> anyhow::Result<()> {
        use csi::volume_capability::{AccessMode, AccessType, MountVolume, access_mode::Mode};
        self.until_ready().await?;
        let mut node = NodeClient::new(holdfast_csi::connect(&self.endpoint()).await?);
        let capability = csi::VolumeCapability {
            access_mode: Some(AccessMode {
                mode: Mode::SingleNodeWriter.into(),
            }),
            access_type: Some(AccessType::Mount(MountVolume::default())),
        };
        let request = csi::NodeStageVolumeRequest {
            volume_id: volume.to_owned(),
            staging_target_path: staging_path(volume),
            volume_capability: Some(capability),
            ..Default::default()
        };
        node.node_stage_volume(request).await?;
        Ok(())
    }

    pub(crate) async fn unstage(&self, volume: &str) -> anyhow::Result<()> {
        let mut node = NodeClient::new(holdfast_csi::connect(&self.endpoint()).await?);
        let request = csi::NodeUnstageVolumeRequest {
            volume_id: volume.to_owned(),
            staging_target_path: staging_path(volume),
        };
        node.node_unstage_volume(request).await?;
        Ok(())
    }

    /// The answer to a GET on its HTTP endpoint, header and all.
    pub(crate) fn http(&self, path: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(&self.http)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(!answer.is_empty(), "no answer to {path}");
        Ok(answer)
    }

    fn endpoint(&self) -> String {
        format!("unix://{}", self.dir.join("csi.sock").display())
    }
}

/// Starts the program; returns where it tells metrics too.
fn run(plane: &Plane, node: &str, dir: &std::path::Path) -> anyhow::Result<(Daemon, String)> {
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut command = Command::new(holdfast_guest::holdfast()?);
    command
        .args(["node", "--node-name", node, "--dir"])
        .arg(dir)
        .arg("--csi-endpoint")
        .arg(format!("unix://{}", dir.join("csi.sock").display()))
        .args(["--http-endpoint", &port.to_string(), "--kubeconfig"])
        .arg(plane.kubeconfig());
    let name = format!("node-{node}-{}", port.port());
    let process = Daemon::start(&name, &command, &plane.logs())?;
    Ok((process, port.to_string()))
}

fn staging_path(volume: &str) -> String {
    format!("/plugins/csi/{}/globalmount", short_id(volume))
}

/// A store that sees all nodes.
pub(crate) fn store(plane: &Plane) -> KubeStore {
    let config = KubeStoreConfig {
        field_manager: "holdfast-controller",
        node: None,
    };
    KubeStore::new(plane.client(), config)
}

/// Defines the kinds and waits until they are served.
pub(crate) async fn install(plane: &Plane) -> anyhow::Result<()> {
    let definitions: Api<CustomResourceDefinition> = Api::all(plane.client());
    let kinds = [
        BlockPool::crd(),
        SplitVolume::crd(),
        VolumeSession::crd(),
        OrphanExtent::crd(),
    ];
    for kind in kinds {
        let name = kind.name_any();
        if definitions.get_opt(&name).await?.is_none() {
            definitions.create(&PostParams::default(), &kind).await?;
        }
        until("the kind is established", PATIENCE, async || {
            let found = definitions.get(&name).await?;
            let conditions = found.status.and_then(|status| status.conditions);
            let mut conditions = conditions.unwrap_or_default().into_iter();
            let established =
                conditions.any(|one| one.type_ == "Established" && one.status == "True");
            Ok(established.then_some(()).ok_or_else(|| name.clone()))
        })
        .await?;
    }
    Ok(())
}

/// A pool in a file of the agent's directory, for a node that the pool is named after.
pub(crate) fn pool(agent: &Agent, node: &str) -> BlockPool {
    let path = agent.dir.join(format!("{node}.img"));
    let spec = BlockPoolSpec {
        node_name: node.to_owned(),
        device: DeviceMatch {
            path: path.display().to_string(),
            ..Default::default()
        },
        size: Some(quantity(POOL_BYTES)),
        ..Default::default()
    };
    BlockPool::new(node, spec)
}

/// A volume on a node's pool.
pub(crate) fn volume(name: &str, node: &str, bytes: u64) -> SplitVolume {
    let spec = SplitVolumeSpec {
        node_name: node.to_owned(),
        pool: node.to_owned(),
        size: quantity(bytes),
        ..Default::default()
    };
    SplitVolume::new(name, spec)
}

/// Objects with conditions.
pub(crate) trait Told {
    fn conditions(&self) -> &[Condition];
}

macro_rules! told {
    ($($kind:ty),+) => {
        $(impl Told for $kind {
            fn conditions(&self) -> &[Condition] {
                self.status.as_ref().map_or(&[], |status| &status.conditions)
            }
        })+
    };
}
told!(BlockPool, SplitVolume, VolumeSession);

/// Whether a condition holds.
pub(crate) fn holds(object: &impl Told, kind: &str) -> bool {
    is_true(object.conditions(), kind)
}

/// Waits until an object is there and as it should be.
pub(crate) async fn until_object<K: Object>(
    store: &KubeStore,
    name: &str,
    is_right: impl Fn(&K) -> bool,
) -> anyhow::Result<K> {
    until(name, PATIENCE, async || {
        match store.get::<K>(name).await? {
            Some(found) if is_right(&found) => Ok(Ok(found)),
            other => Ok(Err(format!("{other:?}"))),
        }
    })
    .await
}

/// Changes an object, again if somebody else wrote it meanwhile.
pub(crate) async fn edit<K: Object>(
    store: &KubeStore,
    name: &str,
    change: impl Fn(&mut K),
) -> anyhow::Result<()> {
    loop {
        let mut object = store.get::<K>(name).await?.context("it is there")?;
        change(&mut object);
        match store.update(object).await {
            Err(StoreError::Conflict { .. }) => {}
            other => return Ok(other.map(drop)?),
        }
    }
}
