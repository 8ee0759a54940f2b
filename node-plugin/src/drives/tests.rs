//! Drives of a made-up machine: a directory tree as the kernel and udev lay it out.

use super::*;
use std::os::unix::fs::symlink;
use tempfile::TempDir;

struct Machine(TempDir);

impl Machine {
    fn new() -> Machine {
        let machine = Machine(TempDir::new().unwrap());
        for dir in ["sys/block", "dev/disk/by-id"] {
            fs::create_dir_all(machine.0.path().join(dir)).unwrap();
        }
        machine
    }

    fn with(self, name: &str, files: &[(&str, &[u8])]) -> Machine {
        let dir = self.0.path().join("sys/block").join(name);
        for (file, content) in files {
            let file = dir.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, content).unwrap();
        }
        fs::create_dir_all(&dir).unwrap();
        let node = self.node(name);
        fs::create_dir_all(node.parent().unwrap()).unwrap();
        fs::write(node, "").unwrap();
        self
    }

    fn node(&self, name: &str) -> PathBuf {
        self.0.path().join("dev").join(name.replace('!', "/"))
    }

    fn find(&self, device: &DeviceMatch) -> Result<PathBuf, DriveError> {
        Drives::below(self.0.path()).find(device)
    }
}

fn serial(serial: &str, namespace_id: Option<u32>) -> DeviceMatch {
    DeviceMatch {
        serial: serial.into(),
        namespace_id,
        ..Default::default()
    }
}

fn wwid(wwid: &str) -> DeviceMatch {
    DeviceMatch {
        wwid: wwid.into(),
        ..Default::default()
    }
}

fn path(path: &str) -> DeviceMatch {
    DeviceMatch {
        path: path.into(),
        ..Default::default()
    }
}

/// Two namespaces of one NVMe drive, a SCSI drive, a virtio drive, and one that says nothing.
fn machine() -> Machine {
    let machine = Machine::new()
        .with(
            "nvme0n1",
            &[
                ("device/serial", b"S1               \n"),
                ("nsid", b"1\n"),
                ("wwid", b"eui.01\n"),
            ],
        )
        .with(
            "nvme0n2",
            &[
                ("device/serial", b"S1\n"),
                ("nsid", b"2\n"),
                ("wwid", b"eui.02\n"),
            ],
        )
        .with("nvme0c0n1", &[("hidden", b"1\n"), ("wwid", b"eui.01\n")])
        .with(
            "sda",
            &[
                ("device/vpd_pg80", b"\0\x80\0\x04 S2 "),
                ("device/wwid", b"naa.5000\n"),
            ],
        )
        .with("vda", &[("serial", b"disk-1")])
        .with("cciss!c0d0", &[("hidden", b"0\n"), ("serial", b"S3")])
        .with("loop0", &[]);
    let link = machine.node("disk/by-id/wwn-0x5000");
    symlink("../../sda", link).unwrap();
    machine
}

#[test]
fn drive_is_found_by_what_it_says_of_itself() {
    let machine = machine();
    let cases = [
        (serial("S1", Some(2)), "nvme0n2"),
        (serial("S2", None), "sda"),
        (serial("disk-1", None), "vda"),
        (serial("S3", None), "cciss!c0d0"),
        (wwid("eui.01"), "nvme0n1"),
        (wwid("naa.5000"), "sda"),
        (wwid("0x5000"), "sda"),
    ];
    for (device, name) in cases {
        let found = machine.find(&device);
        assert_eq!(found, Ok(machine.node(name)), "{}", describe(&device));
    }
}

#[test]
fn serial_of_several_namespaces_is_refused_with_what_was_seen() {
    let error = machine().find(&serial("S1", None)).unwrap_err();
    let said = error.to_string();
    for word in ["nvme0n1", "nvme0n2", "namespace 2", "eui.01", "namespaceId"] {
        assert!(said.contains(word), "{said}");
    }
    assert!(!said.contains("sda"), "{said}");
}

#[test]
fn drive_that_is_not_there_is_told_with_those_that_are() {
    for device in [serial("S9", None), serial("S1", Some(3)), wwid("eui.03")] {
        let error = machine().find(&device).unwrap_err();
        assert!(matches!(error, DriveError::Missing { .. }), "{error}");
        let said = error.to_string();
        assert!(said.contains("sda (serial S2"), "{said}");
    }
    let error = Machine::new().find(&serial("S9", None)).unwrap_err();
    assert!(error.to_string().contains("there are no drives"), "{error}");
}

#[test]
fn drive_whose_node_has_gone_is_not_there() {
    let machine = machine();
    fs::remove_file(machine.node("sda")).unwrap();
    assert!(machine.find(&serial("S2", None)).is_err());
}

#[test]
fn drive_is_followed_to_its_new_name() {
    let machine = machine();
    fs::remove_file(machine.node("vda")).unwrap();
    let machine = machine.with("vdb", &[("serial", b"disk-1")]);
    let found = machine.find(&serial("disk-1", None));
    assert_eq!(found, Ok(machine.node("vdb")));
}

#[test]
fn name_of_the_kernel_is_refused_and_a_name_by_identity_is_taken() {
    for bad in ["/dev/nvme0n1", "/dev/sda", "relative", "./x"] {
        let error = machine().find(&path(bad)).unwrap_err();
        assert!(matches!(error, DriveError::BadPath { .. }), "{bad}");
    }
    for good in [
        "/dev/disk/by-id/nvme-x",
        "/dev/mapper/x",
        "/dev/loop3",
        "/data/pool.img",
    ] {
        assert_eq!(machine().find(&path(good)), Ok(good.into()));
    }
}

#[test]
fn device_named_in_no_way_or_in_two_is_refused() {
    let mut both = serial("S2", None);
    both.wwid = "naa.5000".into();
    for device in [DeviceMatch::default(), both] {
        assert_eq!(machine().find(&device), Err(DriveError::Unclear));
    }
}
