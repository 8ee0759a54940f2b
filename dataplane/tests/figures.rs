//! What the engine tells of its exports: figures that add up and outlive front ends, and events in their order.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use common::drive::{Drive, LONG};
use common::{Bench, eventually, pattern};
use holdfast_bdev::{Effect, ErrorDevice, Fault, FaultOp, IoStatus, Malloc};
use holdfast_dataplane::{Engine, ExportChange, ExportStats, Latency};
use holdfast_testkit::frontend::{Guest, Layout, Op, status};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

fn stats(engine: &Engine, export: &str) -> ExportStats {
    let all = engine.stats();
    all.into_iter().find(|one| one.export == export).unwrap()
}

/// Everything that is told of one export from now on.
fn listen(engine: &Engine, export: &'static str) -> Receiver<ExportChange> {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    engine.on_export_change(move |event| {
        if &*event.export == export {
            let _ = tell.lock().unwrap().send(event.change);
        }
    });
    told
}

fn next(told: &Receiver<ExportChange>) -> ExportChange {
    told.recv_timeout(Duration::from_secs(20)).unwrap()
}

/// An export `disk` on a device with faults.
fn faulty() -> (Bench, ErrorDevice) {
    let bench = Bench::empty();
    let device = ErrorDevice::new(Arc::new(Malloc::new(16 << 20, 512).unwrap()));
    bench.serve("disk", Arc::new(device.clone()));
    (bench, device)
}

#[test]
fn figures_add_up_over_queues_and_front_ends() {
    let (bench, device) = faulty();
    for round in 1..=3u64 {
        let builder = Guest::builder().queues(3);
        let mut guest = builder.connect(bench.socket("disk")).unwrap();
        for queue in guest.queues() {
            queue.write(0, &pattern(1, 4096)).unwrap();
            queue.read(0, 8192).unwrap();
            queue.flush().unwrap();
        }
        device.inject(Fault::new(Effect::Fail(libc::EIO)).times(1));
        let read = Op::Read {
            offset: 0,
            len: 512,
        };
        let failed = guest.queue(2).call(read, Layout::DIRECT).unwrap();
        assert_eq!(failed.status, status::IOERR);
        let beyond = Op::Read {
            offset: 1 << 40,
            len: 512,
        };
        let refused = guest.queue(1).call(beyond, Layout::DIRECT).unwrap();
        assert_eq!(refused.status, status::IOERR);

        let seen = stats(&bench.engine, "disk");
        assert!(seen.connected);
        assert_eq!(seen.reconnects, round - 1);
        assert_eq!(
            (seen.writes.ops, seen.writes.bytes),
            (3 * round, 3 * round * 4096)
        );
        assert_eq!((seen.reads.ops, seen.reads.errors), (4 * round, round));
        assert_eq!(seen.reads.bytes, 3 * round * 8192);
        assert_eq!((seen.flushes.ops, seen.flushes.bytes), (3 * round, 0));
        assert_eq!(seen.rejected, round);
        drop(guest);
        eventually("it has gone", || !stats(&bench.engine, "disk").connected);
    }
    let seen = stats(&bench.engine, "disk");
    assert_eq!((seen.inflight, seen.held, seen.replayed), (0, 0, 0));
    assert_eq!(seen.reads.latency.count(), seen.reads.ops);
}

#[test]
fn request_that_hangs_is_in_flight_and_its_wait_in_the_histogram() {
    let (bench, device) = faulty();
    let mut guest = Guest::builder().connect(bench.socket("disk")).unwrap();
    device.inject(Fault::new(Effect::Hang).on(FaultOp::Flush).times(1));
    let start = Instant::now();
    guest.queue(0).submit(Op::Flush, Layout::DIRECT).unwrap();
    eventually("it hangs", || {
        device.hanging() == 1 && stats(&bench.engine, "disk").inflight == 1
    });
    assert_eq!(stats(&bench.engine, "disk").flushes.ops, 0);
    let least = Duration::from_millis(40);
    eventually("some time has passed", || start.elapsed() > 2 * least);
    device.release(IoStatus::Ok);
    guest.queue(0).drain().unwrap();
    let seen = stats(&bench.engine, "disk");
    assert_eq!((seen.inflight, seen.flushes.ops), (0, 1));
    let bucket = seen.flushes.latency.buckets.iter().position(|n| *n == 1);
    let bound_ns = Latency::bound_ns(bucket.unwrap()).unwrap();
    assert!(u128::from(bound_ns) >= least.as_nanos(), "{bound_ns} ns");
    assert!(u128::from(seen.flushes.latency.sum_ns) <= start.elapsed().as_nanos());
}

#[test]
fn front_end_that_comes_and_goes_is_told_of_in_order() {
    let (bench, _) = faulty();
    let told = listen(&bench.engine, "disk");
    for _ in 0..3 {
        drop(Guest::builder().connect(bench.socket("disk")).unwrap());
        assert_eq!(next(&told), ExportChange::Connected);
        assert_eq!(next(&told), ExportChange::Disconnected);
    }
}

#[test]
fn lost_drive_is_told_of_with_what_waits_and_what_is_done_again() {
    let drive = Drive::new("figures");
    let told = listen(drive.engine(), "a");
    let mut guest = drive.guest("a", LONG);
    assert_eq!(next(&told), ExportChange::Connected);
    drive.pull();
    let write = |at: u64| Op::Write {
        offset: at * 512,
        data: pattern(8, 512),
    };
    for at in 0..3 {
        guest.queue(0).submit(write(at), Layout::DIRECT).unwrap();
    }
    assert_eq!(next(&told), ExportChange::DeviceLost);
    eventually("three wait", || stats(drive.engine(), "a").held == 3);
    assert_eq!(stats(drive.engine(), "a").inflight, 3);
    // A hypervisor that comes back finds them in the region.
    guest.disconnect();
    assert_eq!(next(&told), ExportChange::Disconnected);
    guest.reconnect().unwrap();
    assert_eq!(next(&told), ExportChange::Connected);
    assert_eq!(next(&told), ExportChange::Replayed { requests: 3 });
    assert_eq!(stats(drive.engine(), "a").replayed, 3);
    drive.put_back();
    assert_eq!(next(&told), ExportChange::DeviceReturned);
    guest.queue(0).drain().unwrap();
    let seen = stats(drive.engine(), "a");
    assert_eq!((seen.held, seen.inflight, seen.writes.ops), (0, 0, 3));
    assert_eq!(seen.writes.errors, 0, "the guest has seen no error");
}

#[test]
fn stop_that_waits_for_its_device_is_told_of_and_so_is_its_end() {
    let (bench, device) = faulty();
    let told = listen(&bench.engine, "disk");
    let mut guest = Guest::builder().connect(bench.socket("disk")).unwrap();
    device.inject(Fault::new(Effect::Hang).on(FaultOp::Flush).times(1));
    guest.queue(0).submit(Op::Flush, Layout::DIRECT).unwrap();
    eventually("it hangs", || device.hanging() == 1);
    let gone = Instant::now();
    guest.disconnect();
    assert_eq!(next(&told), ExportChange::Connected);
    assert_eq!(next(&told), ExportChange::Disconnected);
    assert_eq!(next(&told), ExportChange::StopWaits);
    assert!(
        gone.elapsed() >= Duration::from_secs(2),
        "{:?}",
        gone.elapsed()
    );
    assert!(stats(&bench.engine, "disk").stop_waits);
    device.release(IoStatus::Ok);
    assert_eq!(next(&told), ExportChange::StopEnded);
    assert!(!stats(&bench.engine, "disk").stop_waits);
}
