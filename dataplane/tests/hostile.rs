//! No input from a front end or a guest reaches beyond its own session: the neighbour is served throughout, the volume
//! serves the next front end, and no descriptor or mapping is left behind.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use common::{Bench, SIZE, eventually, pattern};
use holdfast_bdev::Malloc;
use holdfast_testkit::frontend::{Desc, Guest, Layout, Op, status};
use holdfast_testkit::raw::{RawPeer, hostile};
use std::sync::Arc;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(10);

fn two_disks() -> Bench {
    let bench = Bench::empty();
    for name in ["disk", "neighbour"] {
        bench.serve(name, Arc::new(Malloc::new(SIZE, 512).unwrap()));
    }
    bench
}

/// Open descriptors and mappings of shared files of this process.
fn belongings() -> (usize, usize) {
    let fds = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    (
        fds,
        maps.lines().filter(|line| line.contains("memfd:")).count(),
    )
}

/// One test, for it counts what the whole process holds.
#[test]
fn every_attack_ends_with_its_own_session_and_leaves_nothing_behind() {
    let bench = two_disks();
    let mut neighbour = Guest::builder()
        .queues(2)
        .connect(bench.socket("neighbour"))
        .unwrap();
    let before = {
        drop(Guest::builder().connect(bench.socket("disk")).unwrap());
        eventually("idle", || {
            !bench.engine.export_info("disk").unwrap().connected
        });
        belongings()
    };
    for (number, attack) in hostile::catalogue().unwrap().into_iter().enumerate() {
        let peer = RawPeer::connect(bench.socket("disk"), DEADLINE).unwrap();
        attack
            .carry_out(peer)
            .unwrap_or_else(|error| panic!("{}: {error}", attack.name));
        let offset = number as u64 * 512;
        neighbour
            .queue(0)
            .write(offset, &pattern(number as u8, 512))
            .unwrap();
        let seen = neighbour.queue(1).read(offset, 512).unwrap();
        assert_eq!(seen, pattern(number as u8, 512), "{}", attack.name);
        let mut next = Guest::builder()
            .connect(bench.socket("disk"))
            .unwrap_or_else(|error| panic!("after {}: {error}", attack.name));
        next.queue(0)
            .flush()
            .unwrap_or_else(|error| panic!("after {}: {error}", attack.name));
        drop((attack, next));
    }
    eventually("idle", || {
        !bench.engine.export_info("disk").unwrap().connected
    });
    eventually("all descriptors and mappings are gone", || {
        belongings() == before
    });
    broken_rings_park_alone(&bench);
}

/// What a guest's driver may do wrong: its queue stops and says so, the other queues and the volume go on.
fn broken_rings_park_alone(bench: &Bench) {
    type Harm = fn(&mut Guest);
    let harms: [(&str, Harm); 6] = [
        ("avail.idx jumps", |guest| {
            guest.queue(0).ring().set_avail_idx(1000);
        }),
        ("a head out of range", |guest| offer(guest, 0xffff, None)),
        ("a chain in a circle", |guest| {
            offer(
                guest,
                3,
                Some(Desc {
                    next: 3,
                    ..Desc::new(data(guest), 16, Desc::NEXT)
                }),
            );
        }),
        ("a buffer outside memory", |guest| {
            offer(guest, 3, Some(Desc::new(1 << 60, 512, 0)));
        }),
        ("an empty indirect table", |guest| {
            offer(guest, 3, Some(Desc::new(data(guest), 0, Desc::INDIRECT)));
        }),
        ("no status byte", |guest| {
            offer(guest, 3, Some(Desc::new(data(guest), 16, 0)));
        }),
    ];
    for (name, harm) in harms {
        let mut guest = Guest::builder()
            .queues(2)
            .connect(bench.socket("disk"))
            .unwrap();
        guest.queue(0).flush().unwrap();
        harm(&mut guest);
        guest.queue(0).kick_now().unwrap();
        guest
            .queue(0)
            .wait_broken(DEADLINE)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        guest
            .queue(1)
            .write(0, &pattern(1, 512))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        guest
            .stop_queue(0)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        guest.reset_device().unwrap();
        for queue in guest.queues() {
            queue.reset();
        }
        guest.start().unwrap();
        let read = Op::Read {
            offset: 0,
            len: 512,
        };
        let done = guest.queue(0).call(read, Layout::DIRECT).unwrap();
        assert_eq!(
            (done.status, done.data),
            (status::OK, pattern(1, 512)),
            "{name}"
        );
    }
}

/// A guest address with memory behind it.
fn data(guest: &Guest) -> u64 {
    guest.memory().ranges()[0].0
}

/// Makes a head available behind the driver's back.
fn offer(guest: &mut Guest, head: u16, desc: Option<Desc>) {
    let ring = guest.queue(0).ring();
    if let Some(desc) = desc {
        ring.set_desc(head, desc);
    }
    let position = ring.avail_idx();
    ring.set_avail(position, head);
    ring.set_avail_idx(position.wrapping_add(1));
}
