//! A Linux guest under QEMU on disks that `holdfast serve` and the engine serve.
#![allow(clippy::unwrap_used)]

use holdfast_dataplane::{Engine, EngineConfig, ExportSpec, PoolSpec, Source};
use holdfast_guest::load::{self, WAIT_FOR_50_WRITES, WAIT_FOR_REPORT};
use holdfast_guest::{Backend, DiskSpec, Guest, GuestSpec};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// `guest-io` needs a little more than 64 MiB.
const DISK_BYTES: u64 = 96 << 20;
/// What Linux says once it has taken over a new capacity.
const NEW_SIZE: &str = "[vda] new size:";

/// Asks for more rounds of five kills than the usual one.
const KILL_ROUNDS: &str = "HOLDFAST_QEMU_KILL_ROUNDS";

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(120)
}

/// A folder for a socket and a disk's file.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        File::create(folder.path().join("disk"))
            .unwrap()
            .set_len(DISK_BYTES)
            .unwrap();
        Place { folder }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("v.sock")
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    fn serve_file(&self) -> Backend {
        let bdev = format!("uring:path={}", self.file().display());
        Backend::serve(&bdev, &self.socket(), 4).unwrap()
    }
}

fn boot(socket: &Path, queues: u16) -> Guest {
    let disk = DiskSpec {
        socket: socket.to_owned(),
        queues,
    };
    // Linux uses no more queues than it has CPUs.
    Guest::boot(&GuestSpec {
        cpus: queues.into(),
        ..GuestSpec::with_disks(vec![disk])
    })
    .unwrap()
}

fn sectors(guest: &mut Guest) -> u64 {
    let text = guest.check("cat /sys/block/vda/size").unwrap();
    text.parse().unwrap()
}

/// The firmware starts one queue and the kernel all of them, at boot and again at reboot.
fn boots_and_keeps_data_with(queues: u16) {
    let place = Place::new();
    let bdev = format!("malloc:size={DISK_BYTES}");
    let _server = Backend::serve(&bdev, &place.socket(), 4).unwrap();

    let mut guest = boot(&place.socket(), queues);

    assert_eq!(sectors(&mut guest), DISK_BYTES / 512);
    assert_eq!(
        guest.check("cat /sys/block/vda/serial").unwrap(),
        "holdfast-guest"
    );
    assert_eq!(
        guest.check("ls /sys/block/vda/mq | wc -l").unwrap(),
        queues.to_string()
    );
    guest
        .check(&format!("guest-io run /dev/vda 2 {queues}"))
        .unwrap();
    guest.reboot().unwrap();
    guest.check("guest-io check /dev/vda").unwrap();
}

#[test]
fn guest_with_one_queue_boots_and_keeps_its_data_over_a_reboot() {
    boots_and_keeps_data_with(1);
}

#[test]
fn guest_with_two_queues_boots_and_keeps_its_data_over_a_reboot() {
    boots_and_keeps_data_with(2);
}

#[test]
fn guest_with_four_queues_boots_and_keeps_its_data_over_a_reboot() {
    boots_and_keeps_data_with(4);
}

#[test]
fn server_killed_while_guest_is_idle_is_found_again() {
    let place = Place::new();
    let mut server = place.serve_file();
    let mut guest = boot(&place.socket(), 2);
    guest.check("guest-io run /dev/vda 1 2").unwrap();

    server.process().kill().unwrap();
    let _server = place.serve_file();

    guest.check("guest-io check /dev/vda").unwrap();
    guest.check("guest-io run /dev/vda 1 2").unwrap();
}

#[test]
fn server_killed_under_load_costs_the_guest_no_error_and_no_write() {
    let place = Place::new();
    let mut server = place.serve_file();
    let mut guest = boot(&place.socket(), 2);
    let rounds = std::env::var(KILL_ROUNDS).map_or(1, |rounds| rounds.parse().expect(KILL_ROUNDS));
    for _ in 0..rounds {
        guest.check(&load::start(8, 2)).unwrap();
        for _ in 0..5 {
            guest.check(WAIT_FOR_50_WRITES).unwrap();
            server.process().kill().unwrap();
            server = place.serve_file();
        }
        let report = guest.check(WAIT_FOR_REPORT).unwrap();
        assert!(report.contains(" errors=0 wrong=0 "), "{report}");
        guest.check("guest-io check /dev/vda").unwrap();
    }
}

/// Not a check of speed but its measurement, for a release build: the clock of an emulated guest jumps when the machine is busy.
#[test]
#[ignore = "measures, so it wants a machine for itself"]
fn pause_of_a_guest_over_a_kill_is_measured() {
    let place = Place::new();
    let mut server = place.serve_file();
    let mut guest = boot(&place.socket(), 2);
    let (mut quiet, mut killed) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        quiet.push(slowest_ms(&mut guest, |_| ()));
        let kill = |guest: &mut Guest| {
            guest.check(WAIT_FOR_50_WRITES).unwrap();
            server.process().kill().unwrap();
            server = place.serve_file();
        };
        killed.push(slowest_ms(&mut guest, kill));
    }
    for (what, times) in [("left alone", &mut quiet), ("server killed", &mut killed)] {
        times.sort_unstable();
        println!(
            "slowest request, {what}: median {} ms, all {times:?}",
            times[times.len() / 2]
        );
    }
}

/// The slowest request of two seconds of load during which something happens.
fn slowest_ms(guest: &mut Guest, meanwhile: impl FnOnce(&mut Guest)) -> u64 {
    guest.check(&load::start(2, 2)).unwrap();
    meanwhile(guest);
    let report = guest.check(WAIT_FOR_REPORT).unwrap();
    assert!(report.contains(" errors=0 wrong=0 "), "{report}");
    let (_, slowest) = report.rsplit_once("slowest_ms=").unwrap();
    slowest.trim().parse().unwrap()
}

#[test]
fn disk_grown_while_server_was_away_is_seen_after_reconnect() {
    let place = Place::new();
    let mut server = place.serve_file();
    let mut guest = boot(&place.socket(), 1);
    assert_eq!(sectors(&mut guest), DISK_BYTES / 512);

    server.process().end(soon()).unwrap();
    let file = File::options().write(true).open(place.file()).unwrap();
    file.set_len(DISK_BYTES * 2).unwrap();
    let _server = place.serve_file();

    guest.wait_for(NEW_SIZE, soon()).unwrap();
    assert_eq!(sectors(&mut guest), DISK_BYTES * 2 / 512);
}

#[test]
fn volume_grown_in_use_is_seen_and_usable() {
    let place = Place::new();
    let engine = Engine::start(EngineConfig::default()).unwrap();
    engine
        .open_pool(&PoolSpec {
            name: "pool".into(),
            path: place.folder.path().join("pool"),
            create_bytes: Some(1 << 30),
            force: false,
            expect_uuid: None,
            identity: "guest-test".into(),
        })
        .unwrap();
    engine.create_volume("pool", "v", DISK_BYTES).unwrap();
    let source = Source::Volume {
        pool: "pool".into(),
        id: "v".into(),
    };
    engine
        .export(&ExportSpec::new("v", source, place.socket()))
        .unwrap();
    let mut guest = boot(&place.socket(), 2);
    guest
        .check("mkfs.ext4 -q /dev/vda && mount /dev/vda /mnt")
        .unwrap();

    engine.grow_volume("pool", "v", DISK_BYTES * 2).unwrap();

    guest.wait_for(NEW_SIZE, soon()).unwrap();
    assert_eq!(sectors(&mut guest), DISK_BYTES * 2 / 512);
    guest.check("resize2fs /dev/vda").unwrap();
    guest
        .check("dd if=/dev/zero of=/mnt/large bs=1M count=120 && umount /mnt")
        .unwrap();
    guest.check("e2fsck -fn /dev/vda").unwrap();
    drop(guest);
    assert_eq!(engine.stop(), Vec::<String>::new());
}
