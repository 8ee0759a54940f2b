//! A server is killed while the kernel still has a write of it, and the next one starts. Should the guest be served before
//! that write has landed, it could overwrite a newer one.
//!
//! The drive is a loop device over a file in a file system that can be frozen: requests to the device are taken, and stay
//! in flight until it is thawed.

use crate::lab::{Fate, Lab};
use crate::site::{Kind, Site, inode};
use crate::{Outcome, Programs, Rounds};
use anyhow::{Context, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// For so long a successor is watched for doing what it must not.
const WATCH: Duration = Duration::from_millis(300);
const DEADLINE: Duration = Duration::from_secs(20);

/// Kills a server with writes in flight `rounds.times` times; on a machine that cannot stage it, says so in a note.
pub fn run(rounds: &Rounds, programs: &Programs) -> Outcome {
    if !rustix::process::geteuid().is_root() {
        let mut outcome = Outcome::of(rounds.what);
        outcome
            .notes
            .push("skipped: loop devices and fsfreeze need root".into());
        return outcome;
    }
    rounds.run(|seed, times| {
        let drive = SlowDrive::new(programs)?;
        let site = Site::on(Kind::Serve, programs, drive.path().to_owned())?;
        let mut lab = Lab::at(site, seed)?;
        for _ in 0..times {
            cycle(&mut lab, &drive)?;
        }
        lab.finish(times)
    })
}

fn cycle(lab: &mut Lab, drive: &SlowDrive) -> anyhow::Result<()> {
    let until = Instant::now() + Duration::from_millis(50);
    ensure!(lab.work(until)? == Fate::Lives, "the server died by itself");
    // Dropped last, so that whatever fails is not waited for on a drive that stands still.
    let killed;
    let frozen = Frozen::new(drive.mount.path())?;
    fill(lab, drive)?;
    let socket = inode(&lab.site.socket("a"))?;
    killed = lab.restart_at_once()?;
    let watched = Instant::now();
    while watched.elapsed() < WATCH {
        // The dying process still holds its socket: the next one has made its own when the path leads to another.
        let serves = inode(&lab.site.socket("a"))? != socket;
        let overtakes = serves && drive.is_in_flight()?;
        ensure!(!overtakes, "it serves while an old write is in flight");
        let gave_up = lab.server.has_died()?;
        ensure!(!gave_up, "it gave up: {}", lab.site.last_words());
        std::thread::sleep(Duration::from_millis(1));
    }
    let proven = drive.is_in_flight()?;
    ensure!(proven, "nothing was in flight, so this proved nothing");
    frozen.thaw()?;
    drop(killed);
    lab.first_answer()
}

/// Load on the frozen drive until writes stay in flight; what was under way before it froze has ended then.
fn fill(lab: &mut Lab, drive: &SlowDrive) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let until = Instant::now() + Duration::from_millis(20);
        ensure!(lab.work(until)? == Fate::Lives, "the server died by itself");
        if drive.is_in_flight()? {
            return Ok(());
        }
        ensure!(
            start.elapsed() < DEADLINE,
            "no write reached the frozen drive"
        );
    }
}

/// A block device whose requests stay in flight while the file system below it is frozen.
struct SlowDrive {
    /// Detached first.
    device: Loop,
    mount: Mount,
}

impl SlowDrive {
    fn new(programs: &Programs) -> anyhow::Result<SlowDrive> {
        let mount = Mount::new(programs)?;
        let device = Loop::over(&mount.path().join("disk"), 16 << 20)?;
        Ok(SlowDrive { device, mount })
    }

    fn path(&self) -> &Path {
        &self.device.0
    }

    /// Whether the kernel has writes of this device that have not ended. Reads do not count: a frozen file is still read.
    fn is_in_flight(&self) -> anyhow::Result<bool> {
        let name = self.device.0.file_name().context("a device has a name")?;
        let counts = Path::new("/sys/block").join(name).join("inflight");
        let text = std::fs::read_to_string(counts)?;
        let writes = text.split_whitespace().nth(1);
        Ok(writes.is_some_and(|count| count != "0"))
    }
}

/// A loop device, gone with the value.
struct Loop(PathBuf);

impl Loop {
    fn over(file: &Path, bytes: u64) -> anyhow::Result<Loop> {
        std::fs::File::create(file)?.set_len(bytes)?;
        let args = ["--find", "--show", "--direct-io=on"].map(Path::new);
        let name = command("losetup", &[&args[..], &[file]].concat())?;
        Ok(Loop(name.into()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = command("losetup", &[Path::new("--detach"), &self.0]);
    }
}

/// A mounted ext4, unmounted with the value.
struct Mount {
    folder: tempfile::TempDir,
    _device: Loop,
}

impl Mount {
    fn new(programs: &Programs) -> anyhow::Result<Mount> {
        let folder = programs.disk_folder()?;
        let device = Loop::over(&folder.path().join("image"), 64 << 20)?;
        let point = folder.path().join("mnt");
        std::fs::create_dir(&point)?;
        command("mkfs.ext4", &[Path::new("-q"), &device.0])?;
        command("mount", &[&device.0, &point])?;
        Ok(Mount {
            folder,
            _device: device,
        })
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("mnt")
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = command("umount", &[&self.path()]);
    }
}

/// A frozen file system; thawed with the value at the latest.
struct Frozen(Option<PathBuf>);

impl Frozen {
    fn new(point: PathBuf) -> anyhow::Result<Frozen> {
        command("fsfreeze", &[Path::new("-f"), &point])?;
        Ok(Frozen(Some(point)))
    }

    fn thaw(mut self) -> anyhow::Result<()> {
        let point = self.0.take().context("it is frozen once")?;
        command("fsfreeze", &[Path::new("-u"), &point]).map(drop)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Some(point) = self.0.take() {
            let _ = command("fsfreeze", &[Path::new("-u"), &point]);
        }
    }
}

fn command(program: &str, args: &[&Path]) -> anyhow::Result<String> {
    let output = Command::new(program).args(args).output();
    let output = output.with_context(|| format!("cannot run {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{program} {args:?}: {said}");
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
