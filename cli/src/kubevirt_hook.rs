//! `holdfast kubevirt-hook`: the hook sidecar of a virtual machine's pod.

use crate::signals;
use anyhow::Context;
use std::io;
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;

/// Where to serve.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The socket. virt-launcher asks every socket in this directory what it is.
    #[arg(long, default_value = "/var/run/kubevirt-hooks/holdfast.sock")]
    socket: PathBuf,
}

/// Serves until the machine has ended.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    // One caller, a handful of calls: one thread.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let listener = bind(&args.socket)?;
        tracing::info!(socket = %args.socket.display(), "Listening");
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        // Dropped or told, the channel ends the wait: virt-launcher may be gone without a word.
        let serving = holdfast_kubevirt::serve_hook(listener, async { drop(ended.await) });
        tokio::pin!(serving);
        tokio::select! {
            served = &mut serving => Ok(served?),
            heard = signals::asked_to_end() => {
                drop(end);
                heard.and(serving.await.map_err(anyhow::Error::from))
            }
        }
    })
}

/// A container that was started again finds its predecessor's socket.
fn bind(socket: &Path) -> anyhow::Result<UnixListener> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => UnixListener::bind(socket),
    }
    .with_context(|| format!("cannot listen on {}", socket.display()))
}
