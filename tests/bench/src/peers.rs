//! Who is measured: Holdfast, QEMU's storage daemon, the reference engine, and whoever a configuration file names.

use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};

/// Size of every device in bytes.
pub(crate) const DEVICE_BYTES: u64 = 512 << 20;

/// What stands behind the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Medium {
    /// Nothing: the cost of the path alone.
    Null,
    /// Memory of the server.
    Malloc,
    /// A file in memory.
    Tmpfs,
    /// A file on a disk, past the page cache.
    Disk,
}

impl Medium {
    pub(crate) const ALL: [Medium; 4] = [Medium::Null, Medium::Malloc, Medium::Tmpfs, Medium::Disk];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Medium::Null => "null",
            Medium::Malloc => "malloc",
            Medium::Tmpfs => "tmpfs",
            Medium::Disk => "disk",
        }
    }
}

impl fmt::Display for Medium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A server in one configuration on one medium.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) medium: Medium,
    /// Its command line. `{socket}`, `{file}`, `{bytes}` and `{cpu}` are filled in.
    pub(crate) command: Vec<String>,
}

/// The name of ours as it is shipped.
pub(crate) const OURS: &str = "holdfast";
/// No server: reads of the file by io_uring alone.
pub(crate) const BARE: &str = "bare io_uring";
/// The configurations of qemu-storage-daemon begin with this.
pub(crate) const QSD: &str = "qsd";
const DAEMON: &str = "/usr/bin/qemu-storage-daemon";

/// Where the programs are.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) holdfast: PathBuf,
    pub(crate) bench: PathBuf,
}

impl Peer {
    fn new(name: &str, medium: Medium, command: &str) -> Peer {
        Peer {
            name: name.to_owned(),
            medium,
            command: command.split_whitespace().map(str::to_owned).collect(),
        }
    }

    /// The command line with everything filled in.
    pub(crate) fn words(&self, socket: &Path, file: &Path, cpu: usize) -> Vec<String> {
        let fill = |word: &String| {
            word.replace("{socket}", &socket.display().to_string())
                .replace("{file}", &file.display().to_string())
                .replace("{bytes}", &DEVICE_BYTES.to_string())
                .replace("{cpu}", &cpu.to_string())
        };
        self.command.iter().map(fill).collect()
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.name == OURS
    }
}

/// Everybody who is built in, and those of `file`: a JSON list of objects with name, medium and command.
///
/// # Errors
/// If the file cannot be read.
pub(crate) fn all(programs: &Programs, file: Option<&Path>) -> anyhow::Result<Vec<Peer>> {
    let mut peers = ours(&programs.holdfast);
    peers.extend(daemon());
    peers.extend(reference(&programs.bench));
    if let Some(path) = file {
        let text = std::fs::read_to_string(path);
        let text = text.with_context(|| format!("cannot read {}", path.display()))?;
        let more: Vec<Peer> = serde_json::from_str(&text)
            .with_context(|| format!("{} is no list of peers", path.display()))?;
        peers.extend(more);
    }
    Ok(peers)
}

fn ours(program: &Path) -> Vec<Peer> {
    let serve = |name, medium, bdev: &str, more: &str| {
        let program = program.display();
        let words =
            format!("{program} serve --socket {{socket}} --cpus {{cpu}} --bdev {bdev} {more}");
        Peer::new(name, medium, &words)
    };
    let null = "null:size={bytes}";
    vec![
        serve(OURS, Medium::Null, null, ""),
        serve("holdfast-nospin", Medium::Null, null, "--max-spin-us 0"),
        serve(OURS, Medium::Malloc, "malloc:size={bytes}", ""),
        serve(OURS, Medium::Tmpfs, "uring:path={file}", ""),
        serve(OURS, Medium::Disk, "uring:path={file}", ""),
    ]
}

fn daemon() -> Vec<Peer> {
    let serve = |name, medium, blockdev: &str, iothread: bool| {
        let (object, thread) = match iothread {
            true => ("--object iothread,id=io", ",iothread=io"),
            false => ("", ""),
        };
        let words = format!(
            "{DAEMON} {object} --blockdev {blockdev},node-name=disk --export \
             vhost-user-blk,id=export,node-name=disk,writable=on,addr.type=unix,addr.path={{socket}}{thread}"
        );
        Peer::new(name, medium, &words)
    };
    let null = "driver=null-co,size={bytes},read-zeroes=off";
    let file = |more: &str| format!("driver=file,filename={{file}}{more}");
    let uring = file(",aio=io_uring,cache.direct=on");
    let native = file(",aio=native,cache.direct=on");
    vec![
        serve("qsd", Medium::Null, null, false),
        serve("qsd-iothread", Medium::Null, null, true),
        serve("qsd-threads", Medium::Tmpfs, &file(",aio=threads"), false),
        serve("qsd-uring", Medium::Tmpfs, &file(",aio=io_uring"), false),
        serve("qsd-native", Medium::Tmpfs, &native, false),
        serve("qsd-uring", Medium::Disk, &uring, false),
        serve("qsd-native", Medium::Disk, &native, false),
    ]
}

fn reference(program: &Path) -> Vec<Peer> {
    let serve = |medium, bdev: &str| {
        let words = format!("{} reference {{socket}} {bdev}", program.display());
        Peer::new("reference", medium, &words)
    };
    vec![
        serve(Medium::Null, "null:size={bytes}"),
        serve(Medium::Malloc, "malloc:size={bytes}"),
        serve(Medium::Tmpfs, "uring:path={file}"),
    ]
}
