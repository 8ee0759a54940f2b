//! Rows L01 to L13: start, stop and change of queues, while requests are under way.

use crate::common::{Bench, SIZE, eventually, pattern};
use crate::{DEADLINE, all_ok, late, malloc, read, stuck, write};
use holdfast_bdev::{DriverKind, Effect, Fault, FaultOp, IoStatus};
use holdfast_testkit::frontend::{Guest, Layout, Op, Protocol};
use holdfast_testkit::raw::RawPeer;
use holdfast_testkit::workload::{Plan, Workload};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use vhost::VhostBackend;
use vmm_sys_util::eventfd::EventFd;

/// L01: the origin. Messages are not acknowledged, so the kick of a queue comes while the one before still starts.
#[test]
fn spdk_3416_enable_after_stop() {
    let bench = late();
    let builder = Guest::builder().queues(4).need_reply(false);
    let mut guest = builder.connect(bench.socket("disk")).unwrap();
    for round in 0..1000u32 {
        for at in 0..4 {
            let write = write(at as u64 * 512, round as u8);
            guest.queue(at).submit(write, Layout::INDIRECT).unwrap();
        }
        (0..4).for_each(|at| _ = guest.stop_queue(at).unwrap());
        (0..4).for_each(|at| guest.start_queue(at).unwrap());
        for queue in guest.queues() {
            assert!(all_ok(&queue.drain().unwrap()));
        }
    }
}

/// L02: two disks share both reactors; one is stopped and started under the other's load.
#[test]
fn spdk_3392_stop_beside_a_neighbour_under_load() {
    let bench = late();
    bench.serve("other", malloc());
    let mut busy = Guest::builder()
        .queues(4)
        .connect(bench.socket("other"))
        .unwrap();
    let mut guest = Guest::builder()
        .queues(4)
        .connect(bench.socket("disk"))
        .unwrap();
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut workload = Workload::new(Plan::default(), 1, 0..8192);
            workload.run(&mut busy, 4000).unwrap();
            workload.report().assert_clean();
        });
        while !load.is_finished() {
            for at in 0..4 {
                guest.queue(at).submit(read(0), Layout::DIRECT).unwrap();
                guest.stop_queue(at).unwrap();
                guest.start_queue(at).unwrap();
                assert!(all_ok(&guest.queue(at).drain().unwrap()));
            }
        }
    });
}

/// L03: the stop is there before the start is through.
#[test]
fn spdk_9d1f340fd7_stop_right_after_the_kick_message() {
    let bench = late();
    let builder = Guest::builder().queues(2).need_reply(false);
    let mut guest = builder.negotiate(bench.socket("disk")).unwrap();
    guest.send_features().unwrap();
    guest.send_memory().unwrap();
    for round in 0..500 {
        guest.queue(0).submit(Op::Flush, Layout::INDIRECT).unwrap();
        guest.start_queue(0).unwrap();
        let base = guest.stop_queue(0).unwrap();
        // Taken or not yet taken, but never lost: the next start goes on from there.
        assert!(base <= round + 1, "{base} of {}", round + 1);
        guest.start_queue(0).unwrap();
        assert!(all_ok(&guest.queue(0).drain().unwrap()));
        guest.stop_queue(0).unwrap();
    }
}

/// L05: front ends knock while the export ends.
#[test]
fn spdk_2748_connections_while_the_export_ends() {
    let bench = Bench::empty();
    bench.engine.add_device("disk", malloc()).unwrap();
    let (spec, over) = (bench.spec("disk"), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    if let Ok(mut peer) = RawPeer::connect(&spec.socket, DEADLINE) {
                        let _ = peer.shake_hands(); // Cut off at any point.
                    }
                }
            });
        }
        for _ in 0..100 {
            bench.engine.export(&spec).unwrap();
            eventually("somebody is let in", || {
                bench.engine.export_info("disk").unwrap().connected
            });
            assert!(bench.engine.unexport("disk").unwrap());
            assert!(!spec.socket.exists());
        }
        over.store(true, Ordering::Relaxed);
    });
}

/// L08: the interrupt descriptor changes under load, as on every masking of an interrupt vector. A queue that sleeps on
/// an interrupt sent to the old one would report it as lost.
#[test]
fn spdk_c1cfc10a59_call_descriptor_changes_under_load() {
    let bench = late();
    let mut guest = Guest::builder().connect(bench.socket("disk")).unwrap();
    let mut queue = guest.take_queues().remove(0);
    std::thread::scope(|scope| {
        let load = scope.spawn(move || {
            for _ in 0..3000 {
                queue.flush().unwrap();
            }
        });
        let mut changes = 0;
        while !load.is_finished() {
            // Closed at the end of the turn: what still writes there would hit another descriptor.
            let mask = EventFd::new(0).unwrap();
            guest
                .ask("SET_VRING_CALL", |f| f.set_vring_call(0, &mask))
                .unwrap();
            guest.send_call(0).unwrap();
            changes += 1;
        }
        assert!(changes > 100, "{changes} changes");
    });
}

/// L08: the kick descriptor changes right after a kick; what was kicked through the old one is not forgotten. A neighbour
/// keeps the reactors so busy that they often learn of both at once.
#[test]
fn spdk_626ceb20fe_kick_descriptor_changes_under_load() {
    for driver in [DriverKind::Auto, DriverKind::Threads] {
        let bench = Bench::with(driver);
        bench.serve("disk", malloc());
        bench.serve("other", malloc());
        let busy = Guest::builder().queues(2);
        let mut busy = busy.connect(bench.socket("other")).unwrap();
        let builder = Guest::builder().need_reply(false);
        let mut guest = builder.connect(bench.socket("disk")).unwrap();
        std::thread::scope(|scope| {
            let load = scope.spawn(|| {
                let mut workload = Workload::new(Plan::default(), 1, 0..8192);
                workload.run(&mut busy, 4000).unwrap();
            });
            while !load.is_finished() {
                kick_old_descriptor_and_change(&mut guest);
            }
        });
    }
}

fn kick_old_descriptor_and_change(guest: &mut Guest) {
    let kick = EventFd::new(0).unwrap();
    let queue = guest.queue(0);
    queue.submit(Op::Flush, Layout::INDIRECT).unwrap();
    guest
        .ask("SET_VRING_KICK", |f| f.set_vring_kick(0, &kick))
        .unwrap();
    assert!(all_ok(&guest.queue(0).drain().unwrap()));
    guest.send_kick(0).unwrap();
}

/// L13: the memory table changes between a request that hangs and the stop that waits for it.
#[test]
fn spdk_2596_memory_table_while_a_stop_is_due() {
    let (bench, device) = stuck();
    let protocol = Protocol::MQ | Protocol::CONFIG | Protocol::REPLY_ACK;
    let builder = Guest::builder().protocol(protocol).need_reply(false);
    let mut guest = builder.regions(3).connect(bench.socket("disk")).unwrap();
    for round in 0..20 {
        device.inject(Fault::new(Effect::Hang).on(FaultOp::Write).times(1));
        let hanging = write(SIZE - 512, round);
        guest.queue(0).submit(hanging, Layout::INDIRECT).unwrap();
        eventually("a write hangs", || device.hanging() == 1);
        let extra = guest.add_region(1 << 20).unwrap();
        guest.remove_region(extra).unwrap();
        std::thread::scope(|scope| {
            let stop = scope.spawn(|| guest.stop_queue(0).unwrap());
            device.release(IoStatus::Ok);
            stop.join().unwrap();
        });
        assert!(all_ok(&guest.queue(0).drain().unwrap()));
        guest.start_queue(0).unwrap();
        assert_eq!(
            guest.queue(0).read(SIZE - 512, 512).unwrap(),
            pattern(round, 512)
        );
    }
}

/// L10: the drive of one pool hangs when it is asked whether it is there; requests of another pool still get their verdict.
#[test]
fn spdk_437_verdict_on_one_drive_does_not_wait_for_another() {
    use crate::common::drive::{Drive, LONG, MIB};
    let drive = Drive::new("verdict");
    let silent = drive.handle();
    let mut waiting = drive.guest("a", LONG);
    let sick = drive.second_pool();
    drive.serve("second", "b", MIB, LONG);
    let mut other = Guest::builder().connect(drive.bench.socket("b")).unwrap();
    silent.inject(
        Fault::new(Effect::Fail(libc::EIO))
            .on(FaultOp::Write)
            .times(1),
    );
    silent.inject(Fault::new(Effect::Hang).on(FaultOp::Read));
    waiting
        .queue(0)
        .submit(write(0, 1), Layout::DIRECT)
        .unwrap();
    eventually("the first drive is asked and does not answer", || {
        silent.hanging() == 1
    });
    sick.inject(
        Fault::new(Effect::Fail(libc::EIO))
            .on(FaultOp::Write)
            .times(1),
    );
    let start = Instant::now();
    let done = other.queue(0).call(write(0, 1), Layout::DIRECT).unwrap();
    assert_eq!(done.status, holdfast_testkit::frontend::status::IOERR);
    assert!(start.elapsed() < Duration::from_secs(5));
    silent.clear();
    silent.release(IoStatus::Ok);
    assert_eq!(waiting.queue(0).drain().unwrap().len(), 1);
}
