//! Rows M01 to M05: guest memory that changes, guests by the dozen, and size.

use crate::common::drive::{Drive, LONG, MIB};
use crate::common::{Bench, eventually, pattern};
use crate::{DEADLINE, all_ok, late, malloc, read, stuck, write};
use holdfast_bdev::{Effect, Fault, FaultOp, IoStatus};
use holdfast_testkit::frontend::{Guest, Layout, Protocol};
use holdfast_testkit::workload::{Plan, Workload};
use std::time::{Duration, Instant};

fn table_only() -> Protocol {
    Protocol::MQ | Protocol::CONFIG | Protocol::REPLY_ACK
}

/// M01: memory is plugged and unplugged under load, by slots and by whole tables.
#[test]
fn spdk_3132_memory_changes_under_load() {
    let slots = Guest::builder();
    let table = Guest::builder().protocol(table_only());
    for builder in [slots, table] {
        let bench = late();
        let builder = builder.queues(2).regions(2);
        let mut guest = builder.connect(bench.socket("disk")).unwrap();
        let mut queues = guest.take_queues();
        std::thread::scope(|scope| {
            let load = scope.spawn(move || {
                let mut workload = Workload::new(Plan::default(), 1, 0..8192);
                for _ in 0..60 {
                    workload.fill(&mut queues, 64).unwrap();
                    workload.drain(&mut queues).unwrap();
                }
                workload.report().assert_clean();
            });
            let mut changes = 0;
            while !load.is_finished() {
                let plugged = guest.add_region(2 << 20).unwrap();
                guest.remove_region(plugged).unwrap();
                changes += 1;
            }
            assert!(changes > 5, "{changes} changes");
        });
    }
}

/// M01: requests wait for a drive, or for the verdict on it, while memory is unplugged. The front end gets its answer at
/// once, and the requests are done in the memory there is then.
#[test]
fn spdk_3132_memory_changes_while_requests_wait() {
    let drive = Drive::new("unplug");
    let mut guest = drive.guest("a", LONG);
    drive.pull();
    for round in 0..3 {
        let plugged = guest.add_region(2 << 20).unwrap();
        for at in 0..40 {
            let write = write((40 * round + at) * 512, at as u8);
            guest.queue(0).submit(write, Layout::INDIRECT).unwrap();
        }
        drive.wait_lost(true);
        guest.remove_region(plugged).unwrap();
    }
    drive.put_back();
    assert!(all_ok(&guest.queue(0).drain().unwrap()));
    for at in 0..120 {
        let seen = guest.queue(1).read(at * 512, 512).unwrap();
        assert_eq!(seen, pattern((at % 40) as u8, 512), "sector {at}");
    }
}

/// M01: as above, but the drive is there and its verdict comes while the session is busy with the memory.
#[test]
fn spdk_3132_memory_changes_while_a_failed_request_is_judged() {
    let drive = Drive::new("judged");
    let device = drive.handle();
    let mut guest = drive.guest("a", LONG);
    for _ in 0..100 {
        let sick = Fault::new(Effect::Fail(libc::EIO)).on(FaultOp::Write);
        device.inject(sick.times(1));
        let plugged = guest.add_region(2 << 20).unwrap();
        guest.queue(0).submit(write(0, 1), Layout::DIRECT).unwrap();
        guest.remove_region(plugged).unwrap();
        // Read again with the memory, it may have been done again as well: the fault was for one request.
        assert_eq!(guest.queue(0).drain().unwrap().len(), 1);
    }
}

/// M02: a guest with much memory comes and goes; its neighbour does not notice.
#[test]
fn spdk_3867_much_memory_delays_nobody_else() {
    let bench = late();
    bench.serve("other", malloc());
    let mut neighbour = Guest::builder().connect(bench.socket("other")).unwrap();
    let mut guest = Guest::builder().connect(bench.socket("disk")).unwrap();
    std::thread::scope(|scope| {
        let plugging = scope.spawn(|| {
            for _ in 0..5 {
                let plugged = guest.add_region(64 << 30).unwrap();
                guest.queue(0).flush().unwrap();
                guest.remove_region(plugged).unwrap();
            }
        });
        let mut longest = Duration::ZERO;
        while !plugging.is_finished() {
            let start = Instant::now();
            neighbour.queue(0).flush().unwrap();
            longest = longest.max(start.elapsed());
        }
        assert!(longest < Duration::from_millis(500), "waited {longest:?}");
    });
}

/// M03, L07: two dozen disks, all started at the same moment, each by firmware and then by a kernel.
#[test]
fn spdk_1901_24_guests_boot_at_once() {
    let bench = Bench::empty();
    let names: Vec<String> = (0..24).map(|number| format!("disk{number}")).collect();
    for name in &names {
        bench.serve(name, malloc());
    }
    std::thread::scope(|scope| {
        for (number, name) in names.iter().enumerate() {
            let socket = bench.socket(name);
            scope.spawn(move || boot_twice(number as u8, &socket));
        }
    });
}

fn boot_twice(seed: u8, socket: &std::path::Path) {
    let builder = Guest::builder().memory(8 << 20).queues(4).queue_size(32);
    let mut guest = builder.negotiate(socket).unwrap();
    for _ in 0..2 {
        guest.send_features().unwrap();
        guest.send_memory().unwrap();
        guest.start_queue(0).unwrap();
        guest.queue(0).read(0, 512).unwrap();
        guest.stop_queue(0).unwrap();
        guest.reset_device().unwrap();
        guest.start().unwrap();
        for at in 0..4u64 {
            let queue = guest.queue(at as usize);
            queue.write(at * 512, &pattern(seed, 512)).unwrap();
            assert_eq!(queue.read(at * 512, 512).unwrap(), pattern(seed, 512));
        }
        guest.reset_device().unwrap();
    }
}

/// M05: the volume grows while its guest is away, and once more in the middle of the handshake.
#[test]
fn spdk_3549_growth_while_disconnected_is_seen_on_return() {
    let drive = Drive::new("grow-away");
    let mut guest = drive.guest("a", LONG);
    guest.disconnect();
    eventually("it has gone", || {
        !drive.engine().export_info("a").unwrap().connected
    });
    drive.engine().grow_volume("pool", "a", 12 * MIB).unwrap();
    guest.renegotiate().unwrap();
    assert_eq!(guest.config().unwrap().capacity_sectors, 12 * MIB / 512);
    drive.engine().grow_volume("pool", "a", 16 * MIB).unwrap();
    let channel = guest.back_channel().unwrap();
    channel.wait_config_change(DEADLINE).unwrap();
    guest.start().unwrap();
    assert_eq!(guest.config().unwrap().capacity_sectors, 16 * MIB / 512);
    let end = 16 * MIB - 512;
    guest.queue(0).write(end, &pattern(1, 512)).unwrap();
    let done = guest.queue(1).call(read(end), Layout::DIRECT).unwrap();
    assert_eq!(done.data, pattern(1, 512));
}

/// M01: the memory that the ring itself lies in is taken away with a request under way. That queue is broken by it, and
/// nothing else: the answer comes when the request has ended, and the export can be ended.
#[test]
fn spdk_3132_memory_of_the_ring_itself_is_unplugged() {
    let (bench, device) = stuck();
    let mut guest = Guest::builder().connect(bench.socket("disk")).unwrap();
    device.inject(Fault::new(Effect::Hang).on(FaultOp::Write).times(1));
    guest.queue(0).submit(write(0, 1), Layout::DIRECT).unwrap();
    eventually("a write hangs", || device.hanging() == 1);
    let (first, _) = guest.memory().ranges()[0];
    let queue = guest.take_queues().remove(0);
    std::thread::scope(|scope| {
        let unplugging = scope.spawn(|| guest.remove_region(first));
        queue.wait_broken(DEADLINE).unwrap();
        device.release(IoStatus::Ok);
        unplugging.join().unwrap().unwrap();
    });
    assert!(bench.engine.unexport("disk").unwrap());
}
