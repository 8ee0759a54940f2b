//! A guest that retries for ever against a device that fails costs its node neither a full log nor another guest's time.
//! Alone in its process: it counts all lines of the log.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use common::drive::{Drive, LONG};
use common::eventually;
use holdfast_bdev::{Effect, Fault, FaultOp};
use holdfast_dataplane::{ExportChange, OnDeviceLoss};
use holdfast_testkit::frontend::{Guest, Layout, Op, status};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Requests that fail in each part.
const REQUESTS: u64 = 10_000;

/// Counts the lines that an operator's log would have.
struct Lines(Arc<AtomicU64>);

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// What a number of failed requests has cost.
struct Cost {
    lines: u64,
    seconds: f64,
    cpu_us_per_request: f64,
}

impl Cost {
    /// Two queues write and get nothing but errors, each trying again at once.
    fn of(what: &str, guest: &mut Guest, lines: &AtomicU64) -> Cost {
        let (start, before, cpu) = (Instant::now(), lines.load(Ordering::Relaxed), cpu_us());
        let mut failed = 0;
        while failed < REQUESTS {
            for queue in guest.queues() {
                while queue.outstanding() < 16 {
                    let data = vec![1; 512];
                    let write = Op::Write { offset: 0, data };
                    queue.submit(write, Layout::DIRECT).unwrap();
                }
                let answers = queue.wait().unwrap();
                assert!(answers.iter().all(|done| done.status == status::IOERR));
                failed += answers.len() as u64;
            }
        }
        for queue in guest.queues() {
            queue.drain().unwrap();
        }
        let cost = Cost {
            lines: lines.load(Ordering::Relaxed) - before,
            seconds: start.elapsed().as_secs_f64(),
            cpu_us_per_request: (cpu_us() - cpu) / failed as f64,
        };
        eprintln!(
            "{what}: {} lines, {:.2} s, {:.1} us of processor for a request, the guest's part included",
            cost.lines, cost.seconds, cost.cpu_us_per_request
        );
        cost
    }

    /// One line for each second begun, and a few for what has happened once.
    fn assert_quiet(&self) {
        let most = self.seconds.ceil() + 6.0;
        assert!(self.lines as f64 <= most, "{} lines", self.lines);
    }
}

/// Processor time of this process, in steps of 10 ms.
fn cpu_us() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    let ticks: u64 = fields[11..13]
        .iter()
        .map(|n| n.parse::<u64>().unwrap())
        .sum();
    ticks as f64 * 10_000.0
}

#[test]
fn ten_thousand_failures_are_a_few_lines_and_events() {
    let lines = Arc::new(AtomicU64::new(0));
    tracing::subscriber::set_global_default(Lines(Arc::clone(&lines))).unwrap();
    let drive = Drive::new("failing");
    let events = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&events);
    drive.engine().on_export_change(move |event| {
        if event.change == ExportChange::IoError {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let mut patient = drive.guest("patient", LONG);
    let mut hasty = drive.guest("hasty", OnDeviceLoss::Fail);

    // The drive is there and answers, but takes no writes any more: each failure waits for a verdict.
    let device = drive.handle();
    device.inject(Fault::new(Effect::Fail(libc::EIO)).on(FaultOp::Write));
    Cost::of("drive fails writes", &mut patient, &lines).assert_quiet();
    eventually("it was told of", || events.load(Ordering::Relaxed) > 0);

    // The drive is gone, and this guest is to have its errors at once.
    std::fs::rename(&drive.path, drive.away()).unwrap();
    device.inject(Fault::new(Effect::Fail(libc::ENODEV)));
    hasty.queue(0).submit(Op::Flush, Layout::DIRECT).unwrap();
    drive.wait_lost(true);
    hasty.queue(0).drain().unwrap();
    let start = Instant::now();
    Cost::of("drive is lost", &mut hasty, &lines).assert_quiet();
    assert!(start.elapsed().as_secs() < 60);
}
