//! Brings up a control plane by hand and takes it down at Ctrl-C: `cargo run -p holdfast-cluster --bin plane`.
#![forbid(unsafe_code)]

use holdfast_cluster::Plane;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let plane = Plane::start().await?;
    println!("export KUBECONFIG={}", plane.kubeconfig().display());
    println!("# logs are in {}; Ctrl-C ends it", plane.logs().display());
    tokio::signal::ctrl_c().await?;
    Ok(())
}
