//! What happens to one disk of a guest, or to the guest itself, and the disk next to it.
#![allow(clippy::unwrap_used)]

use holdfast_guest::{Backend, DiskSpec, Guest, GuestSpec};
use tempfile::TempDir;

/// `guest-io` needs a little more than 64 MiB.
const BDEV: &str = "malloc:size=96MiB";

/// A guest with two disks, each with a server of its own.
struct Pair {
    guest: Guest,
    _servers: [Backend; 2],
    _folder: TempDir,
}

fn boot() -> Pair {
    let folder = tempfile::tempdir().unwrap();
    let sockets = ["a", "b"].map(|name| folder.path().join(name));
    let servers = [0, 1].map(|at| Backend::serve(BDEV, &sockets[at], 2).unwrap());
    let disks = sockets.map(|socket| DiskSpec { socket, queues: 2 });
    let guest = Guest::boot(&GuestSpec {
        cpus: 2,
        ..GuestSpec::with_disks(disks.to_vec())
    });
    Pair {
        guest: guest.unwrap(),
        _servers: servers,
        _folder: folder,
    }
}

#[test]
fn guest_reset_under_load_finds_its_disks_again() {
    let mut pair = boot();
    let guest = &mut pair.guest;
    guest.check("guest-io run /dev/vda 1 2").unwrap();
    guest
        .check("guest-io run /dev/vdb 60 2 >/run/io.log &")
        .unwrap();
    guest
        .check("until [ $(awk '{ print $5 }' /sys/block/vdb/stat) -ge 50 ]; do usleep 5000; done")
        .unwrap();

    guest.reset().unwrap();

    guest.check("guest-io check /dev/vda").unwrap();
    guest
        .check("guest-io run /dev/vdb 1 2 && guest-io check /dev/vdb")
        .unwrap();
}

#[test]
fn disk_unplugged_and_plugged_again_keeps_its_data_and_its_neighbour() {
    let mut pair = boot();
    let guest = &mut pair.guest;
    guest.check("guest-io run /dev/vdb 1 2").unwrap();

    guest.unplug(1).unwrap();
    guest
        .check("[ ! -e /dev/vdb ] && guest-io run /dev/vda 1 2")
        .unwrap();
    guest.plug(1, 2).unwrap();

    guest
        .check("until [ -e /dev/vdb ]; do usleep 10000; done; guest-io check /dev/vdb")
        .unwrap();
    guest.check("guest-io check /dev/vda").unwrap();
}
