//! `holdfast serve`: one device on one socket. For benchmarks, and for libvirt without a cluster.

use crate::cpus::CpuList;
use crate::signals;
use anyhow::Context;
use holdfast_dataplane::{Engine, EngineConfig, ExportSpec, Source};
use std::path::PathBuf;
use std::time::Duration;

/// What to serve, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Socket to listen on; at most 107 bytes.
    #[arg(long)]
    socket: PathBuf,
    /// The device: malloc:size=1GiB, null:size=1TiB or uring:path=FILE.
    #[arg(long, value_name = "SPEC")]
    bdev: String,
    /// Most queues a front end may use.
    #[arg(long, default_value_t = 16)]
    queues: u16,
    /// One reactor on each of these CPUs, as in 0,2-4. Without it the kernel places them.
    #[arg(long, value_name = "LIST", default_value = None)]
    cpus: Option<CpuList>,
    /// How long a reactor looks at an empty ring before it sleeps, in microseconds.
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_spin_us: u64,
    /// The guest may not write.
    #[arg(long)]
    read_only: bool,
    /// Serial number that the guest reads; at most 20 bytes.
    #[arg(long, default_value = "holdfast")]
    serial: String,
}

const DEVICE: &str = "device";

/// Serves until asked to end.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let device = holdfast_bdev::from_spec(&args.bdev)?;
    let engine = Engine::start(EngineConfig {
        cpus: args.cpus.unwrap_or_default().0,
        max_spin: Duration::from_micros(args.max_spin_us),
        ..EngineConfig::default()
    })?;
    engine.add_device(DEVICE, device)?;
    let export = engine.export(&ExportSpec {
        queues: args.queues,
        read_only: args.read_only,
        serial: args.serial,
        ..ExportSpec::new(DEVICE, Source::Device(DEVICE.into()), args.socket)
    })?;
    tracing::info!(socket = %export.socket.display(), size_bytes = export.size_bytes, "Serving");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot watch signals")?;
    let ended = runtime.block_on(signals::asked_to_end());
    let left = engine.stop();
    anyhow::ensure!(left.is_empty(), "requests were still with the device");
    ended
}
