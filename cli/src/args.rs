//! The command line: one subcommand, one file.

use crate::logging::LogFormat;
use crate::{
    controller, crds, csi, device, kubevirt_hook, logging, node, pool, serve, standalone,
    uninstall_check,
};
use clap::{Parser, Subcommand, ValueEnum};

/// Storage for virtual machines that holds fast while everything behind it changes.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, propagate_version = true)]
pub(crate) struct Cli {
    /// How log lines look; what is logged is chosen by the environment variable HOLDFAST_LOG.
    #[arg(long, global = true, value_enum, default_value_t)]
    log: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve controller and node on one CSI socket, with the state in a directory: no cluster needed.
    Standalone(standalone::Args),
    /// Serve the CSI node service in a cluster, and the volumes of this node.
    Node(node::Args),
    /// Serve the CSI controller in a cluster.
    Controller(controller::Args),
    /// Serve one device on one socket, nothing else.
    Serve(serve::Args),
    /// Call a CSI endpoint.
    Csi(csi::Args),
    /// Let go of drives and take them back while machines run.
    Device(device::Args),
    /// Rewrite the domain of the virtual machine whose pod this runs in, for KubeVirt older than its Plugins.
    KubevirtHook(kubevirt_hook::Args),
    /// Look at pools.
    Pool(pool::Args),
    /// Print the definitions of the custom resources.
    Crds,
    /// Fail while volumes exist: what helm asks before it uninstalls the driver.
    UninstallCheck(uninstall_check::Args),
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people and simple scripts.
    #[default]
    Text,
    /// One JSON value.
    Json,
}

impl Cli {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        logging::start(self.log);
        match self.command {
            Command::Standalone(args) => standalone::run(args),
            Command::Node(args) => node::run(args),
            Command::Controller(args) => controller::run(args),
            Command::Serve(args) => serve::run(args),
            Command::Csi(args) => csi::run(args),
            Command::Device(args) => device::run(args),
            Command::KubevirtHook(args) => kubevirt_hook::run(&args),
            Command::Pool(args) => pool::run(args),
            Command::Crds => crds::run(),
            Command::UninstallCheck(args) => uninstall_check::run(args),
        }
    }
}
