//! `holdfast pool inspect`: what a drive carries. Changes nothing.

use crate::args::Output;
use anyhow::Context;
use holdfast_bdev::{Uring, UringOptions};
use holdfast_pool::{CopyReport, Extent, Pool, PoolReport, Report};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Which look to take.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print what a device or file carries, whatever that is. The device must not be in use.
    Inspect {
        /// A block device or a regular file.
        path: PathBuf,
        /// How the report is printed.
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let Command::Inspect { path, output } = args.command;
    let readonly = UringOptions {
        readonly: true,
        ..UringOptions::default()
    };
    let device = Uring::open(&path, readonly)?;
    let report =
        Pool::inspect(&device).with_context(|| format!("cannot inspect {}", path.display()))?;
    match output {
        Output::Text => print!("{report}"),
        Output::Json => println!("{:#}", to_json(&report)),
    }
    Ok(())
}

fn to_json(report: &Report) -> Value {
    json!({
        "device": {
            "kind": report.device.kind,
            "sizeBytes": report.device.size_bytes,
            "blockSize": report.device.block_size,
        },
        "superblocks": copies(&report.superblocks),
        "tables": report.tables.as_ref().map(|tables| copies(tables)),
        "pool": report.pool.as_ref().map(pool),
        "notes": report.notes,
    })
}

fn copies(copies: &[CopyReport]) -> Vec<Value> {
    let copy = |copy: &CopyReport| json!({ "offsetBytes": copy.offset_bytes, "valid": copy.valid, "state": copy.state });
    copies.iter().map(copy).collect()
}

fn pool(pool: &PoolReport) -> Value {
    let usage = &pool.usage;
    let volumes = pool.volumes.iter().map(|volume| {
        json!({
            "id": volume.id,
            "sizeBytes": volume.size_bytes,
            "extents": extents(&volume.extents),
        })
    });
    let pending = pool.pending.iter().map(|pending| {
        json!({
            "released": pending.released,
            "sizeBytes": pending.size_bytes,
            "extents": extents(&pending.extents),
        })
    });
    json!({
        "uuid": pool.uuid.to_string(),
        "identity": pool.identity,
        "version": format!("{}.{}", pool.version.0, pool.version.1),
        "currentTable": pool.current_copy,
        "capacityBytes": usage.capacity_bytes,
        "allocatedBytes": usage.allocated_bytes,
        "freeBytes": usage.free_bytes,
        "largestFreeExtentBytes": usage.largest_free_extent_bytes,
        "erasePendingBytes": usage.erase_pending_bytes,
        "volumes": volumes.collect::<Vec<_>>(),
        "pending": pending.collect::<Vec<_>>(),
    })
}

fn extents(extents: &[Extent]) -> Vec<Value> {
    let extent = |extent: &Extent| json!({ "offsetBytes": extent.offset_bytes, "lengthBytes": extent.length_bytes });
    extents.iter().map(extent).collect()
}
