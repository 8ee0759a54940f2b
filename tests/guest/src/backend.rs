//! Servers of disks: ours, and QEMU's own as a second opinion on the harness itself.

use crate::kit::{storage_daemon, workspace};
use crate::{Process, Transcript};
use anyhow::{Context, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A server that listens on a socket.
#[derive(Debug)]
pub struct Backend {
    process: Process,
}

/// Binding a socket takes milliseconds; a busy machine may take longer.
const LISTENS_WITHIN: Duration = Duration::from_secs(20);

impl Backend {
    /// `holdfast serve`: serves `bdev`, as in `malloc:size=1GiB`, on `socket`.
    ///
    /// # Errors
    /// If the binary cannot be built, or the server does not say that it serves.
    pub fn serve(bdev: &str, socket: &Path, queues: u16) -> anyhow::Result<Backend> {
        let mut command = Command::new(holdfast()?);
        command
            .args(["serve", "--bdev", bdev, "--queues", &queues.to_string()])
            .args(["--serial", "holdfast-guest", "--socket"])
            .arg(socket);
        let process = Process::start("holdfast serve", &mut command)?;
        let deadline = Instant::now() + LISTENS_WITHIN;
        process.log().wait_for(0, "Serving", deadline)?;
        Ok(Backend { process })
    }

    /// `qemu-storage-daemon`: serves the file `image` on `socket`.
    ///
    /// # Errors
    /// If it is not installed or does not come up.
    pub fn peer(image: &Path, socket: &Path, queues: u16) -> anyhow::Result<Backend> {
        let (image, socket) = (image.display(), socket.display());
        let mut command = Command::new(storage_daemon()?);
        // It greets on its control connection once all that stands before is set up.
        command
            .args([
                "--blockdev",
                &format!("file,node-name=disk,filename={image}"),
            ])
            .arg("--export")
            .arg(format!(
                "vhost-user-blk,id=export,node-name=disk,writable=on,num-queues={queues},\
                 addr.type=unix,addr.path={socket}"
            ))
            .args([
                "--chardev",
                "stdio,id=control",
                "--monitor",
                "chardev=control",
            ])
            .stdout(Stdio::piped());
        let mut process = Process::start("qemu-storage-daemon", &mut command)?;
        let greeting = Transcript::of("qemu-storage-daemon", process.stdout()?);
        greeting.wait_for(0, "QMP", Instant::now() + LISTENS_WITHIN)?;
        Ok(Backend { process })
    }

    /// The server's process: to be killed, or asked to end.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// The path of the `holdfast` binary, built once from this source tree, in the profile of the program that asks.
///
/// # Errors
/// If it does not build.
pub fn holdfast() -> anyhow::Result<PathBuf> {
    static BUILT: Mutex<Option<PathBuf>> = Mutex::new(None);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(binary) = &*built {
        return Ok(binary.clone());
    }
    let profile = profile_folder()?;
    let release = profile.ends_with("release");
    let output = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--package", "holdfast", "--target-dir"])
        .arg(target_folder()?)
        .args(release.then_some("--release"))
        .current_dir(workspace())
        .output()
        .context("cannot run cargo")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "holdfast does not build:\n{said}");
    Ok(built.insert(profile.join("holdfast")).clone())
}

/// Where cargo builds, found from the program that runs.
///
/// # Errors
/// If this program was not built by cargo.
pub fn target_folder() -> anyhow::Result<PathBuf> {
    let profile = profile_folder()?;
    Ok(profile.parent().unwrap_or(&profile).to_owned())
}

/// The program that runs stands in `debug/`, `release/` or in `deps/` below it.
fn profile_folder() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let profile = program
        .ancestors()
        .find(|path| path.ends_with("debug") || path.ends_with("release"));
    let profile = profile.map(Path::to_owned);
    profile.with_context(|| format!("{} was not built by cargo", program.display()))
}
