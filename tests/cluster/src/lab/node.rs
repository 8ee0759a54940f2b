//! A node: its agent as a process, kubelet's stand-in, and one pool in a file.

use super::NAMESPACE;
use crate::{Daemon, Kubelet, Plane, until};
use holdfast_api::{BlockPool, BlockPoolSpec, DeviceMatch, quantity};
use holdfast_proto::csi::v1::ProbeRequest;
use holdfast_proto::csi::v1::identity_client::IdentityClient;
use kube::api::{Api, PostParams};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);

/// A node of the lab.
#[derive(Debug)]
pub struct Node {
    name: String,
    folder: PathBuf,
    kubeconfig: PathBuf,
    agent: Daemon,
    kubelet: Kubelet,
}

impl Node {
    /// Starts an agent with one pool, named after the node, and registers it with the cluster.
    pub(super) async fn start(plane: &Plane, name: &str, pool_bytes: u64) -> anyhow::Result<Node> {
        let folder = plane.folder().join(name);
        std::fs::create_dir_all(&folder)?;
        declare_pool(plane, name, &folder, pool_bytes).await?;
        let kubeconfig = plane
            .kubeconfig_of("holdfast-node", NAMESPACE, Some(name))
            .await?;
        let mut agent = start_agent(plane, name, &folder, &kubeconfig)?;
        until_ready(&mut agent, &folder).await?;
        let files = folder.join("kubelet");
        let kubelet = Kubelet::start(plane, name, &endpoint(&folder), &files).await?;
        Ok(Node {
            kubelet,
            name: name.to_owned(),
            folder,
            kubeconfig,
            agent,
        })
    }

    /// The name of the node, and of its pool.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The agent's process.
    pub fn agent(&mut self) -> &mut Daemon {
        &mut self.agent
    }

    /// The file that the pool is in.
    pub fn pool_file(&self) -> PathBuf {
        self.folder.join("pool.img")
    }

    /// Whether `pattern`, of whole sectors, stands anywhere on the pool.
    ///
    /// # Errors
    /// If the pool's file cannot be read.
    pub fn pool_holds(&self, pattern: &[u8]) -> anyhow::Result<bool> {
        const SECTOR: usize = 512;
        let pool = std::fs::read(self.pool_file())?;
        let ends = pool.len().saturating_sub(pattern.len());
        let mut places = (0..=ends).step_by(SECTOR);
        Ok(places.any(|place| pool[place..].starts_with(pattern)))
    }

    /// The agent's CSI socket.
    pub fn endpoint(&self) -> String {
        endpoint(&self.folder)
    }

    /// A volume's socket as the pod sees it, by a path that is short enough for a socket: a container has a short path
    /// for it as well.
    ///
    /// # Errors
    /// If the link to it cannot be made.
    pub fn socket(&self, pod_uid: &str, volume: &str) -> anyhow::Result<PathBuf> {
        let link = self.folder.join(pod_uid);
        if !link.is_symlink() {
            std::os::unix::fs::symlink(self.kubelet.target(pod_uid, volume), &link)?;
        }
        Ok(link.join("v.sock"))
    }

    /// What kubelet's stand-in had to try again, for messages.
    pub(super) fn complaints(&self) -> String {
        const LAST: usize = 5;
        let complaints = self.kubelet.complaints();
        let last = &complaints[complaints.len().saturating_sub(LAST)..];
        format!(
            "{}: {} complaints, the last: {last:#?}",
            self.name,
            complaints.len()
        )
    }

    pub(super) async fn restart(&mut self, plane: &Plane) -> anyhow::Result<()> {
        self.agent = start_agent(plane, &self.name, &self.folder, &self.kubeconfig)?;
        until_ready(&mut self.agent, &self.folder).await
    }
}

fn endpoint(folder: &Path) -> String {
    format!("unix://{}", folder.join("csi.sock").display())
}

async fn declare_pool(plane: &Plane, name: &str, folder: &Path, bytes: u64) -> anyhow::Result<()> {
    let spec = BlockPoolSpec {
        node_name: name.to_owned(),
        device: DeviceMatch {
            path: folder.join("pool.img").display().to_string(),
            ..DeviceMatch::default()
        },
        size: Some(quantity(bytes)),
        ..BlockPoolSpec::default()
    };
    let pools: Api<BlockPool> = Api::all(plane.client());
    pools
        .create(&PostParams::default(), &BlockPool::new(name, spec))
        .await?;
    Ok(())
}

fn start_agent(
    plane: &Plane,
    name: &str,
    folder: &Path,
    kubeconfig: &Path,
) -> anyhow::Result<Daemon> {
    let mut command = Command::new(holdfast_guest::holdfast()?);
    command
        .args(["node", "--node-name", name])
        .arg(format!("--dir={}", folder.join("s").display()))
        .arg(format!("--csi-endpoint={}", endpoint(folder)))
        .arg(format!("--kubeconfig={}", kubeconfig.display()));
    Daemon::start(&format!("agent-{name}"), &command, &plane.logs())
}

/// Ready as kubelet's probe sees it.
async fn until_ready(agent: &mut Daemon, folder: &Path) -> anyhow::Result<()> {
    let endpoint = endpoint(folder);
    until("the agent is ready", PATIENCE, || {
        let (alive, endpoint, tail) = (agent.check(), endpoint.clone(), agent.tail());
        async move {
            alive?;
            let Ok(channel) = holdfast_csi::connect(&endpoint).await else {
                return Ok(Err(tail));
            };
            let probe = IdentityClient::new(channel).probe(ProbeRequest {}).await;
            let ready = probe.is_ok_and(|probe| probe.into_inner().ready == Some(true));
            Ok(ready.then_some(()).ok_or(tail))
        }
    })
    .await
}
