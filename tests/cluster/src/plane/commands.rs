//! How each program of the control plane is called.

use super::certs::Certs;
use crate::kit::program;
use rand::Rng;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

/// The ports of one plane, all on the loopback address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) etcd: u16,
    peers: u16,
    pub(super) api: u16,
}

impl Ports {
    /// Three that nobody listens on now.
    pub(super) fn pick() -> Ports {
        Ports {
            etcd: free_port(),
            peers: free_port(),
            api: free_port(),
        }
    }
}

/// Below the range that outgoing connections take theirs from: an API server that was killed must get its port again.
fn free_port() -> u16 {
    loop {
        let port = rand::rng().random_range(20_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The database. Nothing is synced to the drive: it lives as long as the test.
pub(super) fn etcd(ports: Ports, folder: &Path) -> anyhow::Result<Command> {
    let (clients, peers) = (
        format!("http://127.0.0.1:{}", ports.etcd),
        format!("http://127.0.0.1:{}", ports.peers),
    );
    let mut command = Command::new(program("etcd")?);
    command
        .arg(format!("--data-dir={}", folder.join("etcd").display()))
        .arg(format!("--listen-client-urls={clients}"))
        .arg(format!("--advertise-client-urls={clients}"))
        .arg(format!("--listen-peer-urls={peers}"))
        .arg(format!("--initial-advertise-peer-urls={peers}"))
        .arg(format!("--initial-cluster=default={peers}"))
        .args(["--unsafe-no-fsync", "--log-level=warn"]);
    Ok(command)
}

/// The API server: RBAC, all default admission, tokens bound to pods and nodes.
pub(super) fn api_server(ports: Ports, certs: &Certs) -> anyhow::Result<Command> {
    let file = |name| certs.path(name).display().to_string();
    let mut command = Command::new(program("kube-apiserver")?);
    command
        .arg(format!("--etcd-servers=http://127.0.0.1:{}", ports.etcd))
        .arg(format!("--secure-port={}", ports.api))
        .arg(format!("--tls-cert-file={}", file("server.crt")))
        .arg(format!("--tls-private-key-file={}", file("server.key")))
        .arg(format!("--client-ca-file={}", file("ca.crt")))
        .arg(format!(
            "--service-account-signing-key-file={}",
            file("tokens.key")
        ))
        .arg(format!("--service-account-key-file={}", file("tokens.pub")))
        .arg("--service-account-issuer=https://kubernetes.default.svc")
        .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1"])
        .args([
            "--service-cluster-ip-range=10.0.0.0/24",
            "--endpoint-reconciler-type=none",
        ])
        .args(["--authorization-mode=Node,RBAC", "--allow-privileged=true"])
        .args(["--enable-priority-and-fairness=false", "--profiling=false"]);
    Ok(command)
}

/// All default controllers. Nodes of tests send no heartbeats and must not be called dead for it.
pub(super) fn controller_manager(kubeconfig: &Path, certs: &Certs) -> anyhow::Result<Command> {
    let file = |name| certs.path(name).display().to_string();
    let mut command = Command::new(program("kube-controller-manager")?);
    command
        .arg(format!("--kubeconfig={}", kubeconfig.display()))
        .arg(format!(
            "--service-account-private-key-file={}",
            file("tokens.key")
        ))
        .arg(format!("--root-ca-file={}", file("ca.crt")))
        .args(["--leader-elect=false", "--secure-port=0"])
        .arg("--node-monitor-grace-period=24h")
        .args(["--kube-api-qps=500", "--kube-api-burst=1000"]);
    Ok(command)
}

/// The scheduler with its volume binding and capacity checks.
pub(super) fn scheduler(kubeconfig: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(program("kube-scheduler")?);
    command
        .arg(format!("--kubeconfig={}", kubeconfig.display()))
        .args(["--leader-elect=false", "--secure-port=0"])
        .args(["--kube-api-qps=500", "--kube-api-burst=1000"]);
    Ok(command)
}
