//! `holdfast csi`: a small CSI client. Results on standard output, errors with their gRPC code on standard error.

mod controller;
mod identity;
mod node;
mod wish;

use crate::call::Caller;

/// What to call, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    caller: Caller,
    #[command(subcommand)]
    call: Call,
}

#[derive(Debug, clap::Subcommand)]
enum Call {
    #[command(flatten)]
    Identity(identity::Call),
    #[command(flatten)]
    Controller(controller::Call),
    #[command(flatten)]
    Node(node::Call),
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    args.caller.call(async |channel| match args.call {
        Call::Identity(call) => call.make(channel).await,
        Call::Controller(call) => call.make(channel).await,
        Call::Node(call) => call.make(channel).await,
    })
}
