//! The host's side: the machine with two drives, the driver in it, and what happens to them.

use anyhow::{Context, ensure};
use holdfast_guest::{DriveSpec, Guest, GuestSpec, holdfast};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use tempfile::TempDir;

/// When in a round the driver is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kill {
    /// Under load, with all drives there.
    Loaded,
    /// While the drive is gone.
    Gone,
    /// Right after the drive has come back.
    Back,
}

/// How the driver reaches the drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// As block devices.
    Block,
    /// By NVMe commands, past the block layer.
    Commands,
}

/// The machine, set up and under load.
pub(crate) struct Stage {
    machine: Guest,
    way: Way,
    /// How often the driver has been started, if it never ended by itself.
    starts: usize,
    _folder: TempDir,
}

/// Serial number of the drive that is pulled, and of the one that stays.
const PULLED: &str = "PULLED";
const STAYS: &str = "STAYS";
/// Each machine has a disk on the drive that is pulled and one in memory; one has a third, on the drive that stays. The second
/// lays out its requests oddly, so that most of them take the block path whatever the way.
const DISKS: &[(&str, &str)] = &[
    ("vm1-pulled", "pulled"),
    ("vm1-memory", "memory"),
    ("vm1-stays", "stays"),
    ("vm2-odd-pulled", "pulled"),
    ("vm2-odd-memory", "memory"),
];
const DRIVE_BYTES: u64 = 256 << 20;

/// What udev does: a link with the drive's serial number to whatever the kernel calls it. Prints that name.
const LINK: &str = "link() { while :; do for d in /sys/block/nvme*; do \
    if grep -qw $1 $d/device/serial 2>/dev/null && [ -b /dev/${d##*/} ]; then \
    ln -sfn /dev/${d##*/} /run/by-id/nvme-$1; echo ${d##*/}; return; fi; done; usleep 10000; done; }; link";
/// As a supervisor does it: the driver is started again at once, when its predecessor has ended. A line for each start.
const SUPERVISE: &str = "(while :; do holdfast standalone --dir /run/hf/state --node-name n1 $WAY \
    --csi-endpoint unix:///run/hf/csi.sock --pool pulled=/run/by-id/nvme-PULLED \
    --pool stays=/run/by-id/nvme-STAYS \
    --pool memory=/run/memory/pool.img,size=64MiB 2>>/run/hf/log & echo $! >/run/hf/pid; \
    echo start >>/run/hf/starts; wait $!; done) >/dev/null 2>&1 &";
/// A file system in memory, for the device that the disks in memory are splits of: it is served as `malloc` is, by copies
/// within the call, and what is on it outlives the driver, so that it can be verified after a kill.
const MEMORY: &str = "mkdir -p /run/memory && mount -t tmpfs -o size=80m memory /run/memory";
/// How many reads and writes the block devices of the drive that stays have answered: with the kernel's own multipathing the one
/// that has a name in `/dev` counts nothing, and the one below it does.
const BLOCK_REQUESTS: &str = "sum=0; for d in /sys/block/nvme*; do \
    grep -qw STAYS $d/device/serial 2>/dev/null || continue; \
    read -r reads a b c writes rest <$d/stat; sum=$((sum + reads + writes)); done; echo $sum";
const CSI: &str = "holdfast csi --endpoint unix:///run/hf/csi.sock";

impl Stage {
    /// Boots, makes the volumes, and starts the load.
    pub(crate) fn set(way: Way) -> anyhow::Result<Stage> {
        let folder = tempfile::tempdir()?;
        let drive = |serial: &str| -> anyhow::Result<DriveSpec> {
            let image = folder.path().join(serial);
            File::create_new(&image)?.set_len(DRIVE_BYTES)?;
            let serial = serial.to_owned();
            Ok(DriveSpec {
                image,
                serial,
                writes_per_second: None,
            })
        };
        // With two emulated processors, QEMU 10.0 itself dies now and then when a drive is pulled (in iotlb_to_section).
        let machine = Guest::boot(&GuestSpec {
            memory_mib: 1024,
            drives: vec![drive(PULLED)?, drive(STAYS)?],
            programs: vec![
                stripped(&holdfast()?, folder.path(), "holdfast")?,
                stripped(&std::env::current_exe()?, folder.path(), "origin")?,
            ],
            ..GuestSpec::with_disks(Vec::new())
        })?;
        let mut stage = Stage {
            machine,
            way,
            starts: 1,
            _folder: folder,
        };
        let begun = stage.begin();
        begun.map_err(|error| stage.explain(error, 0))?;
        Ok(stage)
    }

    fn begin(&mut self) -> anyhow::Result<()> {
        self.run("mkdir -p /run/by-id /run/hf /run/vm && ip link set lo up")?;
        self.run(MEMORY)?;
        for serial in [PULLED, STAYS] {
            self.run(&format!("{LINK} {serial}"))?;
        }
        let way = match self.way {
            Way::Block => "",
            Way::Commands => "--nvme-passthrough",
        };
        self.run(&format!("export WAY={way}; {SUPERVISE}"))?;
        self.run(&format!(
            "until {CSI} probe 2>/dev/null; do usleep 50000; done"
        ))?;
        self.check_starts()?;
        let mut sockets = String::new();
        for (disk, pool) in DISKS {
            let (staging, target) = (format!("/run/vm/staging-{disk}"), format!("/run/vm/{disk}"));
            // A new pool has no room until its drive is erased, as far as that goes.
            self.run(&format!(
                "until {CSI} create-volume {disk} --size 8MiB --pool {pool} --param holdSeconds=600; \
                 do usleep 100000; done; \
                 {CSI} node-stage {disk} --staging-path {staging} && \
                 {CSI} node-publish {disk} --staging-path {staging} --target-path {target}"
            ))?;
            sockets += &format!(" {disk}={target}/v.sock");
        }
        self.run(&format!(
            "origin --inside play{sockets} >/run/hf/players 2>&1 &"
        ))?;
        self.run("until [ -S /run/players ]; do usleep 10000; done")?;
        self.check_way()
    }

    /// The block layer serves requests laid out as usual, or hears nothing of them.
    fn check_way(&mut self) -> anyhow::Result<()> {
        let before: u64 = self.run(BLOCK_REQUESTS)?.parse()?;
        self.tell("vm", "work 200")?;
        let heard = self.run(BLOCK_REQUESTS)?.parse::<u64>()? - before;
        let expected = match self.way {
            Way::Block => heard > 0,
            Way::Commands => heard == 0,
        };
        ensure!(
            expected,
            "the block layer has had {heard} requests, which is not the way {:?}",
            self.way
        );
        Ok(())
    }

    /// One round: load, the drive goes, reboots, the drive comes, reboots, and every sector is verified.
    pub(crate) fn round(&mut self, kill: Option<Kill>) -> anyhow::Result<String> {
        let start = Instant::now();
        self.tell("vm", "work 100")?;
        self.kill_if(kill == Some(Kill::Loaded))?;
        self.tell("vm", "work 100")?;

        let before = self.pull()?;
        self.bystanders_work()?;
        self.tell("pulled", "held")?;
        self.tell("vm", "reboot")?;
        self.kill_if(kill == Some(Kill::Gone))?;
        self.bystanders_work()?;
        self.check_starts()?;

        let after = self.put_back()?;
        self.kill_if(kill == Some(Kill::Back))?;
        ensure!(before != after, "the drive is still called {after}");
        self.tell("vm", "work 100")?;
        self.tell("vm", "reboot")?;
        self.tell("vm", "verify")?;
        self.check_starts()?;
        let took = start.elapsed().as_secs_f32();
        Ok(format!("{before} came back as {after}, {took:.1} s"))
    }

    /// The disks that are not on the drive that is gone go on.
    fn bystanders_work(&mut self) -> anyhow::Result<()> {
        self.tell("memory", "work 100")?;
        self.tell("stays", "work 100").map(drop)
    }

    /// What the machines did and found, all in all.
    pub(crate) fn sum(&mut self) -> anyhow::Result<String> {
        self.tell("vm", "verify")
    }

    /// The error, and what everybody in the machine said last.
    pub(crate) fn explain(&mut self, error: anyhow::Error, round: usize) -> anyhow::Error {
        let said = "tail -n 40 /run/hf/log /run/hf/players; dmesg | tail -n 15; ls -l /run/by-id";
        let said = self
            .machine
            .run(said)
            .map_or_else(|e| e.to_string(), |o| o.text);
        error.context(format!("round {round}; in the machine:\n{said}"))
    }

    /// Pulls the drive, as the kernel and udev see it. Somebody who has the old node open keeps its name taken.
    fn pull(&mut self) -> anyhow::Result<String> {
        let link = format!("/run/by-id/nvme-{PULLED}");
        let name = self.run(&format!("basename $(readlink {link})"))?;
        self.run(&format!(
            "exec 3</dev/{name}; sleep 100000 >/dev/null 2>&1 & echo $! >/run/hf/keeper"
        ))?;
        self.machine.pull_drive(PULLED)?;
        self.run(&format!("[ ! -e /dev/{name} ] && rm {link}"))?;
        Ok(name)
    }

    fn put_back(&mut self) -> anyhow::Result<String> {
        self.machine.put_drive_back(PULLED)?;
        let name = self.run(&format!("{LINK} {PULLED}"))?;
        self.run("kill $(cat /run/hf/keeper)")?;
        Ok(name)
    }

    /// Kills the driver as a crash would, and lets the machines connect to its successor.
    fn kill_if(&mut self, kill: bool) -> anyhow::Result<()> {
        if kill {
            self.starts += 1;
            let starts = self.starts;
            self.run(&format!(
                "kill -9 $(cat /run/hf/pid); \
                 until [ $(wc -l </run/hf/starts) -ge {starts} ]; do usleep 5000; done"
            ))?;
            self.tell("vm", "reconnect")?;
        }
        Ok(())
    }

    /// The driver has ended only when it was killed.
    fn check_starts(&mut self) -> anyhow::Result<()> {
        let starts = self.run("wc -l </run/hf/starts")?;
        ensure!(
            starts == self.starts.to_string(),
            "the driver was started {starts} times, expected {}",
            self.starts
        );
        Ok(())
    }

    /// Gives an order to the disks whose names contain `who`.
    fn tell(&mut self, who: &str, order: &str) -> anyhow::Result<String> {
        self.run(&format!("origin --inside tell {who} {order}"))
    }

    fn run(&mut self, command: &str) -> anyhow::Result<String> {
        self.machine.check(command)
    }
}

/// A copy without what only a debugger needs: the machine has all its programs in memory.
fn stripped(program: &Path, folder: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let copy = folder.join(name);
    let status = Command::new("strip")
        .arg("-o")
        .args([&copy, program])
        .status()
        .context("cannot run strip")?;
    ensure!(status.success(), "cannot strip {}", program.display());
    Ok(copy)
}
