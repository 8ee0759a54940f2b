//! `holdfast csi`: a small CSI client. Results on standard output, errors with their gRPC code on standard error.

mod answer;
mod controller;
mod identity;
mod node;
mod wish;

use crate::args::Output;
use answer::Answer;
use anyhow::Context;
use std::time::Duration;

/// What to call, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The CSI socket, as unix:///run/holdfast/csi.sock.
    #[arg(long, env = "CSI_ENDPOINT", global = true)]
    endpoint: Option<String>,
    /// How the result is printed.
    #[arg(short, long, value_enum, default_value_t, global = true)]
    output: Output,
    /// How long to wait for the answer, in seconds.
    #[arg(long, default_value_t = 60, value_name = "N", global = true)]
    timeout_seconds: u64,
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
    let endpoint = args
        .endpoint
        .context("--endpoint is missing: give it or set CSI_ENDPOINT")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let limit = Duration::from_secs(args.timeout_seconds);
    let answer = runtime.block_on(async {
        tokio::time::timeout(limit, args.call.make(&endpoint))
            .await
            .with_context(|| format!("no answer within {limit:?}"))?
    })?;
    answer.print(args.output)
}

impl Call {
    async fn make(self, endpoint: &str) -> anyhow::Result<Answer> {
        let channel = holdfast_csi::connect(endpoint).await?;
        let answered = match self {
            Call::Identity(call) => call.make(channel).await,
            Call::Controller(call) => call.make(channel).await,
            Call::Node(call) => call.make(channel).await,
        };
        answered.map_err(|status| answer::explain(&status))
    }
}
