//! What the demo consists of, and the acts on the host's side.

use super::canary;
use super::driver::Driver;
use anyhow::{Context, ensure};
use holdfast_guest::kit::workspace;
use holdfast_guest::{DiskSpec, Guest, GuestSpec, holdfast};
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Everything on stage. What an act has not brought yet is `None`.
#[derive(Debug)]
pub(super) struct Stage {
    folder: TempDir,
    program: PathBuf,
    driver: Option<Driver>,
    guest: Option<Guest>,
    /// Free bytes of the pool before there was any volume.
    free_at_first: u64,
}

pub(super) const POOL: &str = "demo";
pub(super) const MIB: u64 = 1 << 20;
/// The volumes: /dev/vda and /dev/vdb of the guest.
const VOLUMES: [(&str, u64); 2] = [("alpha", 512 * MIB), ("beta", 256 * MIB)];
/// What the second volume is expanded to.
pub(super) const EXPANDED: u64 = 512 * MIB;
const SETTLES_WITHIN: Duration = Duration::from_secs(60);

impl Stage {
    pub(super) fn new() -> anyhow::Result<Stage> {
        Ok(Stage {
            folder: tempfile::Builder::new()
                .prefix("holdfast-demo-")
                .tempdir()?,
            program: PathBuf::new(),
            driver: None,
            guest: None,
            free_at_first: 0,
        })
    }

    pub(super) fn build(&mut self) -> anyhow::Result<String> {
        // Cargo shows its own progress: on a new machine this takes minutes.
        let built = Command::new(env!("CARGO"))
            .args(["build", "--package", "holdfast"])
            .current_dir(workspace())
            .status()
            .context("cannot run cargo")?;
        ensure!(built.success(), "holdfast does not build");
        self.program = holdfast()?;
        Ok(self.program.display().to_string())
    }

    pub(super) fn start_driver(&mut self) -> anyhow::Result<String> {
        let pool = format!("{POOL}={},size=2GiB", self.drive().display());
        self.driver = Some(Driver::start(&self.program, self.folder.path(), &pool)?);
        self.free_at_first = self.driver()?.free_bytes(POOL)?;
        Ok(format!("{} MiB free", self.free_at_first / MIB))
    }

    pub(super) fn create_volumes(&mut self) -> anyhow::Result<String> {
        let mut ids = Vec::new();
        for (name, bytes) in VOLUMES {
            let size = bytes.to_string();
            let words = ["create-volume", name, "--size", &size, "--pool", POOL];
            let id = self.driver()?.csi(&words)?;
            ensure!(id == name, "the volume {name} has the id {id}");
            ids.push(id);
        }
        let taken: u64 = VOLUMES.iter().map(|(_, bytes)| bytes).sum();
        let free = self.free_at_first - taken;
        self.wait_for_free(free)?;
        Ok(format!("{}; {} MiB free", ids.join(" and "), free / MIB))
    }

    pub(super) fn publish_volumes(&mut self) -> anyhow::Result<String> {
        for (id, bytes) in VOLUMES {
            let (staging, target) = (self.path("staging", id), self.path("target", id));
            let driver = self.driver()?;
            driver.csi(&["node-stage", id, "--staging-path", &staging])?;
            let words = [
                "node-publish",
                id,
                "--staging-path",
                &staging,
                "--target-path",
                &target,
            ];
            driver.csi(&words)?;
            let socket = fs::metadata(self.socket(id))?.file_type();
            ensure!(socket.is_socket(), "{target}/v.sock is no socket");
            // Whoever takes the placeholder for the disk must fail, not write to it.
            let placeholder = fs::metadata(Path::new(&target).join("disk.img"))?;
            let mode = placeholder.permissions().mode() & 0o777;
            ensure!(mode == 0o444, "the placeholder's mode is {mode:o}");
            ensure!(
                placeholder.len() == bytes,
                "the placeholder lies about its size"
            );
        }
        Ok("a socket and an unwritable placeholder each".into())
    }

    pub(super) fn boot_guest(&mut self) -> anyhow::Result<String> {
        let disks = VOLUMES.map(|(id, _)| DiskSpec {
            socket: self.socket(id),
            queues: 2,
        });
        let mut guest = Guest::boot(&GuestSpec {
            cpus: 2,
            ..GuestSpec::with_disks(disks.to_vec())
        })?;
        for ((id, bytes), disk) in VOLUMES.iter().zip(["vda", "vdb"]) {
            let sectors = guest.check(&format!("cat /sys/block/{disk}/size"))?;
            ensure!(
                sectors == (bytes / 512).to_string(),
                "{id} has {sectors} sectors"
            );
            let queues = guest.check(&format!("ls /sys/block/{disk}/mq | wc -l"))?;
            ensure!(queues == "2", "{disk} has {queues} queues");
        }
        let kernel = guest.check("uname -r")?;
        self.guest = Some(guest);
        Ok(format!("Linux {kernel} sees vda and vdb"))
    }

    pub(super) fn expand_in_use(&mut self) -> anyhow::Result<String> {
        let (id, before) = VOLUMES[1];
        let (size, target) = (EXPANDED.to_string(), self.path("target", id));
        let driver = self.driver()?;
        driver.csi(&["expand-volume", id, "--size", &size])?;
        driver.csi(&["node-expand", id, "--volume-path", &target, "--size", &size])?;
        self.see_new_size()?;
        Ok(format!(
            "{id}: {} MiB -> {} MiB, seen by the guest",
            before / MIB,
            EXPANDED / MIB
        ))
    }

    pub(super) fn power_off(&mut self) -> anyhow::Result<String> {
        self.guest.take().context("there is no guest")?.quit()?;
        Ok("QEMU has ended".into())
    }

    pub(super) fn delete_volumes(&mut self) -> anyhow::Result<String> {
        let found = canary::count(&self.drive())?;
        ensure!(
            found > 0,
            "the guest's data is not on the drive; what has it read?"
        );
        for (id, _) in VOLUMES {
            let (staging, target) = (self.path("staging", id), self.path("target", id));
            let driver = self.driver()?;
            driver.csi(&["node-unpublish", id, "--target-path", &target])?;
            ensure!(!Path::new(&target).exists(), "{target} is still there");
            driver.csi(&["node-unstage", id, "--staging-path", &staging])?;
            driver.csi(&["delete-volume", id])?;
        }
        let left = self.driver()?.csi(&["list-volumes"])?;
        ensure!(left.is_empty(), "volumes are left: {left}");
        Ok(format!(
            "no volume left; {found} blocks of their data were on the drive"
        ))
    }

    pub(super) fn see_space_return(&mut self) -> anyhow::Result<String> {
        self.wait_for_free(self.free_at_first)?;
        let found = canary::count(&self.drive())?;
        ensure!(
            found == 0,
            "{found} blocks of a deleted volume are still on the drive"
        );
        Ok(format!(
            "{} MiB free, no byte of them readable",
            self.free_at_first / MIB
        ))
    }

    pub(super) fn stop_driver(&mut self) -> anyhow::Result<String> {
        self.driver.as_mut().context("there is no driver")?.stop()?;
        self.driver = None;
        Ok("ended when asked to".into())
    }

    /// Writes what the driver and the guest have said to files below `folder`.
    pub(super) fn keep_logs(&self, folder: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(folder)?;
        if let Some(driver) = &self.driver {
            fs::write(folder.join("driver.log"), driver.log())?;
        }
        if let Some(guest) = &self.guest {
            fs::write(folder.join("guest-console.log"), guest.console().text())?;
        }
        Ok(())
    }

    /// Ends what still runs and takes away mounts that a failed act has left.
    pub(super) fn clean_up(&mut self) {
        self.guest = None;
        self.driver = None;
        for (id, _) in VOLUMES {
            // Fails where nothing is mounted, which is as good.
            let _ = Command::new("umount").arg(self.path("target", id)).output();
        }
    }

    pub(super) fn guest(&mut self) -> anyhow::Result<&mut Guest> {
        self.guest.as_mut().context("there is no guest")
    }

    fn driver(&self) -> anyhow::Result<&Driver> {
        self.driver.as_ref().context("there is no driver")
    }

    /// Waits until the pool has `wanted` free bytes: the figure follows what happens, it does not lead.
    fn wait_for_free(&self, wanted: u64) -> anyhow::Result<()> {
        let deadline = Instant::now() + SETTLES_WITHIN;
        loop {
            let free = self.driver()?.free_bytes(POOL)?;
            if free == wanted {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "{free} bytes are free, not {wanted}"
            );
            // CSI has no way to be told.
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The file that stands for a drive.
    fn drive(&self) -> PathBuf {
        self.folder.path().join("drive.img")
    }

    fn socket(&self, id: &str) -> PathBuf {
        Path::new(&self.path("target", id)).join("v.sock")
    }

    fn path(&self, kind: &str, id: &str) -> String {
        self.folder
            .path()
            .join(format!("{kind}-{id}"))
            .display()
            .to_string()
    }
}
