//! The workload against the reference engine, honest and lying: it passes the one and convicts the other.
#![allow(clippy::unwrap_used)]

use holdfast_bdev::{BdevError, BlockDevice, Driver, Info, IoChannel, Malloc};
use holdfast_testkit::frontend::{Guest, Layout, Op, feature};
use holdfast_testkit::reference::{ReferenceConfig, ReferenceEngine};
use holdfast_testkit::workload::{Flaw, Plan, Report, Workload};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const SECTORS: u64 = 4096;

/// What a lying device does to one of its writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    None,
    FlipsAByte,
    LosesTheWrite,
    WritesHalfASector,
    WritesElsewhere,
}

/// A device that lies at every 16th write: a single lie may be overwritten before anybody looks.
#[derive(Debug)]
struct Liar {
    disk: Malloc,
    lie: Lie,
    writes: AtomicU64,
}

impl BlockDevice for Liar {
    fn info(&self) -> Info {
        self.disk.info()
    }
    fn open_channel(&self, driver: &mut Driver) -> Result<Box<dyn IoChannel>, BdevError> {
        self.disk.open_channel(driver)
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), BdevError> {
        self.disk.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), BdevError> {
        let turn = self.writes.fetch_add(1, Ordering::Relaxed);
        let lie = if turn % 16 == 15 { self.lie } else { Lie::None };
        match lie {
            Lie::None => self.disk.write_at(offset, buf),
            Lie::LosesTheWrite => Ok(()),
            Lie::WritesHalfASector => self.disk.write_at(offset, &buf[..buf.len() - 256]),
            Lie::WritesElsewhere => self
                .disk
                .write_at((offset + 4096) % (SECTORS * 512 - 65536), buf),
            Lie::FlipsAByte => {
                let mut wrong = buf.to_vec();
                wrong[100] ^= 0x10;
                self.disk.write_at(offset, &wrong)
            }
        }
    }
    fn write_zeroes_at(&self, offset: u64, len: u64) -> Result<(), BdevError> {
        self.disk.write_zeroes_at(offset, len)
    }
    fn flush(&self) -> Result<(), BdevError> {
        self.disk.flush()
    }
}

struct Bench {
    guest: Guest,
    workload: Workload,
    _engine: ReferenceEngine,
    _dir: tempfile::TempDir,
}

fn bench(lie: Lie, plan: Plan, without: u64) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("v.sock");
    let disk = Malloc::new(SECTORS * 512, 512).unwrap();
    let device = Arc::new(Liar {
        disk,
        lie,
        writes: AtomicU64::new(0),
    });
    let engine = ReferenceEngine::serve(&path, device, ReferenceConfig::default()).unwrap();
    let builder = Guest::builder()
        .memory(64 << 20)
        .regions(3)
        .queues(3)
        .queue_size(256);
    let guest = builder.without(without).connect(&path).unwrap();
    Bench {
        guest,
        workload: Workload::new(plan, 42, 0..SECTORS),
        _engine: engine,
        _dir: dir,
    }
}

fn report_of(lie: Lie) -> Report {
    let mut bench = bench(lie, Plan::default(), 0);
    bench.workload.run(&mut bench.guest, 1000).unwrap();
    bench.workload.audit(&mut bench.guest).unwrap();
    bench.workload.report().clone()
}

#[test]
fn honest_device_passes() {
    for (seed, depth, without) in [
        (1, 32, 0),
        (2, 1, feature::EVENT_IDX),
        (3, 128, feature::INDIRECT),
        (4, 50, 0),
    ] {
        let plan = Plan {
            seed,
            depth,
            sectors_max: 16,
            ..Plan::default()
        };
        // Without indirect tables a request takes up to 7 of 256 descriptors.
        let plan = if without == feature::INDIRECT {
            Plan { depth: 36, ..plan }
        } else {
            plan
        };
        let mut bench = bench(Lie::None, plan, without);
        bench.workload.run(&mut bench.guest, 3000).unwrap();
        bench.workload.audit(&mut bench.guest).unwrap();
        let report = bench.workload.report();
        report.assert_clean();
        assert!(report.reads > 1000 && report.writes > 1000, "{report}");
        assert!(
            report.discards > 0 && report.write_zeroes > 0 && report.flushes > 0,
            "{report}"
        );
        assert!(report.sectors_verified >= SECTORS, "{report}");
    }
}

#[test]
fn flipped_byte_is_found() {
    let report = report_of(Lie::FlipsAByte);
    assert!(report.found(Flaw::Corrupt) > 0, "{report}");
}

#[test]
fn lost_write_is_found() {
    let report = report_of(Lie::LosesTheWrite);
    assert!(report.found(Flaw::Lost) > 0, "{report}");
}

#[test]
fn torn_write_is_found() {
    let report = report_of(Lie::WritesHalfASector);
    assert!(report.found(Flaw::Torn) > 0, "{report}");
}

#[test]
fn misplaced_write_is_found() {
    let report = report_of(Lie::WritesElsewhere);
    assert!(report.found(Flaw::Misplaced) > 0, "{report}");
}

#[test]
fn repeated_completion_is_found() {
    let mut bench = bench(
        Lie::None,
        Plan {
            depth: 8,
            ..Plan::default()
        },
        0,
    );
    bench.workload.run(&mut bench.guest, 10).unwrap();
    // The engine lets go of the queue, and the test answers in its place, one head twice.
    for queue in 0..3 {
        bench.guest.stop_queue(queue).unwrap();
    }
    let queues = bench.guest.queues();
    bench.workload.fill(&mut queues[..1], 2).unwrap();
    let (ring, used) = (queues[0].ring(), queues[0].used_position());
    let head = ring.avail(ring.avail_idx().wrapping_sub(1));
    ring.set_used(used, u32::from(head), 1);
    ring.set_used(used.wrapping_add(1), u32::from(head), 1);
    ring.set_used_idx(used.wrapping_add(2));
    bench.workload.step(queues).unwrap();
    assert_eq!(bench.workload.report().found(Flaw::Repeated), 1);
    assert_eq!(
        bench.workload.in_flight(),
        1,
        "the other request is still expected"
    );
}

#[test]
fn workload_goes_on_after_a_reconnect_with_requests_outstanding() {
    let mut bench = bench(
        Lie::None,
        Plan {
            depth: 16,
            ..Plan::default()
        },
        0,
    );
    bench.workload.run(&mut bench.guest, 300).unwrap();
    for _ in 0..10 {
        bench.guest.disconnect();
        bench.workload.fill(bench.guest.queues(), 48).unwrap();
        assert!(bench.workload.in_flight() > 16);
        bench.guest.reconnect().unwrap();
        // vhost-user-backend looks at a ring only after a kick.
        for queue in bench.guest.queues() {
            queue.kick_now().unwrap();
        }
        bench.workload.run(&mut bench.guest, 200).unwrap();
    }
    bench.workload.audit(&mut bench.guest).unwrap();
    bench.workload.report().assert_clean();
}

#[test]
fn answer_that_never_comes_is_an_error_not_a_hang() {
    let plan = Plan {
        patience: Duration::from_millis(30),
        ..Plan::default()
    };
    let mut bench = bench(Lie::None, plan, 0);
    bench.guest.stop_queue(0).unwrap();
    bench
        .guest
        .queue(0)
        .submit(Op::Flush, Layout::DIRECT)
        .unwrap();
    let error = bench.workload.run(&mut bench.guest, 10_000).unwrap_err();
    assert!(error.to_string().contains("answer"), "{error}");
}
