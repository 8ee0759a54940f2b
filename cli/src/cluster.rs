//! Which cluster: for the subcommands that work in one.

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use std::path::PathBuf;
use std::time::Duration;

/// Which cluster to work in.
#[derive(Debug, clap::Args)]
pub(crate) struct ClusterArgs {
    /// The file that names the cluster and how to log in. In a pod it is not needed.
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

/// An address where nobody answers is not worth the default of 30 s: every request is repeated by whoever wanted it.
const CONNECT: Duration = Duration::from_secs(5);

impl ClusterArgs {
    /// A client of the cluster. Nothing is asked of it yet.
    pub(crate) async fn client(&self) -> anyhow::Result<Client> {
        let mut config = match &self.kubeconfig {
            Some(file) => from_file(file).await?,
            None => Config::incluster()
                .context("this is no pod of a cluster; name one with --kubeconfig FILE")?,
        };
        config.connect_timeout = Some(CONNECT);
        Client::try_from(config).context("cannot make a client of the cluster")
    }
}

async fn from_file(file: &PathBuf) -> anyhow::Result<Config> {
    let failed = || format!("cannot use {}", file.display());
    let read = Kubeconfig::read_from(file).with_context(failed)?;
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(read, &options).await;
    config.with_context(failed)
}
