//! The harness against a server that is not ours: what fails here is the harness, not Holdfast.
#![allow(clippy::unwrap_used)]

use holdfast_guest::{Backend, DiskSpec, Guest, GuestSpec};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// As `guest-io` lays it out: 4 bytes for each of 16,384 blocks.
const LEDGER_BYTES: usize = 65_536;
const DISK_BYTES: u64 = 128 << 20;

#[test]
fn harness_works_against_a_peer_backend() {
    let folder = tempfile::tempdir().unwrap();
    let (image, socket) = (folder.path().join("image"), folder.path().join("v.sock"));
    let file = File::create_new(&image).unwrap();
    file.set_len(DISK_BYTES).unwrap();
    let _backend = Backend::peer(&image, &socket, 2).unwrap();
    let spec = GuestSpec {
        cpus: 2,
        ..GuestSpec::with_disks(vec![DiskSpec { socket, queues: 2 }])
    };

    let mut guest = Guest::boot(&spec).unwrap();

    let sectors = guest.check("cat /sys/block/vda/size").unwrap();
    assert_eq!(sectors, (DISK_BYTES / 512).to_string());
    assert_eq!(guest.check("ls /sys/block/vda/mq | wc -l").unwrap(), "2");
    guest.check("guest-io run /dev/vda 1 2").unwrap();
    guest.reboot().unwrap();
    guest.check("guest-io check /dev/vda").unwrap();
    let failed = guest.run("echo word; exit 3").unwrap();
    assert_eq!((failed.code, failed.text.as_str()), (3, "word"));

    flip_byte_of_written_block(&image);
    let noticed = guest.run("guest-io check /dev/vda").unwrap();
    assert_eq!(noticed.code, 1, "{}", noticed.text);
    assert!(noticed.text.contains("wrong=1 "), "{}", noticed.text);
}

/// Damages the first block that the ledger at the head of the disk calls written.
fn flip_byte_of_written_block(image: &Path) {
    let disk = File::options().read(true).write(true).open(image).unwrap();
    let mut ledger = vec![0; LEDGER_BYTES];
    disk.read_exact_at(&mut ledger, 0).unwrap();
    let written = ledger
        .chunks(4)
        .position(|sequence| sequence != [0; 4])
        .unwrap();
    let place = (LEDGER_BYTES + written * 4096 + 77) as u64;
    let mut byte = [0];
    disk.read_exact_at(&mut byte, place).unwrap();
    disk.write_all_at(&[!byte[0]], place).unwrap();
}
