//! Where a server's state and disk lie, and how the next one is started on them.

use crate::csi::{self, Caller, Step};
use crate::server::{Programs, Server};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Size of a volume under load, in bytes.
pub(crate) const SIZE: u64 = 16 << 20;

/// Which server stands behind the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `holdfast serve` of a file.
    Serve,
    /// `holdfast standalone` with a pool in a file, its volume under load, and others that come and go beside it.
    Standalone,
}

/// What outlives every server: the state, the disk, and how to start the next one.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) kind: Kind,
    holdfast: PathBuf,
    dir: tempfile::TempDir,
    disk: PathBuf,
    _disk_folder: Option<tempfile::TempDir>,
}

impl Site {
    pub(crate) fn new(kind: Kind, programs: &Programs) -> anyhow::Result<Site> {
        let folder = programs.disk_folder()?;
        let disk = folder.path().join("disk");
        if kind == Kind::Serve {
            std::fs::File::create(&disk)?.set_len(SIZE)?;
        }
        Ok(Site {
            _disk_folder: Some(folder),
            ..Site::on(kind, programs, disk)?
        })
    }

    /// With a disk of the caller's.
    pub(crate) fn on(kind: Kind, programs: &Programs, disk: PathBuf) -> anyhow::Result<Site> {
        Ok(Site {
            kind,
            holdfast: programs.holdfast.clone(),
            dir: tempfile::tempdir()?,
            disk,
            _disk_folder: None,
        })
    }

    /// Starts a server that ends at a crash point, if one is given.
    pub(crate) fn start(&self, crash: Option<&str>) -> anyhow::Result<Server> {
        let (dir, disk) = (self.dir.path(), &self.disk);
        let mut command = Command::new(&self.holdfast);
        match self.kind {
            Kind::Serve => {
                let device = format!("uring:path={}", disk.display());
                command.arg("serve").arg("--socket").arg(self.socket("a"));
                command.args(["--bdev", &device]);
            }
            Kind::Standalone => {
                let pool = format!("p1={},size=256MiB", disk.display());
                command
                    .arg("standalone")
                    .arg("--dir")
                    .arg(dir.join("state"));
                command.args(["--pool", &pool, "--node-name", "n1"]);
                command.args(["--csi-endpoint", &csi::endpoint(dir)]);
            }
        }
        if let Some(crash) = crash {
            command.env("HOLDFAST_CRASH_POINT", crash);
        }
        Server::start(&mut command, &self.log())
    }

    /// Where the guest of a volume connects.
    pub(crate) fn socket(&self, volume: &str) -> PathBuf {
        let dir = self.dir.path();
        match self.kind {
            Kind::Serve => dir.join("v.sock"),
            Kind::Standalone => {
                let folder = holdfast_api::short_id(volume);
                dir.join("state/v").join(folder).join("v.sock")
            }
        }
    }

    pub(crate) fn caller(&self) -> anyhow::Result<Caller> {
        Caller::new(self.dir.path())
    }

    /// Has a volume made and served; the driver must be there or on its way.
    pub(crate) fn stage(&self, caller: &mut Caller, volume: &str) -> anyhow::Result<()> {
        let bytes = i64::try_from(SIZE)?;
        caller.complete(Step::Create, volume, bytes)?;
        caller.complete(Step::Stage, volume, bytes)
    }

    /// Where what belongs to a volume is written.
    pub(crate) fn log_of(&self, volume: &str) -> PathBuf {
        self.dir.path().join(format!("{volume}.log"))
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// The last words of the servers.
    pub(crate) fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n    ")
    }
}

/// What a path leads to.
pub(crate) fn inode(path: &Path) -> anyhow::Result<u64> {
    Ok(std::fs::symlink_metadata(path)?.ino())
}

/// Whether a path is a socket that somebody listens on.
pub(crate) fn listens(path: &Path) -> bool {
    UnixStream::connect(path).is_ok()
}
