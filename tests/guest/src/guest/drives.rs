//! NVMe drives of a guest, each in a port of its own, to be pulled and put back while the guest runs.

use super::{COMMAND_WITHIN, Guest};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

/// An NVMe drive that QEMU emulates.
#[derive(Clone, Debug)]
pub struct DriveSpec {
    /// The file that holds its content.
    pub image: PathBuf,
    /// Its serial number, by which it is told from others; letters and digits.
    pub serial: String,
    /// So many writes a second, if it is slow.
    pub writes_per_second: Option<u32>,
}

/// Ports of disks are numbered from 0; a slot has 8 bits, a chassis number as well.
const FIRST_SLOT: usize = 64;

impl Guest {
    /// Pulls an NVMe drive. Returns when the guest's kernel has let go of it.
    ///
    /// # Errors
    /// If the kernel keeps it.
    pub fn pull_drive(&mut self, serial: &str) -> anyhow::Result<()> {
        self.qmp
            .execute("device_del", json!({ "id": drive_id(serial) }))?;
        let id = drive_id(serial);
        let gone = |data: &Value| data["device"] == *id;
        let by = Instant::now() + COMMAND_WITHIN;
        self.qmp.wait_for_event("DEVICE_DELETED", gone, by)
    }

    /// Puts a pulled drive back where it was, with what was on it.
    ///
    /// # Errors
    /// If QEMU refuses it.
    pub fn put_drive_back(&mut self, serial: &str) -> anyhow::Result<()> {
        self.qmp.execute("device_add", device(serial)).map(drop)
    }
}

pub(super) fn add(command: &mut Command, drive: &DriveSpec, number: usize) {
    let slot = FIRST_SLOT + number;
    let port = json!({
        "driver": "pcie-root-port",
        "id": port(&drive.serial),
        "chassis": slot,
        "slot": slot,
    });
    // Deallocated blocks become holes, as they become free on a drive.
    let mut image = json!({
        "driver": "file",
        "filename": drive.image,
        "discard": "unmap",
    });
    if let Some(rate) = drive.writes_per_second {
        let group = format!("slow-{}", drive.serial);
        command.arg("-object");
        command.arg(format!("throttle-group,id={group},x-iops-write={rate}"));
        image = json!({ "driver": "throttle", "throttle-group": group, "file": image });
    }
    image["node-name"] = image_name(&drive.serial).into();
    command.args(["-blockdev", &image.to_string()]);
    command.args(["-device", &port.to_string()]);
    command.args(["-device", &device(&drive.serial).to_string()]);
}

fn device(serial: &str) -> Value {
    json!({
        "driver": "nvme",
        "id": drive_id(serial),
        "serial": serial,
        "drive": image_name(serial),
        "bus": port(serial),
    })
}

fn drive_id(serial: &str) -> String {
    format!("drive-{serial}")
}

fn port(serial: &str) -> String {
    format!("port-{serial}")
}

fn image_name(serial: &str) -> String {
    format!("image-{serial}")
}
