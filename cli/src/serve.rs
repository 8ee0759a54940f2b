//! `holdfast serve`: devices on sockets, one on each. For benchmarks, and for libvirt without a cluster.

use crate::cpus::CpuList;
use crate::signals;
use anyhow::Context;
use holdfast_dataplane::{Engine, EngineConfig, ExportSpec, Source};
use std::path::PathBuf;
use std::time::Duration;

/// What to serve, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Socket to listen on; at most 107 bytes. Once for each device, in the same order.
    #[arg(long, required = true)]
    socket: Vec<PathBuf>,
    /// The device: malloc:size=1GiB, null:size=1TiB, uring:path=FILE, or nvme:path=/dev/ng0n1 for an NVMe
    /// drive past the block layer.
    #[arg(long, value_name = "SPEC", required = true)]
    bdev: Vec<String>,
    /// Most queues a front end may use.
    #[arg(long, default_value_t = 16)]
    queues: u16,
    /// One reactor on each of these CPUs, as in 0,2-4. Without it the kernel places them.
    #[arg(long, value_name = "LIST", default_value = None)]
    cpus: Option<CpuList>,
    /// How long a reactor looks at an empty ring before it sleeps, in microseconds, where that pays. 0: always sleeps.
    #[arg(long, value_name = "N", default_value_t = 100)]
    max_spin_us: u64,
    /// The guest may not write.
    #[arg(long)]
    read_only: bool,
    /// Serial number that the guest reads; at most 20 bytes.
    #[arg(long, default_value = "holdfast")]
    serial: String,
}

/// Serves until asked to end.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    anyhow::ensure!(
        args.socket.len() == args.bdev.len(),
        "{} sockets for {} devices; give --socket and --bdev equally often",
        args.socket.len(),
        args.bdev.len()
    );
    let engine = Engine::start(EngineConfig {
        cpus: args.cpus.clone().unwrap_or_default().0,
        max_spin: Duration::from_micros(args.max_spin_us),
        ..EngineConfig::default()
    })?;
    for number in 0..args.bdev.len() {
        serve(&engine, &args, number)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot watch signals")?;
    let ended = runtime.block_on(signals::asked_to_end());
    let left = engine.stop();
    anyhow::ensure!(left.is_empty(), "requests were still with the device");
    ended
}

fn serve(engine: &Engine, args: &Args, number: usize) -> anyhow::Result<()> {
    let name = match number {
        0 => "device".to_owned(),
        more => format!("device-{more}"),
    };
    engine.add_device(&name, holdfast_bdev::from_spec(&args.bdev[number])?)?;
    let export = engine.export(&ExportSpec {
        queues: args.queues,
        read_only: args.read_only,
        serial: args.serial.clone(),
        ..ExportSpec::new(&name, Source::Device(name.clone()), &args.socket[number])
    })?;
    tracing::info!(socket = %export.socket.display(), size_bytes = export.size_bytes, "Serving");
    Ok(())
}
