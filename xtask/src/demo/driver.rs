//! `holdfast standalone` and calls to it through `holdfast csi`, as a container orchestrator would make them.

use anyhow::{Context, ensure};
use holdfast_guest::Process;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The running driver.
#[derive(Debug)]
pub(super) struct Driver {
    process: Process,
    program: PathBuf,
    endpoint: String,
}

const READY_WITHIN: Duration = Duration::from_secs(30);
const ENDS_WITHIN: Duration = Duration::from_secs(30);

impl Driver {
    /// Starts it with one pool, a new file, and waits until it is ready.
    pub(super) fn start(program: &Path, folder: &Path, pool: &str) -> anyhow::Result<Driver> {
        let endpoint = format!("unix://{}", folder.join("csi.sock").display());
        let mut command = Command::new(program);
        command
            .args(["standalone", "--csi-endpoint", &endpoint, "--pool", pool])
            .arg("--dir")
            .arg(folder.join("state"));
        let process = Process::start("holdfast standalone", &mut command)?;
        let deadline = Instant::now() + READY_WITHIN;
        process.log().wait_for(0, "Ready", deadline)?;
        Ok(Driver {
            process,
            program: program.to_owned(),
            endpoint,
        })
    }

    /// Makes a CSI call and returns what it prints.
    pub(super) fn csi(&self, words: &[&str]) -> anyhow::Result<String> {
        let call = words.join(" ");
        let output = Command::new(&self.program)
            .args(["csi", "--endpoint", &self.endpoint])
            .args(words)
            .output()
            .with_context(|| format!("cannot run holdfast csi {call}"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "holdfast csi {call}: {}",
            said.trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Bytes that new volumes can have.
    pub(super) fn free_bytes(&self, pool: &str) -> anyhow::Result<u64> {
        let text = self.csi(&["get-capacity", "--pool", pool])?;
        text.parse()
            .with_context(|| format!("a capacity of {text:?}"))
    }

    /// Asks it to end, and waits until it has.
    pub(super) fn stop(&mut self) -> anyhow::Result<()> {
        let status = self.process.end(Instant::now() + ENDS_WITHIN)?;
        ensure!(
            status.success(),
            "the driver ended with {status}:\n{}",
            self.log()
        );
        Ok(())
    }

    /// Everything it logged.
    pub(super) fn log(&self) -> String {
        self.process.log().text()
    }
}
