//! Limits of a volume as its guest meets them: the rate, changes under load, and that what waits for a limit is lost by no
//! stop, kill or reset. The meter itself is tested on a clock of its own, in `src/limits/tests.rs`.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use common::drive::{Drive, LONG};
use common::{Bench, eventually, pattern};
use holdfast_bdev::Malloc;
use holdfast_dataplane::{Engine, ErrorKind, ExportSpec, ExportStats, Limits, Source};
use holdfast_testkit::frontend::{Guest, Layout, Op, status};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn iops(iops: u64) -> Limits {
    Limits {
        iops: Some(iops),
        ..Limits::default()
    }
}

fn spec(bench: &Bench, limits: Option<Limits>) -> ExportSpec {
    let source = Source::Device("disk".into());
    ExportSpec {
        limits,
        ..ExportSpec::new("disk", source, bench.socket("disk"))
    }
}

/// An export `disk` with limits.
fn bench(limits: Option<Limits>) -> Bench {
    let bench = Bench::empty();
    let device = Malloc::new(16 << 20, 512).unwrap();
    bench.engine.add_device("disk", Arc::new(device)).unwrap();
    bench.engine.export(&spec(&bench, limits)).unwrap();
    bench
}

fn guest(bench: &Bench, queues: usize) -> Guest {
    let builder = Guest::builder().queues(queues).inflight();
    builder.connect(bench.socket("disk")).unwrap()
}

fn stats(engine: &Engine, export: &str) -> ExportStats {
    let all = engine.stats();
    all.into_iter().find(|one| one.export == export).unwrap()
}

fn write(at: u64, seed: u8, len: usize) -> Op {
    Op::Write {
        offset: at * 4096,
        data: pattern(seed, len),
    }
}

/// Keeps all queues full for some time; returns the operations done per second.
fn rate(guest: &mut Guest, len: usize, time: Duration) -> f64 {
    let (mut done, start) = (0u64, Instant::now());
    while start.elapsed() < time {
        for queue in guest.queues() {
            while queue.outstanding() < 16 {
                queue.submit(write(0, 1, len), Layout::DIRECT).unwrap();
            }
            let answers = queue.complete().unwrap();
            assert!(answers.iter().all(|answer| answer.status == status::OK));
            done += answers.len() as u64;
        }
        std::thread::yield_now();
    }
    done as f64 / start.elapsed().as_secs_f64()
}

/// The rate is never passed, and reached. A machine that gives its reactors no time for a moment may miss it twice.
#[track_caller]
fn assert_rate(guest: &mut Guest, len: usize, time: Duration, wanted: f64) {
    let mut seen = 0.0;
    for _ in 0..3 {
        seen = rate(guest, len, time) / wanted;
        assert!(seen <= 1.05, "{seen:.3} of the limit");
        if seen >= 0.95 {
            return;
        }
    }
    panic!("only {seen:.3} of the limit");
}

#[test]
fn rate_holds_over_two_queues_and_two_reactors() {
    let bench = bench(Some(iops(2_000)));
    let mut guest = guest(&bench, 2);
    assert_rate(&mut guest, 512, Duration::from_secs(2), 2_000.0);
}

#[test]
fn bytes_hold_their_rate() {
    let limits = Limits {
        bps: Some(20 << 20),
        ..Limits::default()
    };
    let bench = bench(Some(limits));
    let mut guest = guest(&bench, 2);
    assert_rate(&mut guest, 16384, Duration::from_secs(2), 1280.0);
}

#[test]
fn limits_change_under_load_without_a_stop() {
    let bench = bench(Some(iops(500)));
    let mut guest = guest(&bench, 2);
    assert_rate(&mut guest, 512, Duration::from_secs(1), 500.0);
    bench.engine.set_limits("disk", Some(iops(3_000))).unwrap();
    assert_rate(&mut guest, 512, Duration::from_secs(1), 3_000.0);
    bench.engine.set_limits("disk", None).unwrap();
    let free = rate(&mut guest, 512, Duration::from_millis(300));
    assert!(free > 3_500.0, "only {free:.1} a second without a limit");
    assert_eq!(stats(&bench.engine, "disk").reconnects, 0);
}

#[test]
fn raise_from_one_a_second_wakes_who_waits_at_once() {
    let bench = bench(Some(iops(1)));
    let mut guest = guest(&bench, 8);
    for queue in guest.queues() {
        for _ in 0..8 {
            queue.submit(Op::Flush, Layout::DIRECT).unwrap();
        }
    }
    eventually("the first has passed", || {
        stats(&bench.engine, "disk").flushes.ops > 0
    });
    // At this rate 64 requests take a minute, and the last queue's turn comes after seven seconds.
    assert!(stats(&bench.engine, "disk").flushes.ops < 8);
    let start = Instant::now();
    let quick = Some(iops(1_000_000));
    bench.engine.set_limits("disk", quick).unwrap();
    for queue in guest.queues() {
        let answers = queue.drain().unwrap();
        assert!(answers.iter().all(|answer| answer.status == status::OK));
    }
    let waited = start.elapsed();
    assert!(waited < Duration::from_secs(3), "{waited:?}");
    assert_eq!(stats(&bench.engine, "disk").flushes.ops, 64);
}

#[test]
fn queues_without_requests_take_no_turns() {
    let bench = bench(Some(iops(1)));
    let mut guest = guest(&bench, 8);
    let start = Instant::now();
    guest.queue(7).flush().unwrap();
    let waited = start.elapsed();
    assert!(waited < Duration::from_secs(3), "{waited:?}");
}

#[test]
fn stop_while_requests_wait_is_quick_and_loses_none() {
    let bench = bench(Some(iops(1)));
    let mut guest = guest(&bench, 2);
    for at in 0..16 {
        let op = write(at, at as u8, 4096);
        guest.queue(0).submit(op, Layout::DIRECT).unwrap();
    }
    eventually("one has passed", || {
        stats(&bench.engine, "disk").writes.ops > 0
    });
    let start = Instant::now();
    guest.stop_queue(0).unwrap();
    guest.stop_queue(1).unwrap();
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
    bench.engine.set_limits("disk", None).unwrap();
    guest.start_queue(0).unwrap();
    guest.start_queue(1).unwrap();
    guest.queue(0).drain().unwrap();
    for at in 0..16 {
        let seen = guest.queue(1).read(at * 4096, 4096).unwrap();
        assert_eq!(seen, pattern(at as u8, 4096));
    }
    assert_eq!(stats(&bench.engine, "disk").writes.ops, 16, "each once");
}

#[test]
fn front_end_that_dies_while_requests_wait_finds_them_undone_and_done_once() {
    let bench = bench(Some(iops(1)));
    let mut guest = guest(&bench, 1);
    for at in 0..16 {
        let op = write(at, at as u8, 4096);
        guest.queue(0).submit(op, Layout::INDIRECT).unwrap();
    }
    for _ in 0..5 {
        let start = Instant::now();
        guest.disconnect();
        eventually("it has gone", || !stats(&bench.engine, "disk").connected);
        guest.reconnect().unwrap();
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{:?}",
            start.elapsed()
        );
    }
    bench
        .engine
        .set_limits("disk", Some(iops(100_000)))
        .unwrap();
    guest.queue(0).drain().unwrap();
    let seen = stats(&bench.engine, "disk");
    assert_eq!((seen.writes.ops, seen.inflight, seen.replayed), (16, 0, 0));
}

#[test]
fn export_ends_while_requests_wait() {
    let bench = bench(Some(iops(1)));
    let mut guest = guest(&bench, 2);
    for queue in guest.queues() {
        for _ in 0..8 {
            queue.submit(Op::Flush, Layout::DIRECT).unwrap();
        }
    }
    assert!(bench.engine.unexport("disk").unwrap());
    // The same requests, and the next engine has no limits.
    bench.engine.export(&spec(&bench, None)).unwrap();
    guest.reconnect().unwrap();
    for queue in guest.queues() {
        queue.drain().unwrap();
    }
}

#[test]
fn drive_lost_while_requests_wait_for_a_limit_and_for_the_drive() {
    let drive = Drive::new("limits");
    let mut guest = drive.guest("a", LONG);
    drive.engine().set_limits("a", Some(iops(4))).unwrap();
    for at in 0..12 {
        let op = write(at, at as u8, 4096);
        guest.queue(0).submit(op, Layout::DIRECT).unwrap();
    }
    drive.pull();
    eventually("some wait for the drive", || {
        stats(drive.engine(), "a").held >= 2
    });
    assert!(stats(drive.engine(), "a").held < 12);
    // Stopped in the middle of both, and started again.
    guest.stop_queue(0).unwrap();
    guest.start_queue(0).unwrap();
    drive.put_back();
    drive.wait_lost(false);
    drive.engine().set_limits("a", None).unwrap();
    assert!(
        guest
            .queue(0)
            .drain()
            .unwrap()
            .iter()
            .all(|a| a.status == status::OK)
    );
    for at in 0..12 {
        let seen = guest.queue(1).read(at * 4096, 4096).unwrap();
        assert_eq!(seen, pattern(at as u8, 4096));
    }
}

#[test]
fn limits_are_part_of_an_export_but_not_of_its_identity() {
    let bench = bench(None);
    let info = bench.engine.export(&spec(&bench, Some(iops(7)))).unwrap();
    assert_eq!(info.limits, Some(iops(7)));
    bench.engine.set_limits("disk", None).unwrap();
    assert_eq!(bench.engine.export_info("disk").unwrap().limits, None);
    let error = bench.engine.set_limits("disk", Some(iops(0))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let error = bench.engine.set_limits("nobody", None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}
