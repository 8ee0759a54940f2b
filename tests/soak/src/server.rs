//! The programs under test as real processes: started, looked at, killed.

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The programs of a run.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The product as a debug build, with its crash points.
    pub holdfast: PathBuf,
    /// The product as it is shipped, if there is one: what it takes to start is measured with it.
    pub released: Option<PathBuf>,
    /// This crate's own program, which can be a client of the product.
    pub soak: PathBuf,
}

impl Programs {
    /// The product as cargo has built it, beside this program or one folder up, as for tests.
    ///
    /// # Errors
    /// If it is not there.
    pub fn beside(soak: PathBuf) -> anyhow::Result<Programs> {
        let folder = soak.parent().context("a program lies in a folder")?;
        let places = [folder.join("holdfast"), folder.join("../holdfast")];
        let holdfast = places.into_iter().find(|path| path.exists());
        let holdfast = holdfast.with_context(|| {
            let folder = folder.display();
            format!("no holdfast beside {folder}; run cargo build --package holdfast")
        })?;
        Ok(Programs {
            holdfast,
            released: None,
            soak,
        })
    }

    /// A folder on the file system that programs are built on: unlike a temporary one, it is on a disk as a rule.
    pub(crate) fn disk_folder(&self) -> anyhow::Result<tempfile::TempDir> {
        let folder = self
            .holdfast
            .parent()
            .context("a program lies in a folder")?;
        Ok(tempfile::TempDir::with_prefix_in("soak-", folder)?)
    }
}

/// A process under test. Killed with the value.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// When it was started.
    pub(crate) since: Instant,
}

impl Server {
    /// Starts it; what it says goes to the end of `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> anyhow::Result<Server> {
        let log = OpenOptions::new().create(true).append(true).open(log)?;
        command
            .stdin(Stdio::null())
            .stdout(File::create("/dev/null")?);
        let since = Instant::now();
        let child = command.stderr(log).spawn();
        let child = child.with_context(|| format!("cannot start {command:?}"))?;
        Ok(Server { child, since })
    }

    pub(crate) fn has_died(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// `kill -9`, and until the kernel has let go of it.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id())?;
        let pid = Pid::from_raw(pid).context("a process has a number")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Waits for its end; an error when it has not come by `until`.
    pub(crate) fn wait_end(&mut self, until: Instant) -> anyhow::Result<ExitStatus> {
        // Bound: the deadline. A child cannot be waited for with one, so it is looked at.
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(
                Instant::now() < until,
                "process {} is still there",
                self.child.id()
            );
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
