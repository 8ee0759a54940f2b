//! A node agent as a process of its own, with the token and the rights that its pod would have, and what the tests ask of it
//! and of the store.

use anyhow::{Context, ensure};
use holdfast_api::{
    BlockPool, BlockPoolSpec, Condition, DeviceMatch, SplitVolume, SplitVolumeSpec, VolumeSession,
    is_true, quantity, short_id,
};
use holdfast_cluster::lab::{self, NAMESPACE};
use holdfast_cluster::{Daemon, Plane, ensure_node, until};
use holdfast_proto::csi::v1 as csi;
use holdfast_proto::csi::v1::identity_client::IdentityClient;
use holdfast_proto::csi::v1::node_client::NodeClient;
use holdfast_store::{KubeStore, KubeStoreConfig, Object, Store, StoreError};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const POOL_BYTES: u64 = 128 << 20;

/// One agent with its node's token, killed when dropped.
pub(crate) struct Agent {
    place: Place,
    process: Daemon,
    http: String,
    /// How often it died at the place it was given.
    deaths: usize,
    // Twins share the first one's; last, for the process is gone before its directory.
    _folder: Option<TempDir>,
}

/// What stays the same when an agent is started again.
#[derive(Clone)]
struct Place {
    node: String,
    dir: PathBuf,
    kubeconfig: PathBuf,
    /// Where it dies by itself, the first time it comes there.
    fatal: Option<&'static str>,
}

impl Agent {
    pub(crate) async fn start(plane: &Plane, node: &str) -> anyhow::Result<Agent> {
        Agent::begin(plane, node, None).await
    }

    /// An agent that is killed when it first comes by this crash point.
    pub(crate) async fn start_to_die(
        plane: &Plane,
        node: &str,
        fatal: &'static str,
    ) -> anyhow::Result<Agent> {
        Agent::begin(plane, node, Some(fatal)).await
    }

    async fn begin(
        plane: &Plane,
        node: &str,
        fatal: Option<&'static str>,
    ) -> anyhow::Result<Agent> {
        ensure_node(&plane.client(), node).await?;
        let folder = TempDir::with_prefix("hf")?; // Short: sockets lie in it.
        let place = Place {
            node: node.to_owned(),
            dir: folder.path().to_owned(),
            kubeconfig: plane
                .kubeconfig_of("holdfast-node", NAMESPACE, Some(node))
                .await?,
            fatal,
        };
        let (process, http) = place.run(plane)?;
        Ok(Agent {
            place,
            process,
            http,
            deaths: 0,
            _folder: Some(folder),
        })
    }

    /// A second agent of the same node.
    pub(crate) fn twin(&self, plane: &Plane) -> anyhow::Result<Agent> {
        let (process, http) = self.place.run(plane)?;
        Ok(Agent {
            place: self.place.clone(),
            process,
            http,
            deaths: 0,
            _folder: None,
        })
    }

    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill()
    }

    pub(crate) fn start_again(&mut self, plane: &Plane) -> anyhow::Result<()> {
        (self.process, self.http) = self.place.run(plane)?;
        Ok(())
    }

    /// Starts it again, as kubelet does, if it has died where it should; it does not die there twice.
    pub(crate) fn tend(&mut self, plane: &Plane) -> anyhow::Result<()> {
        let Err(end) = self.process.check() else {
            return Ok(());
        };
        ensure!(end.to_string().contains("SIGKILL"), end);
        self.place.fatal = None;
        self.deaths += 1;
        self.start_again(plane)
    }

    pub(crate) fn deaths(&self) -> usize {
        self.deaths
    }

    /// The drive of the pool that [`pool`] makes.
    pub(crate) fn drive(&self) -> PathBuf {
        self.place.dir.join(format!("{}.img", self.place.node))
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
        self.until_ready().await?;
        self.staging(volume).await
    }

    /// One call of NodeStageVolume.
    pub(crate) fn staging(&self, volume: &str) -> impl Future<Output = anyhow::Result<()>> + use<> {
        use csi::volume_capability::{AccessMode, AccessType, MountVolume, access_mode::Mode};
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
        let endpoint = self.endpoint();
        async move {
            let mut node = NodeClient::new(holdfast_csi::connect(&endpoint).await?);
            node.node_stage_volume(request).await?;
            Ok(())
        }
    }

    /// One call of NodeUnstageVolume.
    pub(crate) fn unstage(&self, volume: &str) -> impl Future<Output = anyhow::Result<()>> + use<> {
        let request = csi::NodeUnstageVolumeRequest {
            volume_id: volume.to_owned(),
            staging_target_path: staging_path(volume),
        };
        let endpoint = self.endpoint();
        async move {
            let mut node = NodeClient::new(holdfast_csi::connect(&endpoint).await?);
            node.node_unstage_volume(request).await?;
            Ok(())
        }
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
        self.place.endpoint()
    }
}

impl Place {
    /// Starts the program; returns where it tells metrics too.
    fn run(&self, plane: &Plane) -> anyhow::Result<(Daemon, String)> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = Command::new(holdfast_guest::holdfast()?);
        command
            .args(["node", "--node-name", &self.node, "--dir"])
            .arg(&self.dir)
            .args(["--csi-endpoint", &self.endpoint()])
            .args(["--http-endpoint", &port.to_string(), "--kubeconfig"])
            .arg(&self.kubeconfig);
        if let Some(fatal) = self.fatal {
            command.env("HOLDFAST_CRASH_POINT", fatal);
        }
        let name = format!("node-{}-{}", self.node, port.port());
        let process = Daemon::start(&name, &command, &plane.logs())?;
        Ok((process, port.to_string()))
    }

    fn endpoint(&self) -> String {
        format!("unix://{}", self.dir.join("csi.sock").display())
    }
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

/// Installs what the chart says of kinds, rights and admission, if no test before has.
pub(crate) fn install(plane: &Plane) -> anyhow::Result<()> {
    let last = ["get", "validatingadmissionpolicybinding", "holdfast-node"];
    match plane.kubectl(&last) {
        Ok(_) => Ok(()),
        Err(_) => lab::install(plane),
    }
}

/// A pool in a file of the agent's directory, for a node that the pool is named after.
pub(crate) fn pool(agent: &Agent, node: &str) -> BlockPool {
    let path = agent.place.dir.join(format!("{node}.img"));
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
