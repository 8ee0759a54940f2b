//! A call to a driver that runs: where it is, how long it may take, and how its answer is printed.

use crate::answer::{self, Answer};
use crate::args::Output;
use anyhow::Context;
use std::time::Duration;
use tonic::Status;
use tonic::transport::Channel;

/// Whom to call.
#[derive(Debug, clap::Args)]
pub(crate) struct Caller {
    /// The CSI socket, as unix:///run/holdfast/csi.sock.
    #[arg(long, env = "CSI_ENDPOINT", global = true)]
    endpoint: Option<String>,
    /// How the result is printed.
    #[arg(short, long, value_enum, default_value_t, global = true)]
    output: Output,
    /// How long to wait for the answer, in seconds.
    #[arg(long, default_value_t = 60, value_name = "N", global = true)]
    timeout_seconds: u64,
}

impl Caller {
    /// Makes the call and prints what came of it.
    pub(crate) fn call(
        self,
        call: impl AsyncFnOnce(Channel) -> Result<Answer, Status>,
    ) -> anyhow::Result<()> {
        let endpoint = self
            .endpoint
            .context("--endpoint is missing: give it or set CSI_ENDPOINT")?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        let limit = Duration::from_secs(self.timeout_seconds);
        let answered = async {
            let channel = holdfast_csi::connect(&endpoint).await?;
            let answered = call(channel).await;
            answered.map_err(|status| answer::explain(&status))
        };
        let answer = runtime.block_on(async {
            tokio::time::timeout(limit, answered)
                .await
                .with_context(|| format!("no answer within {limit:?}"))?
        })?;
        answer.print(self.output)
    }
}
