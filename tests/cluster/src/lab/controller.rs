//! The controller's pod as three processes: `holdfast controller`, and the sidecars that call it.

use super::NAMESPACE;
use crate::{Daemon, Plane, kit};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A running controller. Sidecars end by themselves when its socket is gone, and are started again with it.
#[derive(Debug)]
pub struct Controller {
    holdfast: Daemon,
    provisioner: Daemon,
    resizer: Daemon,
}

impl Controller {
    pub(super) async fn start(plane: &Plane) -> anyhow::Result<Controller> {
        let kubeconfig = plane
            .kubeconfig_of("holdfast-controller", NAMESPACE, None)
            .await?;
        let (socket, logs) = (socket(plane), plane.logs());
        Ok(Controller {
            holdfast: Daemon::start("controller", &holdfast(&kubeconfig, &socket)?, &logs)?,
            provisioner: Daemon::start("provisioner", &provisioner(&kubeconfig, &socket)?, &logs)?,
            resizer: Daemon::start("resizer", &resizer(&kubeconfig, &socket)?, &logs)?,
        })
    }

    /// Kills all three as a crash of their pod would.
    ///
    /// # Errors
    /// If one cannot be killed.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.holdfast.kill()?;
        self.provisioner.kill()?;
        self.resizer.kill()
    }

    /// `holdfast controller` itself.
    pub fn holdfast(&mut self) -> &mut Daemon {
        &mut self.holdfast
    }
}

fn socket(plane: &Plane) -> PathBuf {
    plane.folder().join("c.sock")
}

pub(super) fn endpoint(plane: &Plane) -> String {
    format!("unix://{}", socket(plane).display())
}

fn holdfast(kubeconfig: &Path, socket: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(holdfast_guest::holdfast()?);
    command
        .arg("controller")
        .arg(format!("--csi-endpoint=unix://{}", socket.display()))
        .arg(format!("--kubeconfig={}", kubeconfig.display()))
        .arg(format!("--namespace={NAMESPACE}"));
    Ok(command)
}

/// With the chart's arguments, but for two: one replica needs no election, and tests cannot wait 30 s for figures.
fn provisioner(kubeconfig: &Path, socket: &Path) -> anyhow::Result<Command> {
    let mut command = sidecar("csi-provisioner", kubeconfig, socket)?;
    command
        .args(["--strict-topology", "--extra-create-metadata"])
        .args(["--enable-capacity", "--capacity-ownerref-level=-1"])
        .args(["--capacity-poll-interval=2s", "--kube-api-capacity-qps=50"])
        .arg("--kube-api-capacity-burst=100")
        .env("NAMESPACE", NAMESPACE)
        .env("POD_NAME", "holdfast-controller");
    Ok(command)
}

fn resizer(kubeconfig: &Path, socket: &Path) -> anyhow::Result<Command> {
    let mut command = sidecar("csi-resizer", kubeconfig, socket)?;
    command.arg("--handle-volume-inuse-error=false");
    Ok(command)
}

fn sidecar(name: &str, kubeconfig: &Path, socket: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(kit::program(name)?);
    command
        .arg(format!("--csi-address={}", socket.display()))
        .arg(format!("--kubeconfig={}", kubeconfig.display()))
        .args(["--timeout=60s", "--kube-api-qps=50", "--kube-api-burst=100"]);
    Ok(command)
}
