//! `holdfast standalone` with one volume, published where KubeVirt's pod would have it.

use crate::machine::VOLUME;
use crate::pod::run;
use holdfast_guest::{Process, holdfast};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Far more than any step needs.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where the volume's directory appears.
const TARGET: &str = "/run/kubevirt-private/vmi-disks/data";
const STAGING: &str = "/run/holdfast-test-staging";

pub(crate) struct Storage {
    folder: TempDir,
    state: PathBuf,
    process: Process,
}

impl Storage {
    pub(crate) fn start() -> anyhow::Result<Storage> {
        // On a disk, as /var/lib/holdfast is: a file system in memory takes direct I/O from Linux 6.6 on only.
        let folder = tempfile::tempdir_in("/var/tmp")?;
        let state = folder.path().join("state");
        Storage::serve(folder, state)
    }

    /// The same, with its state somewhere else.
    pub(crate) fn with_state_in(state: PathBuf) -> anyhow::Result<Storage> {
        Storage::serve(tempfile::tempdir_in("/var/tmp")?, state)
    }

    fn serve(folder: TempDir, state: PathBuf) -> anyhow::Result<Storage> {
        Ok(Storage {
            process: serve(&folder, &state)?,
            folder,
            state,
        })
    }

    /// Creates, stages and publishes the volume by CSI calls.
    pub(crate) fn publish(&mut self) -> anyhow::Result<()> {
        self.csi(&["create-volume", VOLUME, "--size", "96MiB", "--pool", "p1"])?;
        self.csi(&["node-stage", VOLUME, "--staging-path", STAGING])?;
        let paths = ["--staging-path", STAGING, "--target-path", TARGET];
        self.csi(&[&["node-publish", VOLUME], &paths[..]].concat())
    }

    /// The directory that the machine's pod has then.
    pub(crate) fn target(&self) -> &Path {
        Path::new(TARGET)
    }

    pub(crate) fn expand(&mut self, size: &str) -> anyhow::Result<()> {
        self.csi(&["expand-volume", VOLUME, "--size", size])?;
        let path = ["--volume-path", TARGET, "--size", size];
        self.csi(&[&["node-expand", VOLUME], &path[..]].concat())
    }

    /// As a crash would.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill()
    }

    pub(crate) fn start_again(&mut self) -> anyhow::Result<()> {
        self.process = serve(&self.folder, &self.state)?;
        Ok(())
    }

    /// Waits until it has said that.
    pub(crate) fn until_said(&self, words: &str) -> anyhow::Result<()> {
        let until = Instant::now() + PATIENCE;
        self.process.log().wait_for(0, words, until).map(drop)
    }

    fn csi(&self, words: &[&str]) -> anyhow::Result<()> {
        let program = holdfast()?.display().to_string();
        let endpoint = endpoint(&self.folder);
        let words = [&["csi", "--endpoint", endpoint.as_str()], words].concat();
        run(&program, &words).map(drop)
    }
}

fn endpoint(folder: &TempDir) -> String {
    format!("unix://{}/csi.sock", folder.path().display())
}

fn serve(folder: &TempDir, state: &Path) -> anyhow::Result<Process> {
    let pool = format!("p1={}/pool.img,size=1GiB", folder.path().display());
    let mut command = Command::new(holdfast()?);
    command
        .args(["standalone", "--node-name", "n1", "--pool", &pool, "--dir"])
        .arg(state)
        .args(["--csi-endpoint", &endpoint(folder)]);
    let process = Process::start("holdfast standalone", &mut command)?;
    let log = process.log();
    log.wait_for(0, "Ready", Instant::now() + PATIENCE)?;
    Ok(process)
}
